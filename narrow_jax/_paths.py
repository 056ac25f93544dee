"""Leaves of a pytree by name: a path such as ``"stage4/conv/kernel"``, or its first or last parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from narrow_jax import _checks


def path_name(path: tuple[Any, ...]) -> str:
    """Return the name of a leaf's path: its keys, joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def select(what: str, tree: Any, names: str | Iterable[str]) -> tuple[bool, ...]:
    """Return, leaf by leaf, whether one of the names is its path, or the first or last parts of it.

    Raises:
        ValueError: a name that no leaf has; close matches are named.

    Example:
        >>> select("leaf", {"stage": {"bias": 0, "kernel": 0}, "head": 0}, "stage/kernel")
        (False, False, True)
    """
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    names = [names] if isinstance(names, str) else list(names)

    def matches(path: str, name: str) -> bool:
        return path == name or path.endswith("/" + name) or path.startswith(name + "/")

    for name in names:
        if not any(matches(path, name) for path in paths):
            _checks.choice(what, name, paths)
    return tuple(any(matches(path, name) for name in names) for path in paths)


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
