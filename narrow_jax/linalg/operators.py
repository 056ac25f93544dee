"""What operators evaluate to: matrices that come in column blocks, with what is proven about their products.

A ``Jacobian`` is what users hold: parameters and data as given. ``evaluate()``, called under float64, fixes its matrix:
an ``EvaluatedJacobian`` Ĵ, scaled by a power of two to entries of size one, with bounds for everything that
separates its computed Gram matrix and products from the exact ones, and Ĵ from the exact Jacobian.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Array, Computed, Float, Int
from narrow_jax.linalg import arrays
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.algebra import Products, Square
from narrow_jax.linalg.arrays import accumulate, compiled, each, module, xp

ENTRIES = 2**18
"""Of a block of a stored matrix with few rows: smaller ones cost more to take than to compute with."""


class Bounds(NamedTuple):
    """What is proven about Ĵ and its computed Gram matrix K̂.

    Args:
        majorant: g ≥ ‖|Ĵ||Ĵ|ᵀ‖₂ ≥ ‖Ĵ‖₂².
        trace: an upper bound of ‖Ĵ‖_F².
        error: ε_G ≥ ‖K̂ − ĴĴᵀ‖₂, K̂ made symmetric from its lower triangle.
        perturbation: δ ≥ ‖J − Ĵ‖₂ for the exact J; infinite if none is known.
    """

    majorant: Float[Computed, ""]
    trace: Float[Computed, ""]
    error: Float[Computed, ""]
    perturbation: Float[Computed, ""]


class Gram(NamedTuple):
    """The computed Gram matrix K̂ of Ĵ, whose strict upper triangle may hold anything, and its bounds."""

    matrix: Square
    bounds: Bounds


class EvaluatedJacobian(ABC):
    """Ĵ·2^exponent: one fixed float64 matrix, with bounds of what rounding did to its products.

    All products come from ``block``, which has to give the same bits each time: no more than a block is held at once.
    A matrix with a structure has better ones.
    """

    exponent: Int[Computed, ""]
    cheap_gram: ClassVar[bool] = False
    """Whether to form K̂ costs little beside a factorisation of many rows: then it need not be kept."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""

    @property
    @abstractmethod
    def block_width(self) -> int:
        """Return how many columns a block has."""

    @abstractmethod
    def block(self, index: int | Int[Computed, ""]) -> Float[Computed, "r b"]:
        """Return a column block; the last is filled up with columns of 0."""

    @abstractmethod
    def gram(self, products: Products) -> Gram:
        """Return the Gram matrix with its bounds."""

    def gram_rows(self, start: Any, count: int) -> Float[Computed, "c r"]:
        """Return so many rows of K̂, from a first one on: as far from ĴĴᵀ as its bounds say."""

        def add(i: Any, total: Computed) -> Computed:
            block = self.block(i)
            return total + fl.matmul(arrays.rows(block, start, count), block.T)

        zero = jnp.zeros((count, self.shape[0]), jax.eval_shape(lambda: self.block(0)).dtype)
        return accumulate(self.block_count, add, zero)

    @abstractmethod
    def distance(self) -> Float[Computed, ""]:
        """Return δ ≥ ‖J − Ĵ‖₂ for the exact J, over 2^exponent, without the Gram matrix; infinite if none is known."""

    @property
    def block_count(self) -> int:
        """Return how many column blocks there are."""
        return math.ceil(self.shape[1] / self.block_width)

    def mv(self, p: Float[Computed, " p"]) -> Float[Computed, " r"]:
        """Return Ĵp."""
        return self._mv(p)[0]

    def rmv(self, u: Float[Computed, " r"]) -> Float[Computed, " p"]:
        """Return Ĵᵀu."""
        parts = each(lambda i: fl.matmul(self.block(i).T, u[:, None])[:, 0], self.block_count, (self, u))
        return parts.reshape(-1)[: self.shape[1]]

    def mv_bounded(self, p: Float[Computed, " p"]) -> tuple[Float[Computed, " r"], Float[Computed, ""]]:
        """Return y and a bound of ‖y − Ĵp‖: γ of the product of absolute values."""
        y, absolute = self._mv(p)
        terms = fl.gamma(self.block_width + self.block_count + 1)
        return y, fl.up(terms * (1 + terms) * fl.norm_up(absolute))

    def rmv_bounded(self, u: Float[Computed, " r"]) -> tuple[Float[Computed, " p"], Float[Computed, ""]]:
        """Return S and a bound of ‖S − Ĵᵀu‖, the leading bits multiplied exactly."""

        def part(i: Any) -> tuple[Computed, Computed]:
            product, error = fl.split_product(self.block(i).T, u[:, None])
            return product[:, 0], error[:, 0]

        products, errors = each(part, self.block_count, (self, u))
        return products.reshape(-1)[: self.shape[1]], fl.norm_up(errors)

    @compiled
    def transposed(self) -> Stored:
        """Return the transpose, stored, each entry as its blocks round it: for more rows than columns."""
        blocks = each(self.block, self.block_count, self)
        rows, columns = self.shape
        matrix = xp.moveaxis(blocks, 0, 1).reshape(rows, -1)[:, :columns]
        return Stored(matrix.T, self.exponent, np.zeros(()))

    def _mv(self, p: Float[Computed, " p"]) -> tuple[Float[Computed, " r"], Float[Computed, " r"]]:
        """Return Ĵp and |Ĵ||p|."""
        width, count = self.block_width, self.block_count
        parts = xp.pad(p, (0, count * width - p.size)).reshape(count, width)

        def add(i: Any, total: tuple[Computed, Computed]) -> tuple[Computed, Computed]:
            block, part = self.block(i), parts[i][:, None]
            return (
                total[0] + fl.matmul(block, part)[:, 0],
                total[1] + fl.matmul(xp.abs(block), xp.abs(part))[:, 0],
            )

        zero = module(self, p).zeros(self.shape[0], p.dtype)
        return accumulate(count, add, (zero, zero))


