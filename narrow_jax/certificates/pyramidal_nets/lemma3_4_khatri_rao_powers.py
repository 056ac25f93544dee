"""Lemma 3.4 and equation (16) of "Global Convergence of Deep Networks": Khatri–Rao powers and Hermite coefficients."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from scipy import linalg

from narrow_jax import _checks, activations
from narrow_jax._host import host_only
from narrow_jax._typing import HostArray
from narrow_jax.activations import Activation
from narrow_jax.linalg import column_exponents, context

_REACH, _PANEL, _NODES = 13.0, 0.25, 16
"""Panels of width ¼ on [−13, 13], where the Gaussian weight ends below 1e-36, halved towards a kink at 0."""


@host_only
def hermite_coefficients(activation: str | Activation, count: int) -> np.ndarray:
    """Equation (16): return μ_r(σ) = E[σ(z)He_r(z)]/√(r!) for standard normal z, r = 0 … count − 1, to about 1e-14.

    By Gauss' rule on panels that shrink towards 0, with normalised Hermite functions: exact to rounding for an
    activation that is analytic apart from 0, up to a count of some hundreds.

    Args:
        activation: σ.
        count: how many.

    Raises:
        ValueError: count below 1.

    Example:
        >>> np.abs(hermite_coefficients("abs", 3)).round(4).tolist()
        [0.7979, 0.0, 0.5642]

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", (16).
    """
    _checks.count("count", count)
    z, weights = _panels()
    values = _evaluate(activations.get(activation), z)
    # ψ_r = He_r/√(r!) √φ stays bounded; the recurrence is stable upwards
    root = np.exp(-(z**2) / 4) / (2 * math.pi) ** 0.25
    term, before = root, np.zeros_like(root)
    coefficients = np.empty(count)
    for r in range(count):
        coefficients[r] = np.sum(weights * values * root * term)
        term, before = (z * term - math.sqrt(r) * before) / math.sqrt(r + 1), term
    return coefficients


@host_only
def hermite_tail(activation: str | Activation, coefficients: np.ndarray) -> float:
    """Return Σ μ_r² over the coefficients that are not given: E[σ²] minus those that are; at least 0.

    Example:
        >>> hermite_tail("abs", hermite_coefficients("abs", 3)) < 0.05
        True
    """
    z, weights = _panels()
    values = _evaluate(activations.get(activation), z)
    square = np.sum(weights * values**2 * np.exp(-(z**2) / 2)) / math.sqrt(2 * math.pi)
    return float(max(0.0, square - np.sum(coefficients**2)))


@host_only
def khatri_rao_sigma_min(x: HostArray, power: int) -> float:
    """Lemma 3.4: return σ_min(X^{*r}) over the rows; each row of X^{*r} is the r-fold Kronecker product of a row of X.

    (X^{*r})(X^{*r})ᵀ = (XXᵀ)^{∘r}, so that the N × d^r matrix is never formed. It is 0 where N exceeds C(d + r − 1, r),
    the number of different monomials, and where, with the rows scaled to one length, the eigenvalue is not above its
    rounding N²u‖·‖.

    Args:
        x: (N, d).
        power: r ≥ 1.

    Example:
        >>> round(khatri_rao_sigma_min(np.array([[1.0, 0.0], [1.0, 1.0]]), 2), 3)
        0.835

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", Lemma 3.4.
    """
    _checks.count("power", power)
    x = np.asarray(_checks.real_matrix("x", x)).astype(np.float64)
    _checks.finite("x", x)
    samples, inputs = x.shape
    if samples > math.comb(inputs + power - 1, power):
        return 0.0
    exponents = column_exponents(x.T)
    even = np.ldexp(x, -exponents[:, None])
    gram = (even @ even.T) ** power
    values = linalg.eigvalsh(gram)
    if not values[0] > samples**2 * 2.0**-53 * values[-1]:
        return 0.0
    # 1/‖(EL)⁻¹‖, E the rows' scale, is as accurate for any E
    inverse = linalg.solve_triangular(linalg.cholesky(gram, lower=True), np.eye(samples), lower=True)
    return 1 / float(linalg.norm(np.ldexp(inverse, -power * exponents), 2))


def _panels() -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and weights of the composite Gauss rule, symmetric about 0."""
    edges = np.concatenate([[0.0], 2.0 ** np.arange(-14, -2), np.arange(2 * _PANEL, _REACH + _PANEL, _PANEL)])
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    right = (middle[:, None] + half[:, None] * nodes).ravel()
    sizes = (half[:, None] * weights).ravel()
    return np.concatenate([-right[::-1], right]), np.concatenate([sizes[::-1], sizes])


def _evaluate(sigma: Activation, z: np.ndarray) -> np.ndarray:
    with context.float64():
        return np.asarray(sigma(jnp.asarray(z)))
