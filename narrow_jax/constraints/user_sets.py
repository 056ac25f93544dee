"""``within``: some leaves stay in a set of the user's, given by its projection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from narrow_jax import _checks
from narrow_jax._typing import Array, Params
from narrow_jax.labels import at_picked, difference, listed, masked_like, pick, select
from narrow_jax.projections import working


class SetState(NamedTuple):
    """State of ``within``: whether the last update was pulled back to the set."""

    active: Array


def within(
    projection: Callable[[Params], Params], leaves: str | Iterable[str]
) -> optax.GradientTransformationExtraArgs:
    """Keep some leaves in a set: project what an update leads to. Last in a chain, after ``regime`` or beside it.

    Emits ``P(p + u) − p`` at these leaves; where the projection changes nothing the update passes unchanged. The start
    need not be in the set, the first update leads there.

    Args:
        projection: P, any of ``optax.projections`` or a function of your own, from the tree of these leaves to one of
            the
            same shapes: ``optax.projections.projection_simplex`` takes all leaves together; for each leaf by itself,
            ``lambda tree: jax.tree.map(p, tree)``. The other leaves are masked there.
        leaves: names of the leaves, as in ``by_path``.

    Raises:
        TypeError: no function.
        ValueError: in ``init`` a name that no leaf has (close matches are named), or a projection that changes shapes
            or dtypes; in ``update`` params missing.

    Example:
        >>> tx = optax.chain(optax.sgd(1.0), within(optax.projections.projection_simplex, "mix"))
        >>> params = {"mix": jnp.array([0.5, 0.5]), "w": jnp.zeros(1)}
        >>> updates, _ = tx.update({"mix": jnp.array([-1.0, 0.0]), "w": jnp.ones(1)}, tx.init(params), params)
        >>> optax.apply_updates(params, updates)["mix"]
        Array([1., 0.], dtype=float32)
    """
    _checks.function("projection", projection, "tree ↦ tree", "optax.projections.projection_simplex")

    def chosen(params: Params) -> Params:
        marks = jax.tree.unflatten(jax.tree.structure(params), select("leaf", params, leaves))
        return pick("in", lambda leaf: leaf, jax.tree.map(lambda own: "in" if own else "out", marks), params)

    def init_fn(params: Params) -> SetState:
        picked = chosen(params)
        if not jax.tree.leaves(picked):
            raise ValueError(f"within: no leaf is named; expected some of {listed(params)}: pass leaves=")
        if other := difference(picked, jax.eval_shape(projection, picked)):
            raise ValueError(
                f"within: the projection changes the leaves: at {other}; expected the same shapes and dtypes"
            )
        return SetState(jnp.zeros((), bool))

    def update_fn(
        updates: Params, state: SetState, params: Params | None = None, **_: Any
    ) -> tuple[Params, SetState]:
        if params is None:
            raise ValueError("within needs the params: call tx.update(grads, state, params)")
        picked = chosen(params)
        ahead = at_picked(lambda p, u: (working(p) + working(u)).astype(p.dtype), picked, updates)
        target = masked_like(ahead, picked)
        inside = projection(target)
        pulled = jax.tree.map(
            lambda t, q, p, u: jnp.where((q == t) | ~jnp.isfinite(t), u, (q - p).astype(u.dtype)),
            *(target, inside, picked, masked_like(updates, picked)),
        )
        changed = [jnp.any(q != t) for q, t in zip(*map(jax.tree.leaves, (inside, target)), strict=True)]
        return at_picked(lambda u, _: u, pulled, updates), SetState(jnp.any(jnp.stack(changed)))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
