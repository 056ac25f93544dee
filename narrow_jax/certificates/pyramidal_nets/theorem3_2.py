"""Theorem 3.2 of Nguyen and Mondelli: one wide layer, then a pyramid."""

from __future__ import annotations

import math
from typing import NamedTuple

from narrow_jax import _checks, activations
from narrow_jax._typing import HostArray, Params
from narrow_jax.activations import Activation
from narrow_jax.certificates.pyramidal_nets import sharper
from narrow_jax.certificates.pyramidal_nets import start as starts
from narrow_jax.certificates.pyramidal_nets.guarantee import (
    Guarantee,
    log10,
    log10_sum,
    power10,
    power10_down,
    step_defects,
)
from narrow_jax.certificates.pyramidal_nets.start import Start
from narrow_jax.linalg import rounding as fl


class PyramidalCertificate(NamedTuple):
    """The constants of Theorem 3.2 at a start, each rounded to the safe side, and what they prove.

    Fields:
        holds: whether the theorem applies, with ``learning_rate`` below its bound.
        reason: why, or every assumption that is missing.
        condition4, condition5: log10 of left over right side of (4) and (5): ≥ 0 where the condition holds.
        lambdas: λ_l = σ_min(W_l), l = 1 … L.
        lambda_bars: λ̄_l of (3).
        lambda_f: λ_F = σ_min(F_1).
        x_norm, x_frobenius: ‖X‖₂ and ‖X‖_F.
        initial_loss: Φ(θ_0).
        gamma, beta: γ and β of Assumption 2.2.
        log10_r: log10 R of (6).
        unmoved: the share of the weights with a gradient that the first step leaves as they are, because
            η|∇Φ| is below their rounding, in the dtype of ``params``.
        paper: α₀, Q₀, Q₁ and the bounds (7), (9) for the step size.
        sharper: the same with constants that are proven from norms measured at the start (docs/pyramidal.md);
            it can hold where the paper's does not.
    """

    holds: bool
    reason: str
    condition4: float
    condition5: float
    lambdas: tuple[float, ...]
    lambda_bars: tuple[float, ...]
    lambda_f: float
    x_norm: float
    x_frobenius: float
    initial_loss: float
    gamma: float
    beta: float
    log10_r: float
    unmoved: float
    paper: Guarantee
    sharper: Guarantee

    @property
    def alpha0(self) -> float:
        """Return α₀ of (6)."""
        return power10_down(self.paper.log10_alpha)

    @property
    def q0(self) -> float:
        """Return Q₀ of (6)."""
        return power10(self.paper.log10_q)

    @property
    def q1(self) -> float:
        """Return Q₁ of (8)."""
        return power10(self.paper.log10_distance)

    @property
    def learning_rate(self) -> float:
        """Return the step size η of the paper's guarantee."""
        return self.paper.learning_rate

    @property
    def max_learning_rate(self) -> float:
        """Return the largest certified step, just below min(1/α₀, 1/Q₀)."""
        return power10_down(self.paper.log10_max_learning_rate)


def pyramidal(
    params: Params,
    x: HostArray,
    y: HostArray,
    activation: str | Activation,
    learning_rate: float | None = None,
) -> PyramidalCertificate:
    """Apply Theorem 3.2 (Nguyen and Mondelli): does gradient descent from here reach a global minimum, how fast.

    The net is ``nj.models.mlp_apply``, the loss Φ = ½‖F_L − Y‖_F² (``loss="squared"``), the descent full-batch
    with a constant step on all layers. Everything is computed in float64 and rounded to the safe side, whatever
    the dtype; the gradient steps themselves are taken to be exact (see ``unmoved``).

    Args:
        params: ``{"w1": (d, n_1), …, "wL": (n_{L−1}, n_L)}``, L ≥ 2, the start θ_0.
        x: data (N, d).
        y: targets (N, n_L).
        activation: σ with its constants, such as ``nj.activations.smooth_leaky_relu(0.5, 1.0)``.
        learning_rate: η to judge; None for the largest certified one.

    Raises:
        ValueError: params with biases, of one layer or that do not chain, data that do not fit, non-finite
            values, a learning rate that is not positive.
        TypeError: data that are not real floating numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> import narrow_jax as nj
        >>> sigma = nj.activations.smooth_leaky_relu(gamma=0.5, beta=1.0)
        >>> x = jnp.eye(2)
        >>> params = {"w1": 8 * jnp.eye(2), "w2": jnp.zeros((2, 1))}
        >>> c = pyramidal(params, x, jnp.full((2, 1), 0.1), sigma)
        >>> c.holds, round(c.condition4, 2), round(c.max_learning_rate, 4)
        (True, 0.64, 0.0017)
        >>> pyramidal(params, x, jnp.full((2, 1), 9.0), sigma).reason
        'condition (4) fails by a factor of 20: ...'

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", Theorem 3.2.
    """
    sigma = activations.check(activations.get(activation))
    starts.check(params, x, y)
    if learning_rate is not None:
        _checks.positive("learning rate", learning_rate)
        learning_rate = float(learning_rate)  # beside a float32 NumPy would compare in float32
    start = starts.measure(params, x, y, sigma)
    constants = Constants.of(start, sigma)
    missing = [
        *activation_defects(sigma),
        *topology_defects(start),
        *(overflow_defects(start) or data_defects(start, x)),
    ]
    paper = _taken(constants.guarantee(start, learning_rate, missing), sigma)
    return PyramidalCertificate(
        holds=paper.holds,
        reason=paper.reason,
        condition4=constants.condition4,
        condition5=constants.condition5,
        lambdas=start.smallest,
        lambda_bars=constants.lambda_bars,
        lambda_f=start.lambda_f,
        x_norm=start.features[0],
        x_frobenius=start.x_frobenius,
        initial_loss=paper.initial_loss,
        gamma=sigma.min_derivative,
        beta=sigma.sup_second_derivative,
        log10_r=constants.log10_r,
        unmoved=starts.unmoved(params, x, y, sigma, paper.learning_rate),
        paper=paper,
        sharper=_taken(sharper.guarantee(start, sigma, learning_rate, missing), sigma),
    )


