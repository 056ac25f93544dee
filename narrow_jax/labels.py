"""Leaves of a pytree: by name, with nodes that optax masked, and labelled for the constraints.

The name of a leaf is its path, such as ``"stage4/conv/kernel"``, or its first or last parts. Labels are ``"w"`` for the
ball, ``"v"`` for the cone, ``"free"`` for neither. An ``optax.MaskedNode`` stands where a wrapper of optax, or a label,
leaves something out: a leaf or all that is below it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import jax
import optax
from jax.tree_util import GetAttrKey

from narrow_jax import _checks
from narrow_jax._typing import Array, KeyPath, Params, Tree

Labels = Callable[[Params], Tree] | Tree
"""A tree of ``"w"``, ``"v"``, ``"free"``, or a function from params to one."""


def path_name(path: KeyPath) -> str:
    """Return the name of a leaf's path: its keys, joined by slashes."""
    return jax.tree_util.keystr(own_path(path), simple=True, separator="/")


def own_path(path: KeyPath) -> KeyPath:
    """Return the path without the attribute in which an ``nnx.Variable`` keeps its array."""
    return path[:-1] if len(path) > 1 and path[-1] == GetAttrKey("value") else path


def leaf_names(tree: Tree) -> list[str]:
    """Return the names of all leaves."""
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def listed(tree: Tree) -> str:
    """Return the names of the leaves for a message, the first few of many."""
    names = [name or "one array without a name (optax.flatten belongs inside)" for name in leaf_names(tree)]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more if names else "none"


def difference(expected: Tree, found: Tree) -> str:
    """Return the first leaf that is missing, too many, or of another shape or dtype, empty where there is none.

    Example:
        >>> difference({"mean": jax.numpy.zeros(4)}, {"mean": jax.numpy.zeros(8)})
        "'mean' (float32[4] expected, float32[8] found)"
    """
    want, have = (
        {
            path_name(path): f"{x.dtype}{list(x.shape)}"
            for path, x in jax.tree_util.tree_leaves_with_path(shapes)
        }
        for shapes in jax.eval_shape(lambda *trees: trees, expected, found)
    )
    for name in want | have:
        if (wanted := want.get(name, "nothing")) != (had := have.get(name, "nothing")):
            return f"{name!r} ({wanted} expected, {had} found)"
    return ""


def select(what: str, tree: Tree, names: str | Iterable[str], missing: bool = False) -> tuple[bool, ...]:
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
    names = [names] if isinstance(names, str) else list(names) if isinstance(names, Iterable) else [names]
    if unfit := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"{what} is {unfit[0]!r}; expected a name, or names, as of {', '.join(paths[:3])}")

    def matches(path: str, name: str) -> bool:
        return path == name or path.endswith("/" + name) or path.startswith(name + "/")

    for name in names:
        if not missing and not any(matches(path, name) for path in paths):
            # nodes with leaves below come first: whoever means a layer means all of it
            _checks.choice(what, name, dict.fromkeys([*_inner(paths), *paths]))
    return tuple(any(matches(path, name) for name in names) for path in paths)


def _inner(paths: Iterable[str]) -> list[str]:
    """Return the nodes with leaves below, by name."""
    split = [path.split("/") for path in paths]
    return ["/".join(parts[:end]) for parts in split for end in range(1, len(parts))]


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return dictionaries from leaves by name, which ``path_name`` gave.

    Raises:
        ValueError: a name that is the first part of another.

    Example:
        >>> nested({"head/v": 1, "head/bias": 2, "w": 3})
        {'head': {'v': 1, 'bias': 2}, 'w': 3}
    """
    tree: dict[str, Any] = {}
    if both := sorted(set(_inner(leaves)) & set(leaves)):
        raise ValueError(f"{both[0]!r} is the name of an array and of a dictionary; expected one of the two")
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def is_masked(node: object) -> bool:
    """Return whether this is a masked node."""
    return isinstance(node, optax.MaskedNode)


def has_masked(tree: Tree) -> bool:
    """Return whether something is left out of the tree."""
    return any(map(is_masked, jax.tree.leaves(tree, is_leaf=is_masked)))


def masked_like(tree: Tree, like: Tree) -> Tree:
    """Return ``tree`` without what is left out of ``like``.

    Raises:
        ValueError: trees of unlike structure.
    """
    return jax.tree.map(lambda own, x: own if is_masked(own) else x, like, tree, is_leaf=is_masked)


def completed(tree: Tree, full: Tree) -> Tree:
    """Return ``tree`` with what ``full`` has in the place of its masked nodes."""
    return jax.tree.map(lambda own, x: x if is_masked(own) else own, tree, full, is_leaf=is_masked)


def pick(label: str, fn: Callable[[Array], Array], marks: Tree, params: Params) -> Params:
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


def by_name(params: Params) -> Tree:
    """Label every leaf by its own name if that is ``w`` or ``v``, else ``"free"``.

    A mapping of exactly ``plus``, ``minus`` and ``v`` holds a pairwise net over any features: in the two copies every
    leaf is ``"w"``, whatever its name.

    Example:
        >>> by_name({"hidden": {"w": 0.0, "bias": 0.0}, "v": 0.0})
        {'hidden': {'bias': 'free', 'w': 'w'}, 'v': 'v'}
        >>> by_name({"plus": {"w1": 0.0}, "minus": {"w1": 0.0}, "v": 0.0})
        {'minus': {'w1': 'w'}, 'plus': {'w1': 'w'}, 'v': 'v'}
    """

    def label(path: KeyPath, node: Tree) -> Tree:
        if _is_pair(node):
            return jax.tree_util.tree_map_with_path(in_pair, node)
        name = jax.tree_util.keystr(own_path(path)[-1:], simple=True)
        return name if name in ("w", "v") else "free"

    def in_pair(path: KeyPath, _: object) -> str:
        return "v" if path_name(path[:1]) == "v" else "w"

    return jax.tree_util.tree_map_with_path(label, params, is_leaf=_is_pair)


def _is_pair(node: object) -> bool:
    """Return whether a node is the params of two copies of features and of the output layer that they share."""
    return isinstance(node, Mapping) and set(node) == {"plus", "minus", "v"}


def by_path(w: str | Iterable[str] = (), v: str | Iterable[str] = ()) -> Callable[[Params], Tree]:
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

    def labels(params: Params) -> Tree:
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


def label_tree(labels: Labels | None, params: Params) -> Tree:
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


def require_selected(what: str, marks: Tree, params: Params, radius: str = "", zeta: str = "") -> None:
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
