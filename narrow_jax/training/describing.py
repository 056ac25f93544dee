"""What a run depends on, for its checkpoints to compare."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from narrow_jax import checkpoints
from narrow_jax._typing import Tree
from narrow_jax.data import Stream
from narrow_jax.training.loop import Batch, Inputs, Problem
from narrow_jax.training.model import Start


def describe(
    problem: Problem, start: Start, inputs: Inputs, stream: Stream | None, **plain: int
) -> dict[str, Any]:
    """Return what a run depends on, as JSON can hold it: numbers, names, and fingerprints of arrays."""

    def fingerprints(data: Batch | None) -> dict[str, str] | None:
        return data and dict(zip("xy", map(_described, data), strict=True))

    return {
        **plain,
        "batch_size": problem.batch_size,
        "devices": problem.devices and problem.devices.mesh.size,
        "loss": _name(problem.loss),
        "augment": _name(problem.augment),
        "monitors": [monitor.name for monitor in problem.monitors],
        "metrics": [name for name, _ in problem.metrics],
        "key": None if inputs.key is None else jax.random.key_data(inputs.key).tolist(),
        "start": checkpoints.fingerprint(tuple(start)),  # its leaves are named by their numbers
        "stream": stream and {"x": stream.fingerprint(), "y": _described(stream.y)},
        "data set": fingerprints(inputs.data),
        "evaluation": fingerprints(inputs.evaluation),
    }


def _described(data: Tree) -> str:
    """Return shape, dtype and fingerprint of an array, of a tree its fingerprint."""
    return checkpoints.described(data) if hasattr(data, "dtype") else checkpoints.fingerprint(data)


def _name(function: Callable[..., object] | None) -> str | None:
    if function is None:
        return None
    if isinstance(function, partial):
        arguments = [*map(str, function.args), *(f"{k}={v}" for k, v in sorted(function.keywords.items()))]
        return f"{_name(function.func)}({', '.join(arguments)})"
    return getattr(function, "__qualname__", type(function).__name__)
