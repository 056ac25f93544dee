"""Kills at random moments: `narrow-jax train --resume` ends with the numbers of a run that nobody stopped.

Command:  python -m benchmarks.kill [--kills 10]
Expected: every resumed run writes the same model.safetensors and history.jsonl, byte for byte.
Cost:     two processes a kill.
Each trial starts the command with --resume in a new folder, kills it (SIGKILL) at a moment drawn uniformly over the
time between its first checkpoint and its end, starts the same command again and lets it end.
Writes:   benchmarks/results/kill.json
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _timing
from narrow_jax import checkpoints

STEPS = 8000
COMMAND = [
    *(sys.executable, "-m", "narrow_jax.cli", "train", "--dataset", "digits", "--normalize", "scale"),
    *("--loss", "cross_entropy", "--optimizer", "momentum", "--learning-rate", "0.05", "--radius", "1"),
    *("--width", "300", "--batch-size", "50", "--steps", str(STEPS), "--json"),
]
RESULTS = ("model.safetensors", "history.jsonl")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the run, or go on with it."""
    command = [*COMMAND, "--resume", "--out", str(folder)]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "programs")}
    return subprocess.Popen(
        command, env=os.environ | cache, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def begun(folder: Path) -> subprocess.Popen[bytes]:
    """Start the run and wait for its first checkpoint."""
    process = start(folder)
    while process.poll() is None and not checkpoints.steps(folder / "checkpoints"):
        time.sleep(0.001)
    return process


def finish(folder: Path) -> tuple[dict[str, bytes], float]:
    """Let the run end; return what it wrote, and the seconds from its first checkpoint on."""
    process = begun(folder)
    started = time.perf_counter()
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode}: {error.decode()}")
    return {name: (folder / name).read_bytes() for name in RESULTS}, time.perf_counter() - started


def trial(folder: Path, seconds: float, whole: dict[str, bytes]) -> dict[str, Any]:
    """Kill a run so many seconds after its first checkpoint, resume it, and compare."""
    process = begun(folder)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    saved = folder / "checkpoints"
    record = {
        "seconds_after_first_checkpoint": round(seconds, 3),
        "killed": process.returncode == -signal.SIGKILL,
        "newest_step": max(checkpoints.steps(saved)),
        "while_saving": any(saved.glob("draft-*")),
    }
    ended, _ = finish(folder)
    return record | {"identical": all(ended[name] == whole[name] for name in RESULTS)}


def main() -> None:
    """Run the trials, print and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root:
        finish(Path(root) / "warm-up")
        whole, duration = finish(Path(root) / "whole")
        print(f"uninterrupted: {duration:.1f} s from the first checkpoint on")
        while len(records) < args.kills:
            record = trial(Path(tempfile.mkdtemp(dir=root)), rng.uniform(0, duration), whole)
            print(record, flush=True)
            if record.pop("killed") and record["newest_step"] < STEPS:  # it was not too late
                records.append(record)
    identical = sum(record["identical"] for record in records)
    print(f"{identical} of {len(records)} resumed runs end with the numbers of the uninterrupted one")
    path = _timing.write(
        "kill", f"python -m benchmarks.kill --kills {args.kills}", records, "orbax-checkpoint"
    )
    print(f"written: {path}")


if __name__ == "__main__":
    main()
