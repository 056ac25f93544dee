"""What a net of any kind leaves of its labels, and a bound of the Jacobian's norm, with rounding included."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np

from narrow_jax._typing import Bool, Computed, Float
from narrow_jax.activations import Activation
from narrow_jax.jacobian import Net, layers
from narrow_jax.linalg import HOST, Jacobian, arrays, context, eigenvalue_bound, xp
from narrow_jax.linalg import rounding as fl


class Residuals(NamedTuple):
    """r = f − y, and what surrounds it.

    Fields:
        r: as computed, (n, k).
        norm: ‖r‖ as computed.
        rounding: a bound of what rounding hides in r and in its norm; infinite if none is known.
        features: a bound of the norm of a_H, or of a_H⁺ − a_H⁻: of ∂f/∂V.
    """

    r: Float[np.ndarray, "n k"]
    norm: float
    rounding: float
    features: float


def residuals(net: Net, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"]) -> Residuals:
    """Return f − y for a net or a pair; exactly −y at a mirrored start.

    |δf| ≤ (e_a + γ_{h+2}|a|)|V|, a the last features or, of a pair, their difference, e_a its error.
    """
    with context.float64(), np.errstate(all="ignore"):
        if net.mirrored:
            zero = np.zeros((len(x), len(net.v)))
            found = _left(zero, zero, net.v, y, np.array(True))
        else:
            given = context.placed((net.halves, net.v, x, y), y.size * net.hidden.size)
            found = _residuals(*given, net.sigmas)
        r, norm, rounding, features = (np.asarray(number) for number in found)
    known = np.isfinite(rounding) and np.isfinite(r).all()
    return Residuals(r, float(norm), *((float(rounding), float(features)) if known else (math.inf, math.inf)))


@arrays.compiled(static_argnames="sigmas")
def _residuals(
    halves: tuple[tuple[Computed, ...], ...],
    v: Float[Computed, "h k"],
    x: Float[Computed, "n d"],
    y: Float[Computed, "n k"],
    sigmas: tuple[Activation, ...],
) -> tuple[Computed, Computed, Computed, Computed]:
    features, error = np.zeros(()), np.zeros(())
    for half, sign in zip(halves, (1.0, -1.0), strict=False):
        _, a, moved = layers.forward(x, half, sigmas)
        features, error = features + sign * a, error + (xp.zeros_like(a) if moved is None else moved)
    return _left(features, error, v, y, layers.carried(x, v, y, *jax.tree.leaves(halves)))


def _left(
    a: Float[Computed, "n h"],
    a_error: Float[Computed, "n h"],
    v: Float[Computed, "h k"],
    y: Float[Computed, "n k"],
    carried: Bool[Computed, ""],
) -> tuple[Computed, Computed, Computed, Computed]:
    """Return aV − y, its norm, a bound of their errors, and one of ‖a‖."""
    weights = xp.abs(v)
    r = arrays.barrier(fl.matmul(a, v)) - y
    error = fl.matmul(a_error, weights) + fl.gamma(len(v) + 2) * fl.matmul(xp.abs(a), weights)
    error = (error + fl.UNIT * xp.abs(r)) * (1 + 4 * fl.gamma(len(v) + 8))
    norm, exact = fl.norm(r), xp.all(a == 0) & xp.all(a_error == 0)
    hidden = xp.where(exact, 0.0, fl.norm_up(error)) + 2 * fl.norm_error(r.size) * norm
    features = xp.where(exact, 0.0, fl.norm_up((xp.abs(a) + a_error) * (1 + 2 * fl.UNIT)))
    nothing = exact & xp.all(y == 0)
    rounding = xp.where(nothing, 0.0, xp.where(carried, fl.up(hidden), np.inf))
    return r, norm, rounding, features


class Norms(NamedTuple):
    """A bound of ‖J‖₂, and one of how far the matrix that products use is from J; infinite where none is known."""

    jacobian: float
    perturbation: float


def norms(j: Jacobian) -> Norms:
    """Return the bounds of a Jacobian: that of its computed matrix Ĵ by a Cholesky factor of μI − ĴĴᵀ."""
    with context.float64(), np.errstate(all="ignore"):
        evaluated = context.at_hand(j).evaluate()
        matrix, bounds = evaluated.gram(HOST)
        matrix, exponent = np.asfortranarray(matrix), int(evaluated.exponent)
        majorant, error, moved = map(float, (bounds.majorant, bounds.error, bounds.perturbation))
    if not (np.isfinite(matrix).all() and math.isfinite(moved)):
        return Norms(math.inf, math.inf)
    size, square = HOST.largest_eigenvalue(matrix), majorant
    for margin in (1e-9, 1e-3):
        bound, proven = eigenvalue_bound(HOST, matrix, size * (1 + margin) + error + fl.TINY, error)
        if proven:
            square = min(majorant, float(bound))
            break
    total = (math.sqrt(square * (1 + fl.SLACK)) + moved) * (1 + fl.SLACK)
    return Norms(fl.product_up(total, exponent=exponent), fl.product_up(moved, exponent=exponent))
