"""P[D] of Theorem 1 of "Effect of Depth and Width on Local Minima": projection, rank, coordinates.

``dense``     the SVD of D: the reference
``qr``        Householder QR over slabs of the longer side
``cholesky``  the same triangle from products alone: shifted CholeskyQR, two or three passes
``lsmr``      only a residual, by a matrix-free iteration: an estimate

D comes with its columns normalised (``tangent``), which does not change its range: one cutoff would drop
whole blocks of it otherwise. The long side is the samples or, for a wide D, the weights; known null directions are
taken off a tall D first: the weights of a positively homogeneous net may move so without moving the outputs.
Units with the same slopes at every sample act by Ẇ_in W_out + W_in Ẇ_out only, W_in the weights into them and W_out
those out of them. This is 0 for Ẇ_in = W_in A with Ẇ_out = −A W_out (for one unit: its scaling), for any Ẇ_in with
Ẇ_in W_out = 0, and for any Ẇ_out with W_in Ẇ_out = 0, and for sums of these only. And a unit that fewer samples reach
than it has inputs has directions that none of them sees.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack
from scipy.sparse.linalg import LinearOperator, lsmr

from narrow_jax._typing import Float
from narrow_jax.certificates.depth_width.factorizations import (
    Core,
    Cutoffs,
    Slabs,
    Spectrum,
    ends,
    inner,
    triangle_ends,
    without,
)
from narrow_jax.certificates.depth_width.tangent import SLAB, Tangent, restored
from narrow_jax.linalg import HOST, UNIT, column_exponents, has_gap

_FEW = 4
"""Outputs up to which the slabs of D are multiplied as fast as its factors are."""
_REFINEMENTS = 20
_STEPS = 4000

Gram = Callable[[], np.ndarray]
"""The upper triangle of RᵀR."""

Triangle = Callable[[Slabs, int, Gram | None], np.ndarray]
"""R from slabs, their size and, where it is shorter than by them, RᵀR."""

Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Columns of D, and matrices A and B: the rows of A ⊗ B are vectors there."""


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
        self.spectrum = _as_certain_as(cutoffs(d).spectrum(values, cutoff, _structural_rank(d, null)), null)
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
        return ends(linalg.svdvals(matrix, overwrite_a=True), len(self._core))


class Tall:
    """From the triangle of D without its known null directions: D = Q (0 R) Hᵀ, Q and H orthogonal."""

    def __init__(self, d: Tangent, cutoff: str, triangle: Triangle) -> None:
        """Factorise D from slabs of samples."""
        self._d, self._null, self._triangle = d, NullSpace(d), triangle
        size = self._null.size
        r = np.zeros((0, 0))
        if size:
            short = (lambda: self._null.reduced_gram(d.column_gram())) if d.outputs.shape[1] > _FEW else None
            r = triangle(lambda: map(self._null.reduced, d.row_slabs()), size, short)
        self._core = Core.of(r, cutoffs(d), cutoff, _structural_rank(d, self._null))
        self.spectrum = _as_certain_as(self._core.spectrum, self._null)

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
        r = self._triangle(lambda: (np.array(columns[:, part], order="F") for part in parts), rank, None)
        return triangle_ends(r, rank)

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
        core = Core.of(triangle(d), cutoffs(d), cutoff, _structural_rank(d, None))
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
        return triangle_ends(self._triangle(restored(self._d, t)), rank)


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


def is_tall(d: Tangent) -> bool:
    """Whether the columns, less one null direction a hidden unit, are no more than the rows."""
    return d.columns - sum(w.shape[1] for w in d.weights[:-1]) <= d.rows


def cutoffs(d: Tangent) -> Cutoffs:
    """Return what the cutoffs need to know of D."""
    lengths = np.concatenate([d.row_norms(), d.column_norms()])
    shortest = float(np.min(lengths, where=lengths > 0, initial=np.inf))
    return Cutoffs(d.rows, d.columns, d.row_sum_norm(), shortest)


