"""Distinct samples, as Definition 1 of "When Expressivity Meets Trainability" asks for, and labels that clash."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from narrow_jax._typing import Float, Int


class DistinctSamples(NamedTuple):
    """Which samples a pairwise net has to learn.

    Fields:
        kept: indices of the samples that are neither zero nor equal to an earlier one.
        repeated: pairs (later, earlier) of equal samples with equal labels.
        zero: indices of zero samples with zero labels, where f(0) = 0.
        clash: why no such net can learn the labels; empty if nothing is known against it.
    """

    kept: Int[np.ndarray, " n_kept"]
    repeated: tuple[tuple[int, int], ...]
    zero: tuple[int, ...]
    clash: str

    def of(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n_kept d"]:
        """Return the rows of the kept samples: x itself, no copy, where these are all."""
        return x if len(self.kept) == len(x) else x[self.kept]


def distinct_samples(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"], vanishing: bool = True
) -> DistinctSamples:
    """Return the samples that remain when those are dropped that follow from others.

    Args:
        x: data.
        y: labels.
        vanishing: f(0) = 0 for all weights, as for every pair with one hidden layer.

    Example:
        >>> x, y = np.array([[1.0], [2.0], [1.0], [0.0]]), np.array([[1.0], [3.0], [1.0], [0.0]])
        >>> found = distinct_samples(x, y)
        >>> found.kept.tolist(), found.repeated, found.zero, found.clash
        ([0, 1], ((2, 0),), (3,), '')

    Reference:
        "When Expressivity Meets Trainability", Definition 1.
    """
    first: dict[bytes, int] = {}
    kept: list[int] = []
    repeated: list[tuple[int, int]] = []
    zero: list[int] = []
    clash = ""
    for index, row in enumerate(x + 0.0):  # −0 and 0 have different bytes
        earlier = first.setdefault(row.tobytes(), index)
        if vanishing and not row.any() and not y[index].any():
            zero.append(index)
        elif vanishing and not row.any():
            clash = clash or (
                f"sample {index} is 0 and its label is not: f(0) = 0 whatever the weights, since there are no biases; "
                "remove it or append a constant input"
            )
        elif earlier == index:
            kept.append(index)
        elif np.array_equal(y[earlier], y[index]):
            repeated.append((index, earlier))
        else:
            clash = (
                f"samples {earlier} and {index} are equal and their labels {y[earlier].tolist()} and "
                f"{y[index].tolist()} are not: no network can learn both; remove one"
            )
            break
    return DistinctSamples(np.array(kept, dtype=int), tuple(repeated), tuple(zero), clash)
