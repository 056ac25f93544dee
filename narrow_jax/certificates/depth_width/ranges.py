"""P[D] of Theorem 1 of "Effect of Depth and Width on Local Minima": projection, rank, coordinates.

``dense``     the SVD of D: the reference
``qr``        Householder QR over slabs of the longer side
``cholesky``  the same triangle from products alone: shifted CholeskyQR, two or three passes
``lsmr``      only a residual, by a matrix-free iteration: an estimate

D comes with its columns normalised (``tangent``), which does not change its range: one cutoff would drop
whole blocks of it otherwise. The long side is the samples or, for a wide D, the weights; known null directions are
taken off a tall D first.
SciPy's BLAS only: NumPy's has a pool of threads of its own, and two pools spin against each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack
from scipy.sparse.linalg import LinearOperator, lsmr

from narrow_jax.certificates.depth_width.cutoffs import (
    CUTOFFS,
    EPS,
    Spectrum,
    as_certain_as,
    cutoffs,
    is_tall,
    judged,
    numerical_recipes,
    structural_rank,
)
from narrow_jax.certificates.depth_width.null_space import NullSpace
from narrow_jax.certificates.depth_width.tangent import SLAB, Tangent, restored
from narrow_jax.linalg import HOST, column_exponents, has_gap, lanczos

_PASSES = 3
ORTHOGONAL = 1e-2
"""Reciprocal condition number of the last Gram matrix that makes Q orthonormal to rounding, for contributions."""
REFINABLE = 1e-10
"""The same where refinement does the rest: each step then gains a factor of 1e-6 and more."""
_REGULAR = 1e-9
"""Reciprocal condition number of R (in the 1-norm) above which no cutoff can reach its smallest singular value."""
_REFINEMENTS = 20
_STEPS = 4000


Slabs = Callable[[], Iterable[np.ndarray]]
Triangle = Callable[[Slabs, int], np.ndarray]


@runtime_checkable
class Range(Protocol):
    """The kept range of D."""

    spectrum: Spectrum

    def residual(self, u: np.ndarray) -> np.ndarray:
        """Return (I − P)u."""

    def coordinates(self, u: np.ndarray) -> np.ndarray:
        """Return Qᵀu for an orthonormal basis Q of the range."""

    def columns(self, layer: int, units: slice) -> np.ndarray:
        """Return QᵀD for the weights into these units of a layer."""

    def extremes(self, t: int) -> tuple[float, float]:
        """Return the largest singular value and the rank-th of D/2^t, its columns as they were."""


class Dense:
    """From the SVD of D."""

    def __init__(self, d: Tangent, cutoff: str) -> None:
        """Decompose D, held whole."""
        matrix = np.concatenate(list(d.column_slabs()), axis=1)
        left, values, right = linalg.svd(matrix, full_matrices=False)
        del matrix
        null = NullSpace(d) if is_tall(d) else None
        self.spectrum = as_certain_as(judged(d, values, cutoff, structural_rank(d, null)), null)
        rank = self.spectrum.ranks[cutoff]
        self._d, self._left = d, np.asfortranarray(left[:, :rank])
        self._core = np.asfortranarray(values[:rank, None] * right[:rank])

    def residual(self, u: np.ndarray) -> np.ndarray:
        """Return (I − P)u."""
        return without(self._left, u[:, None])[:, 0]

    def coordinates(self, u: np.ndarray) -> np.ndarray:
        """Return Uᵀu."""
        return inner(self._left, u)

    def columns(self, layer: int, units: slice) -> np.ndarray:
        """Return UᵀD = SVᵀ for these columns."""
        return self._core[:, _span(self._d, layer, units)]

    def extremes(self, t: int) -> tuple[float, float]:
        """Return the largest singular value and the rank-th of D/2^t, its columns as they were."""
        matrix = np.concatenate(list(self._d.column_slabs()), axis=1)
        np.ldexp(matrix, (self._d.exponents - t)[None, :], out=matrix)
        return _at(linalg.svdvals(matrix, overwrite_a=True), len(self._core))


class Tall:
    """From the triangle of D without its known null directions: D = Q (0 R) Hᵀ, Q and H orthogonal."""

    def __init__(self, d: Tangent, cutoff: str, triangle: Triangle) -> None:
        """Factorise D from slabs of samples."""
        self._d, self._null, self._triangle = d, NullSpace(d), triangle
        size = self._null.size
        r = triangle(lambda: map(self._null.reduced, d.row_slabs()), size) if size else np.zeros((0, 0))
        self._core = _core(d, r, cutoff, structural_rank(d, self._null))
        self.spectrum = as_certain_as(self._core.spectrum, self._null)

    def residual(self, u: np.ndarray) -> np.ndarray:
        """Return (I − P)u, refined until what is left inside the range is rounding."""
        before = np.inf
        for _ in range(_REFINEMENTS if self._core.size else 0):
            z = self._core.coordinates(self._reduced(u))
            inside = blas.dnrm2(z)
            if inside > before / 2:
                break
            u = u - self._d.mv(self._null.expanded(self._core.weights(z)))
            before = inside
        return u

    def coordinates(self, u: np.ndarray) -> np.ndarray:
        """Return Qᵀu = R⁻ᵀDᵀu."""
        return self._core.coordinates(self._reduced(u)) if self._core.size else np.zeros(0)

    def columns(self, layer: int, units: slice) -> np.ndarray:
        """Return QᵀD for these columns."""
        return self._matrix[:, _span(self._d, layer, units)]

    def extremes(self, t: int) -> tuple[float, float]:
        """Return the largest singular value and the rank-th of D/2^t, its columns as they were."""
        rank = self._core.size
        if not rank:
            return 0.0, 0.0
        columns = self._null.expanded(self._core.matrix().T).T
        np.ldexp(columns, (self._d.exponents - t)[None, :], out=columns)
        step = max(1, SLAB // max(rank, 1))
        parts = [slice(first, first + step) for first in range(0, columns.shape[1], step)]
        r = self._triangle(lambda: (np.array(columns[:, part], order="F") for part in parts), rank)
        return _ends(r, rank)

    def _reduced(self, u: np.ndarray) -> np.ndarray:
        return self._null.reduced(self._d.rmv(u)[:, None])[:, 0]

    @functools.cached_property
    def _matrix(self) -> np.ndarray:
        return np.asfortranarray(self._null.expanded(self._core.matrix().T).T)


class Wide:
    """From the triangle of Dᵀ, whose kept right singular vectors are a basis of the range of D."""

    def __init__(self, d: Tangent, cutoff: str, triangle: Callable[[Tangent], np.ndarray]) -> None:
        """Factorise Dᵀ."""
        self._d, self._triangle = d, triangle
        core = _core(d, triangle(d), cutoff, structural_rank(d, None))
        self.spectrum = core.spectrum
        self._basis = None if core.kept is None else np.asfortranarray(core.kept[1].T)

    def residual(self, u: np.ndarray) -> np.ndarray:
        """Return (I − P)u: 0 where D has full row rank."""
        return np.zeros_like(u) if self._basis is None else without(self._basis, u[:, None])[:, 0]

    def coordinates(self, u: np.ndarray) -> np.ndarray:
        """Return Qᵀu."""
        return u if self._basis is None else inner(self._basis, u)

    def columns(self, layer: int, units: slice) -> np.ndarray:
        """Return QᵀD for these columns."""
        columns = self._d.unit_columns(layer, units)
        return columns if self._basis is None else blas.dgemm(1.0, self._basis, columns, trans_a=1)

    def extremes(self, t: int) -> tuple[float, float]:
        """Return the largest singular value and the rank-th of D/2^t, its columns as they were."""
        rank = self._d.rows if self._basis is None else self._basis.shape[1]
        return _ends(self._triangle(restored(self._d, t)), rank)


class Iterative:
    """From LSMR on D with columns of length 1: a residual, and nothing about the rank."""

    def __init__(self, d: Tangent) -> None:
        """Set up the products."""
        norms = d.column_norms()
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        self._operator = LinearOperator(
            (d.rows, d.columns),
            matvec=lambda v: d.mv(scale * np.ravel(v)),
            rmatvec=lambda u: scale * d.rmv(np.ravel(u)),
            dtype=np.float64,
        )

    def residual(self, u: np.ndarray) -> np.ndarray:
        """Return u − Dv for the v at which LSMR stops."""
        v = lsmr(self._operator, u, atol=1e-12, btol=1e-12, conlim=0, maxiter=_STEPS)[0]
        return u - self._operator.matvec(v)


def inner(basis: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return Qᵀu, also for an empty basis, which BLAS refuses."""
    return blas.dgemv(1.0, basis, u, trans=1) if basis.shape[1] else np.zeros(0)


