"""The bounds ε, ζ, κ as users give them, and the trees for which they were given."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks
from narrow_jax._typing import Array, ArrayLike, KeyPath, Params, Tree
from narrow_jax.labels import is_masked

Radius = ArrayLike | Callable[[Array], Array]
"""ε, or a schedule from the step count to ε."""


class Limits(NamedTuple):
    """ε, ζ and κ of the last update; None where there is no such bound."""

    radius: Array | None
    zeta: Array | None
    kappa: Array | None

    @classmethod
    def at(cls, step: Array, radius: Radius, zeta: ArrayLike | None, kappa: ArrayLike) -> Limits:
        """Return the bounds of this step, as arrays."""
        return cls(*map(cls._as_array, (current(radius, step), zeta, kappa)))

    @staticmethod
    def _as_array(bound: ArrayLike | None) -> Array | None:
        """Return the bound as an array, None for none: an infinity that the code itself states is not in the state.

        Another one is the largest float there, since JAX_DEBUG_INFS reports every infinity that a step returns.
        """
        if bound is None or (not isinstance(bound, jax.Array) and np.isinf(bound)):
            return None
        array = jnp.asarray(bound, float)
        return jnp.minimum(array, jnp.finfo(array.dtype).max)


def current(radius: Radius, step: Array) -> ArrayLike:
    """Return ε at this step."""
    return radius(step) if callable(radius) else radius


def said(name: str, bound: Radius) -> str:
    """Return the bound in words, empty for infinity: only one that is known to be none asks for no leaf."""
    value = None if callable(bound) else _checks.concrete(bound)
    if value is None:
        return f"{'scheduled' if callable(bound) else 'traced'} {name}"
    return "" if np.isinf(value) else f"{name} {float(value):g}"


def require_like_start(what: str, center: Params, updates: Params, params: Params | None) -> None:
    """Require params and updates as they were at ``init``: structure, shapes, and the dtype of what is constrained.

    Raises:
        ValueError: params missing or others.
    """
    if params is None:
        raise ValueError(f"{what} needs the params: call tx.update(grads, state, params)")
    structure = jax.tree.structure(center, is_leaf=is_masked)
    for name, tree in (("params", params), ("updates", updates)):
        if operator.ne(jax.tree.structure(tree, is_leaf=is_masked), structure):
            raise ValueError(
                f"{what}: {name} have the structure {jax.tree.structure(tree)}, at init it was {structure}: "
                "call tx.init again for other params"
            )

    def compare(path: KeyPath, c: Tree, p: Tree, u: Tree) -> None:
        if not is_masked(c) and not (c.shape == p.shape == u.shape and c.dtype == p.dtype):
            raise ValueError(
                f"{what}: at leaf {jax.tree_util.keystr(path)} params are {p.dtype}{p.shape} and updates "
                f"{u.dtype}{u.shape}, at init params were {c.dtype}{c.shape}: call tx.init again"
            )

    jax.tree_util.tree_map_with_path(compare, center, params, updates, is_leaf=is_masked)
