"""Which weights gradient descent moves, on which samples, and how far V may go in its cone."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from narrow_jax import _checks, jacobian
from narrow_jax._typing import Float, Int, Params, Samples
from narrow_jax.certificates.narrow_nets.descent_balls import Start
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
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


def cone_distance(v: Float[np.ndarray, "h k"], zeta: float | None, kappa: float) -> float:
    """Return how far V may move without touching |V| ≥ ζ or max|V| ≤ κ min|V| in a column, rounded down; maybe < 0."""
    size = np.sort(np.abs(v), axis=0)
    room = math.inf if zeta is None else float(np.min(size)) - zeta
    if math.isfinite(kappa) and len(v) > 1:
        gaps = kappa * size[0] - size[-1]
        room = min(room, float(np.min(gaps)) / math.hypot(1, kappa))
    scale = float(np.max(size)) * (kappa if math.isfinite(kappa) else 1.0) + (zeta or 0.0)
    return room - 8 * fl.UNIT * scale if math.isfinite(room) else room


class Setting(NamedTuple):
    """What is asked: the net and its data, which weights move, how far they may, and in which coordinates.

    Fields:
        net, x: the start and the data.
        outer: whether V moves.
        radius: ε.
        zeta, kappa: the cone of V.
        unit: s: the coordinates are (w − w⁰)/s and sV, and J = [sJ_w, J_V/s] in them; at most 1.
    """

    net: Net
    x: Float[np.ndarray, "n d"]
    outer: bool
    radius: float
    zeta: float | None
    kappa: float
    unit: float

    def moving(self, kept: slice | Int[np.ndarray, " r"] = slice(None)) -> Jacobian:
        """Return the Jacobian with respect to the weights that move, in plain coordinates, short of a pair's V.

        The columns of a pair's V, (a_H⁺ − a_H⁻) ⊗ I, can only raise σ_min.
        """
        net, x = self.net, self.x[kept]
        if not self.outer or net.paired:
            return net.jacobian(x)
        weights = (*net.halves[0], net.v)
        return jacobian.mlp({f"w{layer}": w for layer, w in enumerate(weights, start=1)}, x, net.sigmas)

    def smallest(self, sigma: float) -> float:
        """Return a lower bound of σ_min(J) from one in plain coordinates: JJᵀ ≽ s²(J_wJ_wᵀ + J_VJ_Vᵀ) for s ≤ 1."""
        return sigma if self.unit == 1 else fl.product_down(self.unit, sigma)

    def norm(self, hidden: float, features: float) -> float:
        """Return a bound of ‖J‖₂ from one of ``moving`` and ‖J_V‖ ≤ ‖a_H‖, of a pair ‖a_H⁺ − a_H⁻‖."""
        s = self.unit
        alone = hidden if s == 1 else fl.product_up(s, hidden)
        if not self.outer:
            return alone
        beside = features if s == 1 else fl.product_up(features, over=s)
        both = math.hypot(alone, beside) * (1 + fl.SLACK)
        if self.net.paired:
            return both
        return hidden if s == 1 else min(both, fl.product_up(hidden, over=s))

    def start(self, sigma: float, beta: float, residual: float, scale: float = 1.0) -> Start:
        """Return what is known at the start with V multiplied by a power of two."""
        net = self.net._replace(v=self.net.v * scale)
        return Start(
            sigma=fl.product_down(sigma, scale),
            beta=fl.product_up(beta, scale),
            residual=residual,
            cap=min(self._within_ball(), self._within_cone(net.v)),
            lipschitz=functools.cache(lambda radius: lipschitz(net, self.x, radius, self.outer, self.unit)),
        )

    def _within_ball(self) -> float:
        """Return how long a path may be for ‖w − w⁰‖ ≤ ε."""
        return self.radius if self.unit == 1 else self.radius / self.unit * (1 - fl.SLACK)

    def _within_cone(self, v: Float[np.ndarray, "h k"]) -> float:
        """Return the same for V to stay in the cone; negative where it is outside."""
        if not self.outer:
            return math.inf
        room = cone_distance(v, self.zeta, self.kappa)
        return room if self.unit == 1 else room * self.unit * (1 - fl.SLACK)
