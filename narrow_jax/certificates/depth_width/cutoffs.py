"""Appendix C of "Effect of Depth and Width on Local Minima": which singular values count as 0, by three cutoffs.

Beside them, what the structure of a net explains, and whether a gap shows the rank.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from narrow_jax.certificates.depth_width.null_space import NullSpace
from narrow_jax.certificates.depth_width.tangent import Tangent
from narrow_jax.linalg import MARGIN, UNIT, has_gap

EPS = 2 * UNIT
CUTOFFS = ("nr", "golub-van-loan", "lapack")


class Spectrum(NamedTuple):
    """The largest singular value, the smallest kept, the rank under each cutoff, and whether a gap shows it."""

    sigma_max: float
    sigma_r: float
    ranks: dict[str, int]
    resolved: bool


def cutoffs(d: Tangent, sigma_max: float) -> dict[str, float]:
    """Appendix C: return the singular value up to which each rule counts 0.

    Reference:
        "Effect of Depth and Width on Local Minima in Deep Learning", appendix C.
    """
    return {
        "nr": numerical_recipes(sigma_max, d.rows, d.columns),
        "golub-van-loan": d.row_sum_norm() * EPS / 2,
        "lapack": sigma_max * EPS,
    }


def numerical_recipes(sigma_max: float, rows: int, columns: int) -> float:
    """Return the cutoff "nr", ½ σ_max eps √(rows + columns + 1)."""
    return sigma_max * EPS / 2 * np.sqrt(rows + columns + 1)


def judged(d: Tangent, values: np.ndarray, cutoff: str, most: int) -> Spectrum:
    """Return the spectrum from all singular values, descending; ``most`` is the rank that D can have by its structure.

    The rank is resolved if the values up to that one leave a gap around all cutoffs. If some of them are below it, no
    row or column may be so short that all of it is.
    """
    largest = float(values[0]) if values.size else 0.0
    bounds = cutoffs(d, largest)
    ranks = {name: int(np.sum(values > bound)) for name, bound in bounds.items()}
    kept, high = ranks[cutoff], max(bounds.values())
    visible = kept == most or (kept < most and _shortest(d) > high * MARGIN)
    resolved = visible and has_gap(values[:most], high)
    return Spectrum(largest, float(values[kept - 1]) if kept else 0.0, ranks, resolved)


def is_tall(d: Tangent) -> bool:
    """Whether the columns, less one null direction a hidden unit, are no more than the rows."""
    return d.columns - sum(w.shape[1] for w in d.weights[:-1]) <= d.rows


def structural_rank(d: Tangent, null: NullSpace | None) -> int:
    """Return the rank that is left by rows of zeros and known null directions."""
    rows = int(np.sum(d.row_norms() > 0))
    return min(rows, d.columns if null is None else null.size)


def as_certain_as(spectrum: Spectrum, null: NullSpace | None) -> Spectrum:
    """Return the spectrum, unresolved where the known null directions rest on a rank that no gap shows."""
    return spectrum._replace(resolved=spectrum.resolved and (null is None or null.certain))


def _shortest(d: Tangent) -> float:
    """Return the length of the shortest row or column of D that is not 0."""
    lengths = np.concatenate([d.row_norms(), d.column_norms()])
    return float(np.min(lengths, where=lengths > 0, initial=np.inf))
