"""One pass through a net without biases, and back: what enters each layer, how the outputs depend on it, and how far
both are from exact arithmetic, entry by entry (docs/proofs/enclosure.md, step 0)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from narrow_jax._typing import Bool, Computed, Float, Int
from narrow_jax.activations import Activation, Elementwise, is_stock
from narrow_jax.jacobian.khatri_rao import Factors
from narrow_jax.linalg import arrays, xp
from narrow_jax.linalg import rounding as fl


class Hidden(NamedTuple):
    """A hidden layer at the data: a_{l−1}, σ'(z_l), and bounds of their errors.

    The first is None where a is exact, the second where nothing is known.
    """

    x: Float[Computed, "n a"]
    x_error: Float[Computed, "n a"] | None
    slope: Float[Computed, "n b"]
    slope_error: Float[Computed, "n b"] | None


class Scaled(NamedTuple):
    """The columns of a layer, to be multiplied by 2^exponent."""

    factors: Factors
    exponent: Int[Computed, ""]


def forward(
    x: Float[Computed, "n d"],
    weights: Sequence[Float[Computed, "_ _"]],
    sigmas: Sequence[Activation],
    bounded: bool = True,
) -> tuple[list[Hidden], Float[Computed, "n h"], Float[Computed, "n h"] | None]:
    """Return the hidden layers of a_l = σ_l(a_{l−1}W_l), a_0 = x, with a_H and a bound of its error.

    Where not ``bounded``, or in float32, the errors are not computed: all but x's is unknown, which is None.
    """
    if not (bounded and x.dtype == np.float64):
        return _forward_roughly(x, weights, sigmas)
    hidden: list[Hidden] = []
    a, error = x, None
    for w, sigma in zip(weights, sigmas, strict=True):
        z, z_error = product(a, error, w)
        slope = arrays.barrier(_applied(sigma, sigma.derivative, z))
        slope_error = arrays.barrier(_slope_error(sigma, z, z_error, slope))
        hidden.append(Hidden(a, error, slope, slope_error))
        a, error = value(sigma, z, z_error)
    return hidden, a, error


def _forward_roughly(
    x: Float[Computed, "n d"], weights: Sequence[Float[Computed, "_ _"]], sigmas: Sequence[Activation]
) -> tuple[list[Hidden], Float[Computed, "n h"], None]:
    hidden: list[Hidden] = []
    a = x
    for w, sigma in zip(weights, sigmas, strict=True):
        z = arrays.barrier(fl.matmul(a, w))
        hidden.append(Hidden(a, None, arrays.barrier(_applied(sigma, sigma.derivative, z)), None))
        a = _applied(sigma, sigma.fn, z)
    return hidden, a, None


def carried(*arrays: Computed) -> Bool[Computed, ""]:
    """Return whether all arrays, of float64, survive scaling."""
    return xp.all(xp.stack([fl.carried(array) for array in arrays]))


def product(
    a: Float[Computed, "n a"], error: Float[Computed, "n a"] | None, w: Float[Computed, "a b"]
) -> tuple[Float[Computed, "n b"], Float[Computed, "n b"]]:
    """Return aW, by slices, and a bound of its error: a is off by ``error``."""
    z, z_error = fl.split_product(a, w)
    if error is not None:
        z_error = fl.up(z_error + fl.matmul(error, xp.abs(w)) * (1 + fl.gamma(w.shape[0])))
    # without barriers XLA fuses, and so recomputes, everything below into every use: minutes of compilation
    return arrays.barrier((z, z_error))


def _applied(sigma: Activation, function: Elementwise, z: Float[Computed, "n b"]) -> Float[Computed, "n b"]:
    """Return a function of an activation at z; for NumPy compiled, unless it is written for both."""
    both = is_stock(sigma) and sigma.derivative_error is not None and function is not sigma.fn
    if isinstance(z, np.ndarray) and not both:
        return np.asarray(_program(function)(z))
    return function(z)


@functools.cache
def _program(function: Elementwise) -> Elementwise:
    return jax.jit(function)


def value(
    sigma: Activation, z: Float[Computed, "n b"], z_error: Float[Computed, "n b"]
) -> tuple[Float[Computed, "n b"], Float[Computed, "n b"]]:
    """Return σ(z) and a bound of its error: Lip·e_z + c·u(1 + |z|)."""
    if sigma.value is None:
        a = arrays.barrier(_applied(sigma, sigma.fn, z))
        return a, xp.full_like(a, np.inf)
    a = arrays.barrier(_applied(sigma, sigma.value, z))
    error = fl.up(sigma.lipschitz * z_error + sigma.value_error * fl.UNIT * (1 + xp.abs(z)))
    return a, xp.where(xp.abs(z) + z_error < sigma.derivative_range, error, np.inf)


def backward(
    hidden: Sequence[Hidden],
    weights: Sequence[Float[Computed, "_ _"]],
    v: Float[Computed, "h k"],
    exact: Bool[Computed, ""] | None,
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
        d, own = fl.normalized(arrays.barrier(d))
        if error is not None and exact is not None:
            error = xp.where(exact & (own > -900), fl.scaled(error, -own), np.inf)
        exponent = exponent + own
        columns.append(_scaled(layer, d, error, exponent))
        if layer is not hidden[0]:
            w, own = fl.normalized(w)
            exponent = exponent + own
            d, error = _inner(hidden[len(hidden) - len(columns) - 1], d, error, w)
    return columns[::-1]


def _outer(
    layer: Hidden, v: Float[Computed, "h k"]
) -> tuple[Float[Computed, "n k h"], Float[Computed, "n k h"] | None]:
    """Return Δ_H and a bound of its error."""
    d = layer.slope[:, None, :] * v.T[None, :, :]
    if layer.slope_error is None:
        return d, None
    return d, fl.up(layer.slope_error[:, None, :] * xp.abs(v.T)[None, :, :] + fl.UNIT * xp.abs(d))


def _inner(
    layer: Hidden,
    d: Float[Computed, "n k b"],
    error: Float[Computed, "n k b"] | None,
    w: Float[Computed, "a b"],
) -> tuple[Float[Computed, "n k a"], Float[Computed, "n k a"] | None]:
    """Return Δ_{l−1} = (Δ_l W_lᵀ) ∘ σ'(z_{l−1}) and a bound of its error."""
    n, k, units = d.shape
    if error is None or layer.slope_error is None:
        return fl.matmul(d.reshape(-1, units), w.T).reshape(n, k, -1) * layer.slope[:, None, :], None
    g, g_error = (
        back.reshape(n, k, -1) for back in product(d.reshape(-1, units), error.reshape(-1, units), w.T)
    )
    slope, slope_error = layer.slope[:, None, :], layer.slope_error[:, None, :]
    below = g * slope
    spread = xp.abs(g) * slope_error + g_error * (xp.abs(slope) + slope_error)
    return below, fl.up(spread + fl.UNIT * xp.abs(below))


