"""Matrices that come in column blocks: stored ones, and those that are computed anew for each pass."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Array, Float
from narrow_jax.linalg import Bounds, EvaluatedJacobian, Gram, Products, collatz_wielandt
from narrow_jax.linalg import rounding as fl


class Blocked(ABC):
    """Products, Gram matrix and bounds of Ĵ from ``block(i)``; no more than a block is held at once.

    Ĵ is the matrix as computed, so the perturbation is 0, or infinite where the scaling by 2^exponent is not exact.
    ``block(i)`` has to give the same bits each time.
    """

    exponent: Array
    perturbation: Float[Array, ""]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""

    @property
    @abstractmethod
    def block_width(self) -> int:
        """Return the columns in a block."""

    @abstractmethod
    def block(self, index: Any) -> Float[Array, "r b"]:
        """Return a column block; the last is filled up with columns of 0."""

    @property
    def block_count(self) -> int:
        """Return the number of column blocks."""
        return math.ceil(self.shape[1] / self.block_width)

    def transposed(self) -> Stored:
        """Return the transpose, stored: for more rows than columns."""
        return stored_transpose(self)

    def gram(self, products: Products) -> Gram:
        """Return K̂ = Σ_b Ĵ_bĴ_bᵀ and its bounds: γ of block width + number of blocks."""
        matrix = products.total(lambda i: products.outer(_block(self, i)), self.block_count)
        majorant, trace, error = _majorant(self)
        return Gram(matrix, Bounds(majorant, trace, error, self.perturbation))

    def mv(self, p: Float[Array, " p"]) -> Float[Array, " r"]:
        """Return Ĵp."""
        return _mv(self, p)[0]

    def rmv(self, u: Float[Array, " r"]) -> Float[Array, " p"]:
        """Return Ĵᵀu."""
        parts = jax.lax.map(
            lambda i: fl.matmul(self.block(i).T, u[:, None])[:, 0], _indices(self.block_count)
        )
        return parts.reshape(-1)[: self.shape[1]]

    def mv_bounded(self, p: Float[Array, " p"]) -> tuple[Array, Array]:
        """Return y and a bound of ‖y − Ĵp‖: γ of the product of absolute values."""
        y, absolute = _mv(self, p)
        terms = fl.gamma(self.block_width + self.block_count + 1)
        return y, fl.up(terms * (1 + terms) * fl.norm_up(absolute))

    def rmv_bounded(self, u: Float[Array, " r"]) -> tuple[Array, Array]:
        """Return S and a bound of ‖S − Ĵᵀu‖, the leading bits multiplied exactly."""

        def part(i: Array) -> tuple[Array, Array]:
            product, error = fl.split_product(self.block(i).T, u[:, None])
            return product[:, 0], error[:, 0]

        products, errors = jax.lax.map(part, _indices(self.block_count))
        return products.reshape(-1)[: self.shape[1]], fl.norm_up(errors)


@jax.jit
def _block(j: Blocked, index: Any) -> Array:
    return j.block(index)


# indices are int32: XLA lowers what depends on them where x64 may be off


def _indices(count: int) -> Array:
    return jnp.arange(count, dtype=jnp.int32)


def _loop(count: int, body: Callable[[Array, Any], Any], state: Any) -> Any:
    return jax.lax.fori_loop(np.int32(0), np.int32(count), body, state)


def _mv(j: Blocked, p: Array) -> tuple[Array, Array]:
    """Return Ĵp and |Ĵ||p|."""
    width, count = j.block_width, j.block_count
    parts = jnp.pad(p, (0, count * width - p.size)).reshape(count, width)

    def add(i: Array, total: tuple[Array, Array]) -> tuple[Array, Array]:
        block, part = j.block(i), parts[i][:, None]
        return (
            total[0] + fl.matmul(block, part)[:, 0],
            total[1] + fl.matmul(jnp.abs(block), jnp.abs(part))[:, 0],
        )

    zero = jnp.zeros(j.shape[0], p.dtype)
    return _loop(count, add, (zero, zero))


@jax.jit
def _majorant(j: Blocked) -> tuple[Array, Array, Array]:
    """Return the bounds of the Gram matrix: majorant, trace and error."""
    rows, width, count = j.shape[0], j.block_width, j.block_count
    dtype = jax.eval_shape(j.block, 0).dtype

    def apply(y: Array) -> Array:
        def add(i: Array, total: Array) -> Array:
            block = jnp.abs(j.block(i))
            return total + fl.matmul(block, fl.matmul(block.T, y[:, None]))[:, 0]

        return _loop(count, add, jnp.zeros(rows, dtype))

    def squares(i: Array, total: Array) -> Array:
        return total + jnp.sum(j.block(i) ** 2, axis=1)

    sizes = _loop(count, squares, jnp.zeros(rows, dtype))
    trace = fl.up(fl.stable_sum(sizes) * (1 + fl.gamma(width + count + 2 + fl.sum_terms(rows))))
    majorant = jnp.minimum(trace, collatz_wielandt(apply, sizes, rows + width + count + 2))
    return majorant, trace, fl.up(fl.gamma(width + count) * majorant)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stored(Blocked):
    """A matrix in memory, scaled to entries of size one."""

    matrix: Float[Array, "r p"]
    exponent: Array
    perturbation: Float[Array, ""]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        rows, columns = self.matrix.shape
        return rows, columns

    @property
    def block_width(self) -> int:
        """Return the columns in a block: about 3 a row."""
        return min(self.matrix.shape[1], max(3 * self.matrix.shape[0], 256))

    def block(self, index: Any) -> Float[Array, "r b"]:
        """Return a column block; the last is filled up with columns of 0."""
        padding = self.block_count * self.block_width - self.matrix.shape[1]
        padded = jnp.pad(self.matrix, ((0, 0), (0, padding)))
        return jax.lax.dynamic_slice_in_dim(
            padded, jnp.int32(index) * self.block_width, self.block_width, axis=1
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Recomputed(Blocked):
    """A matrix too large to store: ``columns(data, i)`` computes a block from the data each time.

    Args:
        data: what ``columns`` takes.
        exponent: the matrix is Ĵ·2^exponent.
        perturbation: 0, or infinite where the scaling is not exact.
        columns: (data, i) ↦ block i before scaling.
        size: (rows, columns).
        width: columns in a block.
    """

    data: Any
    exponent: Array
    perturbation: Float[Array, ""]
    columns: Callable[[Any, Any], Any] = field(metadata={"static": True})
    size: tuple[int, int] = field(metadata={"static": True})
    width: int = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        return self.size

    @property
    def block_width(self) -> int:
        """Return the columns in a block."""
        return self.width

    def block(self, index: Any) -> Float[Array, "r b"]:
        """Return a column block; the last is filled up with columns of 0."""
        return fl.scaled(self.columns(self.data, index), -self.exponent)


@jax.jit
def stored(matrix: Float[Array, "r p"]) -> Stored:
    """Return a matrix scaled to entries of size one."""
    exponent = fl.power_of_two(matrix)
    return Stored(fl.scaled(matrix, -exponent), exponent, _unless(_scales_exactly(matrix)))


def recomputed(
    data: Any, columns: Callable[[Any, Any], Any], size: tuple[int, int], width: int
) -> Recomputed:
    """Return a matrix of blocks ``columns(data, i)``, scaled to entries of size one by a pass over them."""
    indices = _indices(math.ceil(size[1] / width))

    def measured(index: Any) -> tuple[Array, Array]:
        block = columns(data, index)
        return jnp.max(jnp.abs(block)), _scales_exactly(block)

    largest, exact = jax.lax.map(measured, indices)
    return Recomputed(data, fl.power_of_two(largest), _unless(jnp.all(exact)), columns, size, width)


def _scales_exactly(values: Array) -> Array:
    return fl.carried(values) if values.dtype == jnp.float64 else jnp.array(False)


def _unless(exact: Array) -> Array:
    """Return the perturbation of a scaling."""
    return jnp.where(exact, 0.0, jnp.inf)


@jax.jit
def stored_transpose(j: EvaluatedJacobian) -> Stored:
    """Return the transpose of an evaluated matrix, each entry as its blocks round it."""
    blocks = jax.lax.map(j.block, _indices(j.block_count))
    rows, columns = j.shape
    matrix = jnp.moveaxis(blocks, 0, 1).reshape(rows, -1)[:, :columns]
    return Stored(matrix.T, j.exponent, jnp.zeros(()))
