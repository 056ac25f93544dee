"""Euclidean projections onto the two convex sets of the constrained problem.

The ball ``‖w − w⁰‖ ≤ ε`` over a whole tree of weights and the ratio cone ``{v ≥ ζ, max v / min v ≤ κ}`` of
the output weights. Pure functions: under ``jit``, ``vmap`` and ``grad``, no optax, no state.

Reference: "When Expressivity Meets Trainability", problem (7).
"""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks
from narrow_jax._typing import Array, ArrayLike, Float, Params

__all__ = ["ball_shrinkage", "l2_ball", "l2_norm", "ratio_cone", "sign_pattern", "working"]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


def working(x: Array) -> Array:
    """Return ``x`` in the precision of the arithmetic: float32 for half precision, else its own dtype."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


@jax.jit  # called outside of jit, lax.cond would be compiled again each time
def l2_norm(tree: Params) -> Float[Array, ""]:
    """Return the Euclidean norm of all entries of a tree; 0 for an empty or zero tree, with derivative 0 there.

    ``sqrt(Σ x²)`` in one pass where the sum is in range, else ``M·sqrt(Σ (x/M)²)`` with M the largest
    magnitude, so that no square overflows or underflows.

    Example:
        >>> print(l2_norm({"a": jnp.full(2, 3e30), "b": jnp.array([4e30, 4e30])}))
        7.07...e+30
    """
    leaves = [working(leaf) for leaf in jax.tree.leaves(tree) if leaf.size]
    if not leaves:
        return jnp.zeros(())
    total = functools.reduce(operator.add, [jnp.sum(leaf**2) for leaf in leaves])
    limits = jnp.finfo(total.dtype)
    in_range = (total > limits.tiny / limits.eps**2) & (total < limits.max * limits.eps)
    # the second argument of where: under vmap both branches are differentiated, and sqrt has no slope at 0
    return jax.lax.cond(
        in_range,
        lambda leaves: jnp.sqrt(jnp.where(in_range, total, jnp.ones_like(total))),
        _scaled_norm,
        leaves,
    )


def _scaled_norm(leaves: list[Array]) -> Float[Array, ""]:
    largest = functools.reduce(jnp.maximum, [jnp.max(jnp.abs(leaf)) for leaf in leaves])
    # capped: the reciprocal of a number near the largest float is subnormal, and XLA may flush it to 0
    scale = jnp.minimum(largest, jnp.finfo(largest.dtype).max / 2**20)
    # constant under differentiation: the value does not depend on the scale
    scale = jax.lax.stop_gradient(jnp.where(scale > 0, scale, jnp.ones_like(scale)))
    total = functools.reduce(operator.add, [jnp.sum((leaf / scale) ** 2) for leaf in leaves])
    return jnp.where(largest == 0, jnp.zeros_like(total), scale * jnp.sqrt(jnp.where(largest == 0, 1, total)))


@jax.jit  # so that the NaN for bad radii is no result of its own, which JAX_DEBUG_NANS would take for a fault
def ball_shrinkage(norm: Float[Array, ""], radius: ArrayLike) -> Float[Array, ""]:
    """Return the factor min(1, radius/norm) that brings a displacement of that norm into the ball.

    NaN for a NaN norm and for a traced radius that is NaN or negative.
    """
    radius = jnp.asarray(radius, norm.dtype)
    outside = (norm > radius) | (radius == 0)
    # finite where it is not used too: 0·∞ would be a NaN gradient inside an infinite ball
    reach = jnp.where(outside, radius, jnp.zeros_like(radius))
    factor = _quotient(reach, jnp.where(outside & (norm > 0), norm, jnp.ones_like(norm)))
    factor = jnp.where(outside, factor, jnp.ones_like(norm))
    return jnp.where(jnp.isnan(norm) | ~(radius >= 0), jnp.full_like(norm, jnp.nan), factor)


@jax.custom_jvp
def _quotient(radius: Float[Array, ""], norm: Float[Array, ""]) -> Float[Array, ""]:
    return radius / norm


@_quotient.defjvp
def _quotient_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    (radius, norm), (radius_dot, norm_dot) = primals, tangents
    quotient = _quotient(radius, norm)
    return quotient, radius_dot / norm - quotient * (norm_dot / norm)  # JAX's own rule holds norm⁻²: overflow


def l2_ball(tree: Params, center: Params, radius: ArrayLike) -> Params:
    """Project a tree onto the ball of that radius around ``center``, one norm over all leaves.

    ``c + min(1, ε/‖x − c‖)·(x − c)``. Feasible to a few units in the last place of the weights; points
    inside come back unchanged, bit for bit.

    Args:
        tree: the weights, a pytree of arrays.
        center: the same structure, shapes and dtypes.
        radius: ε ≥ 0; 0 returns the centre, infinity the tree itself. May be traced.

    Raises:
        ValueError: negative or NaN radius.

    Example:
        >>> l2_ball(jnp.array([3.0, 4.0]), jnp.zeros(2), 1.0)
        Array([0.6, 0.8], dtype=float32)

    Reference:
        "When Expressivity Meets Trainability", B_ε(w⁰) of problem (7).
    """
    _checks.radius(radius)
    displacement = jax.tree.map(lambda x, c: working(x) - working(c), tree, center)
    factor = ball_shrinkage(l2_norm(displacement), radius)

    def pull(x: Array, c: Array, z: Array) -> Array:
        # 1·z + c is not x in floating point: inside the ball x itself is the answer
        return jnp.where(factor == 1, x, (working(c) + factor.astype(z.dtype) * z).astype(x.dtype))

    return jax.tree.map(pull, tree, center, displacement)


def sign_pattern(v: Float[Array, h * k]) -> Float[Array, h * k]:
    """Return the pattern of ±1 that ``ratio_cone`` keeps; a zero counts as positive."""
    return jnp.where(v < 0, -jnp.ones_like(v), jnp.ones_like(v))


def ratio_cone(
    v: Float[Array, h * k], zeta: ArrayLike, kappa: ArrayLike, signs: Float[Array, h * k] | None = None
) -> Float[Array, h * k]:
    """Project each column of ``v`` onto ``{u : s·u ≥ ζ, max|u| / min|u| ≤ κ}``, exactly, in O(h log h).

    For the pattern s = +1, ``u = clip(v, t, κt)`` with t ≥ ζ the minimiser of
    ``Σ (t − v_j)₊² + Σ (v_j − κt)₊²``, a convex piecewise quadratic whose pieces end at v_j and v_j/κ.

    Args:
        v: (h,) or (h, k), one column an output.
        zeta: ζ > 0, lower bound of the magnitudes.
        kappa: κ ≥ 1, largest ratio of magnitudes within a column; infinity for no upper bound.
        signs: the pattern s of ±1, same shape as ``v``; all positive by default (the paper's set).

    Raises:
        ValueError: ζ ≤ 0 or κ < 1.

    Example:
        >>> ratio_cone(jnp.array([-1.0, 1.0, 10.0]), zeta=0.5, kappa=4.0)
        Array([2.2222223, 2.2222223, 8.888889 ], dtype=float32)

    Reference:
        "When Expressivity Meets Trainability", B_{ζ,κ}(v) of problem (7).
    """
    _checks.zeta(zeta)
    _checks.kappa(kappa)
    magnitudes = working(v) if signs is None else working(v) * working(signs)
    zeta, ratio = jnp.asarray(zeta, magnitudes.dtype), _checks.concrete(kappa)
    if ratio is not None and np.isinf(ratio):
        u = jnp.where(
            magnitudes < zeta, zeta, magnitudes
        )  # no ∞ is computed with, which JAX_DEBUG_INFS would report
    else:
        project = _ratio_cone_column if v.ndim == 1 else jax.vmap(_ratio_cone_column, (1, None, None), 1)
        u = project(magnitudes, zeta, jnp.asarray(kappa, magnitudes.dtype))
    return (u if signs is None else u * working(signs)).astype(v.dtype)


@jax.jit
def _ratio_cone_column(v: Float[Array, " h"], zeta: Array, kappa: Array) -> Float[Array, " h"]:
    if v.size == 0:
        return v
    bounded = jnp.isfinite(kappa)
    ratio = jnp.where(bounded, kappa, jnp.ones_like(kappa))  # κ = ∞ is set apart: ∞·0 would be NaN
    low = jnp.where(bounded, _cone_threshold(v, zeta, ratio), zeta)
    high = jnp.where(bounded, ratio * low, jnp.full_like(kappa, jnp.inf))
    feasible = (jnp.min(v) >= zeta) & (jnp.max(v) <= jnp.where(bounded, ratio * jnp.min(v), jnp.inf))
    return jnp.where(feasible, v, jnp.clip(v, low, high))


def _cone_threshold(v: Float[Array, " h"], zeta: Array, kappa: Array) -> Float[Array, ""]:
    """Return the minimiser t* of the docstring above for finite κ.

    The derivative ``g(t) = Σ (t − v_j)₊ − κ Σ (v_j − κt)₊`` never decreases: its last breakpoint with
    g ≤ 0 fixes the sets A = {v_j ≤ t} and B = {v_j/κ > t}, and on that piece g is zero at
    ``(Σ_A v + κ Σ_B v) / (|A| + κ²|B|)``.
    """
    ordered = jax.lax.stop_gradient(jnp.sort(v))
    sums = jnp.concatenate([jnp.zeros_like(ordered[:1]), jnp.cumsum(ordered)])
    caps = ordered / kappa  # compared as v/κ > t throughout: κ·(v/κ) may round to another side of v
    breakpoints = jnp.concatenate([zeta[None], ordered, caps])
    below = jnp.searchsorted(ordered, breakpoints)
    capped = jnp.searchsorted(caps, breakpoints, side="right")
    excess = (sums[-1] - sums[capped]) - (v.size - capped).astype(v.dtype) * kappa * breakpoints
    slope = below.astype(v.dtype) * breakpoints - sums[below] - kappa * excess
    start = jnp.max(jnp.where((slope <= 0) & (breakpoints >= zeta), breakpoints, zeta))

    inverse = 1 / kappa  # dividing by κ² keeps large κ from overflowing
    raised, lowered = v <= start, v / kappa > start
    weight = inverse**2 * jnp.sum(raised, dtype=v.dtype) + jnp.sum(lowered, dtype=v.dtype)
    total = inverse**2 * jnp.sum(jnp.where(raised, v, 0)) + inverse * jnp.sum(jnp.where(lowered, v, 0))
    stationary = total / jnp.where(weight > 0, weight, jnp.ones_like(weight))
    return jnp.maximum(zeta, stationary)
