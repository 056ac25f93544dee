"""Theorem 2 of "When Expressivity Meets Trainability", in its stronger form: KKT points of problem (7) with loss 0."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np

from narrow_jax.jacobian import Net
from narrow_jax import activations, jacobian, projections
from narrow_jax._typing import Params, Samples
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import distinct_samples
from narrow_jax.certificates.narrow_nets.problem7 import Constrained, constrained, measure, start_gradient
from narrow_jax.certificates.narrow_nets.theorem1_nice_region import nice_region
from narrow_jax.linalg import rounding as fl
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
        lipschitz: L(v), an upper bound.
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


def natural_residual(
    params: Params,
    center: Params,
    x: Samples,
    y: Samples,
    radius: float,
    zeta: float | None = 1e-3,
    kappa: float = math.inf,
    activation: str | Activation = "tanh",
) -> float:
    """Return ‖θ̂ − P(θ̂ − t∇̂)‖/(t‖∇̂ at the start‖): 0 at the KKT points of problem (7) and nowhere else.

    The step t is 1, or 1/‖∇̂ at the start‖ if that is less: the residual does not fade where labels are large.

    NaN where the gradient cannot be measured, since products of x, v, y and ε underflow or overflow: rescale them.

    Args:
        params: the weights, of a pairwise net (v of m/2 rows) or a standard one (v of m rows).
        center: the start, both leaves.
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        radius: ε.
        zeta: ζ; None where v is free.
        kappa: κ.
        activation: name or ``Activation``.

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
    with jax.enable_x64(True):
        problem = constrained(center, x, y, radius, zeta, kappa, activations.get(activation))
        return _measure(problem, params)[1]


def _measure(problem: Constrained, params: Params) -> tuple[float, float]:
    point = problem.point(params)
    loss, residual = measure(problem, point, start_gradient(problem))
    size = float(projections.l2_norm(problem.residuals(point)))
    return loss or fl.product_up(0.5, size, size), residual  # a square that underflowed is not a loss of 0


def kkt(
    params: Params,
    center: Params,
    x: Samples,
    y: Samples,
    radius: float,
    zeta: float | None = 1e-3,
    kappa: float = math.inf,
    activation: str | Activation = "tanh",
) -> KKT:
    """Theorem 2, stronger: for a mirrored start, a KKT point with σ_min(J(w; v)) > ½L(v)ε has loss exactly 0.

    Hence every KKT point has, where 0 < ε < σ_min(J̃(w⁰))/(S₂ √λ_max (1 + κ/2)) and k = 1.

    Proof. r = f − y. The cone contains (1 + t)v, so rᵀf ≥ 0. KKT in w: Jᵀr = −λ(w − w⁰), λ ≥ 0, and λ > 0 on the sphere
    only. f(w⁰; v) = 0, so f = J(w − w⁰) + e with ‖e‖ ≤ ½Lε². Then 0 ≤ rᵀf = −λε² + rᵀe, hence λ ≤ ½L‖r‖, and
    σ_min(J)‖r‖ ≤ ‖Jᵀr‖ = λε ≤ ½Lε‖r‖. For the second part σ_min(J(w; v)) ≥ min v (σ_min(J̃(w⁰)) − S₂√λ_max ε) and
    L ≤ κ min v S₂√λ_max.

    Args:
        params, center, x, y, radius, zeta, kappa, activation: as for ``natural_residual``.

    Returns:
        ``KKT``. Where the paper's (8) has a loss O(ε²), it proves the loss 0. For a standard net, for ε = 0 and for
        labels that contradict each other, only ``residual`` and ``loss`` say anything.

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
        "When Expressivity Meets Trainability", problem (7) and Theorem 2, which states loss O(ε²).
    """
    sigma = activations.check(activations.get(activation))
    with jax.enable_x64(True):
        problem = constrained(center, x, y, radius, zeta, kappa, sigma)
        loss, residual = _measure(problem, params)
    found = KKT(
        holds=False,
        reason=_silence(problem, Net.of(center, sigma).mirrored),
        residual=residual,
        loss=loss,
        here=False,
        everywhere=False,
        radius=float(radius),  # beside a float32 NumPy would compare in float32
        threshold=0.0,
        sigma=0.0,
        lipschitz=math.inf,
    )
    if found.reason:
        return found
    rows, kappa = np.asarray(problem.x), float(kappa)
    lower = float(sigma_min(jacobian.pairwise(params, rows, sigma)).lower)
    lipschitz = constants.lipschitz(np.asarray(params["v"], float), constants.input_norm(rows), sigma)
    start = jax.tree.map(np.asarray, problem.start)
    region = nice_region(start, rows, sigma, y=np.asarray(problem.y))
    bounded = region.every_v and math.isfinite(kappa)
    threshold = fl.product_down(region.radius, over=1 + kappa / 2) if bounded else 0.0
    found = found._replace(
        here=fl.product_up(0.5, lipschitz, found.radius) < lower,
        everywhere=found.radius < threshold,
        threshold=threshold,
        sigma=lower,
        lipschitz=lipschitz,
    )
    return found._replace(holds=found.here or found.everywhere, reason=_reason(found, sigma))


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
        return distinct_samples(np.asarray(problem.x), np.asarray(problem.y)).clash
    return f"{what}: Theorem 2 does not speak of it"


def _reason(found: KKT, sigma: Activation) -> str:
    reach = found.lipschitz * found.radius / 2
    if found.everywhere:
        return f"every KKT point has loss exactly 0: ε = {found.radius:.6g} < {found.threshold:.6g}"
    if found.here:
        return f"a KKT point here has loss exactly 0: σ_min(J) ≥ {found.sigma:.6g} > ½Lε = {reach:.6g}"
    if not math.isfinite(found.lipschitz):
        return f"{constants.unbounded((sigma,))} and the theorem does not apply"
    return f"loss 0 is not proven: σ_min(J) ≥ {found.sigma:.6g}, ½Lε = {reach:.6g}; shrink the radius"