def _taken(guarantee: Guarantee, sigma: Activation) -> Guarantee:
    """Return the guarantee, with what its reason takes for granted of an activation outside the family (2)."""
    others = dict.fromkeys(unit.name for unit in sigma.units or (sigma,) if unit.smoothing is None)
    if not (guarantee.holds and others):
        return guarantee
    proviso = f"{', '.join(others)} is taken to be evaluated within {starts.EVALUATION} units 2⁻⁵³ of |z|"
    return guarantee._replace(reason=f"{guarantee.reason}; {proviso}")


class Constants(NamedTuple):
    """Equations (3) to (8) in log10; the margins and the step are rounded down by ``slack``."""

    lambda_bars: tuple[float, ...]
    condition4: float
    condition5: float
    log10_alpha: float
    log10_q0: float
    log10_q1: float
    log10_r: float
    log10_max_learning_rate: float

    @classmethod
    def of(cls, start: Start, sigma: Activation) -> Constants:
        """Return the constants of a start."""
        layers = len(start.norms)
        lambda_bars = tuple(
            2 / 3 * (1 + norm) * (1 + fl.SLACK) if layer <= 2 else norm
            for layer, norm in enumerate(start.norms, start=1)
        )
        gamma, beta = log10(sigma.min_derivative), log10(sigma.sup_second_derivative)
        low = [log10(value) for value in start.smallest]
        bar = [log10(value) for value in lambda_bars]
        lambda_f, norm, frobenius, residual = map(
            log10, (start.lambda_f, start.features[0], start.x_frobenius, start.residual)
        )
        others = [sum(bar[:i] + bar[i + 1 :]) for i in range(layers)]  # λ̄_{1→L}/λ̄_l, defined for λ̄_l = 0 too
        terms = [*low[2:], *bar, lambda_f, norm, frobenius, residual, beta, gamma * layers, 4.0 * layers]
        # at most 4L + 20 roundings in a row
        slack = 2.0**-49 * (16 + layers) * sum(abs(term) for term in terms if math.isfinite(term))

        # γ⁴(1/γ²)^L is 1 for L = 2, for γ = 0 too
        gammas = (2 * layers - 4) * gamma if layers > 2 else 0.0
        common = (
            layers * log10(6) - log10(3) - gammas + frobenius + residual + sum(bar[2:]) - 2 * sum(low[2:])
        )
        largest = max(bar[0], bar[1])
        if layers > 2:
            smallest = min(a + b for a, b in zip(low[2:], bar[2:], strict=True))
            largest = max(largest, log10(2) + bar[0] + bar[1] - smallest)
        degenerate = not all(
            map(math.isfinite, (lambda_f, gammas, norm, frobenius, residual, *low[2:], *bar))
        )
        condition4 = -math.inf if degenerate else 2 * lambda_f - common - largest
        condition5 = -math.inf if degenerate else 3 * lambda_f - common - log10(2) - norm - bar[1]

        alpha = (
            -math.inf if degenerate else log10(4) * (1 - layers) + gammas + 2 * lambda_f + 2 * sum(low[2:])
        )
        r = sum(max(0.0, log10(1.5) + value) for value in bar)
        root = 1.5 * log10(layers)
        q0 = log10_sum(
            [
                root + 2 * ((layers - 1) * log10(1.5) + frobenius + max(others)),
                root + frobenius + r + residual,
                root + log10(layers) + beta + 2 * (frobenius + r) + residual,
            ]
        )
        q1 = log10(4 / 3) + layers * log10(1.5) + frobenius - alpha + log10_sum(others) + residual
        overflow = math.inf in (norm, frobenius, residual, *bar)
        q0 = math.inf if overflow else q0
        step = min(-alpha, -q0)
        return cls(
            lambda_bars,
            condition4 - slack,
            condition5 - slack,
            alpha - slack,
            q0 + slack,
            math.inf if degenerate else q1 + slack,
            r + slack,
            step - slack,
        )

    def guarantee(self, start: Start, learning_rate: float | None, missing: list[str]) -> Guarantee:
        """Return the verdict of the theorem for a step size, given what is missing beside (4) and (5)."""
        missing = missing or [
            f"condition {name} fails by a factor of {power10(-margin):.2g}: {CURE}"
            for name, margin in (("(4)", self.condition4), ("(5)", self.condition5))
            if not margin >= 0
        ]
        largest = power10_down(self.log10_max_learning_rate)
        eta = largest if learning_rate is None else learning_rate
        if eta > 0 or not missing:
            missing = [*missing, *step_defects(eta, largest, "min(1/α₀, 1/Q₀)")]
        return Guarantee(
            holds=not missing,
            reason="; ".join(missing)
            or "Assumptions 2.1, 2.2 and 3.1 hold and the step is below min(1/α₀, 1/Q₀)",
            log10_alpha=self.log10_alpha,
            log10_q=self.log10_q0,
            log10_distance=self.log10_q1,
            log10_max_learning_rate=self.log10_max_learning_rate,
            learning_rate=eta,
            initial_loss=fl.product_up(0.5, start.residual, start.residual),
            radii=(1.0, 1.0, *(value / 2 for value in start.smallest[2:])),
        )


