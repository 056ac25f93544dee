"""A Jacobian that is given as a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax._typing import Array, Float, HostArray, Leaf
from narrow_jax.jacobian.blocks import stored
from narrow_jax.linalg import Jacobian, Stored, context
from narrow_jax.linalg import rounding as fl


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExplicitJacobian(Jacobian):
    """A matrix as a Jacobian operator. Made by ``explicit``."""

    matrix: Leaf

    encloses = "the given matrix"

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        rows, columns = jnp.shape(self.matrix)
        return rows, columns

    @property
    def dtype(self) -> jnp.dtype:
        """Return the dtype of the matrix."""
        return context.dtype_of(self.matrix)

    def evaluate(self, dtype: str = "float64") -> Stored:
        """Return the matrix scaled to entries of size one."""
        return stored(fl.widened(self.matrix, dtype))

    def bilinear(self, u: Float[HostArray, " r"], p: Float[HostArray, " p"]) -> Float[Array, ""]:
        """Return uᵀJp in the dtype at hand."""
        return jnp.vdot(u, fl.matmul(jnp.asarray(self.matrix), jnp.asarray(p)[:, None])[:, 0])


def explicit(matrix: object) -> ExplicitJacobian:
    """Return a matrix as a Jacobian operator: rows (sample, output), one column a weight.

    Args:
        matrix: (rows, columns), floating.

    Raises:
        ValueError: not a matrix, no row, non-finite entries.
        TypeError: not real floating numbers.

    Example:
        >>> import numpy as np
        >>> explicit(np.ones((2, 3))).shape
        (2, 3)
    """
    entries = _checks.real_matrix("matrix", matrix)
    if 0 in entries.shape:
        raise ValueError(f"matrix has shape {entries.shape}; expected at least one row and one column")
    _checks.finite("matrix", entries)
    return ExplicitJacobian(entries)
