"""Equations (7) and (9) of "Global Convergence of Deep Networks": linear convergence for one step size."""

from __future__ import annotations

import math
from typing import NamedTuple

from narrow_jax.linalg import rounding as fl

SMALLEST, LARGEST = -307.0, 308.2
"""Powers of 10 between these are normal numbers."""


class Guarantee(NamedTuple):
    """Φ(θ_k) ≤ (1 − ηα)^k Φ(θ_0) and ‖θ_k − θ_*‖ ≤ (1 − ηα)^{k/2} D, if ``holds``.

    Fields:
        holds: whether all conditions hold and η is below the bound.
        reason: why, or what is missing.
        log10_alpha: log10 α, rounded down.
        log10_q: log10 of the Lipschitz constant Q of the gradient along the run, rounded up.
        log10_distance: log10 D, rounded up.
        log10_max_learning_rate: log10 min(1/α, 1/Q), rounded down.
        learning_rate: η: the one asked for, else the largest certified.
        initial_loss: Φ(θ_0), rounded up.
        radii: how far each layer can move, in the Frobenius norm.
    """

    holds: bool
    reason: str
    log10_alpha: float
    log10_q: float
    log10_distance: float
    log10_max_learning_rate: float
    learning_rate: float
    initial_loss: float
    radii: tuple[float, ...]

    def judged(self, learning_rate: float | None, missing: list[str], bound: str) -> Guarantee:
        """Return the verdict for a step size, by default the largest certified, given what else is missing."""
        largest = power10_down(self.log10_max_learning_rate)
        eta = largest if learning_rate is None else learning_rate
        if eta <= 0 and not missing:
            missing = [f"no step is certified: {bound} is below the smallest number"]
        elif eta > largest:
            missing = [*missing, f"the step {eta:.3g} is not below {bound} = {largest:.3g}"]
        return self._replace(holds=not missing, reason="; ".join(missing) or self.reason, learning_rate=eta)

    @property
    def log10_rate(self) -> float:
        """Return log10 of ηα, the share of the loss that a step removes, rounded down."""
        return _total(log10(self.learning_rate), self.log10_alpha, -fl.SLACK)

    @property
    def log_factor(self) -> float:
        """Return a bound of ln(1 − ηα), at most 0; for a tiny ηα it is −ηα."""
        rate = power10_down(self.log10_rate)
        return math.log1p(-rate) * (1 - fl.SLACK) if rate < 1 else -math.inf

    def loss_bound(self, step: float) -> float:
        """Return (1 − ηα)^k Φ(θ_0), the bound (7) at step k, rounded up."""
        if step * self.log_factor == 0:
            return self.initial_loss
        share = math.exp(step * self.log_factor * (1 - fl.SLACK)) * (1 + fl.SLACK)
        return fl.product_up(float(fl.at_least_normal(share)), self.initial_loss)

    def distance_bound(self, step: float) -> float:
        """Return (1 − ηα)^{k/2} D, the bound (9) at step k, rounded up."""
        if step * self.log_factor == 0:
            return power10(self.log10_distance)
        return power10(_total(self.log10_distance, step / 2 * self.log_factor / math.log(10), fl.SLACK))

    def steps_to(self, loss: float) -> float:
        """Return the smallest k at which the bound is at most ``loss``; infinity if that is beyond 1e308."""
        if loss >= self.initial_loss:
            return 0.0
        decay = -self.log_factor * (1 - 3 * fl.SLACK)
        if not (decay > 0 and loss > 0 and math.isfinite(self.initial_loss)):
            return math.inf
        # 1e3: logarithms are at most 745
        steps = (math.log(self.initial_loss) - math.log(loss) + 1e3 * fl.SLACK) / decay
        return float(math.ceil(steps)) if math.isfinite(steps) else math.inf


def _total(a: float, b: float, slack: float) -> float:
    """Return a + b, moved by its rounding: up for a positive slack, down for a negative one."""
    return a + b + slack * (abs(a) + abs(b)) if math.isfinite(a + b) else a + b


def log10(value: float) -> float:
    """Return log10, −∞ where there is none."""
    return math.log10(value) if value > 0 else -math.inf


def power10(exponent: float) -> float:
    """Return an upper bound of 10^exponent: infinity above 308.2, never 0.

    Example:
        >>> power10(-1.0) >= 0.1, power10(-400.0) > 0, power10(400.0)
        (True, True, inf)
    """
    if not exponent <= LARGEST:
        return math.inf
    return 10.0 ** max(exponent, SMALLEST) * (1 + fl.SLACK)


def power10_down(exponent: float) -> float:
    """Return a lower bound of 10^exponent: 0 below −307, never infinite.

    Example:
        >>> power10_down(-1.0) <= 0.1, power10_down(-400.0), power10_down(400.0) < math.inf
        (True, 0.0, True)
    """
    return 10.0 ** min(exponent, LARGEST) * (1 - fl.SLACK) if exponent >= SMALLEST else 0.0


def log10_sum(exponents: list[float]) -> float:
    """Return log10 Σ 10^e."""
    top = max(exponents)
    return top if math.isinf(top) else top + math.log10(sum(10.0 ** (e - top) for e in exponents))
