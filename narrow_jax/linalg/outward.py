"""Upper bounds of numbers ≥ 0 in arrays: every operation is rounded outward, at any scale.

What underflows stays at the smallest normal number, what overflows becomes infinite, and 0 is kept where it is exact;
infinity stands for an unknown finite number, so 0·∞ = 0.
"""

from __future__ import annotations

import numpy as np

from narrow_jax._typing import Float
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.extreme_values import spectral_norm

Bounds = Float[np.ndarray, "..."]


def times(*factors: float | Bounds) -> Bounds:
    """Return the product.

    Example:
        >>> times(2.0**-600, 2.0**-600) == fl.NORMAL, times(0.0, np.inf) == 0
        (np.True_, np.True_)
    """
    product = np.ones(())
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for factor in factors:
            zero = np.equal(product, 0) | np.equal(factor, 0)
            rounded = fl.at_least_normal(np.multiply(product, factor) * (1 + fl.SLACK))
            product = np.where(zero, 0.0, rounded)
    return product


def plus(*terms: float | Bounds) -> Bounds:
    """Return the sum, of at most 30 terms.

    Example:
        >>> plus(1.0, 2.0) > 3
        np.True_
    """
    total = np.zeros(())
    with np.errstate(over="ignore"):
        for term in terms:
            total = np.add(total, term)
        return np.asarray(np.multiply(total, 1 + fl.SLACK))


def hypot(a: float | Bounds, b: float | Bounds) -> Bounds:
    """Return √(a² + b²).

    Example:
        >>> 5e200 < hypot(3e200, 4e200) < 5.01e200
        np.True_
    """
    large, small = np.maximum(a, b), np.minimum(a, b)
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        ratio = np.where((large > 0) & (small < np.inf), small / large, 1.0)
    return times(large, np.sqrt(1 + ratio * ratio))


def row_norms(a: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """Return the Euclidean norms of the rows.

    Example:
        >>> bool(5.0 <= row_norms(np.array([[3.0, 4.0]]))[0] < 5.01)
        True
    """
    exponents = np.frexp(np.max(np.abs(a), axis=1, initial=0.0))[1]
    a = np.ldexp(a, -exponents[:, None])
    with np.errstate(over="ignore"):  # beside an infinite entry
        lengths = np.sqrt(np.sum(a * a, axis=1)) * (1 + fl.gamma(a.shape[1] + 4)) * (1 + fl.SLACK)
    return fl.at_scale(lengths, exponents)


def norm(values: Float[np.ndarray, " n"]) -> float:
    """Return the Euclidean norm."""
    return float(row_norms(values[None, :])[0])


def weighted_norm(weights: Float[np.ndarray, " n"], a: Float[np.ndarray, "n d"]) -> float:
    """Return a bound of ‖diag(weights)·A‖₂ for weights ≥ 0; infinity where a number is not finite.

    Example:
        >>> 6.0 <= weighted_norm(np.array([2.0, 0.0]), np.array([[3.0], [5.0]])) < 6.01
        True
    """
    if not (np.isfinite(weights).all() and np.isfinite(a).all()):
        return np.inf
    mantissas, powers = np.frexp(weights)
    exponents = np.frexp(np.max(np.abs(a), axis=1, initial=0.0))[1]
    rows = mantissas[:, None] * np.ldexp(a, -exponents[:, None])
    used, powers = rows.any(axis=1), powers + exponents
    top = int(np.max(powers[used], initial=-(2**20)))
    return spectral_norm(np.ldexp(rows, (powers - top)[:, None]), terms=1, exponent=top)
