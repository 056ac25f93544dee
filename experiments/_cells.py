"""What experiments share that go on, cell by cell, where an earlier run stopped."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import jax


def resumed(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the records of an earlier run.

    Raises:
        SystemExit: it had other settings; its records stay.
    """
    if not path.is_file():
        return []
    earlier, given = json.loads(path.read_text()), json.loads(json.dumps(settings))
    differences = [
        f"{name}: {earlier['settings'].get(name)} there, {given.get(name)} here"
        for name in {**earlier["settings"], **given}
        if earlier["settings"].get(name) != given.get(name)
    ]
    if differences:
        raise SystemExit(
            f"{path} is of other settings ({'; '.join(differences)}): choose another folder with --out"
        )
    return earlier["cells"]


def write(path: Path, settings: dict[str, Any], records: list[dict[str, Any]], **more: Any) -> None:
    """Replace the file by one with these records; one that is read is whole."""
    part = path.with_suffix(".part")
    content = {"settings": settings, **more, "cells": records}
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the times."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "jax": jax.__version__,
    }
