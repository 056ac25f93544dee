"""Theorem 2 of "When Expressivity Meets Trainability", in its stronger form: KKT points of problem (7) with loss 0."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np

from narrow_jax import projections
from narrow_jax._host import host_only
from narrow_jax._typing import Float, Params, Samples
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import distinct_samples
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.certificates.narrow_nets.problem7 import Constrained, constrained, measure, start_gradient
from narrow_jax.certificates.narrow_nets.theorem1_nice_region import nice_region
from narrow_jax.certificates.narrow_nets.theorem2_loss_bound import residual_bound
from narrow_jax.jacobian import Net, plain
from narrow_jax.linalg import context
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations
from narrow_jax.spectra import sigma_min


class KKT(NamedTuple):
    """How far these weights are from a KKT point of problem (7), and whether KKT points have loss 0.

    Fields:
        holds: loss 0 is proven for a KKT point here, or for every KKT point of the problem.
        reason: why, in words.
        residual: as ``natural_residual``, in the coordinates (w − w⁰)/s, s·v, s = min(ε, 1);
            NaN where products of x, v, y and ε underflow or overflow.
        loss: ½‖y − f‖².
        here: σ_min(J(w; v)) > ½L(v)ε: a KKT point at exactly these weights has loss 0.
        everywhere: ε is below ``threshold``: every KKT point has loss 0.
        radius: ε.
        threshold: σ_min(J̃(w⁰))/(S₂ √λ_max (1 + κ/2)); 0 for κ = ∞ and for several outputs.
        sigma: proven lower bound of σ_min(J(w; v)).
        lipschitz: L(v), an upper bound; of a deep net on the ball of radius ε around w⁰.
        loss_bound: the loss is at most that, KKT point or not: ½((‖ρ_w‖ + δ/D)/(σ_min(J) − ½LD))², small where the
            residual is; infinity where the denominator is not positive.
        distance: D ≥ ‖w − w⁰‖.
    """

    holds: bool
    reason: str
    residual: float
    loss: float
    here: bool
    everywhere: bool
    radius: float
    threshold: float
    sigma: float
    lipschitz: float
    loss_bound: float
    distance: float


@host_only
def natural_residual(
    params: Params,
    center: Params,
    x: Samples,
    y: Samples,
    radius: float,
    zeta: float | None = 1e-3,
    kappa: float = math.inf,
    activation: Activations = "tanh",
) -> float:
    """Return ‖θ̂ − P(θ̂ − t∇̂)‖/(t‖∇̂ at the start‖): 0 at the KKT points of problem (7) and nowhere else.

    The step t is 1, or 1/‖∇̂ at the start‖ if that is less: the residual does not fade where labels are large.

    NaN where the gradient cannot be measured, since products of x, v, y and ε underflow or overflow: rescale them.

    Args:
        params: the weights {"w": (d, m), "v": (m/2, k)} of a pairwise net; {"plus": {"w1", …}, "minus": {"w1", …}, "v"}
            of a deep one; {"w": (d, m), "v": (m, k)} and {"w1", …, "wL"} of nets that are no pairs.
        center: the start, all leaves.
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        radius: ε.
        zeta: ζ; None where v is free.
        kappa: κ.
        activation: name or ``Activation``; for deep nets also a sequence with one a layer.

    Raises:
        ValueError: shapes that do not fit, no sample, non-finite values, ε < 0, ζ ≤ 0, κ < 1.
        TypeError: arrays that are not real floating numbers.

    Example:
        >>> import narrow_jax as nj
        >>> start = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=4)
        >>> x = np.eye(6, 4)
        >>> natural_residual(start, start, x, np.ones(6), radius=0.1) > 0.1
        True
        >>> natural_residual(start, start, x, np.zeros(6), radius=0.1)
        0.0
    """
    params, center = plain(params), plain(center)
    with context.float64():
        problem = constrained(center, x, y, radius, zeta, kappa, activation)
        return _measure(problem, params)[1]


def _measure(problem: Constrained, params: Params) -> tuple[float, float]:
    point = problem.point(params)
    loss, residual = measure(problem, point, start_gradient(problem))
    size = float(projections.l2_norm(problem.residuals(point)))
    return loss or fl.product_up(0.5, size, size), residual  # a square that underflowed is not a loss of 0


@host_only
def kkt(
    params: Params,
    center: Params,
    x: Samples,
    y: Samples,
    radius: float,
    zeta: float | None = 1e-3,
    kappa: float = math.inf,
    activation: Activations = "tanh",
) -> KKT:
    """Theorem 2, stronger: for a mirrored start, a KKT point with σ_min(J(w; v)) > ½L(v)ε has loss exactly 0.

    Hence every KKT point has, where 0 < ε < σ_min(J̃(w⁰))/(S₂ √λ_max (1 + κ/2)) and k = 1.

    Proof. r = f − y. The cone contains (1 + t)v, so rᵀf ≥ 0. KKT in w: Jᵀr = −λ(w − w⁰), λ ≥ 0, and λ > 0 on the sphere
    only. f(w⁰; v) = 0, so f = J(w − w⁰) + e with ‖e‖ ≤ ½Lε². Then 0 ≤ rᵀf = −λε² + rᵀe, hence λ ≤ ½L‖r‖, and
    σ_min(J)‖r‖ ≤ ‖Jᵀr‖ = λε ≤ ½Lε‖r‖. For the second part σ_min(J(w; v)) ≥ min v (σ_min(J̃(w⁰)) − S₂√λ_max ε) and
    L ≤ κ min v S₂√λ_max.

    At any point, KKT or not, ‖r‖ ≤ (‖ρ_w‖ + δ/D)/(σ_min(J) − ½LD), with D = ‖w − w⁰‖, ρ_w = Jᵀr + λ(w − w⁰) for the
    λ ≥ 0 that makes it least, and δ = max(0, −rᵀf): ``loss_bound``, rounding included.

    In deep pairs σ_min(J) depends on v more than by a factor: the first and the last part hold, "every KKT point" does
    not. Of a net that is no pair, of free v and of a start that is not mirrored remain ``residual``, ``loss`` and
    ``loss_bound``, where ‖f(w⁰; v)‖/D is taken off the denominator too.

    Args:
        params, center, x, y, radius, zeta, kappa, activation: as for ``natural_residual``.

    Returns:
        ``KKT``. Where the paper's (8) has a loss O(ε²), it proves the loss 0. For ε = 0 it proves nothing; for labels
        that contradict each other only ``residual`` and ``loss`` say anything.

    Raises:
        ValueError: shapes that do not fit, no sample, non-finite values, ε < 0, ζ ≤ 0, κ < 1.

    Example:
        >>> import narrow_jax as nj
        >>> x, y = np.random.default_rng(0).normal(size=(6, 4)), np.ones(6)
        >>> start = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=4, kappa=2.0)
        >>> c = kkt(start, start, x, y, radius=0.01, kappa=2.0)
        >>> c.holds, c.residual > 0.1, c.loss  # every KKT point here has loss 0; the start is none
        (True, True, 3.0)

    Reference:
        "When Expressivity Meets Trainability", problem (7) and Theorem 2, which states loss O(ε²);
        docs/proofs/theorem2.md.
    """
    params, center = plain(params), plain(center)
    with context.float64():
        problem = constrained(center, x, y, radius, zeta, kappa, activation)
        loss, residual = _measure(problem, params)
    net, first = Net.of(params, activation), Net.of(center, activation, "center")
    labels, rows = np.asarray(problem.y), np.asarray(problem.x)
    clash = distinct_samples(rows, labels, net.vanishing).clash
    found = KKT(
        holds=False,
        reason=_silence(problem, first.mirrored) or clash,
        residual=residual,
        loss=loss,
        here=False,
        everywhere=False,
        radius=float(radius),  # beside a float32 NumPy would compare in float32
        threshold=0.0,
        sigma=0.0,
        lipschitz=math.inf,
        loss_bound=math.inf,
        distance=math.inf,
    )
    if clash:
        return found
    start = Net.of(problem.net.params(jax.tree.map(np.asarray, problem.w0), net.v), first.sigmas, "center")
    found = _bounded(found, net, start, rows, labels)
    if found.reason:
        return found
    threshold = 0.0 if len(net.sigmas) > 1 else _threshold(problem, float(kappa))
    found = found._replace(
        here=fl.product_up(0.5, found.lipschitz, found.radius) < found.sigma,
        everywhere=found.radius < threshold,
        threshold=threshold,
    )
    return found._replace(holds=found.here or found.everywhere, reason=_reason(found, net))


def _bounded(
    found: KKT, net: Net, start: Net, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"]
) -> KKT:
    """Return the result with σ_min(J), L, and the bound of the loss."""
    lower, apart = float(sigma_min(net.jacobian(x)).lower), constants.distance(net.hidden, start.hidden)
    residual = residual_bound(net, start, x, y, lower, lipschitz(start, x, apart))
    return found._replace(
        sigma=lower,
        lipschitz=lipschitz(start, x, found.radius),
        loss_bound=fl.product_up(0.5, residual, residual),
        distance=apart,
    )


def _threshold(problem: Constrained, kappa: float) -> float:
    """Return the ε below which every KKT point of a pair with one hidden layer has loss 0."""
    start, rows, labels = (jax.tree.map(np.asarray, a) for a in (problem.start, problem.x, problem.y))
    region = nice_region(start, rows, problem.net.sigmas, y=labels)
    bounded = region.every_v and math.isfinite(kappa)
    return fl.product_down(region.radius, over=1 + kappa / 2) if bounded else 0.0


def _silence(problem: Constrained, mirrored: bool) -> str:
    """Return why Theorem 2 proves nothing of this problem; empty if it may."""
    if problem.zeta is None:
        what = "v is free"
    elif float(problem.radius) == 0:
        what = "w is frozen, since ε = 0"
    elif not problem.paired:
        what = "the net is not pairwise"
    elif not mirrored:
        what = "the start is not mirrored"
    else:
        return ""
    return f"{what}: Theorem 2 does not speak of it"


def _reason(found: KKT, net: Net) -> str:
    reach = found.lipschitz * found.radius / 2
    if found.everywhere:
        return f"every KKT point has loss exactly 0: ε = {found.radius:.6g} < {found.threshold:.6g}"
    if found.here:
        return f"a KKT point here has loss exactly 0: σ_min(J) ≥ {found.sigma:.6g} > ½Lε = {reach:.6g}"
    smooth = all(math.isfinite(sigma.sup_second_derivative) for sigma in net.sigmas)
    if not math.isfinite(found.lipschitz) and not (smooth and math.isinf(found.radius)):
        return f"{constants.unbounded(net.sigmas)} and the theorem does not apply"
    return f"loss 0 is not proven: σ_min(J) ≥ {found.sigma:.6g}, ½Lε = {reach:.6g}; shrink the radius"
