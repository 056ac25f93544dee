"""One set of formulas for NumPy and JAX: of NumPy arrays they are evaluated as they stand, nothing traced or compiled.

Formulas call ``xp`` where code for one of the two would call ``np`` or ``jnp``; what else they need is here, for both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Computed, HostArray

T = TypeVar("T")

Scalar = float | HostArray
"""A number: of Python, NumPy or JAX, traced or not."""

Truth = bool | np.bool_ | HostArray
"""A truth value, known or traced."""


def is_jax(values: object) -> bool:
    """Return whether an array in a tree is one of JAX, traced or not."""
    return any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(values))


def module(*values: object) -> ModuleType:
    """Return the module of these arrays: JAX's where one of them is.

    Example:
        >>> module(np.ones(2)).__name__, module(np.ones(2), jnp.ones(2)).__name__
        ('numpy', 'jax.numpy')
    """
    return jnp if is_jax(values) else np


class _ByArguments:
    """The functions of NumPy, or those of ``jax.numpy`` where an argument is an array of JAX.

    What takes no array, such as ``zeros``, is that of ``module``.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            return getattr(module(args, keywords), name)(*args, **keywords)

        setattr(self, name, call)
        return call


xp = _ByArguments()
"""Example: ``xp.sqrt(x)``."""


def compiled(function: Callable[..., T] | None = None, *, static_argnames: str | tuple[str, ...] = ()) -> Any:
    """Return the function compiled by ``jax.jit``, and as it stands where all its arrays are NumPy's.

    Example:
        >>> double = compiled(lambda x: 2 * x)
        >>> type(double(np.ones(2))).__name__, isinstance(double(jnp.ones(2)), jax.Array)
        ('ndarray', True)
    """
    if function is None:
        return functools.partial(compiled, static_argnames=static_argnames)
    by_jax = jax.jit(function, static_argnames=static_argnames)

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> T:
        return (by_jax if is_jax((args, keywords)) else function)(*args, **keywords)

    return call


class CustomJvp:
    """``jax.custom_jvp`` of a function of one array, and the function as it stands for one of NumPy."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        """Keep both forms."""
        functools.update_wrapper(self, function)
        self._of_numpy = function
        self._of_jax = jax.custom_jvp(function)
        self.defjvp = self._of_jax.defjvp

    def __call__(self, values: Computed) -> Any:
        """Return the function's value."""
        return (self._of_jax if isinstance(values, jax.Array) else self._of_numpy)(values)


def barrier(values: T) -> T:
    """Return values that XLA neither fuses with what follows nor contracts into it; NumPy does neither."""
    return jax.lax.optimization_barrier(values) if is_jax(values) else values


def bits(values: Computed, dtype: Any) -> Any:
    """Return the bits of numbers, read as other numbers of that size."""
    if isinstance(values, jax.Array):
        return jax.lax.bitcast_convert_type(values, dtype)
    return np.asarray(values).view(dtype)


def rows(a: Computed, start: Any, count: int) -> Computed:
    """Return so many rows of a matrix, from a first one on, which may be traced."""
    if isinstance(a, jax.Array):
        return jax.lax.dynamic_slice_in_dim(a, start, count)
    return a[start : start + count]


# indices are int32: XLA lowers what depends on them where x64 may be off


def each(function: Callable[[Any], T], count: int, like: object) -> T:
    """Return the results for 0 … count − 1, stacked: a compiled loop where what is ``like`` them is JAX's."""
    if is_jax(like):
        return jax.lax.map(function, jnp.arange(count, dtype=jnp.int32))
    results = [function(index) for index in range(count)]
    return jax.tree.map(lambda *parts: np.stack(parts), *results)


def accumulate(count: int, body: Callable[[Any, T], T], state: T) -> T:
    """Return the state after body(i, state), i = 0 … count − 1."""
    if is_jax(state):
        return jax.lax.fori_loop(np.int32(0), np.int32(count), body, state)
    return functools.reduce(lambda state, index: body(index, state), range(count), state)
