"""Bounds of the largest eigenvalue and of both extreme singular values of a matrix in memory."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from scipy import linalg

from narrow_jax._typing import Float, HostArray
from narrow_jax.linalg import arrays
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.algebra import Algebra, Scalar, Truth
from narrow_jax.linalg.on_host import HOST


class Extremes(NamedTuple):
    """0 ≤ smallest ≤ σ_min(A) and ‖A‖₂ ≤ largest, rounding included."""

    smallest: float
    largest: float


def eigenvalue_bound(
    algebra: Algebra, square: Float[HostArray, "n n"], mu: Scalar, forming: Scalar
) -> tuple[Scalar, Truth]:
    """Return a bound of λ_max(S), and whether it is proven: μI − Ŝ has a Cholesky factor, ‖Ŝ − S‖₂ ≤ ``forming``.

    λ_max(S) ≤ μ + ‖μI − Ŝ − LLᵀ‖₂ + the rounding of μI − Ŝ + ``forming``; the sum itself is not rounded outward.
    """
    shifted = algebra.complement(square, mu)
    factor, proven = algebra.cholesky(shifted, overwrite=True)
    defect = algebra.cholesky_defect(functools.partial(arrays.rows, shifted), factor, square.shape[0] * mu)
    return mu + defect + forming + 4 * fl.UNIT * mu, proven


def spectral_norm(a: Float[HostArray, "n d"], terms: int = 0, exponent: int = 0) -> float:
    """Return an upper bound of 2^exponent·‖A‖₂: μI − fl(ÂÂᵀ), or its transpose, has a Cholesky factor.

    Args:
        a: Â, entries of size one: no square of those that matter over- or underflows.
        terms: the entries of Â are off by γ_terms relatively.
        exponent: as above.

    Example:
        >>> 3.0 <= spectral_norm(np.diag([1.0, 0.75]), exponent=2) - 1.0 < 3.1
        True
    """
    if not a.any():
        return 0.0
    rows = a if a.shape[0] <= a.shape[1] else a.T
    square = HOST.outer(rows)
    size = float(HOST.largest(square, 1e-14).first)
    frobenius = float(np.sum(a * a)) * (1 + fl.gamma(a.size + 8))
    # fl(ÂÂᵀ) is off by γ_inner ‖Â‖_F², and by the errors of two entries each
    forming = fl.gamma(rows.shape[1] + 2 * terms + 8) * frobenius
    mu = size * (1 + 1e-9) + forming
    bound, proven = eigenvalue_bound(HOST, square, mu, forming)
    bound = float(bound) if proven else frobenius
    return fl.product_up(float(np.sqrt(bound) * (1 + 4 * fl.SLACK)), exponent=exponent)


def extremes(matrix: Float[HostArray, "a b"]) -> Extremes:
    """Enclose σ_min over min(rows, columns), and ‖A‖₂, for matrices of many shapes, where ``sigma_min`` would compile.

    For any computed A ≈ UΣVᵀ: |σ_i(A) − σ_i(UΣVᵀ)| ≤ ‖A − UΣVᵀ‖_F (Weyl), and σ_i(UΣVᵀ) lies within
    σ̂_i √((1 ∓ ‖UᵀU − I‖)(1 ∓ ‖VᵀV − I‖)) (Ostrowski). The error is about n^{3/2}u‖A‖, whatever σ_min is; for a
    small σ_min of a large matrix use ``sigma_min``.

    Raises:
        ValueError: no row or no column, non-finite entries.

    Example:
        >>> low, high = extremes(np.diag([3.0, 2.0]))
        >>> bool(low <= 2 and 3 <= high), bool(low > 2 - 1e-12)
        (True, True)

    Reference:
        Horn and Johnson, Matrix Analysis, theorem 4.5.9 and corollary 7.3.5.
    """
    a = np.asarray(matrix, np.float64)
    if not a.size:
        raise ValueError(f"matrix has shape {a.shape}; expected at least one row and one column")
    exponent = int(np.frexp(np.max(np.abs(a)))[1])
    if not a.any():
        return Extremes(0.0, 0.0)
    a = np.ldexp(a, -exponent)  # entries of size one: no square over- or underflows
    u, values, vt = linalg.svd(a, full_matrices=False)
    weighted = values[:, None] * vt
    rounding = (fl.gamma(values.size + 2) + fl.UNIT) * HOST.norm_up(u) * HOST.norm_up(weighted)
    moved = HOST.norm_up(a - HOST.matmul(u, weighted)) * (1 + 2 * fl.UNIT) + rounding
    stretch = _defect(u.T) + _defect(vt)
    smallest = values[-1] * (1 - stretch) * (1 - fl.SLACK) - moved * (1 + fl.SLACK)
    largest = (values[0] * (1 + stretch) + moved) * (1 + fl.SLACK)
    with np.errstate(over="ignore", under="ignore"):
        smallest, largest = np.ldexp(smallest, exponent), np.ldexp(largest, exponent)
    # a denormal is rounded, and could be rounded up; what overflows is above the largest number
    smallest = min(smallest, np.finfo(float).max) if smallest > fl.NORMAL else 0.0
    return Extremes(float(smallest), float(fl.at_least_normal(largest)))


def _defect(rows: np.ndarray) -> float:
    """Return a bound of ‖QQᵀ − I‖₂: then |√(1 ± defect) − 1| is at most the defect."""
    gap = HOST.norm_up(HOST.matmul(rows, rows.T) - np.eye(len(rows)))
    return (gap + fl.gamma(rows.shape[1] + 2) * HOST.norm_up(rows) ** 2) * (1 + fl.SLACK)
