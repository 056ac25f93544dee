"""Theorem 3.2 of "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology"."""

from __future__ import annotations

from typing import NamedTuple

from narrow_jax import _checks, activations
from narrow_jax._host import host_only
from narrow_jax._typing import HostArray, Params
from narrow_jax.activations import Activation
from narrow_jax.certificates.pyramidal_nets import sharper_constants
from narrow_jax.certificates.pyramidal_nets.assumptions import (
    activation_defects,
    data_defects,
    overflow_defects,
    topology_defects,
)
from narrow_jax.certificates.pyramidal_nets.constants import Constants
from narrow_jax.certificates.pyramidal_nets.guarantee import Guarantee, power10, power10_down
from narrow_jax.certificates.pyramidal_nets.measured_norms import EVALUATION, StartNorms, check_start, unmoved


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
        sharper: the same with constants that are proven from norms measured at the start (docs/proofs/pyramidal.md);
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


@host_only
def pyramidal(
    params: Params,
    x: HostArray,
    y: HostArray,
    activation: str | Activation,
    learning_rate: float | None = None,
) -> PyramidalCertificate:
    """Theorem 3.2 (Nguyen and Mondelli): does gradient descent from here reach a global minimum, how fast.

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
    check_start(params, x, y)
    if learning_rate is not None:
        _checks.positive("learning rate", learning_rate)
        learning_rate = float(learning_rate)  # beside a float32 NumPy would compare in float32
    start = StartNorms.of(params, x, y, sigma)
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
        unmoved=unmoved(params, x, y, sigma, paper.learning_rate),
        paper=paper,
        sharper=_taken(sharper_constants.guarantee(start, sigma, learning_rate, missing), sigma),
    )


def _taken(guarantee: Guarantee, sigma: Activation) -> Guarantee:
    """Return the guarantee, with what its reason takes for granted of an activation outside the family (2)."""
    others = dict.fromkeys(unit.name for unit in sigma.units or (sigma,) if unit.smoothing is None)
    if not (guarantee.holds and others):
        return guarantee
    proviso = f"{', '.join(others)} is taken to be evaluated within {EVALUATION} units 2⁻⁵³ of |z|"
    return guarantee._replace(reason=f"{guarantee.reason}; {proviso}")
