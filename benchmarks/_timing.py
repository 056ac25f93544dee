"""Interleaved timing of competitors, and the description of the machine."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from narrow_jax.checkpoints import strict_json

RESULTS = Path(__file__).parent / "results"


def path(text: str) -> Path:
    """Return the path of an option; ``~`` is the home folder."""
    return Path(text).expanduser()


def best_seconds(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the fastest of ``repeats`` calls of each run, taken in turns so that all meet the same machine.

    Every run is called once before (compilation, caches) and must block until it is done.
    """
    for run in runs.values():
        run()
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def table(records: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print the columns of the records, one line a record."""
    rows = [columns, *(tuple(str(record.get(name, "")) for name in columns) for record in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)))


def peak_gb() -> float:
    """Return the peak resident memory of this process in units of 10⁹ bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def machine(*packages: str) -> dict[str, Any]:
    """Return what a reader needs to judge a timing."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "optax", *packages)},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(name: str, command: str, records: list[dict[str, Any]], *packages: str) -> Path:
    """Write the records with the command and the machine that made them to benchmarks/results."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"command": command, "machine": machine(*packages), "records": records}
    part = path.with_suffix(".part")
    part.write_text(
        json.dumps(strict_json.plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
    part.replace(path)
    return path
