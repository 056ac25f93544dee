"""What all Jacobian operators share: products, Gram matrix and bounds by way of the evaluated matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from narrow_jax import _rounding as fl
from narrow_jax._operators import EvaluatedJacobian


class Evaluating(ABC):
    """Mixin: the public products of an operator that knows how to ``evaluate`` itself.

    All work in float64 where x64 is on, and in the default precision elsewhere.
    """

    @abstractmethod
    def evaluate(self, dtype: str = "float64") -> EvaluatedJacobian:
        """Return the fixed matrix; float64 has to be on for it."""

    def mv(self, p: Any) -> Any:
        """Return Jp for p of shape (columns,)."""
        return self._true_scale(_mv, p)

    def rmv(self, u: Any) -> Any:
        """Return Jᵀu for u of shape (rows,)."""
        return self._true_scale(_rmv, u)

    def gram(self) -> Any:
        """Return JJᵀ, of shape (rows, rows)."""
        return self._true_scale(_gram)

    def dense(self) -> Any:
        """Return the whole matrix; everything else avoids it."""
        blocks = list(self._column_blocks())
        return jnp.concatenate(blocks, axis=1)

    def perturbation(self) -> Any:
        """Return a bound of ‖J − Ĵ‖₂, Ĵ being the matrix that the products use; infinite if none is known."""
        return self._true_scale(_perturbation)

    def gram_error(self) -> Any:
        """Return a bound of ‖computed gram − ĴĴᵀ‖₂."""
        return self._true_scale(_gram_error)

    def _column_blocks(self) -> Iterator[Any]:
        with jax.enable_x64(True):
            evaluated = self.evaluate()
        left = evaluated.shape[1]
        for index in range(evaluated.block_count):
            with jax.enable_x64(True):
                block = _block(evaluated, index, min(left, evaluated.block_width))
            left -= block.shape[1]
            yield _ambient(block)

    def _true_scale(self, product: Any, *vectors: Any) -> Any:
        with jax.enable_x64(True):
            result = product(self.evaluate(), *(jnp.asarray(vector, jnp.float64) for vector in vectors))
        return _ambient(result)


# one program a product, in true scale


@jax.jit
def _mv(j: EvaluatedJacobian, p: Any) -> Any:
    return jnp.ldexp(j.mv(p), j.exponent)


@jax.jit
def _rmv(j: EvaluatedJacobian, u: Any) -> Any:
    return jnp.ldexp(j.rmv(u), j.exponent)


@jax.jit
def _gram(j: EvaluatedJacobian) -> Any:
    lower = jnp.tril(j.gram(fl).matrix)
    return jnp.ldexp(lower + jnp.tril(lower, -1).T, 2 * j.exponent)


@jax.jit
def _perturbation(j: EvaluatedJacobian) -> Any:
    return jnp.ldexp(j.gram(fl).perturbation, j.exponent)


@jax.jit
def _gram_error(j: EvaluatedJacobian) -> Any:
    return jnp.ldexp(j.gram(fl).error, 2 * j.exponent)


@jax.jit(static_argnames="columns")
def _block(j: EvaluatedJacobian, index: Any, columns: int) -> Any:
    return jnp.ldexp(j.block(index), j.exponent)[:, :columns]


def _ambient(value: Any) -> Any:
    return value.astype(jnp.zeros((), float).dtype)
