"""One solution for all back ends: the Gram matrix, a route, and its result in true scale."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Computed, Float, HostArray
from narrow_jax.linalg import (
    Algebra,
    Device,
    EvaluatedJacobian,
    Jacobian,
    Stored,
    arrays,
    compiled,
    context,
    xp,
)
from narrow_jax.linalg import rounding as fl
from narrow_jax.spectra import plans, routes
from narrow_jax.spectra.enclosure import Operand
from narrow_jax.spectra.result import SigmaMin, Status

NORMAL = 2.0**-1021
"""The smallest float64 that no backend flushes to 0."""


def evaluated(J: Jacobian) -> EvaluatedJacobian:
    """Return the matrix on the host, of few entries as NumPy's: its formulas compile nothing then."""
    j = context.at_hand(J).evaluate()
    few = isinstance(j, Stored) and math.prod(j.shape) <= context.FEW
    return jax.tree.map(np.asarray, j) if few else j


def solve(
    algebra: Algebra, j: EvaluatedJacobian, method: str, certify: bool, encloses: str, top: float = 1e-8
) -> tuple[SigmaMin, HostArray, Float[HostArray, " n"]]:
    """Return the result in true scale, the right singular vector, and the vector of σ_max."""
    gram = j.gram(algebra)
    largest = algebra.largest(gram.matrix, top)  # of σ²: it judges, and proves nothing
    sigma_max = xp.sqrt(largest.first)
    again = isinstance(algebra, Device) and plans.formed_again(plans.Sizes.of_evaluated(j), certify)
    if again:  # one matrix at a time: the next is formed when this one has been used
        j, largest = arrays.barrier((j, largest))
    operand = Operand(algebra, j, gram.bounds, None if again else gram.matrix)
    found = routes.find(operand, sigma_max, method, certify)
    s = _assemble(found, sigma_max, gram.bounds.perturbation, j.exponent, j.shape, encloses)
    return s, found.right, largest.vector


@compiled(static_argnames=("shape", "encloses"))
def _assemble(
    found: routes.Found,
    sigma_max: Computed,
    perturbation: Computed,
    exponent: Computed,
    shape: tuple[int, int],
    encloses: str,
) -> SigmaMin:
    """Add δ, judge, and scale back by the power of two, bounds rounded outward where denormals begin."""
    lower = fl.down(found.lower - perturbation)
    lower = xp.where(xp.isfinite(lower), lower, 0.0)
    upper = fl.up(found.upper + perturbation)
    zero = found.value <= max(shape) * (jnp.finfo(found.value.dtype).eps / 2) * sigma_max
    zero = zero & ((sigma_max > 0) | xp.isfinite(perturbation))  # denormals may have been flushed
    status = xp.where(zero, Status.NUMERICALLY_ZERO.value, Status.ESTIMATE.value)
    value, lower, upper, sigma_max = (
        xp.ldexp(number, exponent) for number in (found.value, lower, upper, sigma_max)
    )
    lower, upper = normal(lower, upper)
    status = xp.where(lower > 0, Status.CERTIFIED.value, status)
    # any u with ‖Jᵀu‖ at rounding proves that, converged or not
    status = xp.where(found.reliable | zero, status, Status.NOT_CONVERGED.value).astype(np.int32)
    return SigmaMin(
        value=value,
        lower=lower,
        upper=upper,
        sigma_max=sigma_max,
        vector=found.vector,
        status_code=status,
        method_code=found.method_code,
        encloses=encloses,
    )


def normal(lower: Computed, upper: Computed) -> tuple[Computed, Float[Computed, ""]]:
    """Return the bounds where over- and underflow of their dtype are taken into account."""
    limits = jnp.finfo(lower.dtype)
    smallest = max(NORMAL, float(limits.tiny))
    lower = xp.where(lower > smallest, xp.minimum(lower, float(limits.max)), 0.0)
    return lower, xp.where(xp.isnan(upper), np.inf, xp.maximum(upper, smallest))
