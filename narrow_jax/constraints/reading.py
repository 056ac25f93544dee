"""What an optimizer state tells of the constraints, whatever wraps them: ``report``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from narrow_jax._typing import Array, Params
from narrow_jax.constraints.coordinates import BallCoordinatesState
from narrow_jax.constraints.projecting import ProjectState
from narrow_jax.constraints.user_sets import SetState


def report(opt_state: optax.OptState, params: Params | None = None) -> dict[str, Array]:
    """Return what any optimizer state tells of the constraints.

    Of ``project`` distance, relative_distance, ball_active and cone_active: of several, the largest distance and any
    activity. Of ``within`` set_active, and what its set reports. Empty without any.

    Args:
        opt_state: the state, whatever wraps the projection.
        params: the params held with it, whose distance to the centre is measured. Without them the distances are those
            of the last projection, which a transformation after it may have left. What sets report is of theirs.

    Raises:
        ValueError: two sets that report one name, or that of another entry here.

    Example:
        >>> from narrow_jax.constraints import project
        >>> sorted(report(project(radius=1.0).init({"w": jnp.zeros(2)})))
        ['ball_active', 'cone_active', 'distance', 'relative_distance']
    """
    found = list(_found(opt_state, params))
    states = [state if now is None else state.measured(now) for state, now in found if _projects(state)]
    fields = ("distance", "relative_distance", "ball_active", "cone_active") if states else ()
    told = {name: jnp.max(jnp.stack([getattr(state, name) for state in states])) for name in fields}
    sets = [state for state, _ in found if not _projects(state)]
    if sets:
        told["set_active"] = jnp.any(jnp.stack([state.active for state in sets]))
    for state in sets:
        if twice := sorted(set(told) & set(state.told)):
            raise ValueError(
                f"a set reports {twice[0]!r}, as another constraint does; expected names that differ from "
                f"{', '.join(told)}: give another"
            )
        told |= state.told
    return told


def _projects(state: ProjectState | SetState) -> bool:
    return isinstance(state, ProjectState)


def _found(opt_state: optax.OptState, params: Params | None) -> Iterator[tuple[Any, Params | None]]:
    """Yield the states of constraints, each with the params in the coordinates in which it sees them."""
    kinds = (ProjectState, SetState, BallCoordinatesState)
    for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds)):
        if isinstance(node, ProjectState | SetState):
            yield node, params
        elif isinstance(node, BallCoordinatesState):
            hat = None if params is None else node.to_ball(params)
            yield from _found(node.inner, hat)
