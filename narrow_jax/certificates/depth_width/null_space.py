"""Known null vectors of D of Theorem 1 of "Effect of Depth and Width on Local Minima": moves without effect.

The weights of a positively homogeneous net may move so without moving the outputs.
Units with the same slopes at every sample act by Ẇ_in W_out + W_in Ẇ_out only, W_in the weights into them and W_out
those out of them. This is 0 for Ẇ_in = W_in A with Ẇ_out = −A W_out (for one unit: its scaling), for any Ẇ_in with
Ẇ_in W_out = 0, and for any Ẇ_out with W_in Ẇ_out = 0, and for sums of these only. And a unit that fewer samples reach
than it has inputs has directions that none of them sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from narrow_jax._typing import Float
from narrow_jax.certificates.depth_width.tangent import Tangent
from narrow_jax.linalg import HOST, UNIT, column_exponents, has_gap

Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Columns of D, and matrices A and B: the rows of A ⊗ B are vectors there."""


class _Block(NamedTuple):
    """Null vectors by the parts that they consist of, and whether a gap shows the ranks that they rest on."""

    parts: tuple[Part, ...]
    certain: bool


class _Spaces(NamedTuple):
    """Orthonormal rows that span the row space of a matrix and its null space, and whether a gap tells them apart."""

    row: np.ndarray
    null: np.ndarray
    certain: bool


def count(d: Tangent) -> int:
    """Return the number of ``directions`` without making them."""
    return sum(len(a) * len(b) for (((_, a, b), *_), _) in _blocks(d))


def directions(d: Tangent) -> Float[np.ndarray, "p q"]:
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
        vectors = np.asfortranarray(directions(d)[self.used])
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
