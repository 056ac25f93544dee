"""The iterates of schedule-free optimizers: the params y, at which gradients are taken, and z, whose average is x.

``y = b₁x + (1 − b₁)z``, and z is kept in the optimizer's state, in the coordinates in which it runs. The sets are
convex: with z and x projected y lies in them too.

Reference: Defazio et al., "The Road Less Scheduled".
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState

from narrow_jax._typing import Array, Params
from narrow_jax.constraints.coordinates import BallCoordinatesState
from narrow_jax.constraints.projecting import ProjectState, feasible
from narrow_jax.labels import completed, masked_like


def keep_inside(
    ball: BallCoordinatesState, kept: ProjectState, updates: Params, params: Params
) -> tuple[Params, BallCoordinatesState]:
    """Return updates and state after z and x have been projected; as they are without such an optimizer.

    A projection of y alone would leave z outside, and x = (y − (1 − b₁)z)/b₁ would move away from it by as much.
    """
    nodes, structure = jax.tree.flatten(ball.inner, is_leaf=_is_schedule_free)
    for i, node in enumerate(nodes):
        if _is_schedule_free(node):
            y = jax.tree.map(jnp.add, params, updates)
            z = ball.from_ball(completed(node.z, ball.to_ball(y)))
            x, z = feasible(kept, _average(node.b1, z, y)), feasible(kept, z)
            nodes[i] = node._replace(z=masked_like(ball.to_ball(z), node.z))
            y = jax.tree.map(lambda x, z, b1=node.b1: b1 * x + (1 - b1) * z, x, z)
            updates = jax.tree.map(jnp.subtract, y, params)
    return updates, ball._replace(inner=jax.tree.unflatten(structure, nodes))


def eval_params(opt_state: optax.OptState, params: Params) -> Params:
    """Return the average x of ``optax.contrib.schedule_free`` as weights of the constrained problem.

    Gradients are taken at the params y, losses are to be evaluated at x. ``optax.contrib.schedule_free_eval_params``
    would mix y with what the state holds in the coordinates of ``ball_coordinates``; here x is mapped back, and
    projected onto the ball and the cone.

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
    found = list(_iterates(opt_state, params))
    if not found:
        raise ValueError(
            "eval_params: the optimizer state holds no second iterate; expected one of "
            "optax.contrib.schedule_free, as in regime(optax.contrib.schedule_free_adamw(…), radius): "
            "any other optimizer is evaluated at the params themselves"
        )
    for b1, z in found:
        params = _average(b1, z, params)
    for state in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ProjectState)):
        params = feasible(state, params) if isinstance(state, ProjectState) else params
    return params


def _is_schedule_free(node: object) -> bool:
    return isinstance(node, ScheduleFreeState)


def _iterates(opt_state: optax.OptState, y: Params) -> Iterator[tuple[Array, Params]]:
    """Yield b₁ and z of each schedule-free state, z with what is masked there from y."""
    kinds = (ScheduleFreeState, BallCoordinatesState)
    for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds)):
        if isinstance(node, ScheduleFreeState):
            yield node.b1, completed(node.z, y)
        elif isinstance(node, BallCoordinatesState):
            hat = node.to_ball(y)
            yield from ((b1, node.from_ball(z)) for b1, z in _iterates(node.inner, hat))


def _average(b1: Array, z: Params, y: Params) -> Params:
    """Return x = (y − (1 − b₁)z)/b₁."""
    return jax.tree.map(lambda z, y: ((y - (1 - b1) * z) / b1).astype(y.dtype), z, y)
