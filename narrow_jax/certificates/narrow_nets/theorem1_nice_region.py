"""Theorem 1 (ii) of "When Expressivity Meets Trainability": where every stationary point is a global minimum."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax._typing import HostArray, Params, Samples
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import distinct_samples
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.jacobian import Net
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations
from narrow_jax.spectra import sigma_min

HALVINGS = 12
"""Of the interval in which the radius of a deep net lies: then ε₀ is known to 1e-3 of it."""


class NiceRegion(NamedTuple):
    """The radius ε₀ within which every stationary point is a global minimum with loss 0.

    Fields:
        holds: ε₀ > 0 is proven.
        reason: why, in words.
        radius: proven lower bound of ε₀ = σ_min(J̃(w⁰))/(S₂ √λ_max(Σ‖x_i‖² x_i x_iᵀ)); of a deep net a radius r with
            L(r)·r ≤ σ_min(J(w⁰; v)), nearly the largest.
        sigma: proven lower bound of σ_min(J̃(w⁰)), J̃ at v = 1 (k > 1, and deep nets: at the given v).
        lipschitz: the denominator (k > 1: times max_j‖v_j,:‖); of a deep net L(r).
        every_v: whether it speaks of every v without zeros (one hidden layer, k = 1), or of the given v only.
        rows: equations n·k after samples that follow from others are dropped.
    """

    holds: bool
    reason: str
    radius: float
    sigma: float
    lipschitz: float
    every_v: bool
    rows: int


@host_only
def nice_region(
    center: Params, x: Samples, activation: Activations = "tanh", *, y: Samples | None = None
) -> NiceRegion:
    """Theorem 1 (ii): the radius ε₀ of the region without local minima and saddle points.

    For k = 1, J(w; v) = J̃(w)(diag(v) ⊗ I), so J has full row rank, and every stationary point has loss 0, for every v
    without zeros and all ‖w − w⁰‖ < ε₀ = σ_min(J̃(w⁰))/(S₂ √λ_max(Σ‖x_i‖² x_i x_iᵀ)).
    For k > 1, and in deep nets, it does not reduce to v = 1, and ε₀ with σ_min(J(w⁰; v)) ≥ L ε₀, L = L(v) a Lipschitz
    constant of J within ε₀, holds for the given v only.

    Of nets that are no pairs, from any start, this remains: every stationary point with respect to the hidden weights
    within ε₀ has loss 0. That a net of loss 0 is there needs f(w⁰) = 0, as of a mirrored start, form (1) with −v for
    the copies included: see ``memorization`` for the others.

    Args:
        center: the start {"w": (d, m), "v": (m/2, k)} of a pairwise net; {"plus": {"w1", …}, "minus": {"w1", …}, "v"}
            of a deep one; {"w": (d, m), "v": (m, k)} and {"w1", …, "wL"} of nets that are no pairs.
        x: data, (n, d); samples that are equal or zero count once or not at all.
        activation: name or ``Activation``; for deep nets also a sequence with one a layer.
        y: labels, (n,) or (n, k). Without them equal samples are taken to have equal labels, and zero samples the
            label 0, without which no pairwise net has loss 0; ``reason`` says so where there are such samples.

    Returns:
        ``NiceRegion``.

    Raises:
        ValueError: leaves of no net that is known, shapes that do not fit, no sample, non-finite values.
        TypeError: arrays that are not real floating numbers.

    Example:
        >>> import jax, narrow_jax as nj
        >>> center = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=4)
        >>> nice_region(center, np.random.default_rng(0).normal(size=(6, 4))).holds
        True

    Reference:
        "When Expressivity Meets Trainability", Theorem 1 (ii); docs/proofs/theorem1.md.
    """
    net = Net.of(center, activation, "center")
    x = np.asarray(_checks.real_matrix("x", x), float)
    net.jacobian(x)  # checks the shapes
    labels = np.zeros((len(x), net.v.shape[1])) if y is None else _checks.real_data(x, y)[1]
    constants.check_outputs(labels, net.v)
    samples = distinct_samples(x, labels, net.vanishing)
    every_v = len(net.sigmas) == 1 and net.v.shape[1] == 1
    found = NiceRegion(
        holds=False, reason=samples.clash, radius=0.0, sigma=0.0, lipschitz=0.0, every_v=every_v, rows=0
    )
    if samples.clash or not samples.kept.size:
        return found._replace(reason=samples.clash or "all samples are 0: there is nothing to learn")
    taken = y is None and len(samples.kept) < len(x)
    proviso = ", provided that equal samples have equal labels and zero samples the label 0" if taken else ""
    rows: np.ndarray = np.asarray(x)[samples.kept]
    net = net._replace(v=np.ones_like(net.v)) if every_v else net
    smallest = sigma_min(net.jacobian(rows))
    radius, slope = _region(net, rows, float(smallest.lower))
    if radius > 0:
        scope = "every v without zeros" if every_v else "the given v"
        reason = f"every stationary point within ε₀ = {radius:.6g} has loss 0, for {scope}{proviso}"
    elif not math.isfinite(slope):
        reason = f"{constants.unbounded(net.sigmas)} and the theorem gives no region"
    elif smallest.lower > 0:
        reason = "ε₀ is below the smallest number: rescale x or v"
    else:
        reason = constants.unproven_rank(net, smallest)
    return found._replace(
        holds=radius > 0,
        reason=reason,
        radius=radius,
        sigma=float(smallest.lower),
        lipschitz=slope,
        rows=len(rows) * net.v.shape[1],
    )


def _region(net: Net, x: HostArray, sigma: float) -> tuple[float, float]:
    """Return a radius r with L(r)·r ≤ σ, nearly the largest, and L(r).

    L grows with r: σ/L(0) is at least that radius, and σ/L of it at most. Where L(0) = 0 the search ends at 1.
    """
    slope = lipschitz(net, x, 0.0)
    high = fl.product_down(sigma, over=slope)
    if len(net.sigmas) == 1 or high == 0:
        return high, slope
    high = high if math.isfinite(high) else 1.0
    low, found = 0.0, slope
    middle = fl.product_down(sigma, over=lipschitz(net, x, high))
    for _ in range(HALVINGS):
        slope = lipschitz(net, x, middle)
        if fl.product_up(slope, middle) <= sigma:
            low, found = middle, slope
        else:
            high = middle
        middle = (low + high) / 2
    return low, found
