"""Samples that ask the same of every pairwise net, and labels that contradict each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from narrow_jax._typing import Float, Int


class Distinct(NamedTuple):
    """Which samples a pairwise net has to learn.

    Fields:
        kept: indices of the samples that are neither zero nor equal to an earlier one.
        repeated: pairs (later, earlier) of equal samples with equal labels.
        zero: indices of zero samples with zero labels: f(0) = 0 for every pairwise net.
        clash: why no pairwise net can learn the labels; empty if nothing is known against it.
    """

    kept: Int[np.ndarray, " n_kept"]
    repeated: tuple[tuple[int, int], ...]
    zero: tuple[int, ...]
    clash: str


def distinct(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"]) -> Distinct:
    """Return the samples that remain when those are dropped that follow from others.

    Example:
        >>> x, y = np.array([[1.0], [2.0], [1.0], [0.0]]), np.array([[1.0], [3.0], [1.0], [0.0]])
        >>> found = distinct(x, y)
        >>> found.kept.tolist(), found.repeated, found.zero, found.clash
        ([0, 1], ((2, 0),), (3,), '')
    """
    first: dict[bytes, int] = {}
    kept: list[int] = []
    repeated: list[tuple[int, int]] = []
    zero: list[int] = []
    clashes: list[int] = []
    for index, row in enumerate(x + 0.0):  # −0 and 0 have different bytes
        if not row.any():
            (clashes if y[index].any() else zero).append(index)
            continue
        earlier = first.setdefault(row.tobytes(), index)
        if earlier == index:
            kept.append(index)
        elif np.array_equal(y[earlier], y[index]):
            repeated.append((index, earlier))
        else:
            return Distinct(np.array(kept), tuple(repeated), tuple(zero), _contradiction(index, earlier, y))
    clash = (
        f"sample {clashes[0]} is 0 and its label is not: without biases every pairwise net has f(0) = 0; "
        "remove it or append a constant input"
        if clashes
        else ""
    )
    return Distinct(np.array(kept, dtype=int), tuple(repeated), tuple(zero), clash)


def _contradiction(index: int, earlier: int, y: np.ndarray) -> str:
    return (
        f"samples {earlier} and {index} are equal and their labels {y[earlier].tolist()} and {y[index].tolist()} "
        "are not: no network can learn both; remove one"
    )
