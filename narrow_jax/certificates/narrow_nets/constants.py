"""Constants of Theorems 1 and 2 of "When Expressivity Meets Trainability", in float64 with rounding included.

All are upper bounds, rounded outward by ``linalg.rounding``: 0 only where that is exact, at least the smallest normal
number where they underflow, infinity where nothing is known. To be called with x64 on.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Array, Float, HostArray, Params
from narrow_jax.activations import Activation
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg import spectral_norm


def input_norm(x: Float[np.ndarray, "n d"]) -> float:
    """Return a bound of √λ_max(Σ_i ‖x_i‖² x_i x_iᵀ), the largest singular value of the rows ‖x_i‖x_i."""
    x, exponent = fl.unit(x)
    rows = np.sqrt(np.sum(x * x, axis=1, keepdims=True)) * x
    return spectral_norm(rows, terms=x.shape[1], exponent=2 * exponent)


def check_outputs(y: HostArray, v: HostArray) -> None:
    """Require one column of labels an output."""
    if y.shape[1] != v.shape[1]:
        raise ValueError(f"y has {y.shape[1]} columns and v {v.shape[1]}; expected one an output")


def unbounded(activation: Activation) -> str:
    """Return why the Lipschitz constant of J is infinite."""
    if math.isfinite(activation.sup_second_derivative):
        return "the Lipschitz constant of J overflows: rescale x or v"
    return f"σ' of {activation.name} jumps: J is not Lipschitz"


def distance(w: HostArray, center: HostArray) -> float:
    """Return a bound of ‖w − w⁰‖_F, 0 where they are equal."""
    with np.errstate(over="ignore"):  # the distance of entries beyond the largest number is infinite
        gap = np.asarray(w, float) - np.asarray(center, float)
    if not np.isfinite(gap).all():
        return math.inf
    gap, exponent = fl.unit(gap)
    return fl.product_up(float(np.linalg.norm(gap)), 1 + fl.gamma(gap.size + 4), exponent=exponent)


def residual(params: Params, x: HostArray, y: HostArray, activation: Activation) -> tuple[float, float]:
    """Return (‖y − f‖ as computed, a bound of what rounding adds to it) for the pairwise net (6).

    z = XW by slices with error e_z, σ by operations with a stated error c, products by γ:
    |δf| ≤ Σ_j |v_j| (Lip e_z + cu(1 + |z|) for both halves) + γ_{h+2} Σ_j |v_j||σ₊ − σ₋|.
    Nothing is proven where products of w, v and x could over- or underflow.
    """
    if activation.value is None:
        return float("nan"), float("inf")
    w, v = params["w"], params["v"]
    computed, rounding, largest = _residual(w, v, x, y, activation)
    sizes = [float(np.max(np.abs(factor), initial=0.0)) for factor in (w, v, x)]
    carried = all(size == 0 or 2.0**-400 <= size <= 2.0**200 for size in sizes)
    proven = float(largest) + 2 < activation.derivative_range and carried
    return float(computed), float(rounding) if proven and np.isfinite(rounding) else float("inf")


@jax.jit(static_argnames="activation")
def _residual(w: Array, v: Array, x: Array, y: Array, activation: Activation) -> tuple[Array, Array, Array]:
    z, z_error = jax.lax.optimization_barrier(fl.split_product(x, w))
    assert activation.value is not None
    value = jax.lax.optimization_barrier(activation.value(z))
    value_error = activation.lipschitz * z_error + activation.value_error * fl.UNIT * (1 + jnp.abs(z))
    plus, minus = jnp.split(value, 2, axis=1)
    moved_plus, moved_minus = jnp.split(fl.up(value_error), 2, axis=1)
    moved = moved_plus + moved_minus
    pairs = plus - minus
    f = jax.lax.optimization_barrier(fl.matmul(pairs, v))
    r = y - f
    terms = fl.gamma(v.shape[0] + 2)
    weights = jnp.abs(v)
    error = fl.matmul(moved, weights) + terms * fl.matmul(jnp.abs(pairs), weights) + fl.UNIT * jnp.abs(r)
    error = fl.up(error * (1 + 4 * fl.gamma(v.shape[0] + 8)))
    computed = fl.norm(r)
    return computed, fl.up(fl.norm_up(error) + 2 * fl.norm_error(r.size) * computed), jnp.max(jnp.abs(z))
