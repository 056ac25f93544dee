"""The constraints of the narrow regime as optax transformations.

``project`` keeps w in a ball around its start and v in a cone; ``ball_coordinates`` lets any optimizer work
in coordinates in which a small ball is well scaled; ``regime`` chains the two in the right order.

Leaves are selected by labels, one a leaf: ``"w"`` for the ball, ``"v"`` for the cone, ``"free"`` for neither. By
default the leaf's own name is its label, and all leaves of the two copies ``plus`` and ``minus`` of a pairwise net are
in the ball (``by_name``); ``by_path`` labels the leaves of any model. All leaves labelled "w" share one ball. A
constraint that would hold for no leaf is refused, unless optax masked the tree. The centre of the ball and the signs of
v are those of the params given to ``init``.

Radii of their own for each layer are regimes inside each other, the inner ones without a cone:

    >>> params = {"layer1": jnp.ones((3, 4)), "layer2": jnp.ones((4, 2)), "head": {"v": jnp.ones((2, 1))}}
    >>> inner = regime(optax.adam(1e-2), radius=0.1, zeta=None, labels=by_path(w="layer1"))
    >>> tx = regime(inner, radius=1.0, zeta=1e-3, labels=by_path(w="layer2", v="head/v"))
    >>> sorted(report(tx.init(params)))
    ['ball_active', 'cone_active', 'distance', 'relative_distance']

``within`` keeps leaves in any other set: a projection of optax, or a ``Set`` of your own with what the history is to
say of it. It is a third set beside ball and cone, last in the chain:

    >>> unit = optax.projections.projection_l2_ball
    >>> tx = optax.chain(regime(optax.adam(1e-2), 0.1, labels=by_path(w="layer1", v="head")), within(unit, "layer2"))
    >>> sorted(report(tx.init(params)))
    ['ball_active', 'cone_active', 'distance', 'relative_distance', 'set_active']

Any optimizer of optax works inside, such as muon, which makes the update of each matrix orthogonal:

    >>> tx = regime(optax.contrib.muon(0.02), radius=0.1, labels=by_path(w=["layer1", "layer2"], v="head"))

Reference: "When Expressivity Meets Trainability", problem (7).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from narrow_jax._typing import ArrayLike, Params
from narrow_jax.constraints.bounds import Limits, Radius
from narrow_jax.constraints.coordinates import BallCoordinatesState, ball_coordinates
from narrow_jax.constraints.iterates import eval_params, keep_inside
from narrow_jax.constraints.projecting import ProjectState, project
from narrow_jax.constraints.reading import report
from narrow_jax.constraints.user_sets import Set, SetState, within
from narrow_jax.constraints.wrapping import Transformation as Transformation
from narrow_jax.constraints.wrapping import accepted as accepted
from narrow_jax.constraints.wrapping import transformation as transformation
from narrow_jax.labels import Labels, by_name, by_path

__all__ = [
    "BallCoordinatesState",
    "Labels",
    "Limits",
    "ProjectState",
    "Radius",
    "Set",
    "SetState",
    "ball_coordinates",
    "by_name",
    "by_path",
    "eval_params",
    "project",
    "regime",
    "report",
    "within",
]

RegimeState = tuple[BallCoordinatesState, ProjectState]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


def regime(
    tx: optax.GradientTransformation,
    radius: Radius,
    zeta: ArrayLike | None = 1e-3,
    kappa: ArrayLike = jnp.inf,
    labels: Labels | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Put an optimizer under the constraints of the narrow regime: ball coordinates, then the projection.

    It comes last in a chain: what a later transformation adds may leave the ball, and the history of ``nj.fit`` then
    shows a relative distance above 1. Optimizers whose steps are relative to the size of the weights crawl, since
    ŵ = 0 at the start: pass ``optax.adafactor(…, multiply_by_parameter_scale=False)``, and chain lamb, lars and
    fromage with ``project`` instead. Of a schedule-free optimizer all iterates are kept inside, and ``eval_params`` is
    their average.

    Args:
        tx: any optax optimizer.
        radius: ε ≥ 0, or a schedule; infinity for no ball.
        zeta: ζ > 0, or None to leave v free (the standard net with a ball).
        kappa: κ ≥ 1.
        labels: which leaves are "w" and "v"; None for ``by_name``.

    Raises:
        ValueError: as ``project`` and ``ball_coordinates``: in ``init`` also where no leaf is labelled "w" although
            there is a ball, or "v" although there is a ζ.

    Example:
        >>> tx = regime(optax.adam(1e-2), radius=0.1)

    Reference:
        "When Expressivity Meets Trainability", Algorithm 2.
    """
    coordinates, projection = ball_coordinates(tx, radius, labels), project(radius, zeta, kappa, labels)

    def init_fn(params: Params) -> RegimeState:
        return coordinates.init(params), projection.init(params)

    def update_fn(
        updates: Params, state: RegimeState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, RegimeState]:
        ball, kept = state
        updates, ball = coordinates.update(updates, ball, params, **extra)
        now = kept._replace(limits=Limits.at(kept.step, radius, zeta, kappa))
        updates, ball = keep_inside(ball, now, updates, params)
        updates, kept = projection.update(updates, kept, params)
        return updates, (ball, kept)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
