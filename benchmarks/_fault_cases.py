"""What a fault is made of: a small input, what should come of it, and how to tell; the registry of all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import narrow_jax as nj

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 5)).astype("float32")
Y = X[:, :1]
P = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8)
NET = nj.models.pairwise_apply

Case = tuple[Callable[[], Any], Callable[[str], bool], str]
CASES: dict[str, Case] = {}


def case(name: str, should: str, good: Callable[[str], bool]) -> Callable[[Callable[[], Any]], None]:
    """Register an input, what should come of it, and how to tell."""

    def register(run: Callable[[], Any]) -> None:
        CASES[name] = run, good, should

    return register


def says(*words: str) -> Callable[[str], bool]:
    """Return whether the outcome is a ValueError or TypeError that contains these words."""
    return lambda outcome: (
        outcome.startswith(("ValueError", "TypeError", "CheckpointError"))
        and all(w in outcome for w in words)
    )


def equals(text: str) -> Callable[[str], bool]:
    """Return whether the outcome is this text."""
    return lambda outcome: outcome == text


def number(low: float, high: float) -> Callable[[str], bool]:
    """Return whether the outcome is a number within these bounds."""

    def good(outcome: str) -> bool:
        try:
            return low <= float(outcome) <= high
        except ValueError:
            return False

    return good


def explicit(*values: float) -> Any:
    """Return a diagonal matrix as an operator."""
    return nj.jacobian.explicit(np.diag(values))


def relative(result: Any) -> str:
    """Return the largest distance from the start that the history tells, in radii."""
    return f"{float(result.history['relative_distance'].max()):.3f}"


def rotation(first: np.ndarray) -> np.ndarray:
    """Return an orthogonal matrix with this first column."""
    q, _ = np.linalg.qr(
        np.column_stack([first, np.random.default_rng(1).normal(size=(first.size, first.size - 1))])
    )
    return q * np.sign(q[0, 0] * first[0])


def python(code: str, **environment: str) -> str:
    """Return the last line that a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def shell(*command: str, folder: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run narrow-jax, in a folder if one is given."""
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-m", "narrow_jax.cli", *command],
        env=here,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
