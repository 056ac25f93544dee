"""Functions that run on the host: they look at values, so they cannot be traced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

P = ParamSpec("P")
T = TypeVar("T")


def traced(*trees: Any) -> bool:
    """Return whether any array in some pytrees is traced."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def host_only(function: Callable[P, T]) -> Callable[P, T]:
    """Refuse calls inside ``jit``, ``vmap`` and ``grad`` by name, before JAX refuses something deep inside.

    Example:
        >>> host_only(abs)(-1.0)
        1.0
    """

    @functools.wraps(function)
    def on_host(*args: P.args, **kwargs: P.kwargs) -> T:
        # under jit all that JAX computes is traced, whatever it is computed from
        if traced(jnp.asarray(0.0), args, kwargs):
            raise TypeError(
                f"{function.__name__} looks at values and cannot be traced; expected concrete arrays: call it outside "
                "jit, vmap and grad"
            )
        return function(*args, **kwargs)

    return on_host
