"""What experiments share: records that no other settings replace, and going on, cell by cell, where a run stopped."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax

from narrow_jax.checkpoints import strict_json


def path(text: str) -> Path:
    """Return the path of an option; ``~`` is the home folder."""
    return Path(text).expanduser()


def claim(args: argparse.Namespace) -> None:
    """Require that the folder of the results holds none of other options; make it, and note the options there.

    Raises:
        SystemExit: it does; its record stays.
    """
    options = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name != "out"
    }
    noted = args.out / "options.json"
    if (args.out / "summary.json").is_file():
        _refuse_others(
            args.out / "summary.json", _read(noted) if noted.is_file() else {}, strict_json.plain(options)
        )
    args.out.mkdir(parents=True, exist_ok=True)
    _replace(noted, options)


def record(folder: Path, records: Any) -> None:
    """Write the record of an experiment that claimed the folder."""
    _replace(folder / "summary.json", records)


def resumed(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the records of an earlier run.

    Raises:
        SystemExit: it had other settings; its records stay.
    """
    if not path.is_file():
        return []
    earlier = _read(path)
    _refuse_others(path, earlier["settings"], strict_json.plain(settings))
    return earlier["cells"]


def write(path: Path, settings: dict[str, Any], records: list[dict[str, Any]], **more: Any) -> None:
    """Replace the file by one with these records; one that is read is whole."""
    _replace(path, {"settings": settings, **more, "cells": records})


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _replace(path: Path, content: Any) -> None:
    part = path.with_suffix(".part")
    part.write_text(strict_json.dumps(content, indent=1) + "\n")
    part.replace(path)


def _refuse_others(path: Path, earlier: dict[str, Any], given: dict[str, Any]) -> None:
    differences = [
        f"{name}: {earlier.get(name)} there, {given.get(name)} here"
        for name in {**earlier, **given}
        if earlier.get(name) != given.get(name)
    ]
    if differences or not earlier:
        raise SystemExit(
            f"{path} is of other settings ({'; '.join(differences) or 'unknown'}): choose another folder with --out"
        )


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the times."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "jax": jax.__version__,
    }
