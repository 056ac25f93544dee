"""What an optimizer state tells of the constraints, whatever wraps them: ``report``."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax

from narrow_jax._typing import Array, Params
from narrow_jax.constraints.coordinates import BallCoordinatesState
from narrow_jax.constraints.projecting import ProjectState


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
    found = _found(opt_state, params)
    states = [state if now is None else state.measured(now) for state, now in found]
    fields = ("distance", "relative_distance", "ball_active", "cone_active") if states else ()
    return {name: jnp.max(jnp.stack([getattr(state, name) for state in states])) for name in fields}


def _found(opt_state: optax.OptState, params: Params | None) -> Iterator[tuple[ProjectState, Params | None]]:
    """Yield the states of ``project``, each with the params in the coordinates in which it sees them."""
    kinds = (ProjectState, BallCoordinatesState)
    for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds)):
        if isinstance(node, ProjectState):
            yield node, params
        elif isinstance(node, BallCoordinatesState):
            hat = None if params is None else node.to_ball(params)
            yield from _found(node.inner, hat)
