"""Linear algebra on the host, for concrete arrays on CPU: SciPy's BLAS and LAPACK, one pool of threads.

The same names as ``device``. NumPy's own BLAS is never called: two pools spin against each other.
Symmetric matrices are Fortran-ordered lower triangles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack

from narrow_jax.linalg import lanczos
from narrow_jax.linalg import rounding as fl


def cond(predicate: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """Return yes() or no()."""
    return yes() if bool(predicate) else no()


def while_loop(going: Callable[[Any], Any], body: Callable[[Any], Any], state: Any) -> Any:
    """Return the state after body as often as it is ``going``."""
    while bool(going(state)):
        state = body(state)
    return state


def unknown(factor: np.ndarray) -> lanczos.Ritz:
    """Return a pair that has not converged."""
    return lanczos.Ritz(lanczos.start_vector(factor.shape[0]), 1.0, 1.0, False)


def total(term: Callable[[int], np.ndarray], count: int) -> np.ndarray:
    """Return Σ term(i)."""
    result = term(0)
    for index in range(1, count):
        result += term(index)
    return result


def outer(a: Any) -> np.ndarray:
    """Return the lower triangle of aaᵀ."""
    return np.asfortranarray(blas.dsyrk(1.0, np.asarray(a).T, trans=1, lower=1))


def lower_norm(a: np.ndarray) -> float:
    """Return an upper bound of the Frobenius norm of the symmetric matrix, whose upper triangle is stored as 0."""
    squares = 2 * float(blas.dnrm2(a.ravel(order="K"))) ** 2
    return float(np.sqrt(squares) * (1 + fl.gamma(a.size + 8)))


def norm_up(a: Any) -> float:
    """Return an upper bound of the Frobenius norm."""
    return float(blas.dnrm2(np.asarray(a).ravel(order="K")) * (1 + fl.gamma(np.size(a) + 8)) + fl.TINY)


def matmul(a: Any, b: Any) -> np.ndarray:
    """Return ab."""
    return blas.dgemm(1.0, np.asarray(b).T, np.asarray(a).T).T


def shifted(k: np.ndarray, c: Any, u: Any, beta: Any) -> np.ndarray:
    """Return K + c uuᵀ − βI: two roundings an entry for the update, one more on the diagonal."""
    result = blas.dsyr(float(c), np.asarray(u), lower=1, a=k.copy(order="F"), overwrite_a=1)
    result[np.diag_indices_from(result)] -= float(beta)
    return result


def complement(t: np.ndarray, mu: Any) -> np.ndarray:
    """Return μI − T."""
    result = -t
    result[np.diag_indices_from(result)] += float(mu)
    return result


def diagonal(a: np.ndarray) -> np.ndarray:
    """Return a copy of the diagonal."""
    return np.diagonal(a).copy()


def cholesky(a: np.ndarray, overwrite: bool = False) -> tuple[np.ndarray, bool]:
    """Return L and whether the factorisation completed; its upper triangle holds anything, and L may lie in A."""
    factor, info = lapack.dpotrf(a, lower=1, clean=0, overwrite_a=overwrite)
    completed = info == 0 and bool(np.isfinite(np.diag(factor)).all())
    return factor if completed else np.eye(a.shape[0], order="F"), completed


def cholesky_defect(a: np.ndarray, factor: np.ndarray, trace: Any) -> Any:
    """Return a bound of ‖A − LLᵀ‖₂: γ_{n+3} ‖L‖_F² by Higham's theorem 10.3; one extra for reciprocals of pivots."""
    rows = a.shape[0]
    return fl.gamma(rows + 3) * float(trace) * (1 + 4 * fl.gamma(rows + 3))


def solve(factor: np.ndarray, v: Any) -> np.ndarray:
    """Return (LLᵀ)⁻¹v."""
    return blas.dtrsv(factor, blas.dtrsv(factor, np.asarray(v), lower=1), lower=1, trans=1)


def smallest(factor: np.ndarray, tolerance: float) -> lanczos.Ritz:
    """Return the largest eigenpair of (LLᵀ)⁻¹, polished by one more inverse step."""

    ritz = lanczos.host(lambda v: solve(factor, v), lanczos.start_vector(factor.shape[0]), tolerance)
    vector = solve(factor, ritz.vector)
    return ritz._replace(vector=vector / blas.dnrm2(vector))


def largest(a: np.ndarray, tolerance: float) -> lanczos.Ritz:
    """Return the largest eigenpair of a symmetric matrix."""
    return lanczos.host(lambda v: blas.dsymv(1.0, a, v, lower=1), lanczos.start_vector(a.shape[0]), tolerance)


def largest_eigenvalue(a: np.ndarray) -> float:
    """Return the largest eigenvalue of a symmetric matrix to rounding."""
    return largest(a, 1e-14).first


def triangle(j: Any, block: Any) -> tuple[np.ndarray, bool]:
    """Return L = Rᵀ of the QR factorisation of Jᵀ, by column blocks of J, and whether R is invertible."""
    rows = j.shape[0]
    r = np.zeros((0, rows))
    for index in range(j.block_count):
        stacked = np.asfortranarray(np.concatenate([r, np.asarray(block(j, index)).T]))
        work = int(lapack.dgeqrf_lwork(*stacked.shape)[0])
        r = np.triu(lapack.dgeqrf(stacked, lwork=work, overwrite_a=1)[0][:rows])
    r = np.pad(r, ((0, rows - r.shape[0]), (0, 0)))
    pivots = np.abs(np.diag(r))
    return np.asfortranarray(r.T), bool(np.min(pivots) > 2.0**-60 * np.max(pivots))


def singular(factor: Any) -> lanczos.Ritz:
    """Return the smallest singular pair of L by the QR iteration: divide and conquer can ruin the smallest."""
    vectors, values, _ = linalg.svd(np.asarray(factor), full_matrices=False, lapack_driver="gesvd")
    return lanczos.Ritz(vectors[:, -1], _inverse_square(values[-1]), _next(values), True)


def _inverse_square(value: float) -> float:
    return 1 / max(float(value), 2.0**-300) ** 2


def _next(values: np.ndarray) -> float:
    return _inverse_square(values[-2]) if values.size > 1 else 0.0


def invert(factor: np.ndarray) -> np.ndarray:
    """Return fl(L⁻¹), lower triangular; any error in it is measured afterwards."""
    return np.tril(lapack.dtrtri(factor, lower=1)[0])


def decompose(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the left singular vectors and all singular values, descending, by the QR iteration."""
    vectors, values, _ = linalg.svd(factor, lapack_driver="gesvd")
    return vectors, values
