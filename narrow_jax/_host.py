"""The host's side: functions that look at values, so that they cannot be traced, and paths."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
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


def path(what: str, value: object) -> Path:
    """Return a path of the user's; ``~`` is the home folder.

    Raises:
        TypeError: no word and no path.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(
            f"{what} is a {type(value).__name__} ({value!r:.40}); expected a path: pass a word or a pathlib.Path"
        )
    return Path(value).expanduser()