def gram_by_blocks(j: EvaluatedJacobian, products: Products, perturbation: Float[Computed, ""]) -> Gram:
    """Return K̂ = Σ_b Ĵ_bĴ_bᵀ and its bounds: γ of block width + number of blocks."""
    matrix = products.total(lambda i: products.outer(block(j, i)), j.block_count)
    majorant, trace, error = _majorant(j)
    return Gram(matrix, Bounds(majorant, trace, error, perturbation))


@compiled
def block(j: EvaluatedJacobian, index: int | Int[Computed, ""]) -> Float[Computed, "r b"]:
    """Return a column block, compiled."""
    return j.block(index)


def hadamard_rows(
    x: Float[Computed, "n a"], d: Float[Computed, "r b"], start: Any, count: int
) -> tuple[Array, Array, Array]:
    """Return the rows of (xxᵀ ⊗ 11ᵀ) ∘ (ddᵀ) of so many samples, and bounds of the norms of these rows of both."""
    n, rows = len(x), len(d)
    k = rows // n
    inputs = fl.matmul(jax.lax.dynamic_slice_in_dim(x, start, count), x.T)
    units = fl.matmul(jax.lax.dynamic_slice_in_dim(d, start * k, count * k), d.T)
    product = units.reshape(count, k, n, k) * inputs[:, None, :, None]
    return product.reshape(count * k, rows), fl.norm_up(inputs), fl.norm_up(units)


def indices(count: int) -> Int[Array, " b"]:
    """Return 0 … count − 1, over which a compiled loop may go; int32: XLA lowers what depends on them without x64."""
    return jnp.arange(count, dtype=jnp.int32)


@compiled
def _majorant(j: EvaluatedJacobian) -> tuple[Computed, Computed, Computed]:
    """Return the bounds of the Gram matrix: majorant, trace and error."""
    rows, width, count = j.shape[0], j.block_width, j.block_count
    zeros = xp.zeros_like(j.block(0)[:, 0])

    def apply(y: Computed) -> Computed:
        def add(i: Any, total: Computed) -> Computed:
            block = xp.abs(j.block(i))
            return total + fl.matmul(block, fl.matmul(block.T, y[:, None]))[:, 0]

        return accumulate(count, add, zeros)

    def squares(i: Any, total: Computed) -> Computed:
        return total + xp.sum(j.block(i) ** 2, axis=1)

    sizes = accumulate(count, squares, zeros)
    trace = fl.up(fl.stable_sum(sizes) * (1 + fl.gamma(width + count + 2 + fl.sum_terms(rows))))
    majorant = xp.minimum(trace, fl.collatz_wielandt(apply, sizes, rows + width + count + 2))
    return majorant, trace, fl.up(fl.gamma(width + count) * majorant)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stored(EvaluatedJacobian):
    """A matrix in memory, scaled to entries of size one.

    Args:
        matrix: Ĵ.
        exponent: the matrix that it stands for is Ĵ·2^exponent.
        perturbation: 0, or infinite where the scaling is not exact.
    """

    matrix: Float[Computed, "r p"]
    exponent: Int[Computed, ""]
    perturbation: Float[Computed, ""]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        rows, columns = self.matrix.shape
        return rows, columns

    @property
    def block_width(self) -> int:
        """Return the columns in a block: about 3 a row, of few rows more."""
        rows, columns = self.matrix.shape
        return min(columns, max(3 * rows, min(4096, ENTRIES // rows), 256))

    def distance(self) -> Float[Computed, ""]:
        """Return δ."""
        return self.perturbation

    def block(self, index: int | Int[Computed, ""]) -> Float[Computed, "r b"]:
        """Return a column block; the last is filled up with columns of 0."""
        width = self.block_width
        if isinstance(self.matrix, np.ndarray):
            part = self.matrix[:, index * width : (index + 1) * width]
            missing = width - part.shape[1]
            return np.pad(part, ((0, 0), (0, missing))) if missing else part
        padding = self.block_count * width - self.matrix.shape[1]
        padded = jnp.pad(self.matrix, ((0, 0), (0, padding)))
        return jax.lax.dynamic_slice_in_dim(padded, jnp.int32(index) * width, width, axis=1)

    def gram(self, products: Products) -> Gram:
        """Return K̂ and its bounds."""
        return gram_by_blocks(self, products, self.perturbation)