def _structural_rank(d: Tangent, null: NullSpace | None) -> int:
    """Return the rank that is left by rows of zeros and known null directions."""
    rows = int(np.sum(d.row_norms() > 0))
    return min(rows, d.columns if null is None else null.size)


def _as_certain_as(spectrum: Spectrum, null: NullSpace | None) -> Spectrum:
    """Return the spectrum, unresolved where the known null directions rest on a rank that no gap shows."""
    return spectrum._replace(resolved=spectrum.resolved and (null is None or null.certain))


def _span(d: Tangent, layer: int, units: slice) -> slice:
    inputs = d.weights[layer].shape[0]
    return slice(d.starts[layer] + units.start * inputs, d.starts[layer] + units.stop * inputs)


class _Block(NamedTuple):
    """Null vectors by the parts that they consist of, and whether a gap shows the ranks that they rest on."""

    parts: tuple[Part, ...]
    certain: bool


class _Spaces(NamedTuple):
    """Orthonormal rows that span the row space of a matrix and its null space, and whether a gap tells them apart."""

    row: np.ndarray
    null: np.ndarray
    certain: bool


def null_count(d: Tangent) -> int:
    """Return the number of ``null_directions`` without making them."""
    return sum(len(a) * len(b) for (((_, a, b), *_), _) in _blocks(d))


def null_directions(d: Tangent) -> Float[np.ndarray, "p q"]:
    """Return null vectors of D, of length 1, but those of dead units, whose columns of D are 0."""
    blocks = [np.zeros((0, d.columns))]
    for parts, _ in _blocks(d):
        vectors = np.zeros((len(parts[0][1]) * len(parts[0][2]), d.columns))
        for columns, a, b in parts:
            vectors[:, columns] = np.kron(a, b)
        vectors /= np.sqrt(np.einsum("qp,qp->q", vectors, vectors))[:, None]
        blocks.append(vectors)
    return np.concatenate(blocks).T


def _blocks(d: Tangent) -> Iterator[_Block]:
    """Yield independent null vectors."""
    for layer, slopes in enumerate(d.slopes):
        inputs = np.flatnonzero(d.features[layer].any(axis=0))
        outputs = np.flatnonzero(d.sensitivities[layer + 1].any(axis=(0, 1)))
        if inputs.size and outputs.size:
            for units in _equal_columns(slopes):
                yield from _exchanges(d, layer, inputs, units, outputs)
            yield from _unseen(d, layer, inputs)


