"""Problem (7) of "When Expressivity Meets Trainability", in its natural coordinates.

ŵ = (w − w⁰)/s, v̂ = s·v with s = min(ε, 1), flattened to one vector θ̂:
minimise ½‖y − f(w; v)‖² over the ball ‖w − w⁰‖ ≤ ε and the cone {v ≥ ζ, max v/min v ≤ κ}. Both sets are convex: θ̂ is
a KKT point if and only if θ̂ = P(θ̂ − ∇̂). The standard net with a ball is the same problem with free v.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, jacobian, projections
from narrow_jax._typing import Array, ArrayLike, Float, Params, Samples
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets.constants import check_outputs
from narrow_jax.jacobian import weights
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import standard_apply

Point = Float[Array, " p"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constrained:
    """The data, the start and the sets; ``zeta`` is None where v is free. Made by ``constrained``."""

    x: Float[Array, "n d"]
    y: Float[Array, "n k"]
    w0: Float[Array, "d m"]
    v0: Float[Array, "h k"]
    radius: Array
    zeta: Array | None
    kappa: Array
    activation: Activation = field(metadata={"static": True})
    paired: bool = field(metadata={"static": True})

    @property
    def scale(self) -> Array:
        """Return s: 1 for ε = 0, where w is frozen."""
        return jnp.where(self.radius > 0, jnp.minimum(self.radius, 1.0), 1.0)

    @property
    def reach(self) -> Array:
        """Return the radius of the ball of ŵ."""
        return self.radius / self.scale

    @jax.jit
    def params(self, point: Point) -> dict[str, Array]:
        """Return the weights at θ̂."""
        moved, v = self.split(point)
        return {"w": self.w0 + self.scale * moved, "v": v / self.scale}

    def split(self, point: Point) -> tuple[Array, Array]:
        """Return ŵ and v̂."""
        size = self.w0.size
        return point[:size].reshape(self.w0.shape), point[size:].reshape(self.v0.shape)

    def point(self, params: Params) -> Point:
        """Return θ̂ of these weights.

        Raises:
            ValueError: no leaf w or v, other shapes than the start has, non-finite values.
            TypeError: a leaf that is not real floating numbers.
        """
        w, v = weights(params)
        if (w.shape, v.shape) != (self.w0.shape, self.v0.shape):
            raise ValueError(
                f"params has w of shape {w.shape} and v of shape {v.shape}; expected {self.w0.shape} and "
                f"{self.v0.shape}, as the center has them"
            )
        return _point(self, w, v)

    def residuals(self, point: Point) -> Float[Array, " r"]:
        """Return f − y, for a pairwise net from the gaps in ŵ: w⁰ + sŵ has lost their digits for a small ball."""
        if not self.paired:
            return (standard_apply(self.params(point), self.x, self.activation) - self.y).reshape(-1)
        moved, v = self.split(point)
        plus, minus = jnp.split(moved, 2, axis=1)
        plus0, minus0 = jnp.split(self.w0, 2, axis=1)
        z = self.x @ (plus0 + self.scale * plus)
        gap = self.x @ ((minus0 - plus0) + self.scale * (minus - plus))
        f = -_difference(self.activation, z, gap) @ (v / self.scale)
        return (f - self.y).reshape(-1)

    def loss(self, point: Point) -> Array:
        """Return ½‖f − y‖²."""
        return jnp.sum(jnp.square(self.residuals(point))) / 2

    @jax.jit
    def project(self, point: Point, reach: Array | None = None) -> Point:
        """Return the nearest feasible point; with ``reach`` for another ball of ŵ."""
        w, v = self.split(point)
        w = projections.l2_ball(w, jnp.zeros_like(w), self.reach if reach is None else reach)
        return jnp.concatenate([w.reshape(-1), self.project_outer(v).reshape(-1)])

    def move(self, point: Point, step: Point) -> Point:
        """Return a feasible point that is θ̂ + Δ to first order and keeps the products v_j(w_j+ − w_j−) to second order.

        f depends on those products and hardly on their factors: along a straight line from a small ball, where v is
        large, the loss is a narrow curved valley. The gap g_j moves by Δg_j/(1 + a_j), a_j the relative growth of v_j;
        the mean of the pair gives way to the ball.
        """
        if not self.paired:
            return self.project(point + step)
        (w, v), (dw, dv) = self.split(point), self.split(step)
        plus, minus = jnp.split(w, 2, axis=1)
        d_plus, d_minus = jnp.split(dw, 2, axis=1)
        growth = 1 + jnp.sum(v * dv, axis=1) / jnp.sum(v * v, axis=1)
        gap = plus - minus + (d_plus - d_minus) / jnp.maximum(growth, 0.2)[None, :]
        mean = (plus + minus + d_plus + d_minus) / 2
        room = jnp.square(self.reach) - jnp.sum(gap**2) / 2  # ‖ŵ‖² = 2‖mean‖² + ‖gap‖²/2
        size = 2 * jnp.sum(mean**2)
        crowded = (size > room) & (room > 0)
        mean = mean * jnp.where(
            crowded, jnp.sqrt(jnp.where(crowded, room / jnp.where(crowded, size, 1.0), 1.0)), 1.0
        )
        moved = jnp.concatenate([mean + gap / 2, mean - gap / 2], axis=1)
        return self.project(jnp.concatenate([moved.reshape(-1), (v + dv).reshape(-1)]))

    def project_outer(self, v: Array) -> Array:
        """Return the projection of v̂ onto the cone with the sign pattern of the start."""
        if self.zeta is None:
            return v
        return projections.ratio_cone(
            v, self.zeta * self.scale, self.kappa, projections.sign_pattern(self.v0)
        )


@jax.jit
def _point(problem: Constrained, w: Array, v: Array) -> Point:
    moved = (w.astype(jnp.float64) - problem.w0) / problem.scale
    return jnp.concatenate([moved.reshape(-1), (problem.scale * v.astype(jnp.float64)).reshape(-1)])


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)


def _difference(activation: Activation, z: Array, gap: Array) -> Array:
    """Return σ(z + g) − σ(z), for small g of an analytic σ as g∫σ'(z + tg)dt: subtracted, its digits would cancel."""
    direct = activation(z + gap) - activation(z)
    if not activation.analytic:
        return direct
    nodes = zip((_NODES + 1) / 2, _WEIGHTS / 2, strict=True)
    # the derivative of fn, not the proven one: that is a long polynomial, and minutes of compilation for the Hessian
    slope = partial(jax.jvp, activation.fn)
    mean = sum(
        float(weight) * slope((z + float(node) * gap,), (jnp.ones_like(z),))[1] for node, weight in nodes
    )
    return jnp.where(jnp.abs(gap) < 0.1, gap * mean, direct)


