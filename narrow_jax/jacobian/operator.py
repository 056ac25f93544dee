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
        return self._true_scale(lambda j: j.mv(jnp.asarray(p, jnp.float64)))

    def rmv(self, u: Any) -> Any:
        """Return Jᵀu for u of shape (rows,)."""
        return self._true_scale(lambda j: j.rmv(jnp.asarray(u, jnp.float64)))

    def gram(self) -> Any:
        """Return JJᵀ, of shape (rows, rows)."""
        return self._true_scale(lambda j: _symmetric(j.gram(fl).matrix), power=2)

    def dense(self) -> Any:
        """Return the whole matrix; everything else avoids it."""
        blocks = list(self._column_blocks())
        return jnp.concatenate(blocks, axis=1)

    def perturbation(self) -> Any:
        """Return a bound of ‖J − Ĵ‖₂, Ĵ being the matrix that the products use; infinite if none is known."""
        return self._true_scale(lambda j: j.gram(fl).perturbation)

    def gram_error(self) -> Any:
        """Return a bound of ‖computed gram − ĴĴᵀ‖₂."""
        return self._true_scale(lambda j: j.gram(fl).error, power=2)

    def _column_blocks(self) -> Iterator[Any]:
        with jax.enable_x64(True):
            evaluated = self.evaluate()
        left = evaluated.shape[1]
        for index in range(evaluated.block_count):
            with jax.enable_x64(True):
                block = jnp.ldexp(evaluated.block(index), evaluated.exponent)[:, :left]
            left -= block.shape[1]
            yield _ambient(block)

    def _true_scale(self, product: Any, power: int = 1) -> Any:
        with jax.enable_x64(True):
            evaluated = self.evaluate()
            result = jnp.ldexp(product(evaluated), power * evaluated.exponent)
        return _ambient(result)


def _symmetric(lower: Any) -> Any:
    return jnp.tril(lower) + jnp.tril(lower, -1).T


def _ambient(value: Any) -> Any:
    return value.astype(jnp.zeros((), float).dtype)
