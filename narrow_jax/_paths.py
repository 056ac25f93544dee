"""Leaves of a pytree by name: a path such as ``"stage4/conv/kernel"``, or its first or last parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jax.tree_util import GetAttrKey

from narrow_jax import _checks


def path_name(path: tuple[Any, ...]) -> str:
    """Return the name of a leaf's path: its keys, joined by slashes."""
    return jax.tree_util.keystr(own_path(path), simple=True, separator="/")


def own_path(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the path without the attribute in which an ``nnx.Variable`` keeps its array."""
    return path[:-1] if len(path) > 1 and path[-1] == GetAttrKey("value") else path


def leaf_names(tree: Any) -> list[str]:
    """Return the names of all leaves."""
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def listed(tree: Any) -> str:
    """Return the names of the leaves for a message, the first few of many."""
    names = [name or "one array without a name (optax.flatten belongs inside)" for name in leaf_names(tree)]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more if names else "none"


def difference(expected: Any, found: Any) -> str:
    """Return the first leaf that is missing, too many, or of another shape or dtype, empty where there is none.

    Example:
        >>> difference({"mean": jax.numpy.zeros(4)}, {"mean": jax.numpy.zeros(8)})
        "'mean' (float32[4] expected, float32[8] found)"
    """
    want, have = (
        {name: f"{x.dtype}{list(x.shape)}" for name, x in _named(tree)} for tree in (expected, found)
    )
    for name in want | have:
        if (wanted := want.get(name, "nothing")) != (had := have.get(name, "nothing")):
            return f"{name!r} ({wanted} expected, {had} found)"
    return ""


def _named(tree: Any) -> list[tuple[str, Any]]:
    shapes = jax.eval_shape(lambda tree: tree, tree)
    return list(zip(leaf_names(shapes), jax.tree.leaves(shapes), strict=True))


def select(what: str, tree: Any, names: str | Iterable[str], missing: bool = False) -> tuple[bool, ...]:
    """Return, leaf by leaf, whether one of the names is its path, or the first or last parts of it.

    Args:
        what: what the message calls a leaf.
        tree: the pytree.
        names: the names to look for.
        missing: a name may belong to no leaf, such as one that optax masked.

    Raises:
        ValueError: a name that no leaf has; close matches are named.

    Example:
        >>> select("leaf", {"stage": {"bias": 0, "kernel": 0}, "head": 0}, "stage/kernel")
        (False, False, True)
    """
    paths = leaf_names(tree)
    names = [names] if isinstance(names, str) else list(names)

    def matches(path: str, name: str) -> bool:
        return path == name or path.endswith("/" + name) or path.startswith(name + "/")

    for name in names:
        if not missing and not any(matches(path, name) for path in paths):
            _checks.choice(what, name, _nodes(paths))
    return tuple(any(matches(path, name) for name in names) for path in paths)


def _nodes(paths: Iterable[str]) -> list[str]:
    """Return all nodes by name, those with leaves below before the leaves: whoever means a layer means all of it."""
    split = [path.split("/") for path in paths]
    inner = ["/".join(parts[:end]) for parts in split for end in range(1, len(parts))]
    return list(dict.fromkeys([*inner, *paths]))


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return dictionaries from leaves by name, which ``path_name`` gave.

    Raises:
        ValueError: a name that is the first part of another.

    Example:
        >>> nested({"head/v": 1, "head/bias": 2, "w": 3})
        {'head': {'v': 1, 'bias': 2}, 'w': 3}
    """
    tree: dict[str, Any] = {}
    inner = {
        "/".join(parts[:end])
        for parts in (name.split("/") for name in leaves)
        for end in range(1, len(parts))
    }
    if both := sorted(inner & set(leaves)):
        raise ValueError(f"{both[0]!r} is the name of an array and of a dictionary; expected one of the two")
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
