"""What all Jacobian operators share: products, Gram matrix and bounds by way of the evaluated matrix."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax._typing import Array
from narrow_jax.linalg import EvaluatedJacobian, isolated
from narrow_jax.linalg import rounding as fl


class Evaluating(ABC):
    """Mixin: the public products of an operator that knows how to ``evaluate`` itself.

    All work in float64 where x64 is on, and in the default precision elsewhere. The products are differentiable in
    the operator's arrays and in the vectors; the bounds are not.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""

    @abstractmethod
    def evaluate(self, dtype: str = "float64") -> EvaluatedJacobian:
        """Return the fixed matrix; float64 has to be on for it."""

    @abstractmethod
    def bilinear(self, u: Any, p: Any) -> Any:
        """Return uᵀJp in the dtype at hand, differentiable."""

    @property
    @abstractmethod
    def dtype(self) -> Any:
        """Return the dtype of ``bilinear``."""

    def mv(self, p: Any) -> Any:
        """Return Jp for p of shape (columns,)."""
        return _product(_mv, _plain_mv, self, p)

    def rmv(self, u: Any) -> Any:
        """Return Jᵀu for u of shape (rows,)."""
        return _product(_rmv, _plain_rmv, self, u)

    def gram(self) -> Any:
        """Return JJᵀ, of shape (rows, rows)."""
        return _product(_gram, _plain_gram, self)

    def dense(self) -> Any:
        """Return the whole matrix; everything else avoids it."""
        return jnp.concatenate(list(self._column_blocks()), axis=1)

    def perturbation(self) -> Any:
        """Return a bound of ‖J − Ĵ‖₂, Ĵ being the matrix that the products use; infinite if none is known."""
        return _product(_perturbation, _no_derivative, self)

    def gram_error(self) -> Any:
        """Return a bound of ‖computed gram − ĴĴᵀ‖₂."""
        return _product(_gram_error, _no_derivative, self)

    def _column_blocks(self) -> Iterator[Any]:
        if _traced(self):  # one block: how many there are is not known outside of the float64 context
            yield _product(_dense, _plain_dense, self)
            return
        with jax.enable_x64(True):
            evaluated = self.evaluate()
        left, ambient = evaluated.shape[1], jnp.zeros((), float).dtype
        for index in range(evaluated.block_count):
            with jax.enable_x64(True):
                block = _block(evaluated, index, min(left, evaluated.block_width), ambient)
            left -= block.shape[1]
            yield block


def _traced(*arguments: Any) -> bool:
    return any(_checks.concrete(leaf) is None for leaf in jax.tree.leaves(arguments))


def _product(exact: Callable[..., Any], plain: Callable[..., Any], J: Any, *vectors: Any) -> Any:
    """Return exact(Ĵ, *vectors), computed in float64, with the derivatives of plain(J, *vectors)."""
    ambient = jnp.zeros((), float).dtype

    def run(J: Any, *vectors: Any) -> Any:
        return exact(J.evaluate(), *(jnp.asarray(vector, jnp.float64) for vector in vectors), dtype=ambient)

    number = isolated(run)(J, *vectors)
    if not _traced(J, *vectors):
        return number
    return _follow(plain, number, J, *(jnp.asarray(vector) for vector in vectors))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _follow(plain: Callable[..., Any], number: Any, *arguments: Any) -> Any:
    """Return ``number``, whose derivatives are those of plain(*arguments)."""
    return number


@_follow.defjvp
def _follow_jvp(plain: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any]:
    number, *arguments = primals
    slope = jax.jvp(plain, tuple(arguments), tuple(tangents[1:]))[1]
    return _follow(plain, *primals), slope.astype(number.dtype)


# in the dtype of the weights, outside of any float64 context: a transpose would run outside it anyway


def _plain_mv(J: Any, p: Any) -> Any:
    p = p.astype(J.dtype)
    return jax.grad(lambda u: J.bilinear(u, p))(jnp.zeros(J.shape[0], J.dtype))


def _plain_rmv(J: Any, u: Any) -> Any:
    u = u.astype(J.dtype)
    return jax.grad(lambda p: J.bilinear(u, p))(jnp.zeros(J.shape[1], J.dtype))


def _plain_dense(J: Any) -> Any:
    return jax.vmap(lambda u: _plain_rmv(J, u))(jnp.eye(J.shape[0], dtype=J.dtype))


def _plain_gram(J: Any) -> Any:
    return fl.outer(_plain_dense(J))


def _no_derivative(J: Any) -> Any:
    raise TypeError(
        "perturbation and gram_error are bounds of rounding, which have no derivative; expected a product, such as "
        "mv or gram, where something is differentiated: pass them jax.lax.stop_gradient(J)"
    )


# one program a product, in true scale


@jax.jit(static_argnames="dtype")
def _mv(j: EvaluatedJacobian, p: Any, dtype: Any) -> Any:
    return jnp.ldexp(j.mv(p), j.exponent).astype(dtype)


@jax.jit(static_argnames="dtype")
def _rmv(j: EvaluatedJacobian, u: Any, dtype: Any) -> Any:
    return jnp.ldexp(j.rmv(u), j.exponent).astype(dtype)


@jax.jit(static_argnames="dtype")
def _gram(j: EvaluatedJacobian, dtype: Any) -> Any:
    lower = jnp.tril(j.gram(fl).matrix)
    return jnp.ldexp(lower + jnp.tril(lower, -1).T, 2 * j.exponent).astype(dtype)


@jax.jit(static_argnames="dtype")
def _dense(j: EvaluatedJacobian, dtype: Any) -> Any:
    blocks = [_block(j, index, j.block_width, dtype) for index in range(j.block_count)]
    return jnp.concatenate(blocks, axis=1)[:, : j.shape[1]]


@jax.jit(static_argnames="dtype")
def _perturbation(j: EvaluatedJacobian, dtype: Any) -> Any:
    bound = j.gram(fl).bounds.perturbation
    zero = jnp.zeros((), dtype)  # where Ĵ is J itself
    return jnp.where(bound == 0, zero, _bound(bound, j.exponent, dtype))


@jax.jit(static_argnames="dtype")
def _gram_error(j: EvaluatedJacobian, dtype: Any) -> Any:
    return _bound(j.gram(fl).bounds.error, 2 * j.exponent, dtype)


@jax.jit(static_argnames=("columns", "dtype"))
def _block(j: EvaluatedJacobian, index: Any, columns: int, dtype: Any) -> Any:
    return jnp.ldexp(j.block(index), j.exponent)[:, :columns].astype(dtype)


def _bound(bound: Array, exponent: Array, dtype: Any) -> Array:
    """Return an upper bound in true scale and in another dtype."""
    return fl.cast_up(fl.at_least_normal(jnp.ldexp(bound, exponent)), dtype)