def outer(
    a: Float[Computed, "n h"],
    error: Float[Computed, "n h"] | None,
    outputs: int,
    exact: Bool[Computed, ""] | None,
) -> Scaled:
    """Return the columns of V: row (i, c) holds a_H,i at the weights of output c."""
    x, error, exponent = normalized(a, error)
    d = xp.broadcast_to(arrays.module(a).eye(outputs, dtype=a.dtype), (a.shape[0], outputs, outputs))
    d_error = None if exact is None else xp.full_like(d, xp.where(exact, 0.0, np.inf))
    return Scaled(Factors(x, d, d_error, error), exponent)


def _scaled(layer: Hidden, d: Computed, error: Computed | None, exponent: Computed) -> Scaled:
    x, x_error, own = normalized(layer.x, layer.x_error)
    return Scaled(Factors(x, d, error, x_error), own + exponent)


def normalized(
    x: Float[Computed, "n a"], error: Float[Computed, "n a"] | None
) -> tuple[Computed, Computed | None, Int[Computed, ""]]:
    """Return x and its error, both over 2^e, with entries of x of size one, and e."""
    x, exponent = fl.normalized(x)
    if error is not None:
        error = xp.where(exponent > -900, fl.scaled(error, -exponent), np.inf)
    return x, error, exponent


def together(columns: Sequence[Scaled]) -> tuple[tuple[Factors, ...], Int[Computed, ""]]:
    """Return the layers at one scale, that of the largest, and its exponent."""
    if len(columns) == 1:
        return (columns[0].factors,), columns[0].exponent
    used = xp.stack(
        [_known(c.factors.x, c.factors.x_error) & _known(c.factors.d, c.factors.d_error) for c in columns]
    )
    exponents = xp.stack([c.exponent for c in columns])
    top = xp.max(xp.where(used, exponents, np.int32(-(2**20))))
    top = xp.where(xp.any(used), top, exponents[0])
    return tuple(_shifted(c.factors, c.exponent - top) for c in columns), top


def _known(values: Computed, error: Computed | None) -> Bool[Computed, ""]:
    """Return whether not all of the values are exactly 0."""
    return xp.any(values != 0) if error is None else xp.any((values != 0) | (error != 0))


def _shifted(factors: Factors, shift: Int[Computed, ""]) -> Factors:
    """Return the columns times 2^shift; what is 2⁻⁹⁰⁰ of the largest is 0 within the allowance for underflow."""
    lost, shift = shift < -900, xp.clip(shift, -900, 0)
    d, error = xp.where(lost, 0.0, fl.scaled(factors.d, shift)), factors.d_error
    if error is not None:
        error = fl.scaled(xp.where(lost, error + xp.abs(factors.d), error), shift)
    return Factors(factors.x, d, error, factors.x_error)


def _slope_error(
    activation: Activation,
    z: Float[Computed, ...],
    z_error: Float[Computed, ...],
    slope: Float[Computed, ...],
) -> Float[Computed, ...]:
    """Return a bound of |σ'(z) − computed σ'(ẑ)|: S₂ e_z, or relative where (log σ')' is bounded, and c·u|σ'|."""
    if activation.derivative_error is None:
        return xp.full_like(z, np.inf)
    # |σ'(ẑ)| ≤ (|computed| + 2⁻⁹⁰)(1 + 2cu)
    size = (xp.abs(slope) + 2.0**-90) * (1 + 2 * activation.derivative_error * fl.UNIT)
    drift = activation.lipschitz - activation.min_derivative  # the range of σ', if nothing better is known
    moved = xp.minimum(activation.sup_second_derivative * z_error, drift)
    if activation.homogeneous:  # the slope changes at 0 only
        moved = xp.where(xp.abs(z) > z_error, 0.0, drift)
    if activation.log_derivative_lipschitz < np.inf:
        exponent = activation.log_derivative_lipschitz * z_error
        # e^a − 1 ≤ a(1 + a) for a ≤ 1
        relative = xp.where(exponent <= 1, size * exponent * (1 + exponent), np.inf)
        moved = xp.minimum(moved, relative)
    error = fl.up(moved + activation.derivative_error * fl.UNIT * size + 2.0**-90)
    outside = ~(xp.abs(z) < activation.derivative_range)
    return xp.where(outside, activation.lipschitz + xp.abs(slope), error)
