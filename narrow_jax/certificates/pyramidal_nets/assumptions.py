"""Assumptions 2.1, 2.2 and 3.1 of "Global Convergence of Deep Networks": what a net, σ and data break of them."""

from __future__ import annotations

import functools
import math

import numpy as np

from narrow_jax._typing import HostArray
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets import distinct_samples
from narrow_jax.certificates.pyramidal_nets.measured_norms import EVALUATION, StartNorms, evaluate, in_float64
from narrow_jax.linalg import rounding as fl


def activation_defects(sigma: Activation) -> list[str]:
    """Return what of Assumption 2.2 an activation breaks, and whether it is evaluated as ``start`` takes it to be."""
    broken = {
        f"(i): inf σ' = {sigma.min_derivative:g} is not above 0": not sigma.min_derivative > 0,
        f"(i): sup σ' = {sigma.lipschitz:g} exceeds 1": not sigma.lipschitz <= 1,
        "(iii): σ' is not Lipschitz, β = ∞": not sigma.sup_second_derivative < math.inf,
    }
    stated = [f"Assumption 2.2 {text} for {sigma.name}" for text, is_broken in broken.items() if is_broken]
    return [*stated, *evaluation_defects(sigma)]


def overflow_defects(start: StartNorms) -> list[str]:
    """Return that numbers of the start overflow, if they do."""
    finite = all(map(math.isfinite, (*start.norms, *start.features, start.x_frobenius, start.residual)))
    return [] if finite else ["the norms at the start overflow: rescale x, y or the weights"]


def topology_defects(start: StartNorms) -> list[str]:
    """Return what of Assumption 2.1 a net breaks."""
    missing = []
    if start.widths[1] < start.samples:
        missing.append(f"Assumption 2.1: the first layer has {start.widths[1]} < N = {start.samples} neurons")
    pyramid = start.widths[2:]
    if sorted(pyramid, reverse=True) != list(pyramid):
        missing.append(f"Assumption 2.1: the widths n_2 … n_L = {', '.join(map(str, pyramid))} increase")
    return missing


def data_defects(start: StartNorms, x: HostArray) -> list[str]:
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
    rows = in_float64(x)
    found = distinct_samples(rows, np.zeros((len(rows), 1)))
    faults = {index: f": row {index} of x is zero" for index in found.zero}
    faults |= {later: f": rows {earlier} and {later} of x are equal" for later, earlier in found.repeated}
    return faults[min(faults)] if faults else ""


def evaluation_defects(activation: Activation) -> list[str]:
    """Return what shows that σ(0) is not 0, or that σ is not evaluated within EVALUATION units, unit by unit."""
    return [text for unit in activation.units or (activation,) for text in _defects(unit)]


@functools.cache
def _defects(activation: Activation) -> tuple[str, ...]:
    """Return what contradicts the evaluation of one σ.

    |σ(z + h) − 2σ(z) + σ(z − h)| ≤ βh² + EVALUATION·u(|z + h| + 2|z| + |z − h|) at h = 2⁻²⁰|z|, |z| = 2⁻³⁰ … 2⁷, which
    what is computed in float32, or with jumps, breaks.
    """
    z = np.outer(2.0 ** np.arange(-30, 8), 1 + np.arange(8) / 8).ravel()
    z = np.concatenate([z, -z])
    h = np.abs(z) * 2.0**-20
    values = evaluate(np.stack([z - h, z, z + h, np.zeros_like(z)]), activation)
    at_zero, bent = float(values[3, 0]), np.abs(values[0] - 2 * values[1] + values[2])
    allowed = activation.sup_second_derivative * h**2 + 4.01 * EVALUATION * fl.UNIT * np.abs(z)
    broken = {
        f"Assumption 2.2 (ii): σ(0) = {at_zero:g} is not 0 for {activation.name}": at_zero != 0,
        f"{activation.name} is not evaluated within {EVALUATION} units 2⁻⁵³ of |z|: compute it in float64, "
        "without casts": values.dtype != np.float64 or not np.all(bent <= allowed),
    }
    return tuple(text for text, is_broken in broken.items() if is_broken)
