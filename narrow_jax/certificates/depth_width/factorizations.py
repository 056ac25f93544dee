"""Factorisations for Theorem 1 of "Effect of Depth and Width on Local Minima", and its appendix C.

Triangles of QR, bases of ranges, and which singular values count as 0, by three cutoffs and beside a gap.
SciPy's BLAS only: NumPy's has a pool of threads of its own, and two pools spin against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack

from narrow_jax.linalg import HOST, MARGIN, UNIT, column_exponents, has_gap, lanczos

EPS = 2 * UNIT
CUTOFFS = ("nr", "golub-van-loan", "lapack")
_PASSES = 3
ORTHOGONAL = 1e-2
"""Reciprocal condition number of the last Gram matrix that makes Q orthonormal to rounding, for contributions."""
REFINABLE = 1e-10
"""The same where refinement does the rest: each step then gains a factor of 1e-6 and more."""
_REGULAR = 1e-9
"""Reciprocal condition number of R (in the 1-norm) above which no cutoff can reach its smallest singular value."""

Slabs = Callable[[], Iterable[np.ndarray]]


class Spectrum(NamedTuple):
    """The largest singular value, the smallest kept, the rank under each cutoff, and whether a gap shows it."""

    sigma_max: float
    sigma_r: float
    ranks: dict[str, int]
    resolved: bool


class Cutoffs(NamedTuple):
    """Appendix C: what the rules that count singular values as 0 know of D.

    Args:
        rows, columns: of D.
        row_sum_norm: ‖D‖_∞.
        shortest: the length of the shortest row or column that is not 0.

    Reference:
        "Effect of Depth and Width on Local Minima in Deep Learning", appendix C.
    """

    rows: int
    columns: int
    row_sum_norm: float
    shortest: float

    def bounds(self, sigma_max: float) -> dict[str, float]:
        """Return the singular value up to which each rule counts 0."""
        return {
            "nr": numerical_recipes(sigma_max, self.rows, self.columns),
            "golub-van-loan": self.row_sum_norm * EPS / 2,
            "lapack": sigma_max * EPS,
        }

    def spectrum(self, values: np.ndarray, cutoff: str, most: int) -> Spectrum:
        """Return the spectrum from all singular values, descending; ``most`` is the rank that D can have by structure.

        Values beyond that one are rounding, however large. The rank is resolved if those up to it leave a gap around
        them and all cutoffs. If some of them are below it, no row or column may be so short that all of it is.
        """
        largest = float(values[0]) if values.size else 0.0
        bounds = self.bounds(largest)
        ranks = {name: int(np.sum(values[:most] > bound)) for name, bound in bounds.items()}
        kept, high = ranks[cutoff], max(bounds.values())
        visible = kept == most or self.shortest > high * MARGIN
        rounding = float(values[most]) if most < values.size else 0.0
        resolved = visible and has_gap(values[:most], max(high, rounding))
        return Spectrum(largest, float(values[kept - 1]) if kept else 0.0, ranks, resolved)


def numerical_recipes(sigma_max: float, rows: int, columns: int) -> float:
    """Return the cutoff "nr", ½ σ_max eps √(rows + columns + 1)."""
    return sigma_max * EPS / 2 * np.sqrt(rows + columns + 1)


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
    del factor
    shift = 10 * len(gram) * EPS * norm  # more where the products of many rows rounded further
    while shift < norm:
        shifted = gram.copy(order="F")
        shifted[np.diag_indices_from(gram)] += shift
        factor, info = lapack.dpotrf(shifted, clean=1, overwrite_a=1)
        if info == 0:
            return factor, 0.0
        shift *= 10
    raise linalg.LinAlgError(
        "the Gram matrix of D is not positive definite under any shift: it is not finite"
    )


def _one_norm(upper: np.ndarray) -> float:
    """Return ‖A‖₁ of a symmetric matrix from its upper triangle."""
    magnitude = np.triu(upper)
    np.abs(magnitude, out=magnitude)
    return float(np.max(magnitude.sum(axis=0) + magnitude.sum(axis=1) - np.diag(magnitude), initial=0.0))


class Core(NamedTuple):
    """R and its spectrum; where its numerical rank is below its size, the kept values and right vectors."""

    spectrum: Spectrum
    r: np.ndarray
    kept: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, r: np.ndarray, cutoffs: Cutoffs, cutoff: str, most: int) -> Core:
        """Return R with its spectrum; ``most`` as in ``Cutoffs.spectrum``."""
        size = len(r)
        if _regular(r):  # every singular value is far above every cutoff
            largest, smallest = triangle_ends(r, size)
            resolved = has_gap(np.array([largest, smallest]), max(cutoffs.bounds(largest).values()))
            return cls(Spectrum(largest, smallest, dict.fromkeys(CUTOFFS, size), resolved), r, None)
        _, values, right = linalg.svd(r)
        spectrum = cutoffs.spectrum(values, cutoff, most)
        rank = spectrum.ranks[cutoff]
        return cls(spectrum, r, (values[:rank], right[:rank]))

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


def _regular(r: np.ndarray) -> bool:
    return bool(len(r) and lapack.dtrcon(r)[0] > _REGULAR)


def triangle_ends(r: np.ndarray, rank: int) -> tuple[float, float]:
    """Return the largest and the rank-th singular value of a triangle."""
    if rank < len(r) or not _regular(r):
        return ends(linalg.svdvals(r), rank)
    largest = lanczos.host(lambda v: _normal(r, v), lanczos.start_vector(rank), 1e-12).first
    smallest = HOST.smallest(np.asfortranarray(r.T), 1e-12).first
    return float(np.sqrt(largest)), float(1 / np.sqrt(smallest))


def ends(values: np.ndarray, rank: int) -> tuple[float, float]:
    """Return the largest and the rank-th of the values."""
    return (float(values[0]), float(values[rank - 1])) if rank else (0.0, 0.0)


def _normal(r: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return RᵀRv."""
    return blas.dtrmv(r, blas.dtrmv(r, v), trans=1)