def constrained(
    center: Params,
    x: Samples,
    y: Samples,
    radius: float,
    zeta: float | None,
    kappa: float,
    activation: Activation,
) -> Constrained:
    """Return problem (7), its input checked; x64 has to be on. The shape of v tells the net.

    Raises:
        ValueError: a center without the leaves w and v, shapes that do not fit, no sample, non-finite values, ε < 0,
            ζ ≤ 0, κ < 1.
        TypeError: arrays that are not real floating numbers.
    """
    _checks.radius(radius)
    _checks.kappa(kappa)
    if zeta is not None:
        _checks.zeta(zeta)
    x, y = _checks.real_data(x, y)
    w, v = weights(center, "center")
    paired = v.shape[0] != w.shape[1]
    (jacobian.pairwise if paired else jacobian.standard)({"w": w, "v": v}, x, activation)
    check_outputs(y, v)
    data, labels, w0, v0 = (jnp.asarray(array, jnp.float64) for array in (x, y, w, v))
    return Constrained(
        x=data,
        y=labels,
        w0=w0,
        v0=v0,
        radius=jnp.asarray(radius, jnp.float64),
        zeta=None if zeta is None else jnp.asarray(zeta, jnp.float64),
        kappa=jnp.asarray(kappa, jnp.float64),
        activation=activation,
        paired=paired,
    )


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
    start = problem.point({"w": problem.w0, "v": problem.v0})
    size = float(projections.l2_norm(natural(problem, start)[1]))
    factors = problem.x, problem.v0, problem.y, problem.scale
    sizes = (float(np.max(np.abs(factor))) for factor in factors)
    smallest = fl.product_up(*(min(largest, 1.0) for largest in sizes))  # of the products that ∇̂ is made of
    if 0 < smallest < fl.CARRIED or not math.isfinite(size):
        return math.nan
    return size if size > 0 else 1.0
