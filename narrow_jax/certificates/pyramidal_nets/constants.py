"""Equations (3) to (9) of "Global Convergence of Deep Networks": the constants of Theorem 3.2 as the paper has them."""

from __future__ import annotations

import math
from typing import NamedTuple

from narrow_jax.activations import Activation
from narrow_jax.certificates.pyramidal_nets.guarantee import Guarantee, log10, log10_sum, power10
from narrow_jax.certificates.pyramidal_nets.measured_norms import StartNorms
from narrow_jax.linalg import rounding as fl


class Constants(NamedTuple):
    """Equations (3), (4), (5), (6) and (8) in log10, each moved to the safe side by more than it can be wrong."""

    lambda_bars: tuple[float, ...]
    condition4: float
    condition5: float
    log10_alpha: float
    log10_q0: float
    log10_q1: float
    log10_r: float
    log10_max_learning_rate: float

    @classmethod
    def of(cls, start: StartNorms, sigma: Activation) -> Constants:
        """Return the constants of a start."""
        lambda_bars = tuple(
            2 / 3 * (1 + norm) * (1 + fl.SLACK) if layer <= 2 else norm
            for layer, norm in enumerate(start.norms, start=1)
        )
        logs = _Logs(
            layers=len(start.norms),
            low=[log10(value) for value in start.smallest[2:]],
            bar=[log10(value) for value in lambda_bars],
            lambda_f=log10(start.lambda_f),
            norm=log10(start.features[0]),
            frobenius=log10(start.x_frobenius),
            residual=log10(start.residual),
            gamma=log10(sigma.min_derivative),
            beta=log10(sigma.sup_second_derivative),
        )
        slack, nothing = logs.slack, logs.degenerate
        condition4, condition5 = (-math.inf, -math.inf) if nothing else logs.conditions()
        alpha = -math.inf if nothing else logs.alpha0()
        q0 = logs.q0()
        return cls(
            lambda_bars=lambda_bars,
            condition4=condition4 - slack,
            condition5=condition5 - slack,
            log10_alpha=alpha - slack,
            log10_q0=q0 + slack,
            log10_q1=math.inf if nothing else logs.q1(alpha) + slack,
            log10_r=logs.r + slack,
            log10_max_learning_rate=min(-alpha, -q0) - slack,
        )

    def guarantee(self, start: StartNorms, learning_rate: float | None, missing: list[str]) -> Guarantee:
        """Return the verdict of Theorem 3.2 for a step size, given what is missing beside (4) and (5)."""
        missing = missing or [
            f"condition {name} fails by a factor of {power10(-margin):.2g}: a start for these data comes from "
            "nj.solvers.pyramidal_start"
            for name, margin in (("(4)", self.condition4), ("(5)", self.condition5))
            if not margin >= 0
        ]
        found = Guarantee(
            holds=False,
            reason="Assumptions 2.1, 2.2 and 3.1 hold and the step is below min(1/α₀, 1/Q₀)",
            log10_alpha=self.log10_alpha,
            log10_q=self.log10_q0,
            log10_distance=self.log10_q1,
            log10_max_learning_rate=self.log10_max_learning_rate,
            learning_rate=0.0,
            initial_loss=fl.product_up(0.5, start.residual, start.residual),
            radii=(1.0, 1.0, *(value / 2 for value in start.smallest[2:])),
        )
        return found.judged(learning_rate, missing, "min(1/α₀, 1/Q₀)")


class _Logs(NamedTuple):
    """log10 of λ_l for l ≥ 3, of λ̄_l, λ_F, ‖X‖₂, ‖X‖_F, √(2Φ(θ_0)), γ and β."""

    layers: int
    low: list[float]
    bar: list[float]
    lambda_f: float
    norm: float
    frobenius: float
    residual: float
    gamma: float
    beta: float

    @property
    def slack(self) -> float:
        """Return more than the sums here can be wrong: at most 4L + 20 roundings in a row."""
        data = self.lambda_f, self.norm, self.frobenius, self.residual, self.beta
        terms = [*self.low, *self.bar, *data, self.gamma * self.layers, 4.0 * self.layers]
        return 2.0**-49 * (16 + self.layers) * sum(abs(term) for term in terms if math.isfinite(term))

    @property
    def gammas(self) -> float:
        """Return log10 of γ^(2L − 4), 1 for L = 2, for γ = 0 too."""
        return (2 * self.layers - 4) * self.gamma if self.layers > 2 else 0.0

    @property
    def degenerate(self) -> bool:
        """Return whether a factor is 0 or overflows: then nothing is proven."""
        data = self.lambda_f, self.gammas, self.norm, self.frobenius, self.residual
        return not all(map(math.isfinite, (*data, *self.low, *self.bar)))

    @property
    def others(self) -> list[float]:
        """Return log10 λ̄_{1→L}/λ̄_l for each l, defined for λ̄_l = 0 too."""
        return [sum(self.bar[:i] + self.bar[i + 1 :]) for i in range(self.layers)]

    @property
    def r(self) -> float:
        """Return log10 of R = Π max(1, (3/2)λ̄_p)."""
        return sum(max(0.0, log10(1.5) + value) for value in self.bar)

    def conditions(self) -> tuple[float, float]:
        """Return log10 of left over right side of (4) and of (5)."""
        common = self.layers * log10(6) - log10(3) - self.gammas + self.frobenius + self.residual
        common = common + sum(self.bar[2:]) - 2 * sum(self.low)
        largest = max(self.bar[0], self.bar[1])
        if self.layers > 2:
            smallest = min(a + b for a, b in zip(self.low, self.bar[2:], strict=True))
            largest = max(largest, log10(2) + self.bar[0] + self.bar[1] - smallest)
        return (
            2 * self.lambda_f - common - largest,
            3 * self.lambda_f - common - log10(2) - self.norm - self.bar[1],
        )

    def alpha0(self) -> float:
        """Return log10 of α₀ of (6)."""
        return log10(4) * (1 - self.layers) + self.gammas + 2 * self.lambda_f + 2 * sum(self.low)

    def q0(self) -> float:
        """Return log10 of Q₀ of (6)."""
        if math.inf in (self.norm, self.frobenius, self.residual, *self.bar):
            return math.inf
        root = 1.5 * log10(self.layers)
        return log10_sum(
            [
                root + 2 * ((self.layers - 1) * log10(1.5) + self.frobenius + max(self.others)),
                root + self.frobenius + self.r + self.residual,
                root + log10(self.layers) + self.beta + 2 * (self.frobenius + self.r) + self.residual,
            ]
        )

    def q1(self, alpha: float) -> float:
        """Return log10 of Q₁ of (8)."""
        first = log10(4 / 3) + self.layers * log10(1.5) + self.frobenius - alpha
        return first + log10_sum(self.others) + self.residual
