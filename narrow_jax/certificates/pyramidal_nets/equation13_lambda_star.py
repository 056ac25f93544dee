"""Equation (13) of "Global Convergence of Deep Networks", λ_*: the smallest eigenvalue of an expected Gram matrix."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from narrow_jax import _checks, activations
from narrow_jax._host import host_only
from narrow_jax._printing import brief
from narrow_jax._typing import Array, HostArray
from narrow_jax.activations import Activation
from narrow_jax.certificates.pyramidal_nets.lemma3_4_khatri_rao_powers import (
    hermite_coefficients,
    hermite_tail,
)
from narrow_jax.linalg import context
from narrow_jax.linalg import rounding as fl

METHODS = ("exact", "quadrature", "hermite")
_TERMS, _STEPS, _REACH = 400, (0.15, 0.1), 9.0
_SPHERE = 1e-6
"""Relative deviation of a row's norm from √d that the series (16) tolerates: float32's rounding."""


class LambdaStar(NamedTuple):
    """λ_* and how it was found.

    Fields:
        value: λ_min(G_*), not below 0.
        error: how far it can be off: rounding of the eigenvalue, and quadrature or the tail of the series.
        gram: G_* = E_{w ~ N(0, I/d)}[σ(Xw)σ(Xw)ᵀ] of (13).
        method: "exact", "quadrature" or "hermite".
    """

    value: float
    error: float
    gram: np.ndarray
    method: str

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())


@host_only
def lambda_star(x: HostArray, activation: str | Activation, method: str | None = None) -> LambdaStar:
    """Equation (13): return λ_* = λ_min(G_*), the constant of LeCun's initialisation and of Theorem 3.3.

    "exact": a closed form by arc-cosine kernels, for the smoothed leaky ReLU (2) and for leaky ReLUs.
    "quadrature": the trapezoidal rule in two variables, any activation; its error is the change from step 0.15 to
    0.1. It is exact to rounding for activations that vary over lengths of 0.2 and more, such as tanh.
    "hermite": the series (16) with 400 terms, any activation, for rows of norm √d; its error is the tail.

    Args:
        x: data (N, d).
        activation: σ.
        method: one of the three; by default the exact form where there is one, else quadrature.

    Raises:
        ValueError: unknown method, no closed form for this activation, or rows not of norm √d with "hermite".
        TypeError: x not of real floating numbers.

    Example:
        >>> x = np.sqrt(2) * np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> round(lambda_star(x, "relu").value, 6)
        0.340845

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", (13) to (16).
    """
    sigma = activations.check(activations.get(activation))
    x = np.asarray(_checks.real_matrix("x", x)).astype(np.float64)
    _checks.finite("x", x)
    if 0 in x.shape:
        raise ValueError(f"x has shape {x.shape}; expected at least one sample and one input")
    if method is None:
        method = "quadrature" if sigma.smoothing is None else "exact"
    _checks.choice("method", method, METHODS)
    gram, error = {"exact": _exact, "quadrature": _quadrature, "hermite": _hermite}[method](x, sigma)
    values = linalg.eigvalsh(gram)
    off = fl.at_least_normal(len(x) * error + 16 * len(x) * fl.UNIT * values[-1])
    return LambdaStar(value=float(max(0.0, values[0])), error=float(off), gram=gram, method=method)


def _exact(x: np.ndarray, sigma: Activation) -> tuple[np.ndarray, float]:
    """G_ij = E[s(U)s(V)] − c E[s(U) + s(V)] + c², U and V of variances ‖x_i‖²/d + τ² and covariance x_iᵀx_j/d.

    s = s₋z + (s₊ − s₋)max(z, 0); E[max(U, 0)max(V, 0)] = pq(√(1 − κ²) + κ(π − arccos κ))/(2π) (Cho and Saul).
    """
    if sigma.smoothing is None:
        raise ValueError(f"{sigma.name} has no closed form; use method='quadrature' or 'hermite'")
    left, jump = sigma.min_derivative, sigma.lipschitz - sigma.min_derivative
    shift = jump * sigma.smoothing / math.sqrt(2 * math.pi)
    rho = x @ x.T / x.shape[1]
    deviation = np.sqrt(np.diag(rho) + sigma.smoothing**2)
    scale = np.outer(deviation, deviation)
    kappa = np.clip(rho / np.where(scale > 0, scale, 1.0), -1, 1)
    kernel = scale * (np.sqrt(1 - kappa**2) + kappa * (math.pi - np.arccos(kappa))) / (2 * math.pi)
    mean = jump * (deviation[:, None] + deviation[None, :]) / math.sqrt(2 * math.pi)
    gram = left * (left + jump) * rho + jump**2 * kernel - shift * mean + shift**2
    return gram, 8 * 2.0**-53 * float(np.max(np.abs(gram)))


def _quadrature(x: np.ndarray, sigma: Activation) -> tuple[np.ndarray, float]:
    coarse, fine = (_trapezoidal(x, sigma, step) for step in _STEPS)
    return fine, float(np.max(np.abs(fine - coarse))) + 2.0**-48 * float(np.max(np.abs(fine)))


def _trapezoidal(x: np.ndarray, sigma: Activation, step: float) -> np.ndarray:
    """E[σ(az)σ(b(κz + √(1 − κ²)z'))] by the product rule, row by row."""
    points = np.arange(-_REACH, _REACH + step / 2, step)
    weights = step * np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi)
    norms = np.linalg.norm(x, axis=1) / math.sqrt(x.shape[1])
    unit = x / np.where(norms > 0, norms, 1.0)[:, None]
    kappa = np.clip(unit @ unit.T / x.shape[1], -1, 1)

    with context.float64():
        gram = np.stack(
            [np.asarray(_row(a, norms, k, points, weights, sigma)) for a, k in zip(norms, kappa, strict=True)]
        )
    return (gram + gram.T) / 2


@jax.jit(static_argnames="sigma")
def _row(a: Array, b: Array, cosine: Array, z: Array, weights: Array, sigma: Activation) -> Array:
    side = jnp.sqrt(1 - cosine**2)[:, None, None] * z[None, None, :]
    inner = sigma(b[:, None, None] * (cosine[:, None, None] * z[None, :, None] + side))
    return jnp.einsum("a,jab,b->j", sigma(a * z) * weights, inner, weights)


def _hermite(x: np.ndarray, sigma: Activation) -> tuple[np.ndarray, float]:
    """Σ μ_r²(XXᵀ/d)^{∘r}; what is left out is positive semidefinite with the tail on its diagonal."""
    check_sphere(x)
    coefficients = hermite_coefficients(sigma, _TERMS)
    rho = x @ x.T / x.shape[1]
    gram, power = np.zeros_like(rho), np.ones_like(rho)
    for coefficient in coefficients:
        gram += coefficient**2 * power
        power *= rho
    return gram, hermite_tail(sigma, coefficients) + _TERMS * 2.0**-53 * float(np.max(np.abs(gram)))


def check_sphere(x: np.ndarray) -> None:
    """Require rows of norm √d, which (14), (16) and Lemma 3.4 are about."""
    ratio = np.linalg.norm(x, axis=1) / math.sqrt(x.shape[1])
    worst = int(np.argmax(np.abs(ratio - 1)))
    if abs(ratio[worst] - 1) > _SPHERE:
        raise ValueError(
            f"row {worst} of x has norm {ratio[worst] * math.sqrt(x.shape[1]):.6g}; the series (16) needs rows of norm "
            f"√d = {math.sqrt(x.shape[1]):.6g}: multiply each row by √d/‖x_i‖, or use another method"
        )
