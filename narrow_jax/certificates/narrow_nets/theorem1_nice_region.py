"""Theorem 1 (ii) of "When Expressivity Meets Trainability": where every stationary point is a global minimum."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from narrow_jax import _checks, activations, jacobian
from narrow_jax._typing import Params, Samples
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import distinct_samples
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.jacobian import Net, weights
from narrow_jax.linalg import rounding as fl
from narrow_jax.spectra import sigma_min


class NiceRegion(NamedTuple):
    """The radius ε₀ within which every stationary point is a global minimum with loss 0.

    Fields:
        holds: ε₀ > 0 is proven.
        reason: why, in words.
        radius: proven lower bound of ε₀ = σ_min(J̃(w⁰))/(S₂ √λ_max(Σ‖x_i‖² x_i x_iᵀ)).
        sigma: proven lower bound of σ_min(J̃(w⁰)), J̃ at v = 1 (k > 1: at the given v).
        lipschitz: the denominator (k > 1: times max_j‖v_j,:‖).
        every_v: whether it speaks of every v without zeros (k = 1), or of the given v only.
        rows: equations n·k after samples that follow from others are dropped.
    """

    holds: bool
    reason: str
    radius: float
    sigma: float
    lipschitz: float
    every_v: bool
    rows: int


def nice_region(
    center: Params, x: Samples, activation: str | Activation = "tanh", *, y: Samples | None = None
) -> NiceRegion:
    """Theorem 1 (ii): the radius ε₀ of the region without local minima and saddle points.

    For k = 1, J(w; v) = J̃(w)(diag(v) ⊗ I), so J has full row rank, and every stationary point has loss 0, for every v
    without zeros and all ‖w − w⁰‖ < ε₀ = σ_min(J̃(w⁰))/(S₂ √λ_max(Σ‖x_i‖² x_i x_iᵀ)).
    For k > 1 it does not reduce to v = 1, and ε₀ = σ_min(J(w⁰; v))/L(v) holds for the given v only.

    Args:
        center: the start {"w": (d, m), "v": (m/2, k)}.
        x: data, (n, d); samples that are equal or zero count once or not at all.
        activation: name or ``Activation``.
        y: labels, (n,) or (n, k). Without them equal samples are taken to have equal labels, and zero samples the
            label 0, without which no pairwise net has loss 0; ``reason`` says so where there are such samples.

    Returns:
        ``NiceRegion``.

    Raises:
        ValueError: shapes that do not fit, no sample, non-finite values.
        TypeError: arrays that are not real floating numbers.

    Example:
        >>> import jax, narrow_jax as nj
        >>> center = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=4)
        >>> nice_region(center, np.random.default_rng(0).normal(size=(6, 4))).holds
        True

    Reference:
        "When Expressivity Meets Trainability", Theorem 1 (ii).
    """
    sigma = activations.check(activations.get(activation))
    x = np.asarray(_checks.real_matrix("x", x), float)
    w, v = (np.asarray(leaf, float) for leaf in weights(center, "center"))
    every_v = v.shape[1] == 1
    v = np.ones_like(v) if every_v else v
    jacobian.pairwise({"w": w, "v": v}, x, sigma)
    labels = np.zeros((len(x), v.shape[1])) if y is None else _checks.real_data(x, y)[1]
    constants.check_outputs(labels, v)
    samples = distinct_samples(x, labels)
    found = NiceRegion(
        holds=False, reason=samples.clash, radius=0.0, sigma=0.0, lipschitz=0.0, every_v=every_v, rows=0
    )
    if samples.clash or not samples.kept.size:
        return found._replace(reason=samples.clash or "all samples are 0: there is nothing to learn")
    taken = y is None and len(samples.kept) < len(x)
    proviso = ", provided that equal samples have equal labels and zero samples the label 0" if taken else ""
    rows: np.ndarray = np.asarray(x)[samples.kept]
    smallest = sigma_min(jacobian.pairwise({"w": w, "v": v}, rows, sigma))
    constant = lipschitz(Net.of({"w": w, "v": v}, sigma), rows, math.inf)
    radius = fl.product_down(float(smallest.lower), over=constant)
    if radius > 0:
        scope = "every v without zeros" if every_v else "the given v"
        reason = f"every stationary point within ε₀ = {radius:.6g} has loss 0, for {scope}{proviso}"
    elif not math.isfinite(constant):
        reason = f"{constants.unbounded((sigma,))} and the theorem gives no region"
    elif smallest.lower > 0:
        reason = "ε₀ is below the smallest number: rescale x or v"
    else:
        reason = f"σ_min(J(w⁰)) > 0 is not proven: {smallest.message}"
    return found._replace(
        holds=radius > 0,
        reason=reason,
        radius=radius,
        sigma=float(smallest.lower),
        lipschitz=constant,
        rows=len(rows) * v.shape[1],
    )
