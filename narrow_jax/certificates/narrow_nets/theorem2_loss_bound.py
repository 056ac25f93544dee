"""The loss that a point of problem (7) can have at most, by how far it is from a KKT point: docs/proofs/theorem2.md."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Float, HostArray
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.residuals import residuals
from narrow_jax.jacobian import KhatriRao, Net
from narrow_jax.linalg import context
from narrow_jax.linalg import rounding as fl

Vector = Float[np.ndarray, " p"]


def residual_bound(
    net: Net,
    start: Net,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n k"],
    sigma: float,
    lipschitz: float,
) -> float:
    """Return a bound of ‖f − y‖: (‖ρ_w‖ + δ/D)/(σ_min(J) − ½LD − ‖f(w⁰; v)‖/D), infinity where that is not positive.

    D = ‖w − w⁰‖, λ = max(0, −⟨w − w⁰, Jᵀr⟩/D²), ρ_w = Jᵀr + λ(w − w⁰) and δ = max(0, −rᵀf), r = f − y. At D = 0 it is
    ‖Jᵀr‖/σ_min(J).

    Args:
        net: at w and v.
        start: at w⁰ and the same v.
        x: data, (n, d).
        y: labels, (n, k).
        sigma: a lower bound of σ_min(J(w; v)).
        lipschitz: L of J(·; v) on the segment from w⁰ to w.
    """
    apart = constants.distance(net.hidden, start.hidden)
    found = residuals(net, x, y)
    astray = _size(start, x)
    if not (sigma > 0 and math.isfinite(apart + found.rounding + astray)):
        return math.inf
    (residual, labels), unit = fl.unit(np.stack([found.r, y]))
    error = float(fl.at_scale(found.rounding, -unit))
    rho, exponent = _stationarity(net, start, x, residual, error)
    numerator = fl.product_up(rho, exponent=exponent + unit)
    if apart == 0:
        return fl.product_up(numerator, over=sigma)
    nearest = fl.product_down(apart, over=1 + 4 * fl.gamma(_weights(net).size + 8))
    growth = fl.product_up(_growth(residual, labels, error), over=nearest, exponent=2 * unit)
    lost = fl.product_up(0.5, lipschitz, apart) + fl.product_up(astray, over=nearest)
    left = (sigma - lost * (1 + fl.SLACK)) * (1 - fl.SLACK)
    return fl.product_up(numerator + growth, over=left) if left > 0 else math.inf


def _size(net: Net, x: Float[np.ndarray, "n d"]) -> float:
    """Return a bound of ‖f‖, 0 at a mirrored start."""
    found = residuals(net, x, np.zeros((len(x), net.v.shape[1])))
    return (found.norm + found.rounding) * (1 + fl.SLACK)


def _growth(r: HostArray, y: HostArray, error: float) -> float:
    """Return a bound of δ = max(0, −rᵀf), f = r + y: r is off by ``error`` in norm."""
    size, labels = (float(np.linalg.norm(a)) for a in (r, y))
    rounding = fl.gamma(r.size + 8) * size * (size + labels)
    value = -float(np.vdot(r, r + y)) + error * (2 * size + labels) * (1 + fl.gamma(r.size + 8)) + error**2
    return max(value + rounding, 0.0) * (1 + fl.SLACK) + (fl.NORMAL if size or error else 0.0)


def _stationarity(net: Net, start: Net, x: HostArray, r: HostArray, error: float) -> tuple[float, int]:
    """Return (a bound of ‖Jᵀr + λ(w − w⁰)‖, e), to be multiplied by 2^e: any λ ≥ 0 gives one, the best the least."""
    J = net.jacobian(x)
    with context.float64():
        evaluated = J.evaluate()
        assert isinstance(evaluated, KhatriRao)
        product, rounding = evaluated.rmv_bounded(jnp.asarray(r.reshape(-1)))
        delta, norm = float(evaluated.distance()), float(evaluated.norm_up())
        gradient, exponent = np.asarray(product), int(evaluated.exponent)
    size = float(np.linalg.norm(r)) * (1 + fl.gamma(r.size + 4))
    moved, _ = fl.unit(_weights(net) - _weights(start))
    length = float(np.linalg.norm(moved))
    inward = max(-float(np.vdot(moved, gradient)) / length / length, 0.0) if length else 0.0
    rho = float(np.linalg.norm(gradient + inward * moved))
    slack = fl.gamma(len(gradient) + 8) * rho + 8 * fl.UNIT * inward * length
    wrong = float(rounding) + delta * size + (norm + delta) * error
    return (rho + slack + wrong) * (1 + fl.SLACK) + fl.TINY, exponent


def _weights(net: Net) -> Vector:
    """Return the hidden weights in the order of the columns of J."""
    hidden = dict(net.params)
    del hidden["v" if "v" in hidden else f"w{len(hidden)}"]
    return np.concatenate([np.ravel(np.asarray(leaf, float)) for leaf in jax.tree.leaves(hidden)])
