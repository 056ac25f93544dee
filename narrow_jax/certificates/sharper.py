"""Theorem 3.2 with constants from norms measured at the start; docs/pyramidal.md has the proof."""

from __future__ import annotations

import math
from typing import NamedTuple

from narrow_jax.activations import Activation
from narrow_jax.certificates.guarantee import Guarantee, log10, power10
from narrow_jax.certificates.start import Start

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


def envelope(start: Start, sigma: Activation, radii: tuple[float, ...]) -> Envelope:
    """Return the bounds over the product of balls ‖W_l − W_l⁰‖_F ≤ r_l."""
    norms = [norm + radius for norm, radius in zip(start.norms, radii, strict=True)]
    features, moved, product = [start.features[0]], [0.0], start.x_frobenius
    for layer, feature in enumerate(start.features[1:]):
        moved.append(start.features[layer] * radii[layer] + norms[layer] * moved[-1])
        product *= norms[layer]
        features.append(min(feature + moved[-1], product))
    smallest = start.lambda_f - moved[1]
    for value, radius in zip(start.smallest[2:], radii[2:], strict=True):
        smallest *= sigma.min_derivative * max(0.0, value - radius)
    tangent = curvature = 0.0
    for layer, (norm, feature) in enumerate(zip(norms, features, strict=True), start=1):
        before, tangent = tangent, math.hypot(norm * tangent, feature)
        curvature = norm * curvature + before
        if layer < len(norms):
            curvature += sigma.sup_second_derivative * tangent * tangent
    above = [math.prod(norms[layer:]) for layer in range(1, len(norms) + 1)]
    layers = tuple(a * b for a, b in zip(features, above, strict=True))
    return Envelope(max(0.0, smallest) * max(0.0, smallest), layers, tangent, curvature)


def travelled(start: Start, bounds: Envelope) -> tuple[float, ...]:
    """Return (2/α)‖∂f_L/∂W_l‖ √(2Φ(θ_0)): how far descent can go while the bounds hold."""
    reach = 2 * start.residual / bounds.alpha if bounds.alpha > 0 else math.inf
    return tuple(reach * layer for layer in bounds.layer)


def closed_radii(start: Start, sigma: Activation) -> tuple[tuple[float, ...], bool]:
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


def guarantee(start: Start, sigma: Activation, learning_rate: float | None, missing: list[str]) -> Guarantee:
    """Return what is proven with α, Q and D over the smallest balls that gradient descent cannot leave."""
    radii, stays = closed_radii(start, sigma)
    bounds = envelope(start, sigma, radii)
    q = bounds.jacobian * bounds.jacobian + bounds.curvature * start.residual
    distance = 2 * start.residual * bounds.jacobian / bounds.alpha if bounds.alpha > 0 else math.inf
    step = min(-log10(bounds.alpha), -log10(q)) - SLACK
    largest = power10(step)
    eta = largest if learning_rate is None else learning_rate
    if not missing and not stays:
        missing = ["there are no balls around the start that descent provably stays in: Φ(θ_0) is too large"]
    if eta > largest:
        missing = [*missing, f"the step {eta:.3g} is not below min(1/α, 1/Q) = {largest:.3g}"]
    return Guarantee(
        holds=not missing,
        reason="; ".join(missing) or "descent stays in the balls, and the step is below min(1/α, 1/Q)",
        log10_alpha=log10(bounds.alpha) - SLACK,
        log10_q=log10(q) + SLACK,
        log10_distance=log10(distance) + SLACK,
        log10_max_learning_rate=step,
        learning_rate=eta,
        initial_loss=start.residual**2 / 2 * (1 + SLACK),
        radii=radii,
    )
