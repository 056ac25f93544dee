"""One pass through a net without biases, and back: what enters each layer, how the outputs depend on it, and how far
both are from exact arithmetic, entry by entry (docs/enclosure.md, step 0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array, Bool, Float, Int
from narrow_jax.activations import Activation
from narrow_jax.jacobian.khatri_rao import Factors
from narrow_jax.linalg import rounding as fl


class Hidden(NamedTuple):
    """A hidden layer at the data: a_{l−1}, σ'(z_l), and bounds of their errors.

    The first is None where a is exact, the second where nothing is known.
    """

    x: Float[Array, "n a"]
    x_error: Float[Array, "n a"] | None
    slope: Float[Array, "n b"]
    slope_error: Float[Array, "n b"] | None


class Scaled(NamedTuple):
    """The columns of a layer, to be multiplied by 2^exponent."""

    factors: Factors
    exponent: Int[Array, ""]


def forward(
    x: Float[Array, "n d"],
    weights: Sequence[Float[Array, "_ _"]],
    sigmas: Sequence[Activation],
    bounded: bool = True,
) -> tuple[list[Hidden], Float[Array, "n h"], Float[Array, "n h"] | None]:
    """Return the hidden layers of a_l = σ_l(a_{l−1}W_l), a_0 = x, with a_H and a bound of its error.

    Where not ``bounded``, or in float32, the errors are not computed: all but x's is unknown, which is None.
    """
    if not (bounded and x.dtype == jnp.float64):
        return _forward_roughly(x, weights, sigmas)
    hidden: list[Hidden] = []
    a, error = x, None
    for w, sigma in zip(weights, sigmas, strict=True):
        z, z_error = product(a, error, w)
        slope = jax.lax.optimization_barrier(sigma.derivative(z))
        slope_error = jax.lax.optimization_barrier(_slope_error(sigma, z, z_error, slope))
        hidden.append(Hidden(a, error, slope, slope_error))
        a, error = value(sigma, z, z_error)
    return hidden, a, error


def _forward_roughly(
    x: Float[Array, "n d"], weights: Sequence[Float[Array, "_ _"]], sigmas: Sequence[Activation]
) -> tuple[list[Hidden], Float[Array, "n h"], None]:
    hidden: list[Hidden] = []
    a = x
    for w, sigma in zip(weights, sigmas, strict=True):
        z = jax.lax.optimization_barrier(fl.matmul(a, w))
        hidden.append(Hidden(a, None, jax.lax.optimization_barrier(sigma.derivative(z)), None))
        a = sigma(z)
    return hidden, a, None


def carried(*arrays: Array) -> Bool[Array, ""]:
    """Return whether all arrays, of float64, survive scaling."""
    return jnp.all(jnp.stack([fl.carried(array) for array in arrays]))


def product(
    a: Float[Array, "n a"], error: Float[Array, "n a"] | None, w: Float[Array, "a b"]
) -> tuple[Float[Array, "n b"], Float[Array, "n b"]]:
    """Return aW, by slices, and a bound of its error: a is off by ``error``."""
    z, z_error = fl.split_product(a, w)
    if error is not None:
        z_error = fl.up(z_error + fl.matmul(error, jnp.abs(w)) * (1 + fl.gamma(w.shape[0])))
    # without barriers XLA fuses, and so recomputes, everything below into every use: minutes of compilation
    return jax.lax.optimization_barrier((z, z_error))


def value(
    sigma: Activation, z: Float[Array, "n b"], z_error: Float[Array, "n b"]
) -> tuple[Float[Array, "n b"], Float[Array, "n b"]]:
    """Return σ(z) and a bound of its error: Lip·e_z + c·u(1 + |z|)."""
    if sigma.value is None:
        a = jax.lax.optimization_barrier(sigma(z))
        return a, jnp.full_like(a, jnp.inf)
    a = jax.lax.optimization_barrier(sigma.value(z))
    error = fl.up(sigma.lipschitz * z_error + sigma.value_error * fl.UNIT * (1 + jnp.abs(z)))
    return a, jnp.where(jnp.abs(z) + z_error < sigma.derivative_range, error, jnp.inf)


def backward(
    hidden: Sequence[Hidden],
    weights: Sequence[Float[Array, "_ _"]],
    v: Float[Array, "h k"],
    exact: Bool[Array, ""] | None,
) -> list[Scaled]:
    """Return the columns of each hidden layer: Δ_H^c = V_:c ∘ σ'(z_H), Δ_{l−1}^c = (Δ_l^c W_lᵀ) ∘ σ'(z_{l−1}).

    Args:
        hidden: from ``forward``.
        weights: W_1 … W_H.
        v: V.
        exact: whether data and weights are ``carried``, without which nothing is known of the errors; None where
            ``forward`` did not compute them.
    """
    if not hidden:
        return []
    v, exponent = fl.normalized(v)
    d, error = _outer(hidden[-1], v)
    columns: list[Scaled] = []
    for layer, w in zip(reversed(hidden), reversed(weights), strict=True):
        d, own = fl.normalized(jax.lax.optimization_barrier(d))
        if error is not None and exact is not None:
            error = jnp.where(exact & (own > -900), fl.scaled(error, -own), jnp.inf)
        exponent = exponent + own
        columns.append(_scaled(layer, d, error, exponent))
        if layer is not hidden[0]:
            w, own = fl.normalized(w)
            exponent = exponent + own
            d, error = _inner(hidden[len(hidden) - len(columns) - 1], d, error, w)
    return columns[::-1]


def _outer(
    layer: Hidden, v: Float[Array, "h k"]
) -> tuple[Float[Array, "n k h"], Float[Array, "n k h"] | None]:
    """Return Δ_H and a bound of its error."""
    d = layer.slope[:, None, :] * v.T[None, :, :]
    if layer.slope_error is None:
        return d, None
    return d, fl.up(layer.slope_error[:, None, :] * jnp.abs(v.T)[None, :, :] + fl.UNIT * jnp.abs(d))


def _inner(
    layer: Hidden, d: Float[Array, "n k b"], error: Float[Array, "n k b"] | None, w: Float[Array, "a b"]
) -> tuple[Float[Array, "n k a"], Float[Array, "n k a"] | None]:
    """Return Δ_{l−1} = (Δ_l W_lᵀ) ∘ σ'(z_{l−1}) and a bound of its error."""
    n, k, units = d.shape
    if error is None or layer.slope_error is None:
        return fl.matmul(d.reshape(-1, units), w.T).reshape(n, k, -1) * layer.slope[:, None, :], None
    g, g_error = (
        back.reshape(n, k, -1) for back in product(d.reshape(-1, units), error.reshape(-1, units), w.T)
    )
    slope, slope_error = layer.slope[:, None, :], layer.slope_error[:, None, :]
    below = g * slope
    spread = jnp.abs(g) * slope_error + g_error * (jnp.abs(slope) + slope_error)
    return below, fl.up(spread + fl.UNIT * jnp.abs(below))


