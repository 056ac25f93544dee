"""Constants of Theorems 1 and 2 of "When Expressivity Meets Trainability", in float64 with rounding included.

All are upper bounds, rounded outward by ``linalg.rounding``: 0 only where that is exact, at least the smallest normal
number where they underflow, infinity where nothing is known. To be called with x64 on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Array, Float, HostArray
from narrow_jax.activations import Activation
from narrow_jax.jacobian import Net, layers
from narrow_jax.linalg import HOST, eigenvalue_bound
from narrow_jax.linalg import rounding as fl


def input_norm(x: Float[np.ndarray, "n d"]) -> float:
    """Return a bound of √λ_max(Σ_i ‖x_i‖² x_i x_iᵀ), the largest singular value of the rows ‖x_i‖x_i.

    μI − fl(AAᵀ) has a Cholesky factor, A the rows or their transpose, whichever product is smaller.
    """
    x, exponent = fl.unit(x)
    if not x.any():
        return 0.0
    rows = np.sqrt(np.sum(x * x, axis=1, keepdims=True)) * x
    a = rows if x.shape[0] <= x.shape[1] else rows.T
    square = HOST.outer(a)
    size = float(HOST.largest(square, 1e-14).first)
    frobenius = float(np.sum(rows * rows)) * (1 + fl.gamma(rows.size + 8))
    # fl(AAᵀ) is off by γ_inner ‖A‖_F², each entry of A itself by γ_{d+2} relatively: twice that in the square
    forming = fl.gamma(a.shape[1] + 2 * x.shape[1] + 8) * frobenius
    mu = size * (1 + 1e-9) + forming
    bound, proven = eigenvalue_bound(HOST, square, mu, forming)
    bound = float(bound) if proven else frobenius
    return fl.product_up(float(np.sqrt(bound) * (1 + 4 * fl.SLACK)), exponent=2 * exponent)


def lipschitz(v: Float[np.ndarray, "h k"], inputs: float, activation: Activation) -> float:
    """Return L with ‖J(w; v) − J(w'; v)‖₂ ≤ L‖w − w'‖_F: S₂ max_j‖v_j,:‖ √λ_max(Σ‖x_i‖² x_i x_iᵀ).

    Proof. Row block i of the difference maps P to Σ_j v_j δ_ij x_iᵀp_j with |δ_ij| ≤ S₂|x_iᵀ(w_j − w'_j)|; by
    Cauchy–Schwarz its norm is at most S₂ max‖v_j‖ ‖(w − w')ᵀx_i‖ ‖Pᵀx_i‖, the first of which is at most ‖w − w'‖‖x_i‖.

    Args:
        v: outer weights.
        inputs: ``input_norm``.
        activation: with its S₂ = sup|σ''|.
    """
    v, exponent = fl.unit(v)  # no square over- or underflows
    largest = float(np.sqrt(np.max(np.sum(v * v, axis=1), initial=0.0)))
    rows = fl.product_up(largest, 1 + fl.gamma(v.shape[1] + 4), exponent=exponent)
    return fl.product_up(activation.sup_second_derivative, rows, inputs)


def check_outputs(y: HostArray, v: HostArray) -> None:
    """Require one column of labels an output."""
    if y.shape[1] != v.shape[1]:
        raise ValueError(f"y has {y.shape[1]} columns and v {v.shape[1]}; expected one an output")


def unbounded(sigmas: Sequence[Activation]) -> str:
    """Return why the Lipschitz constant of J is infinite."""
    jumps = [sigma.name for sigma in sigmas if not math.isfinite(sigma.sup_second_derivative)]
    if jumps:
        return f"σ' of {jumps[0]} jumps: J is not Lipschitz"
    return "the Lipschitz constant of J overflows: rescale x or v"


def distance(net: Net, center: Net) -> float:
    """Return a bound of ‖w − w⁰‖_F over all hidden weights, 0 where they are equal."""
    with np.errstate(over="ignore"):  # the distance of entries beyond the largest number is infinite
        gaps = [
            np.ravel(w - start)
            for half, other in zip(net.halves, center.halves, strict=True)
            for w, start in zip(half, other, strict=True)
        ]
    gap = np.concatenate(gaps)
    if not np.isfinite(gap).all():
        return math.inf
    gap, exponent = fl.unit(gap)
    return fl.product_up(float(np.linalg.norm(gap)), 1 + fl.gamma(gap.size + 4), exponent=exponent)


class Residual(NamedTuple):
    """y − f as computed, (n, k), its norm, and a bound of what rounding hides in both."""

    values: HostArray
    norm: float
    rounding: float


def residual(net: Net, x: HostArray, y: HostArray) -> tuple[float, float]:
    """Return (‖y − f‖ as computed, a bound of what rounding adds to it)."""
    return residuals(net, x, y)[1:]


def residuals(net: Net, x: HostArray, y: HostArray) -> Residual:
    """Return y − f.

    The features φ with their error e by one pass through the layers (``jacobian.layers``), for a pair the difference of
    two; products by γ: |δf| ≤ e|V| + γ_{h+2}|φ||V|.
    Nothing is proven where products of weights and x could over- or underflow.
    """
    if any(sigma.value is None for sigma in net.sigmas):
        return Residual(np.full(y.shape, np.nan), float("nan"), float("inf"))
    values, computed, rounding = _residual(net.halves, net.v, x, y, net.sigmas)
    factors = (x, net.v, *(w for half in net.halves for w in half))
    sizes = [float(np.max(np.abs(factor), initial=0.0)) for factor in factors]
    proven = all(size == 0 or 2.0**-400 <= size <= 2.0**200 for size in sizes)
    bound = float(rounding) if proven and np.isfinite(rounding) else float("inf")
    return Residual(np.asarray(values), float(computed), bound)


@jax.jit(static_argnames="sigmas")
def _residual(
    halves: tuple[tuple[Array, ...], ...], v: Array, x: Array, y: Array, sigmas: tuple[Activation, ...]
) -> tuple[Array, Array, Array]:
    phi, moved = _features(halves, x, sigmas)
    f = jax.lax.optimization_barrier(fl.matmul(phi, v))
    r = y - f
    terms, weights = fl.gamma(v.shape[0] + 2), jnp.abs(v)
    error = fl.matmul(moved, weights) + terms * fl.matmul(jnp.abs(phi), weights) + fl.UNIT * jnp.abs(r)
    error = fl.up(error * (1 + 4 * fl.gamma(v.shape[0] + 8)))
    computed = fl.norm(r)
    return r, computed, fl.up(fl.norm_up(error) + 2 * fl.norm_error(r.size) * computed)


def _features(halves: tuple[tuple[Array, ...], ...], x: Array, sigmas: tuple[Activation, ...]) -> tuple[Array, Array]:
    """Return what V is applied to, and a bound of its error but for one rounding."""
    ends = [layers.forward(x, half, sigmas)[1:] for half in halves]
    (phi, moved), *others = [(a, jnp.zeros_like(a) if error is None else error) for a, error in ends]
    for other, error in others:
        phi, moved = phi - other, moved + error
    return phi, moved