def without(basis: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return (I − QQᵀ)u for a matrix u, twice for orthogonality to rounding."""
    if basis.shape[1]:
        for _ in range(2):
            u = blas.dgemm(-1.0, basis, blas.dgemm(1.0, basis, u, trans_a=1), beta=1.0, c=u)
    return u


def orthonormal(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the range, by the SVD of the columns normalised, with the cutoff "nr"."""
    left, values, _ = linalg.svd(np.ldexp(columns, -column_exponents(columns)), full_matrices=False)
    bound = numerical_recipes(values.max(initial=0.0), *columns.shape)
    return np.asfortranarray(left[:, values > bound])


def new_directions(basis: np.ndarray, block: np.ndarray, threshold: float) -> np.ndarray:
    """Return an orthonormal basis of what the block adds to the basis, singular values up to a threshold left out."""
    left, values, _ = linalg.svd(without(basis, block), full_matrices=False)
    left = np.asfortranarray(left[:, values > threshold][:, : len(basis) - basis.shape[1]])
    return linalg.qr(without(basis, left), mode="economic")[0] if left.shape[1] else left


def _span(d: Tangent, layer: int, units: slice) -> slice:
    inputs = d.weights[layer].shape[0]
    return slice(d.starts[layer] + units.start * inputs, d.starts[layer] + units.stop * inputs)


def householder(slabs: Slabs, size: int) -> np.ndarray:
    """Return R of the QR factorisation of A, from slabs of Aᵀ."""
    r = np.zeros((0, size))
    for slab in slabs():
        stacked = np.asfortranarray(np.concatenate([r, slab.T]))
        work = int(lapack.dgeqrf_lwork(*stacked.shape)[0])
        r = np.triu(lapack.dgeqrf(stacked, lwork=work, overwrite_a=1)[0][:size])
    return np.asfortranarray(np.pad(r, ((0, size - len(r)), (0, 0))))


def cholesky_qr(
    slabs: Slabs, size: int, enough: float, first: Callable[[], np.ndarray] | None = None
) -> np.ndarray:
    """Return R of A = QR by shifted CholeskyQR: Cholesky of the Gram matrix of AR⁻¹, two or three times.

    Args:
        slabs: of Aᵀ.
        size: columns of A.
        enough: reciprocal condition number of the last Gram matrix: Q is orthonormal to about eps/enough.
        first: () ↦ the upper triangle of AᵀA, where there is a shorter way than by slabs.

    Reference:
        Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, "Shifted Cholesky QR for computing the QR
        factorization of ill-conditioned matrices", 2020.
    """
    r = None
    for _ in range(_PASSES):
        gram = _gram(slabs, size, r) if r is not None or first is None else first()
        factor, condition = _shifted_cholesky(gram)
        r = factor if r is None else np.asfortranarray(np.triu(blas.dtrmm(1.0, factor, r)))
        if condition > enough:
            break
    assert r is not None
    return r


def _gram(slabs: Slabs, size: int, r: np.ndarray | None) -> np.ndarray:
    """Return the upper triangle of R⁻ᵀAᵀAR⁻¹."""
    gram = np.zeros((size, size), order="F")
    for slab in slabs():
        part = slab if r is None else blas.dtrsm(1.0, r, slab, trans_a=1, overwrite_b=1)
        gram = blas.dsyrk(1.0, part, beta=1.0, c=gram, overwrite_c=1)
    return gram


def _shifted_cholesky(gram: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the upper Cholesky factor and the reciprocal condition number, 0 where a shift was needed."""
    norm = _one_norm(gram)
    if norm == 0:
        return gram, np.inf  # R = 0 is exact: no pass could improve it
    factor, info = lapack.dpotrf(gram, clean=1)
    condition = float(lapack.dpocon(factor, norm)[0]) if info == 0 else 0.0
    if condition > REFINABLE:
        return factor, condition
    gram[np.diag_indices_from(gram)] += 10 * len(gram) * EPS * norm
    return lapack.dpotrf(gram, clean=1, overwrite_a=1)[0], 0.0


def _one_norm(upper: np.ndarray) -> float:
    """Return ‖A‖₁ of a symmetric matrix from its upper triangle."""
    magnitude = np.triu(upper)
    np.abs(magnitude, out=magnitude)
    return float(np.max(magnitude.sum(axis=0) + magnitude.sum(axis=1) - np.diag(magnitude), initial=0.0))


class _Core(NamedTuple):
    """R and its spectrum; where its numerical rank is below its size, the kept values and right vectors."""

    spectrum: Spectrum
    r: np.ndarray
    kept: tuple[np.ndarray, np.ndarray] | None

    @property
    def size(self) -> int:
        """Return the rank."""
        return len(self.r) if self.kept is None else len(self.kept[0])

    def coordinates(self, g: np.ndarray) -> np.ndarray:
        """Return R⁺ᵀg."""
        if self.kept is None:
            return blas.dtrsv(self.r, g, trans=1)
        values, right = self.kept
        return blas.dgemv(1.0, right.T, g, trans=1) / values

    def weights(self, z: np.ndarray) -> np.ndarray:
        """Return R⁺z."""
        if self.kept is None:
            return blas.dtrsv(self.r, z)
        values, right = self.kept
        return blas.dgemv(1.0, right.T, z / values)

    def matrix(self) -> np.ndarray:
        """Return R in the coordinates of its kept range."""
        return self.r if self.kept is None else self.kept[0][:, None] * self.kept[1]


def _core(d: Tangent, r: np.ndarray, cutoff: str, most: int) -> _Core:
    size = len(r)
    if _regular(r):  # every singular value is far above every cutoff
        largest, smallest = _ends(r, size)
        resolved = has_gap(np.array([largest, smallest]), max(cutoffs(d, largest).values()))
        return _Core(Spectrum(largest, smallest, dict.fromkeys(CUTOFFS, size), resolved), r, None)
    _, values, right = linalg.svd(r)
    spectrum = judged(d, values, cutoff, most)
    rank = spectrum.ranks[cutoff]
    return _Core(spectrum, r, (values[:rank], right[:rank]))


def _regular(r: np.ndarray) -> bool:
    return bool(len(r) and lapack.dtrcon(r)[0] > _REGULAR)


def _ends(r: np.ndarray, rank: int) -> tuple[float, float]:
    """Return the largest and the rank-th singular value of a triangle."""
    if rank < len(r) or not _regular(r):
        return _at(linalg.svdvals(r), rank)
    largest = lanczos.host(lambda v: _normal(r, v), lanczos.start_vector(rank), 1e-12).first
    smallest = HOST.smallest(np.asfortranarray(r.T), 1e-12).first
    return float(np.sqrt(largest)), float(1 / np.sqrt(smallest))


def _at(values: np.ndarray, rank: int) -> tuple[float, float]:
    return (float(values[0]), float(values[rank - 1])) if rank else (0.0, 0.0)


def _normal(r: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return RᵀRv."""
    return blas.dtrmv(r, blas.dtrmv(r, v), trans=1)
