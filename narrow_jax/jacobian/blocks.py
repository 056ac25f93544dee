"""Matrices that are given entry by entry: stored ones, and those whose column blocks are computed for each pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Array, Bool, Computed, Float, Int
from narrow_jax.linalg import (
    EvaluatedJacobian,
    Gram,
    Products,
    Stored,
    arrays,
    gram_by_blocks,
    indices,
    xp,
)
from narrow_jax.linalg import rounding as fl

Data = TypeVar("Data")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Recomputed(EvaluatedJacobian, Generic[Data]):
    """A matrix too large to store: ``columns(data, i)`` computes a block from the data each time.

    Args:
        data: what ``columns`` takes.
        exponent: the matrix is Ĵ·2^exponent.
        perturbation: 0, or infinite where the scaling is not exact.
        columns: (data, i) ↦ block i before scaling.
        size: (rows, columns).
        width: columns in a block.
    """

    data: Data
    exponent: Int[Computed, ""]
    perturbation: Float[Computed, ""]
    columns: Callable[[Data, int | Array], Array] = field(metadata={"static": True})
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

    def block(self, index: int | Int[Computed, ""]) -> Float[Computed, "r b"]:
        """Return a column block; the last is filled up with columns of 0."""
        return fl.scaled(self.columns(self.data, index), -self.exponent)

    def distance(self) -> Float[Computed, ""]:
        """Return δ."""
        return self.perturbation

    def gram(self, products: Products) -> Gram:
        """Return K̂ and its bounds."""
        return gram_by_blocks(self, products, self.perturbation)


@arrays.compiled
def stored(matrix: Float[Computed, "r p"]) -> Stored:
    """Return a matrix scaled to entries of size one."""
    exponent = fl.power_of_two(matrix)
    return Stored(fl.scaled(matrix, -exponent), exponent, _unless(_scales_exactly(matrix)))


def recomputed(
    data: Data, columns: Callable[[Data, int | Array], Array], size: tuple[int, int], width: int
) -> Recomputed[Data]:
    """Return a matrix of blocks ``columns(data, i)``, scaled to entries of size one by a pass over them."""

    def measured(index: Int[Computed, ""]) -> tuple[Array, Array]:
        block = columns(data, index)
        return jnp.max(jnp.abs(block)), jnp.asarray(_scales_exactly(block))

    largest, exact = jax.lax.map(measured, indices(math.ceil(size[1] / width)))
    return Recomputed(data, fl.power_of_two(largest), _unless(jnp.all(exact)), columns, size, width)


def _scales_exactly(values: Float[Computed, "r p"]) -> Bool[Computed, ""]:
    return fl.carried(values) if values.dtype == np.float64 else np.array(False)


def _unless(exact: Bool[Computed, ""]) -> Float[Computed, ""]:
    """Return the perturbation of a scaling."""
    return xp.where(exact, 0.0, np.inf)
