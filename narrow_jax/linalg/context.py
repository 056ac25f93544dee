"""Where work runs and in which precision: float64 whatever the setting outside; on the host or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


def on_cpu(tree: object) -> bool:
    """Return whether all arrays live on the host; NumPy's do where JAX would put them there."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    platforms = {device.platform for leaf in arrays for device in leaf.devices()}
    return (platforms or {jax.default_backend()}) == {"cpu"}


def ambient() -> np.dtype:
    """Return the dtype of floats outside of any float64 context: what results are cast to in traced code."""
    return jnp.zeros((), float).dtype


FEW = 2**23
"""Entries of a Jacobian up to which its formulas are evaluated by NumPy: seconds of compiling saved at the first call.

Later calls of 300 × 1,200 are faster, too; of 1,000 × 3,000 they take a tenth longer, and beyond it grows.
"""


def at_hand(J: Any) -> Any:
    """Return a Jacobian operator with its floats as NumPy's if it has few entries, else as JAX's, to be compiled."""
    return placed(J, math.prod(J.shape))


def placed(tree: T, entries: int) -> T:
    """Return the tree with its floats as NumPy's, or as JAX's where the Jacobian of what they make has many entries."""
    return floats(tree, np.asarray if entries <= FEW else jnp.asarray)


def floats(tree: T, convert: Callable[[Any], Any]) -> T:
    """Return the tree with its arrays of floats converted; keys, integers and what is no array stay."""

    def one(leaf: Any) -> Any:
        floating = isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return convert(leaf) if floating else leaf

    return jax.tree.map(one, tree)


def as_numpy(run: Callable[[], T]) -> T:
    """Return what runs under float64, its arrays as NumPy's, which outlive it as they are.

    NumPy warns of what bounds expect, such as infinity where nothing is known: not here.
    """
    with jax.enable_x64(True), np.errstate(all="ignore"):
        return jax.tree.map(np.asarray, run())


def isolated(f: Callable[..., Any], x64: bool = True, batched: Callable[..., Any] | None = None) -> Any:
    """Return f traced with x64 as stated, and traced so again where ``vmap`` reaches it after the context has ended.

    JAX batches the body of a jitted function, a loop or a scan when it comes to it: outside of the context, where it
    would cut float64 down to float32. Here ``vmap`` finds f itself instead of its equations.
    The arguments are constants to differentiation: attach derivatives outside.

    Args:
        f: a pure function of pytrees of arrays.
        x64: whether 64-bit numbers are on inside.
        batched: the function to map instead of f.

    Example:
        >>> import jax.numpy as jnp
        >>> bytes_inside = isolated(lambda x: x * jnp.zeros((), float).dtype.itemsize)
        >>> jax.vmap(jax.jit(lambda x: bytes_inside(x)))(jnp.ones(2)).tolist()
        [8.0, 8.0]
    """

    def inside(*args: Any) -> Any:
        with jax.enable_x64(x64):
            return f(*args)

    mappable = jax.custom_batching.custom_vmap(inside)

    @mappable.def_vmap
    def _vmap(axis_size: int, in_batched: list[Any], *args: Any) -> Any:
        axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched))
        mapped = jax.vmap(batched or f, in_axes=axes, axis_size=axis_size)
        out = isolated(mapped, x64)(*args)
        return out, jax.tree.map(lambda _: True, out)

    def called(*args: Any) -> Any:
        with jax.enable_x64(x64):  # before the call: NumPy's float64 would become float32 on the way in
            return mappable(*jax.lax.stop_gradient(args))

    return called
