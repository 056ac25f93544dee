"""``within``: some leaves stay in a set of the user's, given by its projection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from narrow_jax import _checks
from narrow_jax._typing import Array, Params
from narrow_jax.labels import at_picked, difference, listed, masked_like, pick, select
from narrow_jax.projections import working


class Set(NamedTuple):
    """A set of the user's.

    Fields:
        project: P, any of ``optax.projections`` or a function of your own, from the tree of some leaves to one of the
            same shapes.
        report: what the history of ``nj.fit`` is to say of it: from that tree, after each projection, to one number a
            name; None for nothing.
    """

    project: Callable[[Params], Params]
    report: Callable[[Params], Mapping[str, Any]] | None = None


class SetState(NamedTuple):
    """State of ``within``.

    Fields:
        active: whether the last update was pulled back to the set.
        told: what the set reports of the leaves after it.
    """

    active: Array
    told: dict[str, Array]


def within(
    allowed: Set | Callable[[Params], Params], leaves: str | Iterable[str]
) -> optax.GradientTransformationExtraArgs:
    """Keep some leaves in a set: project what an update leads to. Last in a chain, after ``regime`` or beside it.

    Emits ``P(p + u) − p`` at these leaves; where the projection changes nothing the update passes unchanged. The start
    need not be in the set, the first update leads there.

    Args:
        allowed: the set, or its projection alone: ``optax.projections.projection_simplex`` takes all leaves
            together; for each leaf by itself, ``lambda tree: jax.tree.map(p, tree)``. The other leaves are masked
            there.
        leaves: names of the leaves, as in ``by_path``.

    Raises:
        TypeError: no function.
        ValueError: in ``init`` a name that no leaf has (close matches are named), a projection that changes shapes
            or dtypes, or a report that is not one number a name; in ``update`` params missing.

    Example:
        >>> tx = optax.chain(optax.sgd(1.0), within(optax.projections.projection_simplex, "mix"))
        >>> params = {"mix": jnp.array([0.5, 0.5]), "w": jnp.zeros(1)}
        >>> updates, _ = tx.update({"mix": jnp.array([-1.0, 0.0]), "w": jnp.ones(1)}, tx.init(params), params)
        >>> optax.apply_updates(params, updates)["mix"]
        Array([1., 0.], dtype=float32)

        With a report, ``nj.constraints.report`` and the history of ``nj.fit`` have its numbers:

        >>> box = Set(
        ...     project=lambda tree: jax.tree.map(lambda leaf: leaf.clip(-1, 1), tree),
        ...     report=lambda tree: {"largest": jnp.max(jnp.abs(tree["w"]))})
        >>> tx = optax.chain(optax.sgd(1.0), within(box, "w"))
        >>> _, state = tx.update({"mix": jnp.zeros(2), "w": jnp.full(1, 5.0)}, tx.init(params), params)
        >>> from narrow_jax.constraints import report
        >>> {name: float(value) for name, value in report(state).items()}
        {'set_active': 1.0, 'largest': 1.0}
    """
    project, told = allowed if isinstance(allowed, Set) else Set(allowed)
    _checks.function("projection", project, "tree ↦ tree", "optax.projections.projection_simplex")
    if told is not None:
        _checks.function("report", told, "tree ↦ numbers by name", "lambda tree: {'size': …}")

    def chosen(params: Params) -> Params:
        marks = jax.tree.unflatten(jax.tree.structure(params), select("leaf", params, leaves))
        return pick("in", lambda leaf: leaf, jax.tree.map(lambda own: "in" if own else "out", marks), params)

    def init_fn(params: Params) -> SetState:
        picked = chosen(params)
        if not jax.tree.leaves(picked):
            raise ValueError(f"within: no leaf is named; expected some of {listed(params)}: pass leaves=")
        if other := difference(picked, jax.eval_shape(project, picked)):
            raise ValueError(
                f"within: the projection changes the leaves: at {other}; expected the same shapes and dtypes"
            )
        return SetState(jnp.zeros((), bool), _numbers(told, picked))

    def update_fn(
        updates: Params, state: SetState, params: Params | None = None, **_: Any
    ) -> tuple[Params, SetState]:
        if params is None:
            raise ValueError("within needs the params: call tx.update(grads, state, params)")
        picked = chosen(params)
        ahead = at_picked(lambda p, u: (working(p) + working(u)).astype(p.dtype), picked, updates)
        target = masked_like(ahead, picked)
        inside = project(target)
        pulled = jax.tree.map(
            lambda t, q, p, u: jnp.where((q == t) | ~jnp.isfinite(t), u, (q - p).astype(u.dtype)),
            *(target, inside, picked, masked_like(updates, picked)),
        )
        changed = [jnp.any(q != t) for q, t in zip(*map(jax.tree.leaves, (inside, target)), strict=True)]
        state = SetState(jnp.any(jnp.stack(changed)), _numbers(told, inside))
        return at_picked(lambda u, _: u, pulled, updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _numbers(told: Callable[[Params], Mapping[str, Any]] | None, tree: Params) -> dict[str, Array]:
    """Return what a set reports of the leaves, one number a name."""
    found = {} if told is None else told(tree)
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ValueError(
            f"within: the report of the set is {found!r:.60}; expected numbers by name, such as {{'size': …}}"
        )
    numbers = {name: jnp.asarray(value) for name, value in found.items()}
    for name, value in numbers.items():
        if value.ndim or jnp.issubdtype(value.dtype, jnp.complexfloating):
            raise ValueError(
                f"within: the report of the set has {name!r} as {value.dtype}{list(value.shape)}; expected one real "
                "number: take its norm or mean"
            )
    return numbers
