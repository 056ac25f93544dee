"""``project``: w stays in a ball around its start and v in a cone."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from narrow_jax import _checks, projections
from narrow_jax._typing import Array, ArrayLike, KeyPath, Params
from narrow_jax.constraints.bounds import Limits, Radius, current, require_like_start, said
from narrow_jax.labels import Labels, at_picked, completed, label_tree, masked_like, pick, require_selected
from narrow_jax.projections import working


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
        limits: the bounds of the last update.
    """

    step: Array
    center: Params
    signs: Params
    distance: Array
    relative_distance: Array
    ball_active: Array
    cone_active: Array
    limits: Limits

    def measured(self, params: Params) -> ProjectState:
        """Return the state with the distances of these params."""
        away = at_picked(lambda c, p: working(p) - working(c), self.center, params)
        distance = projections.l2_norm(masked_like(away, self.center))
        radius = self.limits.radius
        relative = jnp.zeros_like(distance) if radius is None else in_radii(distance, radius)
        return self._replace(distance=distance, relative_distance=relative)


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
        ValueError: bad ε, ζ or κ; in ``init``: an unknown label, a ball or a cone for no leaf, or v outside the cone;
            in ``update``: params missing or unlike those of ``init``.

    Example:
        >>> from narrow_jax.constraints import report
        >>> tx = optax.chain(optax.sgd(1.0), project(radius=1.0))
        >>> params = {"w": jnp.zeros(2)}
        >>> updates, state = tx.update({"w": jnp.array([-3.0, -4.0])}, tx.init(params), params)
        >>> updates["w"], report(state)["relative_distance"]
        (Array([0.6, 0.8], dtype=float32), Array(1., dtype=float32))
    """
    if not callable(radius):
        _checks.radius(radius)
    _check_cone(zeta, kappa)

    bounds = partial(Limits.at, radius=radius, zeta=zeta, kappa=kappa)

    def init_fn(params: Params) -> ProjectState:
        marks = label_tree(labels, params)
        cone = "" if zeta is None else said("zeta", zeta)
        require_selected("project", marks, params, said("radius", radius), cone)
        if zeta is not None:
            jax.tree_util.tree_map_with_path(partial(_require_in_cone, zeta, kappa), marks, params)
        center = pick("w", jnp.copy, marks, params)  # a reference would be lost to buffer donation
        zero, false = projections.l2_norm(jax.tree.map(jnp.zeros_like, center)), jnp.zeros((), bool)
        signs = pick("v", projections.sign_pattern, marks, params)
        step = jnp.zeros((), jnp.int32)
        # copies: no buffer can be donated twice
        told = zero, jnp.copy(zero), false, jnp.copy(false), jax.tree.map(jnp.copy, bounds(step))
        return ProjectState(step, center, signs, *told)

    def update_fn(
        updates: Params, state: ProjectState, params: Params | None = None, **_: Any
    ) -> tuple[Params, ProjectState]:
        require_like_start("project", state.center, updates, params)
        epsilon = current(radius, state.step)
        updates, distance, ball_active = _into_ball(state.center, updates, params, epsilon)
        cone_active = state.cone_active
        if zeta is not None:
            updates, cone_active = _into_cone(state.signs, updates, params, zeta, kappa)
        told = distance, in_radii(distance, epsilon), ball_active, cone_active, bounds(state.step)
        step = optax.safe_increment(state.step)
        return updates, ProjectState(step, state.center, state.signs, *told)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def feasible(state: ProjectState, params: Params) -> Params:
    """Project params onto the ball and the cone of a state."""
    radius, zeta, kappa = state.limits
    if radius is not None:
        ball = projections.l2_ball(masked_like(params, state.center), state.center, radius)
        params = completed(ball, params)
    if zeta is not None:
        bound = jnp.inf if kappa is None else kappa
        params = at_picked(lambda s, v: projections.ratio_cone(v, zeta, bound, s), state.signs, params)
    return params


def in_radii(distance: Array, radius: ArrayLike) -> Array:
    """Return distance/ε, the distance itself for ε = 0, and 0 without a ball."""
    radius = jnp.asarray(radius, distance.dtype)
    bounded = radius < jnp.finfo(radius.dtype).max
    ratio = distance / jnp.where((radius > 0) & bounded, radius, jnp.ones_like(radius))
    return jnp.where(bounded | ~(radius > 0), ratio, jnp.zeros_like(ratio))


def _check_cone(zeta: ArrayLike | None, kappa: ArrayLike) -> None:
    _checks.kappa(kappa)
    if zeta is not None:
        _checks.zeta(zeta)
    elif _checks.concrete(kappa) is not None and (bound := said("kappa", kappa)):
        raise ValueError(
            f"there is a {bound} and no zeta; expected both or none: pass zeta too, or leave kappa out"
        )


def _into_ball(
    center: Params, updates: Params, params: Params, radius: ArrayLike
) -> tuple[Params, Array, Array]:
    """Return the updates that end in the ball, ‖w − w⁰‖ after them, and whether they were changed."""

    def now(c: Array, p: Array) -> Array:
        return working(p) - working(c)  # before u is added: (p + u) − c would lose a small ball to rounding

    ahead = at_picked(lambda c, u, p: now(c, p) + working(u), center, updates, params)
    norm = projections.l2_norm(masked_like(ahead, center))
    shrinkage = projections.ball_shrinkage(norm, radius)

    def pull(c: Array, u: Array, p: Array, z: Array) -> Array:
        again = now(jax.lax.optimization_barrier(c), p)  # subtracting twice is cheaper than keeping p − c
        inside = (shrinkage.astype(z.dtype) * z - again).astype(u.dtype)
        return jnp.where(shrinkage == 1, u, inside)

    return at_picked(pull, center, updates, params, ahead), shrinkage * norm, shrinkage != 1


def _into_cone(
    signs: Params, updates: Params, params: Params, zeta: ArrayLike, kappa: ArrayLike
) -> tuple[Params, Array]:
    """Return the updates that end in the cone, and whether they were changed."""

    def ahead(_: Array, u: Array, p: Array) -> Array:
        return working(p) + working(u)

    target = at_picked(ahead, signs, updates, params)
    feasible = at_picked(lambda s, v: projections.ratio_cone(v, zeta, kappa, s), signs, target)

    def pull(_: Array, u: Array, p: Array, v: Array, q: Array) -> Array:
        # −∞ would project to ±ζ: what diverged must not look feasible
        return jnp.where((q == v) | ~jnp.isfinite(v), u, (q - working(p)).astype(u.dtype))

    changed = jax.tree.map(lambda v, q: jnp.any(v != q), target, feasible)
    active = [jnp.zeros((), bool), *jax.tree.leaves(masked_like(changed, signs))]
    return at_picked(pull, signs, updates, params, target, feasible), jnp.any(jnp.stack(active))


def _require_in_cone(zeta: ArrayLike, kappa: ArrayLike, path: KeyPath, mark: str, v: Array) -> None:
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
