"""What an optimizer state tells: ``report`` and ``eval_params``, whatever wraps the constraints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from narrow_jax import projections
from narrow_jax._masking import at_picked, completed, masked_like
from narrow_jax._typing import Array, Params
from narrow_jax.constraints.coordinates import BallCoordinatesState, from_ball, to_ball
from narrow_jax.constraints.projecting import ProjectState, in_radii
from narrow_jax.projections import working


def report(opt_state: optax.OptState, params: Params | None = None) -> dict[str, Array]:
    """Return distance, relative_distance, ball_active and cone_active from any optimizer state.

    Empty if no ``project`` is in it; of several, the largest distance and any activity.

    Args:
        opt_state: the state, whatever wraps the projection.
        params: the params held with it, whose distance to the centre is measured. Without them the distances are those
            of the last projection, which a transformation after it may have left.

    Example:
        >>> from narrow_jax.constraints import project
        >>> sorted(report(project(radius=1.0).init({"w": jnp.zeros(2)})))
        ['ball_active', 'cone_active', 'distance', 'relative_distance']
    """
    states = [_measured(*found) for found in _found(ProjectState, opt_state, params)]
    fields = ("distance", "relative_distance", "ball_active", "cone_active") if states else ()
    return {name: jnp.max(jnp.stack([getattr(state, name) for state in states])) for name in fields}


def eval_params(opt_state: optax.OptState, params: Params) -> Params:
    """Return the averaged weights of ``optax.contrib.schedule_free`` as weights of the constrained problem.

    Schedule-free optimizers hold the average x of their iterates besides the params y at which gradients are taken, in
    the coordinates in which they run: ``optax.contrib.schedule_free_eval_params`` mixes these with the params.
    Here x is mapped back, w = w⁰ + s·x_w and v = x_v/s, and projected onto the ball and the cone.

    Args:
        opt_state: of ``regime`` around a schedule-free optimizer, or of one around ``regime``.
        params: the params held with it.

    Raises:
        ValueError: no optimizer in the state has a second iterate.

    Example:
        >>> from narrow_jax.constraints import regime
        >>> tx = regime(optax.contrib.schedule_free_sgd(0.1), radius=1.0, zeta=None)
        >>> params = {"w": jnp.zeros(2)}
        >>> eval_params(tx.init(params), params)
        {'w': Array([0., 0.], dtype=float32)}
    """
    if not list(_found(optax.contrib.ScheduleFreeState, opt_state, params)):
        raise ValueError(
            "eval_params: the optimizer state holds no second iterate; expected one of "
            "optax.contrib.schedule_free, as in regime(optax.contrib.schedule_free_adamw(…), radius): "
            "any other optimizer is evaluated at the params themselves"
        )
    return _feasible(opt_state, _averaged(opt_state, params))


def _averaged(opt_state: optax.OptState, params: Params) -> Params:
    """Return x = (y − (1 − b₁)z)/b₁, in the coordinates of ``params``."""
    for node in _outermost((optax.contrib.ScheduleFreeState, BallCoordinatesState), opt_state):
        if isinstance(node, BallCoordinatesState):
            hat = _averaged(node.inner, to_ball(node.center, node.scale, params))
            params = from_ball(node.center, node.scale, hat)
        else:
            b1 = node.b1
            params = at_picked(lambda z, y, b1=b1: (y - (1 - b1) * z) / b1, node.z, params)
    return params


def _feasible(opt_state: optax.OptState, params: Params) -> Params:
    """Project params onto every ball and cone of a state."""
    for state, _ in _found(ProjectState, opt_state, None):
        radius, zeta, kappa = state.limits
        if radius is not None:
            inside = projections.l2_ball(masked_like(params, state.center), state.center, radius)
            params = completed(inside, params)
        if zeta is not None:
            params = at_picked(partial(_into_cone, zeta, kappa), state.signs, params)
    return params


def _into_cone(zeta: Array, kappa: Array | None, signs: Array, v: Array) -> Array:
    return projections.ratio_cone(v, zeta, jnp.inf if kappa is None else kappa, signs)


def _outermost(kinds: Any, opt_state: optax.OptState) -> Iterator[Any]:
    """Yield the states of these kinds, whatever wraps them, but not those within another of them."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds))
    return (node for node in nodes if isinstance(node, kinds))


def _found(
    kind: Any, opt_state: optax.OptState, params: Params | None
) -> Iterator[tuple[Any, Params | None]]:
    """Yield the states of a kind, each with the params in the coordinates in which it sees them."""
    for node in _outermost((kind, BallCoordinatesState), opt_state):
        if isinstance(node, kind):
            yield node, params
        else:
            hat = None if params is None else to_ball(node.center, node.scale, params)
            yield from _found(kind, node.inner, hat)


def _measured(state: ProjectState, params: Params | None) -> ProjectState:
    """Return the state with the distances of these params."""
    if params is None:
        return state
    away = at_picked(lambda c, p: working(p) - working(c), state.center, params)
    distance = projections.l2_norm(masked_like(away, state.center))
    radius = state.limits.radius
    relative = jnp.zeros_like(distance) if radius is None else in_radii(distance, radius)
    return state._replace(distance=distance, relative_distance=relative)
