"""What experiments share that go on, cell by cell, where an earlier run stopped."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import jax


def resumed(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the records of an earlier run with the same settings."""
    if not path.is_file():
        return []
    earlier = json.loads(path.read_text())
    return earlier["cells"] if earlier["settings"] == json.loads(json.dumps(settings)) else []


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the times."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "jax": jax.__version__,
    }
