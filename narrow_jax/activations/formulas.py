"""Values and derivatives of the stock activations, as accurate as their stated errors say."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array, Computed
from narrow_jax.linalg import arrays, elementary, xp

# The errors of the values below, in units of 2⁻⁵³ with EXP_ERROR = 4. tanh = (1 − e)/(1 + e), e = exp(−2|z|): slope
# 2e/(1 + e)² ≤ 1/2 for log e and 3 roundings: 5. sigmoid: slope ≤ 1/4, 2 roundings: 3, stated as 4. softplus = log1p(e)
# + max(z, 0): LOG1P_ERROR·log 2, slope ≤ 1/2, one rounding of at most 1 + |z|: 10, stated as 12. sin z = cos(z − π/2):
# the difference is off by 2 + |z|, COS_ERROR = 8: 10, stated as 12.


def tanh_value(z: Computed) -> Computed:
    """Return tanh z."""
    e = elementary.exp_negative(2 * xp.abs(z))
    return xp.sign(z) * ((1 - e) / (1 + e))


def sigmoid_value(z: Computed) -> Computed:
    """Return the logistic function."""
    e = elementary.exp_negative(xp.abs(z))
    return xp.where(z >= 0, 1.0, e) / (1 + e)


def softplus_value(z: Computed) -> Computed:
    """Return log(1 + exp z)."""
    return xp.maximum(z, 0.0) + elementary.log1p(elementary.exp_negative(xp.abs(z)))


# The errors of the derivatives below, in units of 2⁻⁵³: e carries EXP_ERROR = 4, and log e ↦ log(e/(1 + e)²) has slope
# in [0, 1]; 1 + e, its square and the quotient add 2 + 1 + 1: 8, stated as 9. For the sigmoid: 4 + 1 + 1, stated as 7.


def tanh_derivative(z: Computed) -> Computed:
    """Return tanh' z."""
    e = elementary.exp_negative(2 * xp.abs(z))  # 1 − tanh² loses all relative accuracy for large |z|
    return 4 * e / (1 + e) ** 2


def sigmoid_derivative(z: Computed) -> Computed:
    """Return s(1 − s), s the logistic function."""
    e = elementary.exp_negative(xp.abs(z))
    return e / (1 + e) ** 2


@arrays.CustomJvp
def sigmoid(z: Computed) -> Computed:
    """Return the logistic function, softplus's derivative."""
    return sigmoid_value(z)


@sigmoid.defjvp
def _sigmoid_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # differentiated through |z| it would be 0 at z = 0
    return sigmoid(*primals), sigmoid_derivative(*primals) * tangents[0]


def normal_cdf(z: Array) -> Array:
    """Return Φ(z)."""
    return jax.scipy.special.erfc(-z / math.sqrt(2)) / 2


def normal_pdf(z: Array) -> Array:
    """Return φ(z)."""
    return jnp.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def swish_derivative(z: Array) -> Array:
    """Return s + zs(1 − s), s the logistic function."""
    return jax.nn.sigmoid(z) * (1 + z * jax.nn.sigmoid(-z))


@jax.custom_jvp
def mish(z: Array) -> Array:
    """Return zt, t = tanh(softplus z) = s(1 + r)/(1 + r²), s and r the logistic function of z and −z."""
    s, r = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    return z * s * (1 + r) / (1 + r**2)


def mish_derivative(z: Array) -> Array:
    """Return t + zs(1 − t²), t, s and r as in ``mish``."""
    s, r = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    return s * (1 + r) / (1 + r**2) + z * s * (2 * r / (1 + r**2)) ** 2


@mish.defjvp
def _mish_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # the rule of tanh, 1 − t², cancels where t is near 1
    return mish(*primals), mish_derivative(*primals) * tangents[0]


def _cubic(z: Array) -> Array:
    return math.sqrt(8 / math.pi) * (z + 0.044715 * z**3)


@jax.custom_jvp
def gelu_tanh(z: Array) -> Array:
    """Return z(1 + tanh c)/2 with 2c = √(8/π)(z + 0.044715z³), by the logistic function: 1 + tanh would cancel."""
    return z * jax.nn.sigmoid(_cubic(z))


def gelu_tanh_derivative(z: Array) -> Array:
    """Return s + zs(1 − s)(2c)', s the logistic function of 2c."""
    slope = math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * z**2)
    return jax.nn.sigmoid(_cubic(z)) * (1 + z * jax.nn.sigmoid(-_cubic(z)) * slope)


@gelu_tanh.defjvp
def _gelu_tanh_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # the logistic function's own rule, s(1 − s), cancels where s is near 1, and (2c)' makes it worse
    return gelu_tanh(*primals), gelu_tanh_derivative(*primals) * tangents[0]
