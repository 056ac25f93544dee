"""What a theorem of linear convergence guarantees for one step size, in logarithms."""

from __future__ import annotations

import math
from typing import NamedTuple


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

    @property
    def log10_rate(self) -> float:
        """Return log10 of ηα, the share of the loss that a step removes."""
        return log10(self.learning_rate) + self.log10_alpha

    @property
    def log_factor(self) -> float:
        """Return ln(1 − ηα), at most 0; for a tiny ηα it is −ηα."""
        rate = power10(self.log10_rate)
        return math.log1p(-rate) if rate < 1 else -math.inf

    def loss_bound(self, step: float) -> float:
        """Return (1 − ηα)^k Φ(θ_0), the bound (7) at step k."""
        return math.exp(step * self.log_factor) * self.initial_loss if step else self.initial_loss

    def distance_bound(self, step: float) -> float:
        """Return (1 − ηα)^{k/2} D, the bound (9) at step k."""
        return power10(self.log10_distance + (step / 2 * self.log_factor / math.log(10) if step else 0.0))

    def steps_to(self, loss: float) -> float:
        """Return the smallest k at which the bound is at most ``loss``; infinity if that is beyond 1e308."""
        if loss >= self.initial_loss:
            return 0.0
        decay = -self.log_factor
        return math.inf if decay == 0 or loss <= 0 else math.ceil(math.log(self.initial_loss / loss) / decay)


def log10(value: float) -> float:
    """Return log10, −∞ where there is none."""
    return math.log10(value) if value > 0 else -math.inf


def power10(exponent: float) -> float:
    """Return 10^exponent, infinity where that overflows."""
    return math.inf if exponent > 308.2 else 10.0**exponent


def log10_sum(exponents: list[float]) -> float:
    """Return log10 Σ 10^e."""
    top = max(exponents)
    return top if math.isinf(top) else top + math.log10(sum(10.0 ** (e - top) for e in exponents))
