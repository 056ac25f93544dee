"""What the theorems of pyramidal nets ask of a start: norms and singular values, rounded to the safe side."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, losses, models
from narrow_jax._typing import Array, HostArray, Params
from narrow_jax.activations import Activation
from narrow_jax.linalg import Extremes, extremes, host
from narrow_jax.linalg import rounding as fl

EVALUATION = 64
"""σ is taken to be evaluated within that many units 2⁻⁵³ of |z|; the tests find fewer than 8 for activation (2)."""


class Start(NamedTuple):
    """The numbers of a net at θ_0 on its data.

    Fields:
        samples: N.
        widths: n_0 … n_L.
        norms: upper bounds of ‖W_1‖₂ … ‖W_L‖₂.
        smallest: lower bounds of σ_min(W_1) … σ_min(W_L).
        features: upper bounds of ‖F_0‖₂ … ‖F_{L−1}‖₂, F_0 = X.
        lambda_f: lower bound of σ_min(F_1).
        x_frobenius: upper bound of ‖X‖_F.
        residual: upper bound of √(2Φ(θ_0)) = ‖F_L − Y‖_F.
    """

    samples: int
    widths: tuple[int, ...]
    norms: tuple[float, ...]
    smallest: tuple[float, ...]
    features: tuple[float, ...]
    lambda_f: float
    x_frobenius: float
    residual: float


def check(params: Params, x: HostArray, y: HostArray) -> None:
    """Require a net without biases of at least two layers, and finite data that fit it.

    Raises:
        ValueError, TypeError: what does not fit, and what would.
    """
    weights = models.mlp_layers(params)
    if len(weights) < 2:
        raise ValueError(
            f"params have one layer {weights[0].shape}; expected w1 and w2 at least: L ≥ 2 layers"
        )
    x, y = _checks.real_matrix("x", x), _checks.real_matrix("y", y)
    _checks.samples(x, y)
    inputs, outputs = weights[0].shape[0], weights[-1].shape[1]
    if x.shape[1] != inputs or y.shape[1] != outputs:
        raise ValueError(
            f"x has shape {x.shape} and y {y.shape}; expected (N, {inputs}) and (N, {outputs}) for these params"
        )
    for name, values in {"x": x, "y": y, **params}.items():
        _checks.finite(name, values)


def exactly(array: HostArray) -> np.ndarray:
    """Return the array in float64: every floating dtype fits."""
    return np.asarray(array).astype(np.float64)


def measure(params: Params, x: HostArray, y: HostArray, activation: Activation) -> Start:
    """Return the numbers of the start, in float64 on the host, whatever the dtype of params and data."""
    weights = [exactly(w) for w in models.mlp_layers(params)]
    x, y = exactly(x), exactly(y)
    bounds = [extremes(w) for w in weights]
    norms = tuple(bound.largest for bound in bounds)
    layers, errors = forward(weights, norms, x, activation)
    spectra = [_extremes(layer) for layer in layers[:-1]]
    return Start(
        samples=len(x),
        widths=(x.shape[1], *(w.shape[1] for w in weights)),
        norms=norms,
        smallest=tuple(bound.smallest for bound in bounds),
        features=tuple(s.largest + error for s, error in zip(spectra, errors, strict=False)),
        lambda_f=max(0.0, spectra[1].smallest - errors[1]),
        x_frobenius=host.norm_up(x),
        residual=residual(layers[-1], errors[-1], y),
    )


def _extremes(layer: np.ndarray) -> Extremes:
    """Return the bounds, and those that always hold where a layer overflowed."""
    return extremes(layer) if np.isfinite(layer).all() else Extremes(0.0, math.inf)


def residual(output: np.ndarray, error: float, y: np.ndarray) -> float:
    """Return an upper bound of √(2Φ) = ‖F_L − Y‖_F from the computed F_L and its error; it may be infinite."""
    with np.errstate(over="ignore"):
        gap = output - y
    return (fl.product_up(host.norm_up(gap), 1 + 2 * fl.UNIT) + error) * (1 + fl.SLACK)


def forward(
    weights: list[np.ndarray], norms: tuple[float, ...], x: np.ndarray, activation: Activation
) -> tuple[list[np.ndarray], list[float]]:
    """Return the computed F_0 … F_L, and bounds of their errors in the Frobenius norm.

    E_l ≤ ‖W_l‖E_{l−1} + γ_n‖F_{l−1}‖_F‖W_l‖_F + 64u‖G_l‖_F, by |σ'| ≤ 1. What underflows is within the TINY that each
    norm carries.
    """
    up = fl.product_up  # infinite for a product that is not finite
    layers, errors = [x], [0.0]
    for index, (w, norm) in enumerate(zip(weights, norms, strict=True), start=1):
        product = host.matmul(layers[-1], w)
        error = up(errors[-1], norm) + up(fl.gamma(len(w)), host.norm_up(layers[-1]), host.norm_up(w))
        if index < len(weights):
            error += up(EVALUATION * fl.UNIT, host.norm_up(product))
            product = evaluate(product, activation)
        layers.append(product)
        errors.append(error * (1 + fl.SLACK))
    return layers, errors


def evaluate(z: np.ndarray, activation: Activation) -> np.ndarray:
    """Return σ(z), computed in float64."""
    with jax.enable_x64(True):
        return np.asarray(_evaluate(jnp.asarray(z), activation))


def evaluation_defects(activation: Activation) -> list[str]:
    """Return what shows that σ(0) is not 0, or that σ is not evaluated within EVALUATION units, unit by unit."""
    return [text for unit in activation.units or (activation,) for text in _defects(unit)]


@functools.cache
def _defects(activation: Activation) -> tuple[str, ...]:
    """Return what contradicts the evaluation of one σ.

    |σ(z + h) − 2σ(z) + σ(z − h)| ≤ βh² + EVALUATION·u(|z + h| + 2|z| + |z − h|) at h = 2⁻²⁰|z|, |z| = 2⁻³⁰ … 2⁷, which
    what is computed in float32, or with jumps, breaks.
    """
    z = np.outer(2.0 ** np.arange(-30, 8), 1 + np.arange(8) / 8).ravel()
    z = np.concatenate([z, -z])
    h = np.abs(z) * 2.0**-20
    values = evaluate(np.stack([z - h, z, z + h, np.zeros_like(z)]), activation)
    at_zero, bent = float(values[3, 0]), np.abs(values[0] - 2 * values[1] + values[2])
    allowed = activation.sup_second_derivative * h**2 + 4.01 * EVALUATION * fl.UNIT * np.abs(z)
    broken = {
        f"Assumption 2.2 (ii): σ(0) = {at_zero:g} is not 0 for {activation.name}": at_zero != 0,
        f"{activation.name} is not evaluated within {EVALUATION} units 2⁻⁵³ of |z|: compute it in float64, "
        "without casts": values.dtype != np.float64 or not np.all(bent <= allowed),
    }
    return tuple(text for text, is_broken in broken.items() if is_broken)


def unmoved(params: Params, x: HostArray, y: HostArray, activation: Activation, step: float) -> float:
    """Return the share of the weights with a gradient that one step leaves bit for bit as they are."""
    with jax.enable_x64(True):
        weights = {name: jnp.asarray(exactly(w)) for name, w in params.items()}
        data = jnp.asarray(exactly(x)), jnp.asarray(exactly(y))
        gradient = _gradient(weights, *data, activation)
    still = moving = 0
    for name, w in params.items():
        with np.errstate(over="ignore", invalid="ignore"):
            before, change = np.asarray(w), step * np.asarray(gradient[name])
            after = (exactly(before) - change).astype(before.dtype)
        still += int(np.count_nonzero((change != 0) & (after == before)))
        moving += int(np.count_nonzero(change))
    return still / moving if moving else 0.0


@functools.partial(jax.jit, static_argnames="activation")
def _evaluate(z: Array, activation: Activation) -> Array:
    return activation(z)


@functools.partial(jax.jit, static_argnames="activation")
def _gradient(params: Params, x: Array, y: Array, activation: Activation) -> Params:
    return jax.grad(lambda p: losses.squared(models.mlp_apply(p, x, activation), y))(params)
