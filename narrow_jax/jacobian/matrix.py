"""A Jacobian that is given as a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax.jacobian.blocks import Stored, stored
from narrow_jax.jacobian.operator import Evaluating
from narrow_jax.linalg import rounding as fl


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExplicitJacobian(Evaluating):
    """A matrix as a Jacobian operator. Made by ``explicit``."""

    matrix: Any

    encloses = "the given matrix"

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        rows, columns = jnp.shape(self.matrix)
        return rows, columns

    @property
    def dtype(self) -> Any:
        """Return the dtype of the matrix."""
        return jnp.result_type(self.matrix)

    def evaluate(self, dtype: str = "float64") -> Stored:
        """Return the matrix scaled to entries of size one."""
        return stored(fl.widened(self.matrix, dtype))

    def bilinear(self, u: Any, p: Any) -> Any:
        """Return uᵀJp in the dtype at hand."""
        return jnp.vdot(u, fl.matmul(jnp.asarray(self.matrix), p[:, None])[:, 0])

    def column_blocks(self) -> Iterator[Any]:
        """Yield the matrix in blocks of consecutive columns."""
        return self._column_blocks()


def explicit(matrix: Any) -> ExplicitJacobian:
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
    matrix = _checks.real_matrix("matrix", matrix)
    if 0 in matrix.shape:
        raise ValueError(f"matrix has shape {matrix.shape}; expected at least one row and one column")
    _checks.finite("matrix", matrix)
    return ExplicitJacobian(matrix)
