"""What Theorem 3.2 of "Global Convergence of Deep Networks" asks of a start: norms, rounded to the safe side."""

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
from narrow_jax.linalg import HOST, Extremes, context, extremes
from narrow_jax.linalg import rounding as fl

EVALUATION = 64
"""σ is taken to be evaluated within that many units 2⁻⁵³ of |z|; the tests find fewer than 8 for activation (2)."""


class StartNorms(NamedTuple):
    """The norms and singular values of a net at θ_0 on its data, which (3) to (9) are made of.

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

    @classmethod
    def of(cls, params: Params, x: HostArray, y: HostArray, activation: Activation) -> StartNorms:
        """Return them, in float64 on the host, whatever the dtype of params and data."""
        weights = [in_float64(w) for w in models.mlp_layers(params)]
        x, y = in_float64(x), in_float64(y)
        bounds = [extremes(w) for w in weights]
        norms = tuple(bound.largest for bound in bounds)
        layers, errors = forward(weights, norms, x, activation)
        spectra = [_extremes(layer) for layer in layers[:-1]]
        return cls(
            samples=len(x),
            widths=(x.shape[1], *(w.shape[1] for w in weights)),
            norms=norms,
            smallest=tuple(bound.smallest for bound in bounds),
            features=tuple(s.largest + error for s, error in zip(spectra, errors, strict=False)),
            lambda_f=max(0.0, spectra[1].smallest - errors[1]),
            x_frobenius=HOST.norm_up(x),
            residual=_residual(layers[-1], errors[-1], y),
        )


def check_start(params: Params, x: HostArray, y: HostArray) -> None:
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


def in_float64(array: HostArray) -> np.ndarray:
    """Return the array in float64, which holds every floating dtype."""
    return np.asarray(array).astype(np.float64)


def _extremes(layer: np.ndarray) -> Extremes:
    """Return the bounds, and those that always hold where a layer overflowed."""
    return extremes(layer) if np.isfinite(layer).all() else Extremes(0.0, math.inf)


def _residual(output: np.ndarray, error: float, y: np.ndarray) -> float:
    """Return an upper bound of √(2Φ) = ‖F_L − Y‖_F from the computed F_L and its error; it may be infinite."""
    with np.errstate(over="ignore"):
        gap = output - y
    return (fl.product_up(HOST.norm_up(gap), 1 + 2 * fl.UNIT) + error) * (1 + fl.SLACK)


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
        product = HOST.matmul(layers[-1], w)
        error = up(errors[-1], norm) + up(fl.gamma(len(w)), HOST.norm_up(layers[-1]), HOST.norm_up(w))
        if index < len(weights):
            error += up(EVALUATION * fl.UNIT, HOST.norm_up(product))
            product = evaluate(product, activation)
        layers.append(product)
        errors.append(error * (1 + fl.SLACK))
    return layers, errors


def evaluate(z: np.ndarray, activation: Activation) -> np.ndarray:
    """Return σ(z), computed in float64."""
    with context.float64():
        return np.asarray(_evaluate(jnp.asarray(z), activation))


def unmoved(params: Params, x: HostArray, y: HostArray, activation: Activation, step: float) -> float:
    """Return the share of the weights with a gradient that one step leaves bit for bit as they are."""
    with context.float64():
        weights = {name: jnp.asarray(in_float64(w)) for name, w in params.items()}
        data = jnp.asarray(in_float64(x)), jnp.asarray(in_float64(y))
        gradient = _gradient(weights, *data, activation)
    still = moving = 0
    for name, w in params.items():
        with np.errstate(over="ignore", invalid="ignore"):
            before, change = np.asarray(w), step * np.asarray(gradient[name])
            after = (in_float64(before) - change).astype(before.dtype)
        still += int(np.count_nonzero((change != 0) & (after == before)))
        moving += int(np.count_nonzero(change))
    return still / moving if moving else 0.0


@functools.partial(jax.jit, static_argnames="activation")
def _evaluate(z: Array, activation: Activation) -> Array:
    return activation(z)


@functools.partial(jax.jit, static_argnames="activation")
def _gradient(params: Params, x: Array, y: Array, activation: Activation) -> Params:
    return jax.grad(lambda p: losses.squared(models.mlp_apply(p, x, activation), y))(params)