CURE = "a start for these data comes from nj.solvers.pyramidal_start"


def activation_defects(sigma: Activation) -> list[str]:
    """Return what of Assumption 2.2 an activation breaks, and whether it is evaluated as ``start`` takes it to be."""
    broken = {
        f"(i): inf σ' = {sigma.min_derivative:g} is not above 0": not sigma.min_derivative > 0,
        f"(i): sup σ' = {sigma.lipschitz:g} exceeds 1": not sigma.lipschitz <= 1,
        "(iii): σ' is not Lipschitz, β = ∞": not sigma.sup_second_derivative < math.inf,
    }
    stated = [f"Assumption 2.2 {text} for {sigma.name}" for text, is_broken in broken.items() if is_broken]
    return [*stated, *starts.evaluation_defects(sigma)]


def overflow_defects(start: Start) -> list[str]:
    """Return that numbers of the start overflow, if they do."""
    finite = all(map(math.isfinite, (*start.norms, *start.features, start.x_frobenius, start.residual)))
    return [] if finite else ["the norms at the start overflow: rescale x, y or the weights"]


def topology_defects(start: Start) -> list[str]:
    """Return what of Assumption 2.1 a net breaks."""
    missing = []
    if start.widths[1] < start.samples:
        missing.append(f"Assumption 2.1: the first layer has {start.widths[1]} < N = {start.samples} neurons")
    pyramid = start.widths[2:]
    if sorted(pyramid, reverse=True) != list(pyramid):
        missing.append(f"Assumption 2.1: the widths n_2 … n_L = {', '.join(map(str, pyramid))} increase")
    return missing


def data_defects(start: Start, x: HostArray) -> list[str]:
    """Return which λ of Assumption 3.1 is 0 to rounding, and from which samples if that can be seen."""
    missing = [
        f"Assumption 3.1: W_{layer} is singular to rounding, λ_{layer} = 0"
        for layer, value in enumerate(start.smallest[2:], start=3)
        if value == 0
    ]
    if start.lambda_f == 0 and start.widths[1] >= start.samples:
        missing.append(f"Assumption 3.1: F_1 is singular to rounding, λ_F = 0{_samples_at_fault(x)}")
    return missing


def _samples_at_fault(x: HostArray) -> str:
    seen: dict[bytes, int] = {}
    for index, row in enumerate(starts.exactly(x) + 0.0):  # −0.0 becomes 0.0
        if not row.any():
            return f": row {index} of x is zero"
        if seen.setdefault(row.tobytes(), index) != index:
            return f": rows {seen[row.tobytes()]} and {index} of x are equal"
    return ""