def _equal_columns(slopes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the units of each pattern of slopes but that of dead units."""
    live = np.flatnonzero(slopes.any(axis=0))
    _, pattern = np.unique(slopes[:, live], axis=1, return_inverse=True)
    for index in range(int(np.max(pattern, initial=-1)) + 1):
        yield live[pattern.ravel() == index]


def _exchanges(
    d: Tangent, layer: int, inputs: np.ndarray, units: np.ndarray, outputs: np.ndarray
) -> Iterator[_Block]:
    """Yield independent null vectors of units with equal slopes; A runs over rᵀc, rows r of W_in and c of W_outᵀ."""
    w_in, w_out = _into(d, layer, inputs, units), _out_of(d, layer, units, outputs)
    into, out = _columns(d, layer, inputs, units), _columns(d, layer + 1, units, outputs)
    (r, unfed, sure_of_r), (c, unread, sure_of_c) = _spaces(w_in), _spaces(w_out.T)
    if r.size and c.size:
        parts = (into, c, HOST.matmul(r, w_in.T)), (out, -HOST.matmul(c, w_out), r)
        yield _Block(parts, sure_of_r and sure_of_c)
    if unread.size:
        yield _Block(((into, unread, np.eye(len(inputs))),), sure_of_c)
    if unfed.size:
        yield _Block(((out, np.eye(len(outputs)), unfed),), sure_of_r)


def _into(d: Tangent, layer: int, inputs: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return the weights that take the features below, as they are scaled in d, to those of the units."""
    here, below = d.feature_exponents[layer + 1][units], d.feature_exponents[layer][inputs]
    return np.ldexp(d.weights[layer][np.ix_(inputs, units)], below[:, None] - here[None, :])


def _out_of(d: Tangent, layer: int, units: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return the weights that take the sensitivities above, as they are scaled in d, to those of the units."""
    here, above = d.sensitivity_exponents[layer][units], d.sensitivity_exponents[layer + 1][outputs]
    return np.ldexp(d.weights[layer + 1][np.ix_(units, outputs)], above[None, :] - here[:, None])


def _unseen(d: Tangent, layer: int, inputs: np.ndarray) -> Iterator[_Block]:
    """Yield what the samples that reach a unit do not see of its inputs."""
    for unit, reached in enumerate((d.sensitivities[layer] != 0).any(axis=1).T):
        if 0 < reached.sum() < len(inputs):
            _, unseen, sure = _spaces(d.features[layer][np.ix_(reached, inputs)])
            columns = _columns(d, layer, inputs, np.array([unit]))
            yield _Block(((columns, np.ones((1, 1)), unseen),), sure)


def _columns(d: Tangent, layer: int, inputs: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return the columns of D for the weights from these inputs into these units, by unit, then by input."""
    return d.starts[layer] + np.add.outer(units * len(d.weights[layer]), inputs).ravel()


def _spaces(a: np.ndarray) -> _Spaces:
    """Return row and null space; neither changes with the scale of a row, so each is brought to length about one."""
    a = np.ldexp(a, -column_exponents(a.T)[:, None])
    _, values, right = linalg.svd(a, full_matrices=a.shape[0] < a.shape[1])
    cutoff = values[0] * max(a.shape) * 2 * UNIT
    rank = int(np.sum(values > cutoff))
    return _Spaces(right[:rank], right[rank:], has_gap(values, cutoff))


class NullSpace:
    """The directions of the weights that are known not to move the outputs, and what is left of D without them."""

    def __init__(self, d: Tangent) -> None:
        """Find columns that are 0, and an orthogonal H whose first columns span the null vectors of the others."""
        self.used = d.column_norms() > 0
        vectors = np.asfortranarray(null_directions(d)[self.used])
        self.count = 0
        if vectors.size:  # no column is left of a dead net
            self._reflectors, _, self._tau, _, _ = lapack.dgeqp3(vectors, overwrite_a=1)
            pivots = np.abs(np.diag(self._reflectors))
            self.count = int(np.sum(pivots > 1e-8 * pivots.max()))
        self.certain = all(block.certain for block in _blocks(d))

    @property
    def size(self) -> int:
        """Return the columns that are left."""
        return int(self.used.sum()) - self.count

    def reduced(self, slab: np.ndarray) -> np.ndarray:
        """Return the part of Hᵀ(Dᵀ) that is not known to be 0, for a slab of Dᵀ."""
        slab = np.asfortranarray(slab[self.used]) if not self.used.all() else slab
        return np.asfortranarray(self._apply(slab, "T")[self.count :])

    def reduced_gram(self, upper: np.ndarray) -> np.ndarray:
        """Return the upper triangle of what is left of DᵀD."""
        gram = upper + np.triu(upper, 1).T
        return np.triu(self.reduced(self.reduced(gram).T))

    def expanded(self, v: np.ndarray) -> np.ndarray:
        """Return the weights H(0, v): of a vector, or of the columns of a matrix."""
        padded = np.zeros((int(self.used.sum()), *v.shape[1:]), order="F")
        padded[self.count :] = v
        moved = self._apply(padded.reshape(len(padded), -1, order="F"), "N").reshape(padded.shape)
        if self.used.all():
            return moved
        weights = np.zeros((self.used.size, *v.shape[1:]), order="F")
        weights[self.used] = moved
        return weights

    def _apply(self, c: np.ndarray, trans: str) -> np.ndarray:
        if not self.count:
            return c
        a, tau = self._reflectors[:, : self.count], self._tau[: self.count]
        work = int(lapack.dormqr("L", trans, a, tau, c, -1)[1][0])
        return lapack.dormqr("L", trans, a, tau, c, work, overwrite_c=1)[0]
