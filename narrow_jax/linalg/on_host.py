"""Linear algebra on the host, for concrete arrays on CPU: SciPy's BLAS and LAPACK, one pool of threads.

NumPy's own BLAS is never called: two pools spin against each other. Symmetric matrices are Fortran-ordered lower
triangles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack

from narrow_jax._typing import Float, HostArray
from narrow_jax.linalg import lanczos
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.algebra import Ritz, Rows, Scalar, Square, T, Truth


def householder(slabs: Iterable[Float[HostArray, "n b"]], size: int) -> Float[np.ndarray, "n n"]:
    """Return R of the QR factorisation of A from slabs of Aᵀ, each with n = size rows: one slab is held at once."""
    r = np.zeros((0, size))
    for slab in slabs:
        part = np.asarray(slab).T
        stacked = np.empty((len(r) + len(part), size), order="F")  # as LAPACK wants it, copied once
        stacked[: len(r)], stacked[len(r) :] = r, part
        work = int(lapack.dgeqrf_lwork(*stacked.shape)[0])
        r = np.triu(lapack.dgeqrf(stacked, lwork=work, overwrite_a=1)[0][:size])
    return np.asfortranarray(np.pad(r, ((0, size - len(r)), (0, 0))))


INVERTIBLE = 2.0**-400
"""Pivots below have inverses whose squares overflow: of a matrix that is 0 beside what rounding hides."""


class Host:
    """The contract of ``Algebra``, and what certificates need on the host besides."""

    def cond(self, predicate: Truth, yes: Callable[[], T], no: Callable[[], T]) -> T:
        """Return yes() or no()."""
        return yes() if bool(predicate) else no()

    def while_loop(self, going: Callable[[T], Truth], body: Callable[[T], T], state: T) -> T:
        """Return the state after body as often as it is ``going``."""
        while bool(going(state)):
            state = body(state)
        return state

    def unknown(self, factor: Float[HostArray, "n n"]) -> Ritz:
        """Return a pair that has not converged."""
        return Ritz(lanczos.start_vector(factor.shape[0]), 1.0, 1.0, False)

    def total(self, term: Callable[..., Float[HostArray, "a a"]], count: int) -> np.ndarray:
        """Return Σ term(i)."""
        result = np.asarray(term(0))
        for index in range(1, count):
            result += term(index)
        return result

    def outer(self, a: Float[HostArray, "a k"]) -> np.ndarray:
        """Return the lower triangle of aaᵀ."""
        return np.asfortranarray(blas.dsyrk(1.0, np.asarray(a).T, trans=1, lower=1))

    def hadamard(
        self, x: Float[HostArray, "n a"], d: Float[HostArray, "r b"]
    ) -> tuple[np.ndarray, float, float]:
        """Return (xxᵀ ⊗ 11ᵀ) ∘ (ddᵀ) in place: a new array costs more than the product."""
        inputs, units = self.outer(x), self.outer(d)
        norms = self.lower_norm(inputs), self.lower_norm(units)
        n, k = len(inputs), len(units) // len(inputs)
        blown = units.reshape((k, n, k, n), order="F")  # in Fortran's order the first index runs first
        blown *= inputs[None, :, None, :]
        return units, *norms

    def lower_norm(self, a: Float[HostArray, "a a"]) -> float:
        """Return an upper bound of the Frobenius norm of the symmetric matrix, whose upper triangle is stored as 0."""
        squares = 2 * float(blas.dnrm2(np.asarray(a).ravel(order="K"))) ** 2
        return float(np.sqrt(squares) * (1 + fl.gamma(a.size + 8)))

    def norm_up(self, a: HostArray) -> float:
        """Return an upper bound of the Frobenius norm."""
        return float(blas.dnrm2(np.asarray(a).ravel(order="K")) * (1 + fl.gamma(np.size(a) + 8)) + fl.TINY)

    def matmul(self, a: Float[HostArray, "a k"], b: Float[HostArray, "k b"]) -> np.ndarray:
        """Return ab."""
        return blas.dgemm(1.0, np.asarray(b).T, np.asarray(a).T).T

    def shifted(
        self, k: Float[HostArray, "n n"], c: Scalar, u: Float[HostArray, " n"], beta: Scalar
    ) -> np.ndarray:
        """Return K + c uuᵀ − βI: two roundings an entry for the update, one more on the diagonal."""
        result = blas.dsyr(float(c), np.asarray(u), lower=1, a=np.array(k, order="F"), overwrite_a=1)
        result[np.diag_indices_from(result)] -= float(beta)
        return result

    def from_rows(self, rows: Rows, like: Float[HostArray, " n"]) -> np.ndarray:
        """Return the matrix of these rows."""
        return np.asfortranarray(rows(0, len(like)))

    def complement(self, t: Float[HostArray, "n n"], mu: Scalar) -> np.ndarray:
        """Return μI − T."""
        result = -np.asarray(t)
        result[np.diag_indices_from(result)] += float(mu)
        return result

    def diagonal(self, a: Float[HostArray, "n n"]) -> np.ndarray:
        """Return a copy of the diagonal."""
        return np.diagonal(a).copy()

    def cholesky(self, a: Float[HostArray, "n n"], overwrite: bool = False) -> tuple[np.ndarray, bool]:
        """Return L and whether the factorisation completed; its upper triangle holds anything, and L may lie in A."""
        factor, info = lapack.dpotrf(a, lower=1, clean=0, overwrite_a=overwrite)
        pivots = np.diag(factor)
        completed = info == 0 and bool(np.isfinite(pivots).all() and np.min(pivots) > INVERTIBLE)
        return factor if completed else np.eye(a.shape[0], order="F"), completed

    def roundings(self, rows: int) -> int:
        """Return those of an inner product, of the square root, and one for reciprocals of pivots."""
        return rows + 3

    def cholesky_defect(self, of_a: Rows, factor: Square, trace: Scalar) -> float:
        """Return a bound of ‖A − LLᵀ‖₂: γ_k ‖L‖_F², k the ``roundings``, by Higham's theorem 10.3."""
        gamma = fl.gamma(self.roundings(factor.shape[0]))
        return gamma * float(trace) * (1 + 4 * gamma)

    def solve(self, factor: Float[HostArray, "n n"], v: Float[HostArray, " n"]) -> np.ndarray:
        """Return (LLᵀ)⁻¹v."""
        return blas.dtrsv(factor, blas.dtrsv(factor, np.asarray(v), lower=1), lower=1, trans=1)

    def smallest(self, factor: Float[HostArray, "n n"], tolerance: float) -> Ritz:
        """Return the largest eigenpair of (LLᵀ)⁻¹, polished by one more inverse step."""
        ritz = lanczos.host(lambda v: self.solve(factor, v), lanczos.start_vector(factor.shape[0]), tolerance)
        vector = self.solve(factor, ritz.vector)
        return ritz._replace(vector=vector / blas.dnrm2(vector))

    def largest(self, a: Float[HostArray, "n n"], tolerance: float) -> Ritz:
        """Return the largest eigenpair of a symmetric matrix."""
        return lanczos.host(
            lambda v: blas.dsymv(1.0, a, v, lower=1), lanczos.start_vector(a.shape[0]), tolerance
        )

    def largest_eigenvalue(self, a: Float[HostArray, "n n"]) -> float:
        """Return the largest eigenvalue of a symmetric matrix to rounding."""
        return float(self.largest(a, 1e-14).first)

    def triangle(
        self, block: Callable[..., Float[HostArray, "n b"]], count: int, rows: int
    ) -> tuple[np.ndarray, bool]:
        """Return L = Rᵀ of the QR factorisation of Jᵀ, by column blocks of J, and whether R is invertible."""
        r = householder(map(block, range(count)), rows)
        pivots = np.abs(np.diag(r))
        return np.asfortranarray(r.T), bool(np.min(pivots) > max(2.0**-60 * np.max(pivots), INVERTIBLE))

    def singular(self, factor: Float[HostArray, "n p"]) -> Ritz:
        """Return the smallest singular pair of L by the QR iteration: divide and conquer can ruin the smallest."""
        vectors, values, _ = linalg.svd(np.asarray(factor), full_matrices=False, lapack_driver="gesvd")
        first, *second = (1 / max(float(value), 2.0**-300) ** 2 for value in values[:-3:-1])
        return Ritz(vectors[:, -1], first, second[0] if second else 0.0, True)

    def invert(self, factor: Float[HostArray, "n n"]) -> np.ndarray:
        """Return fl(L⁻¹), lower triangular; any error in it is measured afterwards."""
        return np.tril(lapack.dtrtri(factor, lower=1)[0])

    def decompose(self, factor: Float[HostArray, "n p"]) -> tuple[np.ndarray, np.ndarray]:
        """Return the left singular vectors and all singular values, descending, by the QR iteration."""
        vectors, values, _ = linalg.svd(factor, lapack_driver="gesvd")
        return vectors, values


HOST = Host()
