"""Problem (7) of "When Expressivity Meets Trainability", in its natural coordinates.

ŵ = (w − w⁰)/s, v̂ = s·v with s = min(ε, 1), flattened to one vector θ̂:
minimise ½‖y − f(w; v)‖² over the ball ‖w − w⁰‖ ≤ ε and the cone {v ≥ ζ, max v/min v ≤ κ}. Both sets are convex: θ̂ is
a KKT point if and only if θ̂ = P(θ̂ − ∇̂). The standard net with a ball is the same problem with free v.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, jacobian, projections
from narrow_jax._typing import Array, ArrayLike, Float, HostArray, Params, Samples
from narrow_jax.certificates.narrow_nets.constants import check_outputs
from narrow_jax.certificates.narrow_nets.problem7_nets import (
    ConstrainedNet,
    ConstrainedPair,
    Deep,
    DeepPair,
    Hidden,
    OneHidden,
    OneHiddenPair,
)
from narrow_jax.jacobian import Net, weights
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations, mlp_activations

Point = Float[Array, " p"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constrained:
    """The data, the start and the sets; ``zeta`` is None where v is free. Made by ``constrained``."""

    x: Float[Array, "n d"]
    y: Float[Array, "n k"]
    w0: Hidden
    v0: Float[Array, "h k"]
    radius: Array
    zeta: Array | None
    kappa: Array
    net: ConstrainedNet = field(metadata={"static": True})

    @property
    def paired(self) -> bool:
        """Return whether the net is a pair."""
        return isinstance(self.net, ConstrainedPair)

    @property
    def start(self) -> Params:
        """Return the params at the start."""
        return self.net.params(self.w0, self.v0)

    @property
    def hidden(self) -> int:
        """Return the number of hidden weights, which come first in a point."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.w0))

    @property
    def scale(self) -> Array:
        """Return s: 1 for ε = 0, where w is frozen."""
        return jnp.where(self.radius > 0, jnp.minimum(self.radius, 1.0), 1.0)

    @property
    def reach(self) -> Array:
        """Return the radius of the ball of ŵ."""
        return self.radius / self.scale

    @jax.jit
    def params(self, point: Point) -> Params:
        """Return the weights at θ̂."""
        moved, v = self.split(point)
        w = jax.tree.map(lambda start, step: start + self.scale * step, self.w0, moved)
        return self.net.params(w, v / self.scale)

    def split(self, point: Point) -> tuple[Hidden, Array]:
        """Return ŵ and v̂."""
        leaves, structure = jax.tree.flatten(self.w0)
        ends = list(itertools.accumulate(leaf.size for leaf in leaves))
        parts = [
            point[end - leaf.size : end].reshape(leaf.shape) for leaf, end in zip(leaves, ends, strict=True)
        ]
        return jax.tree.unflatten(structure, parts), point[ends[-1] :].reshape(self.v0.shape)

    def point(self, params: Params) -> Point:
        """Return θ̂ of these weights.

        Raises:
            ValueError: other leaves or shapes than the start has, non-finite values.
            TypeError: a leaf that is not real floating numbers.
        """
        w, v = self.net.parts(_like(params, self))
        return _point(self, w, v)

    def residuals(self, point: Point) -> Float[Array, " r"]:
        """Return f − y."""
        moved, v = self.split(point)
        f = self.net.output(self.x, self.w0, moved, self.scale, v / self.scale)
        return (f - self.y).reshape(-1)

    def loss(self, point: Point) -> Array:
        """Return ½‖f − y‖²."""
        return jnp.sum(jnp.square(self.residuals(point))) / 2

    @jax.jit
    def project(self, point: Point, reach: Array | None = None) -> Point:
        """Return the nearest feasible point; with ``reach`` for another ball of ŵ."""
        w, v = self.split(point)
        w = projections.l2_ball(w, jax.tree.map(jnp.zeros_like, w), self.reach if reach is None else reach)
        return _flat(w, self.project_outer(v))

    def move(self, point: Point, step: Point) -> Point:
        """Return a feasible point that is θ̂ + Δ to first order and keeps the products v_j(w_j+ − w_j−) to second order.

        f depends on those products and hardly on their factors: along a straight line from a small ball, where v is
        large, the loss is a narrow curved valley. The gap g_j moves by Δg_j/(1 + a_j), a_j the relative growth of v_j,
        that of all v for the layers before the last; the mean of the pair gives way to the ball.
        """
        net = self.net
        if not isinstance(net, ConstrainedPair):
            return self.project(point + step)
        (w, v), (dw, dv) = self.split(point), self.split(step)
        moved = _along_the_valley(net, net.halves(w), net.halves(dw), net.growths(v, dv), self.reach)
        return self.project(_flat(moved, v + dv))

    def project_outer(self, v: Array) -> Array:
        """Return the projection of v̂ onto the cone with the sign pattern of the start."""
        if self.zeta is None:
            return v
        return projections.ratio_cone(
            v, self.zeta * self.scale, self.kappa, projections.sign_pattern(self.v0)
        )


