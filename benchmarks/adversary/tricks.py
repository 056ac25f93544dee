"""What makes a Jacobian hard: changes of x, w and v in place."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

Rng = np.random.Generator


def _grades(rng: Rng, size: int) -> np.ndarray:
    return rng.permutation(10.0 ** -np.linspace(0, rng.uniform(0, 8), size))


def _graded_samples(rng: Rng, a: dict[str, np.ndarray]) -> None:
    a["x"] *= _grades(rng, len(a["x"]))[:, None] ** rng.uniform(1, 1.9)


def _graded_inputs(rng: Rng, a: dict[str, np.ndarray]) -> None:
    a["x"] *= _grades(rng, a["x"].shape[1])


def _graded_units(rng: Rng, a: dict[str, np.ndarray]) -> None:
    a["v"] *= _grades(rng, len(a["v"]))[:, None]


def _nearly_duplicate(rng: Rng, a: dict[str, np.ndarray]) -> None:
    i, j = rng.integers(0, len(a["x"]), 2)
    a["x"][i] = a["x"][j] * rng.choice([1.0, -1.0, 2.0]) + 10.0 ** -rng.uniform(1, 16) * a["x"][i]


def _duplicate(rng: Rng, a: dict[str, np.ndarray]) -> None:
    i, j = rng.integers(0, len(a["x"]), 2)
    a["x"][i] = a["x"][j] * rng.choice([1.0, -1.0])


def _zero_row(rng: Rng, a: dict[str, np.ndarray]) -> None:
    a["x"][rng.integers(len(a["x"]))] = 0.0


def _mirrored(rng: Rng, a: dict[str, np.ndarray]) -> None:
    half = a["w"].shape[1] // 2
    a["w"][:, half:] = a["w"][:, :half]
    if rng.random() < 0.6:
        a["w"][:, half:] += 10.0 ** -rng.uniform(1, 12) * rng.standard_normal((len(a["w"]), half))


def _saturated(rng: Rng, a: dict[str, np.ndarray]) -> None:
    a["w"][:, : rng.integers(1, a["w"].shape[1] + 1)] *= 10 ** rng.uniform(0, 2.5)


def _dead(rng: Rng, a: dict[str, np.ndarray]) -> None:
    a["v"][: rng.integers(0, len(a["v"]))] = 0.0


def _sparse(rng: Rng, a: dict[str, np.ndarray]) -> None:
    a["x"] *= rng.random(a["x"].shape) < 0.4


def _whole_numbers(rng: Rng, a: dict[str, np.ndarray]) -> None:
    a["x"] = np.round(a["x"] * 2)


def _constant_input(rng: Rng, a: dict[str, np.ndarray]) -> None:
    a["x"][:, 0] = 1.0


def _equal_units(rng: Rng, a: dict[str, np.ndarray]) -> None:
    a["w"][:, 1:] = a["w"][:, :1] + 10.0 ** -rng.uniform(3, 17) * a["w"][:, 1:]


TRICKS: dict[str, Callable[[Rng, dict[str, np.ndarray]], None]] = {
    "graded samples": _graded_samples,
    "graded inputs": _graded_inputs,
    "graded units": _graded_units,
    "nearly duplicate": _nearly_duplicate,
    "duplicate": _duplicate,
    "zero row": _zero_row,
    "mirrored": _mirrored,
    "saturated": _saturated,
    "dead": _dead,
    "sparse": _sparse,
    "whole numbers": _whole_numbers,
    "constant input": _constant_input,
    "equal units": _equal_units,
}


def _both_ways(rng: Rng, a: dict[str, np.ndarray], exponent: float) -> None:
    """x·s and w/s: the same products."""
    a["x"] *= 10.0**exponent
    a["w"] *= 10.0**-exponent


def _outer(rng: Rng, a: dict[str, np.ndarray], exponent: float) -> None:
    a["v"] *= 10.0**exponent


def _powers_of_two(rng: Rng, a: dict[str, np.ndarray]) -> None:
    for name in a:
        a[name] *= 2.0 ** rng.integers(-300, 300)


def _edge_of_range(rng: Rng, a: dict[str, np.ndarray]) -> None:
    name = ("x", "w", "v")[rng.integers(3)]
    a[name] = np.ldexp(a[name], int(rng.choice([-1, 1]) * rng.integers(870, 1010)))


SCALES: list[Callable[[Rng, dict[str, np.ndarray]], None]] = [
    *(functools.partial(_both_ways, exponent=e) for e in (-150.0, 150.0, -20.0, 280.0)),
    *(functools.partial(_outer, exponent=e) for e in (-150.0, 150.0, -290.0)),
    *(_powers_of_two, _edge_of_range, _edge_of_range),
]
