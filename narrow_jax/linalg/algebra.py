"""The contract of the back ends: the large operations behind every bound, on the host, on the device, or wherever.

``HOST`` and ``DEVICE`` satisfy it. Matrices are float64 (float32 for estimates on hardware without it). A symmetric
matrix is its lower triangle: whatever lies above the diagonal is not read and may hold anything, unless said otherwise.
Entries of size one or below are assumed: no product over- or underflows to any effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from narrow_jax._typing import Computed, Float, HostArray
from narrow_jax.linalg.arrays import Scalar, Truth, xp
from narrow_jax.linalg.rounding import TINY

T = TypeVar("T")

Square = Any
"""A square matrix or its factor, as an algebra holds it: an array, or what stands for one by tiles (``on_tiles``)."""

Rows = Callable[[Any, int], Float[HostArray, "c n"]]
"""Gives so many rows of a symmetric matrix, from a first one on; what is right of the diagonal is not read."""


class Ritz(NamedTuple):
    """A unit vector, its Ritz value, the next one (0 where there is none), and whether the residual is small."""

    vector: Float[HostArray, " n"]
    first: Scalar
    second: Scalar
    converged: Truth

    def of_inverse(self) -> tuple[Computed, Computed]:
        """Return the two smallest eigenvalues of K where this is the largest pair of K⁻¹."""
        return 1 / xp.asarray(self.first), 1 / xp.maximum(self.second, TINY)


@runtime_checkable
class Products(Protocol):
    """The operations that form a Gram matrix."""

    def outer(self, a: Float[HostArray, "a k"], /) -> Float[HostArray, "a a"]:
        """Return aaᵀ: the lower triangle, with anything above it; each entry's error at most γ_k (|a||a|ᵀ)."""

    def total(self, term: Callable[..., Float[HostArray, "a a"]], count: int, /) -> Float[HostArray, "a a"]:
        """Return Σ term(i), i = 0 … count − 1, count ≥ 1: an entry's error is at most γ_{count−1} Σ|term(i)|."""

    def lower_norm(self, a: Float[HostArray, "a a"], /) -> Scalar:
        """Return an upper bound of the Frobenius norm of the symmetric matrix with this lower triangle."""

    def hadamard(
        self, x: Float[HostArray, "n a"], d: Float[HostArray, "r b"], /
    ) -> tuple[Float[HostArray, "r r"], Scalar, Scalar]:
        """Return (xxᵀ ⊗ 11ᵀ) ∘ (ddᵀ), r = n·k, as ``outer`` gives them, and bounds of the Frobenius norms of both."""


@runtime_checkable
class Algebra(Products, Protocol):
    """All that the routes to singular values and their bounds need.

    Proofs rest on ``outer``, ``total``, ``lower_norm``, ``matmul``, ``shifted``, ``from_rows``, ``complement`` and
    ``cholesky_defect``, whose errors are bounded as stated. All others may be inaccurate: bounds then come out wide.
    """

    def cond(self, predicate: Truth, yes: Callable[[], T], no: Callable[[], T]) -> T:
        """Return yes() or no(), only one of which is computed where the predicate is known."""

    def while_loop(self, going: Callable[[T], Truth], body: Callable[[T], T], state: T) -> T:
        """Return the state after body as often as it is ``going``."""

    def matmul(self, a: Float[HostArray, "a k"], b: Float[HostArray, "k b"]) -> Float[HostArray, "a b"]:
        """Return ab, each entry's error at most γ_k (|a||b|)."""

    def shifted(
        self, k: Float[HostArray, "n n"], c: Scalar, u: Float[HostArray, " n"], beta: Scalar
    ) -> Float[HostArray, "n n"]:
        """Return K + c uuᵀ − βI: at most three roundings an entry for the update, one more on the diagonal."""

    def from_rows(self, rows: Rows, like: Float[HostArray, " n"]) -> Float[HostArray, "n n"]:
        """Return the matrix of these rows, in the dtype of ``like`` and with as many."""

    def complement(self, t: Float[HostArray, "n n"], mu: Scalar) -> Float[HostArray, "n n"]:
        """Return μI − T: one rounding an entry of the diagonal."""

    def diagonal(self, a: Float[HostArray, "n n"]) -> Float[HostArray, " n"]:
        """Return the diagonal, which survives where ``a`` is overwritten."""

    def cholesky(
        self, a: Float[HostArray, "n n"], overwrite: bool = False
    ) -> tuple[Float[HostArray, "n n"], Truth]:
        """Return L, lower triangular with anything above, and whether LLᵀ = A completed; the identity where not.

        With ``overwrite`` L may lie in A.
        """

    def roundings(self, rows: int) -> int:
        """Return how many roundings an entry of LLᵀ meets: how far below λ_min a shift has to stay."""

    def cholesky_defect(self, of_a: Rows, factor: Float[HostArray, "n n"], trace: Scalar) -> Scalar:
        """Return a bound of ‖A − LLᵀ‖₂ for a factorisation that completed, ``trace`` an upper bound of tr A.

        By the algorithm of ``cholesky`` where it is a conventional one, else computed from rows of A.
        """

    def solve(self, factor: Float[HostArray, "n n"], v: Float[HostArray, " n"]) -> Float[HostArray, " n"]:
        """Return (LLᵀ)⁻¹v."""

    def smallest(self, factor: Float[HostArray, "n n"], tolerance: float) -> Ritz:
        """Return the largest eigenpair of (LLᵀ)⁻¹ by Lanczos, polished by one more inverse step."""

    def unknown(self, factor: Float[HostArray, "n n"]) -> Ritz:
        """Return a pair like that of ``smallest`` that has not converged."""

    def largest(self, a: Float[HostArray, "n n"], tolerance: float) -> Ritz:
        """Return the largest eigenpair of a symmetric matrix by Lanczos."""

    def largest_eigenvalue(self, a: Float[HostArray, "n n"]) -> Scalar:
        """Return the largest eigenvalue of a symmetric matrix to rounding."""

    def triangle(
        self, block: Callable[..., Float[HostArray, "n b"]], count: int, rows: int
    ) -> tuple[Float[HostArray, "n n"], Truth]:
        """Return L = Rᵀ, zeros above, of Jᵀ = QR by the column blocks of J (n rows), and whether L is invertible."""

    def singular(self, factor: Float[HostArray, "n p"]) -> Ritz:
        """Return the smallest singular pair by the QR iteration, n ≤ p; values as of the inverse: σ_min⁻², σ_next⁻²."""

    def invert(self, factor: Float[HostArray, "n n"]) -> Float[HostArray, "n n"]:
        """Return fl(L⁻¹), zeros above; any error in it is measured afterwards."""

    def decompose(
        self, factor: Float[HostArray, "n p"]
    ) -> tuple[Float[HostArray, "n n"], Float[HostArray, " n"]]:
        """Return the left singular vectors, as columns, and all singular values, descending, by the QR iteration."""