def _along_the_valley(
    net: ConstrainedPair,
    at: tuple[Hidden, Hidden],
    step: tuple[Hidden, Hidden],
    growths: tuple[Array, ...],
    reach: Array,
) -> Hidden:
    """Return the hidden weights of ``Constrained.move``, not yet projected."""
    (plus, minus), (d_plus, d_minus) = ([jax.tree.leaves(half) for half in side] for side in (at, step))
    gaps = [
        p - q + (dp - dq) / jnp.maximum(growth, 0.2)[None, :]
        for p, q, dp, dq, growth in zip(plus, minus, d_plus, d_minus, growths, strict=True)
    ]
    means = [(p + q + dp + dq) / 2 for p, q, dp, dq in zip(plus, minus, d_plus, d_minus, strict=True)]
    room = jnp.square(reach) - _squares(gaps) / 2  # ‖ŵ‖² = 2‖mean‖² + ‖gap‖²/2
    size = 2 * _squares(means)
    crowded = (size > room) & (room > 0)
    shrink = jnp.where(crowded, jnp.sqrt(jnp.where(crowded, room / jnp.where(crowded, size, 1.0), 1.0)), 1.0)
    means = [mean * shrink for mean in means]
    structure = jax.tree.structure(at[0])
    ahead = [mean + gap / 2 for mean, gap in zip(means, gaps, strict=True)]
    behind = [mean - gap / 2 for mean, gap in zip(means, gaps, strict=True)]
    return net.whole(*(jax.tree.unflatten(structure, end) for end in (ahead, behind)))


def _squares(leaves: list[Array]) -> Array:
    return functools.reduce(operator.add, [jnp.sum(leaf**2) for leaf in leaves])


def _flat(w: Hidden, v: Array) -> Point:
    return jnp.concatenate([leaf.reshape(-1) for leaf in (*jax.tree.leaves(w), v)])


@jax.jit
def _point(problem: Constrained, w: Hidden, v: HostArray) -> Point:
    moved = jax.tree.map(
        lambda leaf, start: (leaf.astype(jnp.float64) - start) / problem.scale, w, problem.w0
    )
    return _flat(moved, problem.scale * v.astype(jnp.float64))


def _like(params: Params, problem: Constrained) -> Params:
    """Return params, checked, of the shapes that the start has."""
    if isinstance(problem.net, OneHidden):
        w, v = weights(params)
        if (w.shape, v.shape) != (problem.w0.shape, problem.v0.shape):
            raise ValueError(
                f"params has w of shape {w.shape} and v of shape {v.shape}; expected {problem.w0.shape} and "
                f"{problem.v0.shape}, as the center has them"
            )
        return {"w": w, "v": v}
    if not isinstance(params, Mapping) or set(params) != set(problem.start):
        leaves = sorted(params) if isinstance(params, Mapping) else type(params).__name__
        raise ValueError(f"params is {leaves}; expected {sorted(problem.start)}, as the center has them")
    Net.of(params, problem.net.sigmas)
    found, expected = (jax.tree.map(jnp.shape, tree) for tree in (params, problem.start))
    if found != expected:
        raise ValueError(f"params has the shapes {found}; expected {expected}, as the center has them")
    return params


