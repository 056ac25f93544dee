"""Labels of the leaves of params: ``"w"`` for the ball, ``"v"`` for the cone, ``"free"`` for neither."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax

from narrow_jax._paths import path_name, select
from narrow_jax._typing import Params

Labels = Callable[[Params], Any] | Any
"""A tree of ``"w"``, ``"v"``, ``"free"``, or a function from params to one."""


def by_name(params: Params) -> Any:
    """Label every leaf by its own name if that is ``w`` or ``v``, else ``"free"``.

    Example:
        >>> by_name({"hidden": {"w": 0.0, "bias": 0.0}, "v": 0.0})
        {'hidden': {'bias': 'free', 'w': 'w'}, 'v': 'v'}
    """

    def label(path: tuple[Any, ...], _: Any) -> str:
        name = jax.tree_util.keystr(path[-1:], simple=True) if path else ""
        return name if name in ("w", "v") else "free"

    return jax.tree_util.tree_map_with_path(label, params)


def by_path(w: str | Iterable[str] = (), v: str | Iterable[str] = ()) -> Callable[[Params], Any]:
    """Return the label function that finds leaves by their paths in params: for any Flax model.

    A name is a path such as ``"block/conv/kernel"``, its first parts (``"block"``: all leaves below) or its last.

    Args:
        w: names of the leaves in the ball.
        v: names of the leaves in the cone, each (h,) or (h, k).

    Raises:
        ValueError: when called, a name that no leaf has, or a leaf that is both.

    Example:
        >>> labels = by_path(w="block", v="head/v")
        >>> labels({"block": {"kernel": 0.0, "bias": 0.0}, "head": {"v": 0.0}, "stem": 0.0})
        {'block': {'bias': 'w', 'kernel': 'w'}, 'head': {'v': 'v'}, 'stem': 'free'}
    """

    def labels(params: Params) -> Any:
        paths, structure = jax.tree_util.tree_flatten_with_path(params)
        marks = []
        for (path, _), ball, cone in zip(
            paths, select("leaf", params, w), select("leaf", params, v), strict=True
        ):
            if ball and cone:
                raise ValueError(
                    f"leaf {path_name(path)!r} is named by both w={w!r} and v={v!r}; expected one constraint a leaf"
                )
            marks.append("w" if ball else "v" if cone else "free")
        return jax.tree.unflatten(structure, marks)

    return labels


def label_tree(labels: Labels | None, params: Params) -> Any:
    """Return the labels as a tree like ``params``: those of ``by_name`` for None.

    Raises:
        ValueError: another structure, or a label that is not "w", "v" or "free".
    """
    # None and not by_name in the signatures: inject_hyperparams takes a callable default for a schedule
    labels = by_name if labels is None else labels
    tree = labels(params) if callable(labels) else labels
    if operator.ne(jax.tree.structure(tree), jax.tree.structure(params)):
        raise ValueError(
            f"labels have the structure {jax.tree.structure(tree)}, params {jax.tree.structure(params)}; "
            "expected one label a leaf"
        )
    for path, label in jax.tree_util.tree_leaves_with_path(tree):
        if label not in ("w", "v", "free"):
            place = jax.tree_util.keystr(path)
            raise ValueError(f"leaf {place} has the label {label!r}; expected 'w', 'v' or 'free'")
    return tree
