"""Trees in which ``optax.MaskedNode`` stands where a wrapper of optax, or a label, leaves something out.

Such a node may stand for a leaf or for all that is below it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from narrow_jax._typing import Array, Params


def is_masked(node: Any) -> bool:
    """Return whether this is a masked node."""
    return isinstance(node, optax.MaskedNode)


def has_masked(tree: Any) -> bool:
    """Return whether something is left out of the tree."""
    return any(map(is_masked, jax.tree.leaves(tree, is_leaf=is_masked)))


def masked_like(tree: Any, like: Any) -> Any:
    """Return ``tree`` without what is left out of ``like``.

    Raises:
        ValueError: trees of unlike structure.
    """
    return jax.tree.map(lambda own, x: own if is_masked(own) else x, like, tree, is_leaf=is_masked)


def completed(tree: Any, full: Any) -> Any:
    """Return ``tree`` with what ``full`` has in the place of its masked nodes."""
    return jax.tree.map(lambda own, x: x if is_masked(own) else own, tree, full, is_leaf=is_masked)


def pick(label: str, fn: Callable[[Array], Array], marks: Any, params: Params) -> Params:
    """Return fn(leaf) at the leaves with that label, masked nodes elsewhere."""
    return jax.tree.map(lambda own, x: fn(x) if own == label else optax.MaskedNode(), marks, params)


def at_picked(fn: Callable[..., Any], picked: Params, tree: Params, *rest: Params) -> Params:
    """Return fn(pick, leaf, …) where ``picked`` has a leaf, and the leaves of ``tree`` elsewhere."""
    return jax.tree.map(
        lambda pick, x, *more: x if is_masked(pick) else fn(pick, x, *more),
        picked,
        tree,
        *rest,
        is_leaf=is_masked,
    )
