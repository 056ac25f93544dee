"""Which weights gradient descent moves, on which samples, and how far V may go in its cone."""

from __future__ import annotations

import math

import numpy as np

from narrow_jax import _checks, jacobian
from narrow_jax._typing import Float, Params, Samples
from narrow_jax.jacobian import Net
from narrow_jax.linalg import Jacobian
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations


def read(
    params: Params, x: Samples, y: Samples, activation: Activations
) -> tuple[Net, Float[np.ndarray, "n d"], Float[np.ndarray, "n k"]]:
    """Return the net and its data in float64, checked to fit together."""
    net = Net.of(params, activation)
    x, y = _checks.real_data(x, y)
    net.jacobian(x)  # checks the shapes
    if y.shape[1] != net.v.shape[1]:
        raise ValueError(
            f"y has {y.shape[1]} columns and the net {net.v.shape[1]} outputs; expected one column an output"
        )
    return net, x, y


def moving(net: Net, x: Float[np.ndarray, "n d"], outer: bool) -> Jacobian:
    """Return the Jacobian with respect to the weights that move, short of a pair's V.

    The columns of a pair's V, (a_H⁺ − a_H⁻) ⊗ I, can only raise σ_min.
    """
    if not outer or net.paired:
        return net.jacobian(x)
    weights = (*net.halves[0], net.v)
    return jacobian.mlp({f"w{layer}": w for layer, w in enumerate(weights, start=1)}, x, net.sigmas)


def cone_distance(v: Float[np.ndarray, "h k"], zeta: float | None, kappa: float) -> float:
    """Return how far V may move without touching |V| ≥ ζ or max|V| ≤ κ min|V| in a column, rounded down; maybe < 0."""
    size = np.sort(np.abs(v), axis=0)
    room = math.inf if zeta is None else float(np.min(size)) - zeta
    if math.isfinite(kappa) and len(v) > 1:
        gaps = kappa * size[0] - size[-1]
        room = min(room, float(np.min(gaps)) / math.hypot(1, kappa))
    scale = float(np.max(size)) * (kappa if math.isfinite(kappa) else 1.0) + (zeta or 0.0)
    return room - 8 * fl.UNIT * scale if math.isfinite(room) else room
