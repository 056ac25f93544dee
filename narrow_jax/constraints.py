"""The constraints of the narrow regime as optax transformations.

``project`` keeps w in a ball around its start and v in a cone; ``ball_coordinates`` lets any optimizer work
in coordinates in which a small ball is well scaled; ``regime`` chains the two in the right order.

Leaves are selected by labels, one a leaf: ``"w"`` for the ball, ``"v"`` for the cone, ``"free"`` for neither.
By default the leaf's own name is its label (``by_name``); ``by_path`` labels the leaves of any model. The centre of
the ball and the signs of v are those of the params given to ``init``.

Reference: "When Expressivity Meets Trainability", problem (7).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from narrow_jax import _checks, projections
from narrow_jax._labels import Labels, by_name, by_path, label_tree
from narrow_jax._typing import Array, ArrayLike, Params
from narrow_jax.projections import working

__all__ = [
    "BallCoordinatesState",
    "Labels",
    "ProjectState",
    "Radius",
    "ball_coordinates",
    "by_name",
    "by_path",
    "project",
    "regime",
    "report",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


Radius = ArrayLike | Callable[[Array], Array]
"""ε, or a schedule from the step count to ε."""


class ProjectState(NamedTuple):
    """State of ``project``.

    Fields:
        step: updates so far.
        center: w⁰ at the leaves labelled "w", masked elsewhere.
        signs: the pattern of v⁰ at the leaves labelled "v", masked elsewhere.
        distance: ‖w − w⁰‖ after the last update.
        relative_distance: the same divided by ε; 0 without a ball and at radius 0.
        ball_active: the last update was pulled back to the ball.
        cone_active: the last update was pulled back to the cone.
    """

    step: Array
    center: Params
    signs: Params
    distance: Array
    relative_distance: Array
    ball_active: Array
    cone_active: Array


def project(
    radius: Radius = jnp.inf,
    zeta: ArrayLike | None = None,
    kappa: ArrayLike = jnp.inf,
    labels: Labels | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Project the params that an update leads to: w onto the ball, v onto the cone. Last in a chain.

    Emits ``P(p + u) − p``. Inside the sets the update passes unchanged, bit for bit; a NaN stays a NaN.

    Args:
        radius: ε ≥ 0, or a schedule; infinity for no ball, 0 freezes w.
        zeta: ζ > 0, or None to leave v free.
        kappa: κ ≥ 1.
        labels: which leaves are "w" and "v"; None for ``by_name``.

    Returns:
        A transformation whose state reports distance and active constraints; ``report`` reads it.

    Raises:
        ValueError: bad ε, ζ or κ; in ``init``: an unknown label, or v outside the cone; in ``update``:
            params missing or unlike those of ``init``.

    Example:
        >>> tx = optax.chain(optax.sgd(1.0), project(radius=1.0))
        >>> params = {"w": jnp.zeros(2)}
        >>> updates, state = tx.update({"w": jnp.array([-3.0, -4.0])}, tx.init(params), params)
        >>> updates["w"], report(state)["relative_distance"]
        (Array([0.6, 0.8], dtype=float32), Array(1., dtype=float32))
    """
    if not callable(radius):
        _checks.radius(radius)
    _checks.kappa(kappa)
    if zeta is not None:
        _checks.zeta(zeta)

    def init_fn(params: Params) -> ProjectState:
        marks = label_tree(labels, params)
        if zeta is not None:
            jax.tree_util.tree_map_with_path(partial(_require_in_cone, zeta, kappa), marks, params)
        center = _pick("w", jnp.copy, marks, params)  # a reference would be lost to buffer donation
        zero, false = projections.l2_norm(jax.tree.map(jnp.zeros_like, center)), jnp.zeros((), bool)
        signs = _pick("v", projections.sign_pattern, marks, params)
        # copies: no buffer can be donated twice
        told = zero, jnp.copy(zero), false, jnp.copy(false)
        return ProjectState(jnp.zeros((), jnp.int32), center, signs, *told)

    def update_fn(
        updates: Params, state: ProjectState, params: Params | None = None, **_: Any
    ) -> tuple[Params, ProjectState]:
        _require_like_start("project", state.center, updates, params)
        epsilon = _current(radius, state.step)
        updates, distance, ball_active = _into_ball(state.center, updates, params, epsilon)
        cone_active = state.cone_active
        if zeta is not None:
            updates, cone_active = _into_cone(state.signs, updates, params, zeta, kappa)
        epsilon = jnp.asarray(epsilon, distance.dtype)
        relative = jnp.where(epsilon > 0, distance / jnp.where(epsilon > 0, epsilon, 1), distance)
        step = optax.safe_increment(state.step)
        return updates, ProjectState(
            step, state.center, state.signs, distance, relative, ball_active, cone_active
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _into_ball(
    center: Params, updates: Params, params: Params, radius: ArrayLike
) -> tuple[Params, Array, Array]:
    """Return the updates that end in the ball, ‖w − w⁰‖ after them, and whether they were changed."""

    def now(c: Array, p: Array) -> Array:
        return working(p) - working(c)  # before u is added: (p + u) − c would lose a small ball to rounding

    ahead = _at_labelled(lambda c, u, p: now(c, p) + working(u), center, updates, params)
    norm = projections.l2_norm(_drop_unlabelled(center, ahead))
    shrinkage = projections.ball_shrinkage(norm, radius)

    def pull(c: Array, u: Array, p: Array, z: Array) -> Array:
        again = now(jax.lax.optimization_barrier(c), p)  # subtracting twice is cheaper than keeping p − c
        inside = (shrinkage.astype(z.dtype) * z - again).astype(u.dtype)
        return jnp.where(shrinkage == 1, u, inside)

    return _at_labelled(pull, center, updates, params, ahead), shrinkage * norm, shrinkage != 1


def _into_cone(
    signs: Params, updates: Params, params: Params, zeta: ArrayLike, kappa: ArrayLike
) -> tuple[Params, Array]:
    """Return the updates that end in the cone, and whether they were changed."""

    def ahead(_: Array, u: Array, p: Array) -> Array:
        return working(p) + working(u)

    target = _at_labelled(ahead, signs, updates, params)
    feasible = _at_labelled(lambda s, v: projections.ratio_cone(v, zeta, kappa, s), signs, target)

    def pull(_: Array, u: Array, p: Array, v: Array, q: Array) -> Array:
        # −∞ would project to ±ζ: what diverged must not look feasible
        return jnp.where((q == v) | ~jnp.isfinite(v), u, (q - working(p)).astype(u.dtype))

    changed = jax.tree.map(lambda v, q: jnp.any(v != q), target, feasible)
    active = [jnp.zeros((), bool), *jax.tree.leaves(_drop_unlabelled(signs, changed))]
    return _at_labelled(pull, signs, updates, params, target, feasible), jnp.any(jnp.stack(active))


class BallCoordinatesState(NamedTuple):
    """State of ``ball_coordinates``: the updates so far, the centre w⁰ and the inner optimizer's state."""

    step: Array
    center: Params
    inner: optax.OptState


def ball_coordinates(
    tx: optax.GradientTransformation, radius: Radius, labels: Labels | None = None
) -> optax.GradientTransformationExtraArgs:
    """Run an optimizer in the coordinates ŵ = (w − w⁰)/s, v̂ = s·v with s = min(ε, 1).

    In a small ball v must grow like 1/ε, and one step size cannot serve both blocks: in these coordinates
    the problem is well scaled. The change is exact for any inner optimizer: it sees the gradients and the
    params of the new coordinates (so weight decay pulls w to its centre), and ``grad`` and ``value_fn`` of a
    line search are translated too. A gradient that a line search keeps in its state stays in the new
    coordinates: do not reuse it through ``optax.value_and_grad_from_state``.

    Args:
        tx: any optax optimizer.
        radius: ε ≥ 0, or a schedule; s = 1 for ε = 0 and without a ball.
        labels: which leaves are "w" and "v"; None for ``by_name``.

    Raises:
        ValueError: bad ε; in ``update``: params missing or unlike those of ``init``.

    Example:
        >>> tx = ball_coordinates(optax.sgd(1.0), radius=0.1)
        >>> params = {"w": jnp.ones(1), "v": jnp.ones(1)}
        >>> updates, _ = tx.update(params, tx.init(params), params)
        >>> [f"{float(updates[name][0]):.2f}" for name in ("w", "v")]
        ['-0.01', '-100.00']
    """
    if not callable(radius):
        _checks.radius(radius)
    inner = optax.with_extra_args_support(tx)

    def init_fn(params: Params) -> BallCoordinatesState:
        marks, step = label_tree(labels, params), jnp.zeros((), jnp.int32)
        center = _pick("w", jnp.copy, marks, params)
        scale = _scale(_current(radius, step))
        return BallCoordinatesState(step, center, inner.init(_to_ball(marks, center, params, scale)))

    def update_fn(
        updates: Params, state: BallCoordinatesState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, BallCoordinatesState]:
        _require_like_start("ball_coordinates", state.center, updates, params)
        marks, scale = label_tree(labels, params), _scale(_current(radius, state.step))
        if "grad" in extra:
            extra["grad"] = _rescale(marks, extra["grad"], scale)
        if "value_fn" in extra:
            original = extra["value_fn"]
            extra["value_fn"] = lambda hat, *args, **kwargs: original(
                _from_ball(marks, state.center, hat, scale), *args, **kwargs
            )
        hat_params = _to_ball(marks, state.center, params, scale)
        updates, inner_state = inner.update(_rescale(marks, updates, scale), state.inner, hat_params, **extra)
        step = optax.safe_increment(state.step)
        return _rescale(marks, updates, scale), BallCoordinatesState(step, state.center, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _scale(radius: ArrayLike) -> Array:
    """Return s = min(ε, 1), and 1 for ε = 0: capped, since scaling by a large ε spoils the free problem."""
    radius = jnp.asarray(radius, float)
    return jnp.where(radius > 0, jnp.minimum(radius, 1), jnp.ones_like(radius))


def _times(leaf: Array, factor: Array) -> Array:
    wide = working(leaf)
    return (wide * factor.astype(wide.dtype)).astype(leaf.dtype)


def _rescale(marks: Any, tree: Params, scale: Array) -> Params:
    """Multiply the "w" leaves by s and divide the "v" leaves by it: gradients in, updates out."""
    factor = {"w": scale, "v": 1 / scale}
    return jax.tree.map(lambda mark, x: _times(x, factor[mark]) if mark in factor else x, marks, tree)


def _to_ball(marks: Any, center: Params, params: Params, scale: Array) -> Params:
    """Return ŵ = (w − w⁰)/s, v̂ = s·v."""
    return _rescale(marks, _at_labelled(lambda c, p: p - c, center, params), 1 / scale)


def _from_ball(marks: Any, center: Params, hat: Params, scale: Array) -> Params:
    """Return w = w⁰ + s·ŵ, v = v̂/s."""
    return _at_labelled(lambda c, x: x + c, center, _rescale(marks, hat, scale))


def regime(
    tx: optax.GradientTransformation,
    radius: Radius,
    zeta: ArrayLike | None = 1e-3,
    kappa: ArrayLike = jnp.inf,
    labels: Labels | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Put an optimizer under the constraints of the narrow regime: ball coordinates, then the projection.

    Args:
        tx: any optax optimizer.
        radius: ε ≥ 0, or a schedule; infinity for no ball.
        zeta: ζ > 0, or None to leave v free (the standard net with a ball).
        kappa: κ ≥ 1.
        labels: which leaves are "w" and "v"; None for ``by_name``.

    Raises:
        ValueError: as ``project`` and ``ball_coordinates``.

    Example:
        >>> tx = regime(optax.adam(1e-2), radius=0.1)
    """
    return optax.chain(ball_coordinates(tx, radius, labels), project(radius, zeta, kappa, labels))


def report(opt_state: optax.OptState) -> dict[str, Array]:
    """Return distance, relative_distance, ball_active and cone_active from any optimizer state.

    Empty if no ``project`` is in it; of several, the largest distance and any activity.

    Example:
        >>> sorted(report(regime(optax.sgd(1.0), radius=1.0).init({"w": jnp.zeros(2)})))
        ['ball_active', 'cone_active', 'distance', 'relative_distance']
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ProjectState))
    states = [node for node in nodes if isinstance(node, ProjectState)]
    fields = ("distance", "relative_distance", "ball_active", "cone_active") if states else ()
    return {name: jnp.max(jnp.stack([getattr(state, name) for state in states])) for name in fields}


def _current(radius: Radius, step: Array) -> ArrayLike:
    return radius(step) if callable(radius) else radius


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _pick(label: str, fn: Callable[[Array], Array], marks: Any, params: Params) -> Params:
    """Return fn(leaf) at the leaves with that label, masked nodes elsewhere."""
    return jax.tree.map(lambda own, x: fn(x) if own == label else optax.MaskedNode(), marks, params)


def _at_labelled(fn: Callable[..., Any], picked: Params, tree: Params, *rest: Params) -> Params:
    """Return fn(pick, leaf, …) where ``picked`` has a leaf, and the leaves of ``tree`` elsewhere."""
    return jax.tree.map(
        lambda pick, x, *more: x if _is_masked(pick) else fn(pick, x, *more),
        picked,
        tree,
        *rest,
        is_leaf=_is_masked,
    )


def _drop_unlabelled(picked: Params, tree: Params) -> Params:
    return jax.tree.map(
        lambda pick, x: optax.MaskedNode() if _is_masked(pick) else x, picked, tree, is_leaf=_is_masked
    )


def _require_like_start(what: str, center: Params, updates: Params, params: Params | None) -> None:
    if params is None:
        raise ValueError(f"{what} needs the params: call tx.update(grads, state, params)")
    structure = jax.tree.structure(center, is_leaf=_is_masked)
    for name, tree in (("params", params), ("updates", updates)):
        if operator.ne(jax.tree.structure(tree, is_leaf=_is_masked), structure):
            raise ValueError(
                f"{what}: {name} have the structure {jax.tree.structure(tree)}, at init it was {structure}: "
                "call tx.init again for other params"
            )

    def compare(path: tuple[Any, ...], c: Any, p: Any, u: Any) -> None:
        if not _is_masked(c) and not (c.shape == p.shape == u.shape and c.dtype == p.dtype):
            raise ValueError(
                f"{what}: at leaf {jax.tree_util.keystr(path)} params are {p.dtype}{p.shape} and updates "
                f"{u.dtype}{u.shape}, at init params were {c.dtype}{c.shape}: call tx.init again"
            )

    jax.tree_util.tree_map_with_path(compare, center, params, updates, is_leaf=_is_masked)


def _require_in_cone(zeta: ArrayLike, kappa: ArrayLike, path: tuple[Any, ...], mark: str, v: Array) -> None:
    if mark != "v":
        return
    place = jax.tree_util.keystr(path)
    if v.ndim not in (1, 2):
        raise ValueError(f"leaf {place} is labelled 'v' and has shape {v.shape}; expected (h,) or (h, k)")
    values, low, ratio = (_checks.concrete(x) for x in (v, zeta, kappa))
    if values is None or low is None or ratio is None or not values.size:
        return
    smallest, largest = (f(abs(values.astype(float)), axis=0) for f in (np.min, np.max))
    slack = 8 * float(jnp.finfo(v.dtype).eps)  # a feasible start stays one when it is cast to this dtype
    if (smallest < low * (1 - slack)).any() or (largest > ratio * smallest * (1 + slack)).any():
        raise ValueError(
            f"the start is outside the cone: |v| at leaf {place} goes from {smallest.min():.3g} to "
            f"{largest.max():.3g} with zeta {float(low):g} and kappa {float(ratio):g}. Draw it with "
            "mirrored_lecun(zeta=…, kappa=…), project it with nj.projections.ratio_cone, or pass zeta=None"
        )
