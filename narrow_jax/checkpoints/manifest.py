"""What a checkpoint says of itself: ``manifest.json``."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

import jax

from narrow_jax.checkpoints.leaves import Leaf


class Manifest(NamedTuple):
    """The fields of ``manifest.json``, in their order.

    Fields:
        step: the number of steps done.
        config: what made the run, as JSON holds it.
        state: the leaves of the state, in the order of the tree.
        history: the records of the run.
        machine: the versions and the machine that saved.
        files: the SHA-256 of every file below ``arrays/``.
    """

    step: int
    config: dict[str, Any]
    state: list[Leaf]
    history: list[Leaf]
    machine: dict[str, Any]
    files: dict[str, str]

    @classmethod
    def read(cls, text: str) -> Manifest:
        """Return the manifest of that text."""
        content = json.loads(text)
        leaves = {part: [Leaf(*entry) for entry in content[part]] for part in ("state", "history")}
        return cls(**{name: content[name] for name in cls._fields} | leaves)

    @property
    def leaves(self) -> list[Leaf]:
        """What is stored below ``arrays/``, in order."""
        return self.state + self.history


@cache
def _versions() -> dict[str, str]:
    packages = ("narrow_jax", "jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    return {name: metadata.version(name) for name in packages}


def machine() -> dict[str, str | int | None]:
    """Return on what a run repeats itself bit for bit: the versions, the processor and the devices."""
    return {
        **_versions(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
    }


def differences(saved: object, given: object, where: str = "given") -> str:
    """Return in words which fields of two configs differ."""
    before, now = _flat(saved), _flat(given)
    return "; ".join(
        f"{name}: saved {before.get(name, 'nothing')}, {where} {now.get(name, 'nothing')}"
        for name in {**before, **now}
        if json.dumps(before.get(name)) != json.dumps(now.get(name))
    )


def _flat(config: object, prefix: str = "") -> dict[str, object]:
    """Return the fields of a config by their names, those of inner dictionaries after the outer name."""
    if not isinstance(config, Mapping):
        return {prefix: config}
    parts = (_flat(value, f"{prefix} {name}" if prefix else name) for name, value in config.items())
    return {name: value for part in parts for name, value in part.items()}
