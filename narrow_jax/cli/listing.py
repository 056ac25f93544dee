"""``narrow-jax runs``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli.command import Answer, table

_SETTINGS = ("model", "width", "widths", "radius", "loss", "steps", "seed")
_FOUND = {
    "loss": "final loss",
    "accuracy": "accuracy",
    "test_accuracy": "test",
    "test_r2": "test R²",
    "status": "status",
}


def run(args: argparse.Namespace) -> Answer:
    """Return a table of the runs below a folder."""
    root = args.folder or Path("runs")
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}; expected one with runs, as `narrow-jax train` writes them: pass --folder"
        )
    folders = {path.parent for name in (runs.CONFIG, runs.LIVE) for path in root.rglob(name)}
    rows = [_row(root, folder) for folder in sorted(folders)]
    sweep = "; a sweep keeps no nets" if (root / "sweep.json").is_file() else ""
    lines = table(rows) if rows else [f"no run in {root}{sweep}"]
    return Answer(True, {"folder": str(root), "runs": rows}, lines)


def _row(root: Path, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"run": str(folder.relative_to(root))}
    if not (folder / "config.json").is_file():
        return row | {"status": "not ended"}
    try:
        config, summary = strict_json.read(folder / "config.json"), folder / "summary.json"
        found = strict_json.read(summary) if summary.is_file() else {"status": "saved"}
    except ValueError as error:
        return row | {"status": f"damaged: {error}"}
    data = config.get("data")
    row["data"] = Path(data).stem if data else config.get("dataset")
    row |= {name: config[name] for name in _SETTINGS if config.get(name) is not None}
    return row | {title: found[name] for name, title in _FOUND.items() if name in found}
