"""The numerical rank of a matrix whose rows and columns may have any scale."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from narrow_jax._typing import Float, HostArray
from narrow_jax.linalg.on_host import HOST
from narrow_jax.linalg.rounding import UNIT

MARGIN = 1e3
"""How far above a cutoff what is kept must lie: rounding then turns its direction by a part in 1000 at most."""
_SWEEPS, _BALANCES = 20, 2
_LARGE = 500
"""Rows and columns from which a singular value decomposition takes seconds."""


def numerical_rank(matrix: Float[HostArray, "a b"]) -> int:
    """Return the number of singular values above max(a, b)·eps·σ_max, rows and columns scaled to entries of size one.

    What is known of an entry are its leading digits, whatever its unit: so a row or a column counts in any unit, and a
    rank is lost to cancellation only.

    Args:
        matrix: finite entries.

    Returns:
        The rank; 0 of a matrix without entries.

    Example:
        >>> numerical_rank(np.array([[1.0, 1e-40], [1.0, -1e-40]])), numerical_rank(np.ones((2, 2)))
        (2, 1)

    Reference:
        Curtis and Reid, "On the automatic scaling of matrices for Gaussian elimination", 1972.
    """
    if not np.size(matrix):
        return 0
    scaled = equilibrated(np.asarray(matrix, np.float64))
    if min(scaled.shape) >= _LARGE and _far_from_deficient(scaled):
        return min(scaled.shape)
    values = linalg.svdvals(scaled)
    return int(np.sum(values > values[0] * max(np.shape(matrix)) * np.finfo(np.float64).eps))


def _far_from_deficient(matrix: Float[np.ndarray, "a b"]) -> bool:
    """Return whether σ_min ≥ 1e-5·‖A‖_F, far above any cutoff, by a Cholesky factor: a tenth of the time of the SVD."""
    rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    gram = HOST.outer(rows)
    return HOST.cholesky(HOST.shifted(gram, 0.0, np.zeros(len(gram)), 1e-10 * np.trace(gram)))[1]


def has_gap(values: Float[np.ndarray, " k"], cutoff: float) -> bool:
    """Return whether no singular value, of all in descending order, lies between u·σ_max and far above a cutoff.

    A matrix with a singular value below u·σ_max is a deficient one with its entries rounded, as far as one can tell:
    the zeros of deficient matrices come out at 0.3 u·σ_max to 0.7 u·σ_max.
    """
    return not np.any((values > UNIT * values[:1]) & (values <= cutoff * MARGIN))


def equilibrated(matrix: Float[np.ndarray, "a b"]) -> Float[np.ndarray, "a b"]:
    """Return A with rows and columns multiplied by powers of two, the same ones for any A but for such factors.

    First log₂ of the entries nearest to one constant, by alternating means over the entries that are not 0: exact after
    one sweep where all are. Then root mean squares of about one, since a few tiny entries, as of powers near 0, would
    otherwise make a row as large as they are small. Powers of two change no digit.
    """
    used = (matrix != 0).astype(np.float32)
    size = np.where(matrix == 0, np.float32(0), np.frexp(matrix)[1].astype(np.float32))
    of_rows, of_columns = (np.maximum(used.sum(axis=axis), 1) for axis in (1, 0))
    rows, columns = np.zeros(len(of_rows), np.float32), np.zeros(len(of_columns), np.float32)
    for _ in range(_SWEEPS):
        before = columns
        with np.errstate(
            invalid="ignore"
        ):  # all is finite; OpenBLAS may raise the flag for what it reads beyond the end
            rows = -(size.sum(axis=1) + used @ columns) / of_rows
            columns = -(size.sum(axis=0) + rows @ used) / of_columns
        if np.max(np.abs(columns - before)) < 0.5:
            break
    exponents = np.rint(rows).astype(np.int32)[:, None] + np.rint(columns).astype(np.int32)[None, :]
    largest = np.max(np.frexp(matrix)[1] + exponents, where=matrix != 0, initial=-(2**30))
    matrix = np.ldexp(matrix, exponents - largest)  # below 1: nothing overflows
    for _ in range(_BALANCES):
        matrix = np.ldexp(matrix, -column_exponents(matrix.T)[:, None])
        matrix = np.ldexp(matrix, -column_exponents(matrix))
    return matrix


def column_exponents(a: Float[np.ndarray, "a b"]) -> np.ndarray:
    """Return e with 2^e next to the root mean square of each column; 0 for a column of zeros."""
    largest = np.frexp(np.max(np.abs(a), axis=0, initial=0.0))[1]
    return largest + np.frexp(np.sqrt(np.mean(np.ldexp(a, -largest) ** 2, axis=0)))[1]