def constrained(
    center: Params,
    x: Samples,
    y: Samples,
    radius: float,
    zeta: float | None,
    kappa: float,
    activation: Activations,
) -> Constrained:
    """Return problem (7), its input checked; x64 has to be on. The leaves and the shape of v tell the net.

    Raises:
        ValueError: a center of no net that is known, shapes that do not fit, no sample, non-finite values, ε < 0,
            ζ ≤ 0, κ < 1.
        TypeError: arrays that are not real floating numbers.
    """
    _checks.radius(radius)
    _checks.kappa(kappa)
    if zeta is not None:
        _checks.zeta(zeta)
    x, y = _checks.real_data(x, y)
    net = _net(center, x, activation)
    w, v = net.parts(center)
    check_outputs(y, v)
    data, labels, w0, v0 = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (x, y, w, v))
    return Constrained(
        x=data,
        y=labels,
        w0=w0,
        v0=v0,
        radius=jnp.asarray(radius, jnp.float64),
        zeta=None if zeta is None else jnp.asarray(zeta, jnp.float64),
        kappa=jnp.asarray(kappa, jnp.float64),
        net=net,
    )


def _net(center: Params, x: np.ndarray, activation: Activations) -> ConstrainedNet:
    """Return what kind of net the center is of, its shapes and entries checked."""
    names = set(center) if isinstance(center, Mapping) else set()
    if {"plus", "minus", "w1"} & names:
        found = Net.of(center, activation, "center")
        found.jacobian(x)  # checks the shapes
        return (DeepPair if found.paired else Deep)(found.sigmas)
    w, v = weights(center, "center")
    sigma = mlp_activations(activation, 1)[0]
    paired = v.shape[0] != w.shape[1]
    (jacobian.pairwise if paired else jacobian.standard)({"w": w, "v": v}, x, sigma)
    return (OneHiddenPair if paired else OneHidden)(sigma)


@jax.jit
def natural(problem: Constrained, point: Point, step: ArrayLike = 1.0) -> tuple[Array, Array, Array]:
    """Return the loss, ∇̂, and Φ = (θ̂ − P(θ̂ − t∇̂))/t, which vanishes at KKT points only, whatever the step t > 0.

    Where P moves nothing it is ∇̂, which may be too small for θ̂ − t∇̂ to feel it.
    """
    loss, gradient = jax.value_and_grad(problem.loss)(point)
    moved = point - step * gradient
    nearest = problem.project(moved)
    return loss, gradient, jnp.where(nearest == moved, gradient, (point - nearest) / step)


def measure(problem: Constrained, point: Point, unit: float) -> tuple[float, float]:
    """Return the loss and ‖Φ‖/unit with t = 1/max(unit, 1), ``unit`` being ‖∇̂‖ at the start.

    With t = 1 a gradient much larger than the ball would make any point look like a KKT point: ‖Φ‖ is at most the
    diameter of the ball over t.
    """
    loss, _, phi = natural(problem, point, 1 / max(unit, 1.0))
    return float(loss), float(projections.l2_norm(phi)) / unit


def start_gradient(problem: Constrained) -> float:
    """Return ‖∇̂‖ at the start, the unit of the residual; 1 where it vanishes, NaN where products under- or overflow."""
    start = problem.point(problem.start)
    size = float(projections.l2_norm(natural(problem, start)[1]))
    factors = problem.x, problem.v0, problem.y, problem.scale
    sizes = (float(np.max(np.abs(factor))) for factor in factors)
    smallest = fl.product_up(*(min(largest, 1.0) for largest in sizes))  # of the products that ∇̂ is made of
    if 0 < smallest < fl.CARRIED or not math.isfinite(size):
        return math.nan
    return size if size > 0 else 1.0
