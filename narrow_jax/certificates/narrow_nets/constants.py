"""Constants of Theorems 1 and 2 of "When Expressivity Meets Trainability", in float64 with rounding included.

All are upper bounds, rounded outward by ``linalg.rounding``: 0 only where that is exact, at least the smallest normal
number where they underflow, infinity where nothing is known. To be called with x64 on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from narrow_jax._typing import Float, HostArray
from narrow_jax.activations import Activation
from narrow_jax.jacobian import Net
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg import spectral_norm
from narrow_jax.spectra import SigmaMin


def input_norm(x: Float[np.ndarray, "n d"]) -> float:
    """Return a bound of √λ_max(Σ_i ‖x_i‖² x_i x_iᵀ), the largest singular value of the rows ‖x_i‖x_i."""
    x, exponent = fl.unit(x)
    rows = np.sqrt(np.sum(x * x, axis=1, keepdims=True)) * x
    return spectral_norm(rows, terms=x.shape[1], exponent=2 * exponent)


def check_outputs(y: HostArray, v: HostArray) -> None:
    """Require one column of labels an output."""
    if y.shape[1] != v.shape[1]:
        raise ValueError(f"y has {y.shape[1]} columns and v {v.shape[1]}; expected one an output")


def unbounded(sigmas: Sequence[Activation]) -> str:
    """Return why the Lipschitz constant of J is infinite."""
    jumps = [sigma.name for sigma in sigmas if not math.isfinite(sigma.sup_second_derivative)]
    if jumps:
        return f"σ' of {jumps[0]} jumps: J is not Lipschitz"
    unknown = [sigma.name for sigma in sigmas if sigma.value is None or sigma.derivative_error is None]
    if unknown and len(sigmas) > 1:
        return (
            f"the rounding error of {unknown[0]} is not known, and so not what enters the layers above: state value, "
            "value_error and derivative_error"
        )
    return "the Lipschitz constant of J overflows: rescale x or v"


def distance(w: HostArray, center: HostArray) -> float:
    """Return a bound of ‖w − w⁰‖_F, 0 where they are equal."""
    with np.errstate(over="ignore"):  # the distance of entries beyond the largest number is infinite
        gap = np.asarray(w, float) - np.asarray(center, float)
    if not np.isfinite(gap).all():
        return math.inf
    gap, exponent = fl.unit(gap)
    return fl.product_up(float(np.linalg.norm(gap)), 1 + fl.gamma(gap.size + 4), exponent=exponent)


def unproven_rank(net: Net, smallest: SigmaMin) -> str:
    """Return why σ_min(J) > 0 is not proven, and what to do."""
    deep = len(net.sigmas) > 1
    silent = [s.name for s in net.sigmas if s.derivative_error is None or (deep and s.value is None)]
    why = (
        f"the rounding error of {silent[0]} is not stated: use tanh, sigmoid, softplus or sin"
        if silent
        else smallest.message
    )
    return f"σ_min(J) > 0 is not proven: {why}"
