"""Activations with parameters: rectifiers and their smoothed form."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax._typing import Array
from narrow_jax.activations.activation import Activation
from narrow_jax.activations.formulas import normal_cdf


def leaky_relu(slope: float) -> Activation:
    """Return max(az, z) with slope a, |a| ≤ 1: a = 0 is the ReLU, a = −1 is |z|.

    Raises:
        ValueError: a slope outside [−1, 1].

    Example:
        >>> print(leaky_relu(0.25)(jnp.array([-4.0, 4.0])))
        [-1.  4.]
    """
    if not -1 <= slope <= 1:
        raise ValueError(f"slope is {slope}; expected a number in [-1, 1] (0: ReLU, -1: absolute value)")
    return _leaky_relu(float(slope))


@functools.cache
def _leaky_relu(slope: float) -> Activation:
    return Activation(
        "relu" if slope == 0 else "abs" if slope == -1 else f"leaky_relu({slope})",
        lambda z: jnp.where(z > 0, z, slope * z),
        lambda z: jnp.where(z > 0, jnp.ones_like(z), jnp.full_like(z, slope)),
        lipschitz=1.0,
        min_derivative=slope,
        sup_second_derivative=math.inf,
        derivative_error=0.0 if slope in (0, -1) else 1.0,
        zero_only_at_zero=slope != 0,
        homogeneous=True,
        smoothing=0.0,
    )


def smooth_leaky_relu(gamma: float, beta: float) -> Activation:
    """Return the leaky ReLU max(γz, z) smoothed by a Gaussian, with σ(0) = 0, σ' in (γ, 1) and |σ''| ≤ β.

    σ(z) = γz + (1 − γ)(zΦ(z/τ) + τφ(z/τ)) − (1 − γ)²/(2πβ) with τ = (1 − γ)/(β√(2π)), Φ and φ the
    standard normal distribution and density.

    Raises:
        ValueError: γ outside (0, 1) or β ≤ 0.

    Example:
        >>> float(smooth_leaky_relu(gamma=0.5, beta=1.0)(jnp.zeros(())))
        0.0

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", equation (2).
    """
    if not 0 < gamma < 1:
        raise ValueError(f"gamma is {gamma}; expected a number in (0, 1), the smallest slope")
    _checks.positive("beta", beta)
    return _smooth_leaky_relu(float(gamma), float(beta))


@functools.cache
def _smooth_leaky_relu(gamma: float, beta: float) -> Activation:
    tau = (1 - gamma) / (beta * math.sqrt(2 * math.pi))

    def fn(z: Array) -> Array:
        # τφ(0) is the shift: their difference through expm1, so that σ(0) = 0 without rounding
        bump = tau / math.sqrt(2 * math.pi) * jnp.expm1(-((z / tau) ** 2) / 2)
        return gamma * z + (1 - gamma) * (z * normal_cdf(z / tau) + bump)

    return Activation(
        f"smooth_leaky_relu({gamma}, {beta})",
        fn,
        lambda z: gamma + (1 - gamma) * normal_cdf(z / tau),
        lipschitz=1.0,
        min_derivative=gamma,
        sup_second_derivative=beta,
        log_derivative_lipschitz=beta / gamma,
        analytic=True,
        zero_only_at_zero=True,
        smoothing=tau,
    )
