"""Labels of the leaves of params: ``"w"`` for the ball, ``"v"`` for the cone, ``"free"`` for neither."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import jax

from narrow_jax._masking import has_masked, masked_like
from narrow_jax._paths import listed, own_path, path_name, select
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
        name = jax.tree_util.keystr(own_path(path)[-1:], simple=True)
        return name if name in ("w", "v") else "free"

    return jax.tree_util.tree_map_with_path(label, params)


def by_path(w: str | Iterable[str] = (), v: str | Iterable[str] = ()) -> Callable[[Params], Any]:
    """Return the label function that finds leaves by their paths in params: for any Flax model.

    A name is a path such as ``"block/conv/kernel"``, its first parts (``"block"``: all leaves below) or its last.

    Args:
        w: names of the leaves in the ball.
        v: names of the leaves in the cone, each (h,) or (h, k).

    Raises:
        ValueError: when called, a name that no leaf has (in a tree that optax masked it may have been masked), or a
            leaf that is both.

    Example:
        >>> labels = by_path(w="block", v="head/v")
        >>> labels({"block": {"kernel": 0.0, "bias": 0.0}, "head": {"v": 0.0}, "stem": 0.0})
        {'block': {'bias': 'w', 'kernel': 'w'}, 'head': {'v': 'v'}, 'stem': 'free'}
    """

    def labels(params: Params) -> Any:
        paths, structure = jax.tree_util.tree_flatten_with_path(params)
        chosen = (select("leaf", params, names, missing=has_masked(params)) for names in (w, v))
        marks = []
        for (path, _), ball, cone in zip(paths, *chosen, strict=True):
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
    if has_masked(params):
        with suppress(ValueError):  # of unlike structure: told below
            tree = masked_like(tree, params)
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


def require_selected(what: str, marks: Any, params: Params, radius: str = "", zeta: str = "") -> None:
    """Require a leaf for every constraint that is wanted, unless optax masked the tree and left others.

    Args:
        what: who asks.
        marks: the labels of ``params``.
        params: the tree.
        radius: the ball's bound in words, empty where none is wanted.
        zeta: the cone's bound in words, empty where none is wanted.

    Raises:
        ValueError: labels by which a constraint would hold for no leaf.
    """
    found = set(jax.tree.leaves(marks))
    if has_masked(params) and (not found or found & {"w", "v"}):
        return
    for bound, label, constraint, without in (
        (radius, "w", "ball", "pass radius=jnp.inf for no ball"),
        (zeta, "v", "cone", "pass zeta=None for no cone"),
    ):
        if bound and label not in found:
            raise ValueError(
                f"{what}: no leaf is labelled {label!r}, so the {constraint} of {bound} would constrain nothing. The "
                f"leaves are {listed(params)}: name those that it is for, labels=nj.constraints.by_path({label}=…), or "
                f"{without}"
            )
