"""Theorem 3.2 of "Global Convergence of Deep Networks", sharper: from norms measured at the start.

docs/proofs/pyramidal.md has the proof.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from narrow_jax.activations import Activation
from narrow_jax.certificates.pyramidal_nets.guarantee import (
    Guarantee,
    log10,
    log10_sum,
)
from narrow_jax.certificates.pyramidal_nets.measured_norms import StartNorms
from narrow_jax.linalg import rounding as fl

ROUNDS = 2000
"""Iterations of the radii; a start that needs more is at the edge of what can be proven."""

INFLATION, SLACK = 1e-6, 1e-9
"""Relative: the radii above their fixed point; more than all roundings of the sums and products here."""


class Envelope(NamedTuple):
    """What holds for every net whose layers are within the radii of the start.

    Fields:
        alpha: 2αΦ ≤ ‖∇Φ‖².
        layer: bounds of ‖∂f_L/∂W_l‖₂.
        jacobian: a bound of ‖∂f_L/∂θ‖₂.
        curvature: a bound of the Lipschitz constant of ∂f_L/∂θ.
    """

    alpha: float
    layer: tuple[float, ...]
    jacobian: float
    curvature: float


def envelope(start: StartNorms, sigma: Activation, radii: tuple[float, ...]) -> Envelope:
    """Lemmas 4.1 and 4.2, sharper: return the bounds over the product of balls ‖W_l − W_l⁰‖_F ≤ r_l."""
    up = fl.product_up  # of factors that are not 0 the product is not 0
    norms = [norm + radius for norm, radius in zip(start.norms, radii, strict=True)]
    features, moved, product = [start.features[0]], [0.0], start.x_frobenius
    for layer, feature in enumerate(start.features[1:]):
        moved.append(up(start.features[layer], radii[layer]) + up(norms[layer], moved[-1]))
        product = up(product, norms[layer])
        features.append(min(feature + moved[-1], product))
    slopes = [max(0.0, sigma.min_derivative)] * (len(norms) - 2)
    rest = [max(0.0, value - radius) for value, radius in zip(start.smallest[2:], radii[2:], strict=True)]
    smallest = fl.product_down(max(0.0, start.lambda_f - moved[1]), *slopes, *rest)
    tangent = curvature = 0.0
    for layer, (norm, feature) in enumerate(zip(norms, features, strict=True), start=1):
        before, tangent = tangent, math.hypot(up(norm, tangent), feature)
        curvature = up(norm, curvature) + before
        if layer < len(norms):
            curvature += up(sigma.sup_second_derivative, tangent, tangent)
    layers = tuple(up(feature, *norms[layer:]) for layer, feature in enumerate(features, start=1))
    return Envelope(fl.product_down(smallest, smallest), layers, tangent, curvature)


def travelled(start: StartNorms, bounds: Envelope) -> tuple[float, ...]:
    """Return (2/α)‖∂f_L/∂W_l‖ √(2Φ(θ_0)): how far descent can go while the bounds hold."""
    return tuple(fl.product_up(2.0, start.residual, layer, over=bounds.alpha) for layer in bounds.layer)


def closed_radii(start: StartNorms, sigma: Activation) -> tuple[tuple[float, ...], bool]:
    """Return the smallest radii that descent provably cannot leave, and whether there are any.

    r ← (1 + INFLATION)·travelled(r) rises from 0 to its least fixed point; any r with travelled(r) ≤ r serves.
    """
    radii = (0.0,) * len(start.norms)
    for _ in range(ROUNDS):
        reached = travelled(start, envelope(start, sigma, radii))
        if all(distance * (1 + SLACK) <= radius for distance, radius in zip(reached, radii, strict=True)):
            return radii, True
        if math.inf in reached:
            break
        radii = tuple(distance * (1 + INFLATION) for distance in reached)
    return radii, False


def guarantee(
    start: StartNorms, sigma: Activation, learning_rate: float | None, missing: list[str]
) -> Guarantee:
    """Return what is proven with α, Q and D over the smallest balls that gradient descent cannot leave."""
    radii, stays = closed_radii(start, sigma)
    bounds = envelope(start, sigma, radii)
    alpha, residual, jacobian = map(log10, (bounds.alpha, start.residual, bounds.jacobian))
    q = log10_sum([2 * jacobian, log10(bounds.curvature) + residual])
    step = min(-alpha, -q) - SLACK
    if not missing and not stays:
        missing = ["there are no balls around the start that descent provably stays in: Φ(θ_0) is too large"]
    found = Guarantee(
        holds=False,
        reason="descent stays in the balls, and the step is below min(1/α, 1/Q)",
        log10_alpha=alpha - SLACK,
        log10_q=q + SLACK,
        log10_distance=log10(2) + residual + jacobian - alpha + SLACK,
        log10_max_learning_rate=step,
        learning_rate=0.0,
        initial_loss=fl.product_up(0.5, start.residual, start.residual),
        radii=radii,
    )
    return found.judged(learning_rate, missing, "min(1/α, 1/Q)")