def outer(
    a: Float[Array, "n h"], error: Float[Array, "n h"] | None, outputs: int, exact: Bool[Array, ""] | None
) -> Scaled:
    """Return the columns of V: row (i, c) holds a_H,i at the weights of output c."""
    x, error, exponent = normalized(a, error)
    d = jnp.broadcast_to(jnp.eye(outputs, dtype=a.dtype), (a.shape[0], outputs, outputs))
    d_error = None if exact is None else jnp.full_like(d, jnp.where(exact, 0.0, jnp.inf))
    return Scaled(Factors(x, d, d_error, error), exponent)


def _scaled(layer: Hidden, d: Array, error: Array | None, exponent: Array) -> Scaled:
    x, x_error, own = normalized(layer.x, layer.x_error)
    return Scaled(Factors(x, d, error, x_error), own + exponent)


def normalized(
    x: Float[Array, "n a"], error: Float[Array, "n a"] | None
) -> tuple[Array, Array | None, Int[Array, ""]]:
    """Return x and its error, both over 2^e, with entries of x of size one, and e."""
    x, exponent = fl.normalized(x)
    if error is not None:
        error = jnp.where(exponent > -900, fl.scaled(error, -exponent), jnp.inf)
    return x, error, exponent


def together(columns: Sequence[Scaled]) -> tuple[tuple[Factors, ...], Int[Array, ""]]:
    """Return the layers at one scale, that of the largest, and its exponent."""
    if len(columns) == 1:
        return (columns[0].factors,), columns[0].exponent
    used = jnp.stack(
        [_known(c.factors.x, c.factors.x_error) & _known(c.factors.d, c.factors.d_error) for c in columns]
    )
    exponents = jnp.stack([c.exponent for c in columns])
    top = jnp.max(jnp.where(used, exponents, jnp.int32(-(2**20))))
    top = jnp.where(jnp.any(used), top, exponents[0])
    return tuple(_shifted(c.factors, c.exponent - top) for c in columns), top


def _known(values: Array, error: Array | None) -> Bool[Array, ""]:
    """Return whether not all of the values are exactly 0."""
    return jnp.any(values != 0) if error is None else jnp.any((values != 0) | (error != 0))


def _shifted(factors: Factors, shift: Int[Array, ""]) -> Factors:
    """Return the columns times 2^shift; what is 2⁻⁹⁰⁰ of the largest is 0 within the allowance for underflow."""
    lost, shift = shift < -900, jnp.clip(shift, -900, 0)
    d, error = jnp.where(lost, 0.0, fl.scaled(factors.d, shift)), factors.d_error
    if error is not None:
        error = fl.scaled(jnp.where(lost, error + jnp.abs(factors.d), error), shift)
    return Factors(factors.x, d, error, factors.x_error)


def _slope_error(
    activation: Activation, z: Float[Array, ...], z_error: Float[Array, ...], slope: Float[Array, ...]
) -> Float[Array, ...]:
    """Return a bound of |σ'(z) − computed σ'(ẑ)|: S₂ e_z, or relative where (log σ')' is bounded, and c·u|σ'|."""
    if activation.derivative_error is None:
        return jnp.full_like(z, jnp.inf)
    # |σ'(ẑ)| ≤ (|computed| + 2⁻⁹⁰)(1 + 2cu)
    size = (jnp.abs(slope) + 2.0**-90) * (1 + 2 * activation.derivative_error * fl.UNIT)
    drift = activation.lipschitz - activation.min_derivative  # the range of σ', if nothing better is known
    moved = jnp.minimum(activation.sup_second_derivative * z_error, drift)
    if activation.homogeneous:  # the slope changes at 0 only
        moved = jnp.where(jnp.abs(z) > z_error, 0.0, drift)
    if activation.log_derivative_lipschitz < jnp.inf:
        exponent = activation.log_derivative_lipschitz * z_error
        # e^a − 1 ≤ a(1 + a) for a ≤ 1
        relative = jnp.where(exponent <= 1, size * exponent * (1 + exponent), jnp.inf)
        moved = jnp.minimum(moved, relative)
    error = fl.up(moved + activation.derivative_error * fl.UNIT * size + 2.0**-90)
    outside = ~(jnp.abs(z) < activation.derivative_range)
    return jnp.where(outside, activation.lipschitz + jnp.abs(slope), error)
