"""The base of all Jacobian operators: their products, in float64 from the evaluated matrix, and its bounds."""

from __future__ import annotations

import functools
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from narrow_jax import _host
from narrow_jax._typing import Array, Float, HostArray, Int, Params
from narrow_jax.linalg import context
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.context import floats
from narrow_jax.linalg.on_device import DEVICE
from narrow_jax.linalg.operators import Bounds, EvaluatedJacobian


class _Structural(ABCMeta):
    def __instancecheck__(cls, J: object) -> bool:
        """Count whatever has the public members as an operator: a user's own need not inherit, and may delegate."""
        members = (name for name in vars(Jacobian) if not name.startswith("_"))
        return super().__instancecheck__(J) or (cls is Jacobian and all(hasattr(J, name) for name in members))


class Jacobian(metaclass=_Structural):
    """What ``sigma_min`` takes: a pytree of the parameters and data as given.

    A subclass says how to ``evaluate`` its matrix, and its ``bilinear`` form. The products work in float64 where x64 is
    on, and in the default precision elsewhere. They are differentiable in the operator's arrays and in the vectors; the
    bounds are not.
    """

    @property
    @abstractmethod
    def encloses(self) -> str:
        """Return the matrix that an enclosure speaks of."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""

    @property
    @abstractmethod
    def dtype(self) -> jnp.dtype:
        """Return the dtype of ``bilinear``."""

    @abstractmethod
    def evaluate(self, dtype: str = "float64") -> EvaluatedJacobian:
        """Return the fixed matrix; float64 has to be on for it."""

    @abstractmethod
    def bilinear(self, u: Float[HostArray, " r"], p: Float[HostArray, " p"]) -> Float[Array, ""]:
        """Return uᵀJp in the dtype at hand, differentiable."""

    def mv(self, p: Float[HostArray, " p"]) -> Float[Array, " r"]:
        """Return Jp for p of shape (columns,)."""
        return _product("mv", self, p)

    def rmv(self, u: Float[HostArray, " r"]) -> Float[Array, " p"]:
        """Return Jᵀu for u of shape (rows,)."""
        return _product("rmv", self, u)

    def gram(self) -> Float[Array, "r r"]:
        """Return JJᵀ, of shape (rows, rows)."""
        return _product("gram", self)

    def dense(self) -> Float[Array, "r p"]:
        """Return the whole matrix; everything else avoids it."""
        return jnp.concatenate(list(self.column_blocks()), axis=1)

    def perturbation(self) -> Float[Array, ""]:
        """Return a bound of ‖J − Ĵ‖₂, Ĵ being the matrix that the products use; infinite if none is known."""
        return _product("perturbation", self)

    def gram_error(self) -> Float[Array, ""]:
        """Return a bound of ‖computed gram − ĴĴᵀ‖₂."""
        return _product("gram_error", self)

    def column_blocks(self) -> Iterator[Float[Array, "r _"]]:
        """Yield J in blocks of consecutive columns, at most about 3 columns a row each."""
        if _host.traced(self):  # one block: how many there are is not known outside of the float64 context
            yield _product("dense", self)
            return
        ambient = jnp.zeros((), float).dtype
        J = context.at_host(self)
        with jax.enable_x64(True), context.place(J):
            exact = _Exact(floats(J, jnp.asarray).evaluate(), ambient)  # the Ĵ of the products: by JAX
        left, width = self.shape[1], exact.j.block_width
        for index in range(exact.j.block_count):
            with jax.enable_x64(True), context.place(J):
                block = exact.block(index, min(left, width))
            left -= block.shape[1]
            yield block


def _product(name: str, J: Jacobian, *vectors: HostArray) -> Array:
    """Return a product of Ĵ by its name, computed in float64, with the derivatives of that of J."""
    ambient = jnp.zeros((), float).dtype
    if not _host.traced(J, *vectors):
        given = context.at_host((J, *vectors))
        with context.place(given):
            proven = context.on_cpu(given) or not context.emulated()
            return _program(name, ambient, proven=proven)(*given)
    single = _program(name, context.SINGLE, "float32", proven=False)
    unproven = _program(name, ambient, proven=False)
    number = context.by_platform(_program(name, ambient), single, unproven)(J, *vectors)
    return _follow(name, number, *context.in_default_precision((J, *vectors)))


@functools.cache
def _program(name: str, lasting: DTypeLike, dtype: str = "float64", *, proven: bool = True) -> Any:
    def run(J: Jacobian, *vectors: HostArray) -> Array:
        exact = _Exact(J.evaluate(dtype), lasting, proven)
        return getattr(exact, name)(*(jnp.asarray(vector, dtype) for vector in vectors))

    return context.isolated(run, x64=dtype == "float64")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _follow(name: str, number: Array, J: Jacobian, *vectors: Array) -> Array:
    """Return ``number``, whose derivatives are those of call(J, *vectors)."""
    return number


@_follow.defjvp
def _follow_jvp(name: str, primals: tuple[Params, ...], tangents: tuple[Params, ...]) -> tuple[Array, Array]:
    number, *arguments = primals

    def plain(J: Jacobian, *vectors: Array) -> Array:
        return getattr(_Differentiable(J), name)(*vectors)

    slope = jax.jvp(plain, tuple(arguments), tuple(tangents[1:]))[1]
    return _follow(name, *primals), slope.astype(number.dtype)


@dataclass(frozen=True)
class _Differentiable:
    """The products of J from uᵀJp alone, in the dtype of the weights.

    Outside of any float64 context: a transpose would run outside it anyway.
    """

    J: Jacobian

    def mv(self, p: Float[Array, " p"]) -> Float[Array, " r"]:
        p = p.astype(self.J.dtype)
        return jax.grad(lambda u: self.J.bilinear(u, p))(jnp.zeros(self.J.shape[0], self.J.dtype))

    def rmv(self, u: Float[Array, " r"]) -> Float[Array, " p"]:
        u = u.astype(self.J.dtype)
        return jax.grad(lambda p: self.J.bilinear(u, p))(jnp.zeros(self.J.shape[1], self.J.dtype))

    def dense(self) -> Float[Array, "r p"]:
        return jax.vmap(self.rmv)(jnp.eye(self.J.shape[0], dtype=self.J.dtype))

    def gram(self) -> Float[Array, "r r"]:
        return fl.outer(self.dense())

    def perturbation(self) -> Float[Array, ""]:
        raise TypeError(
            "perturbation and gram_error are bounds of rounding, which have no derivative; expected a product, such as "
            "mv or gram, where something is differentiated: pass them jax.lax.stop_gradient(J)"
        )

    gram_error = perturbation


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Exact:
    """The products of Ĵ in true scale, computed in float64 and cast to a dtype: one program a product."""

    j: EvaluatedJacobian
    dtype: DTypeLike = field(metadata={"static": True})
    proven: bool = field(default=True, metadata={"static": True})
    """Whether the bounds hold: those of float64 do; elsewhere they are infinite."""

    @jax.jit
    def mv(self, p: Float[Array, " p"]) -> Float[Array, " r"]:
        return self._scaled(self.j.mv(p))

    @jax.jit
    def rmv(self, u: Float[Array, " r"]) -> Float[Array, " p"]:
        return self._scaled(self.j.rmv(u))

    @jax.jit
    def gram(self) -> Float[Array, "r r"]:
        return jnp.ldexp(fl.symmetric(self.j.gram(DEVICE).matrix), 2 * self.j.exponent).astype(self.dtype)

    @jax.jit
    def dense(self) -> Float[Array, "r p"]:
        blocks = [self.block(index, self.j.block_width) for index in range(self.j.block_count)]
        return jnp.concatenate(blocks, axis=1)[:, : self.j.shape[1]]

    @jax.jit(static_argnames="columns")
    def block(self, index: int | Int[Array, ""], columns: int) -> Float[Array, "r _"]:
        return jnp.ldexp(self.j.block(index), self.j.exponent)[:, :columns].astype(self.dtype)

    @jax.jit
    def perturbation(self) -> Float[Array, ""]:
        bound = self._proven().perturbation
        zero = jnp.zeros((), self.dtype)  # where Ĵ is J itself
        return jnp.where(bound == 0, zero, self._bound(bound, self.j.exponent))

    @jax.jit
    def gram_error(self) -> Float[Array, ""]:
        return self._bound(self._proven().error, 2 * self.j.exponent)

    def _proven(self) -> Bounds:
        bounds = self.j.gram(DEVICE).bounds
        return bounds if self.proven else jax.tree.map(lambda bound: jnp.full_like(bound, jnp.inf), bounds)

    def _scaled(self, product: Array) -> Array:
        return jnp.ldexp(product, self.j.exponent).astype(self.dtype)

    def _bound(self, bound: Array, exponent: Array) -> Array:
        """Return an upper bound in true scale and in another dtype."""
        return fl.cast_up(fl.at_least_normal(jnp.ldexp(bound, exponent)), self.dtype)
