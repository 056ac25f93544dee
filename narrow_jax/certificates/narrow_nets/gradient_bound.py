"""What a gradient says of the loss: ½‖r‖² ≤ ½(‖Jᵀr‖/σ_min(J))², at any point of any net."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from narrow_jax import jacobian
from narrow_jax._host import host_only
from narrow_jax._typing import Computed, Float, Params, Samples
from narrow_jax.certificates.narrow_nets.constants import unproven_rank
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import distinct_samples
from narrow_jax.certificates.narrow_nets.moving_weights import read
from narrow_jax.certificates.narrow_nets.residuals import Residuals, norms, residuals
from narrow_jax.jacobian import Net
from narrow_jax.linalg import EvaluatedJacobian, Jacobian, compiled, context
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations
from narrow_jax.spectra import sigma_min


class GradientBound(NamedTuple):
    """What the gradient at a point proves of the loss there.

    Fields:
        holds: the loss is at most ``bound``.
        reason: why, in words.
        loss: ½‖f − y‖² as computed.
        bound: ½(‖∇‖/σ)², rounded up; infinite if nothing is proven.
        gradient_norm: ‖∇½‖f − y‖²‖ for the weights in question, rounded up.
        sigma: proven lower bound of σ_min(J), over samples that are distinct.
    """

    holds: bool
    reason: str
    loss: float
    bound: float
    gradient_norm: float
    sigma: float


@host_only
def gradient_bound(
    params: Params,
    x: Samples,
    y: Samples,
    activation: Activations = "tanh",
    wrt: str | Iterable[str] | None = None,
) -> GradientBound:
    """Return a bound of the loss ½‖f − y‖² by its gradient: ½‖r‖² ≤ ½(‖Jᵀr‖/σ_min(J))² for any weights at all.

    For any net with at least n·k weights, anywhere, for any choice of its weights: a small gradient proves a small loss
    where J has full row rank. For a·½‖f − y‖² and its gradient the bound is (‖∇‖/σ)²/(2a).

    Args:
        params: {"w", "v"} of one hidden layer, pairwise or standard, a deep pair {"plus", "minus", "v"}, or {"w1", …}.
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        activation: name or ``Activation``, or a sequence with one a hidden layer.
        wrt: names of the weights that the gradient is of: layers such as "w1", or "w" and "v"; None for all, and for a
            pair, whose V adds nothing near a mirrored start, for all hidden ones.

    Returns:
        ``GradientBound``.

    Raises:
        ValueError: params of no known net or without a hidden layer, shapes that do not fit, no sample, non-finite
            values, weights that are not there.
        TypeError: arrays that are not real floating numbers.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> params = {"w1": rng.normal(size=(4, 8)), "w2": rng.normal(size=(8, 1))}
        >>> found = gradient_bound(params, rng.normal(size=(6, 4)), rng.normal(size=6))
        >>> found.holds, found.loss <= found.bound
        (True, True)

    Reference:
        docs/proofs/gradient_descent.md.
    """
    net, x, y = read(params, x, y, activation)
    j, samples = _chosen(net, x, wrt), distinct_samples(x, y, net.vanishing)
    left = residuals(net, x, y)
    found = GradientBound(
        holds=False,
        reason=samples.clash,
        loss=fl.half_square(left.r),
        bound=math.inf,
        gradient_norm=_gradient_norm(j, left),
        sigma=0.0,
    )
    if samples.clash:
        return found
    if not samples.kept.size:
        return found._replace(holds=True, reason="the loss is 0 whatever the weights", bound=0.0)
    smallest = sigma_min(_chosen(net, x[samples.kept], wrt))
    found = found._replace(sigma=float(smallest.lower))
    if not found.sigma > 0:
        return found._replace(reason=unproven_rank(net, smallest))
    ratio = fl.product_up(found.gradient_norm, over=found.sigma)
    bound = fl.product_up(0.5, ratio, ratio)
    if not math.isfinite(bound):
        return found._replace(
            reason="the rounding error of f or J is not known: use tanh, sigmoid, softplus or sin"
        )
    return found._replace(holds=True, reason=f"the loss is at most {bound:.6g}", bound=bound)


def _chosen(net: Net, x: Float[np.ndarray, "n d"], wrt: str | Iterable[str] | None) -> Jacobian:
    """Return the Jacobian with respect to the weights that are named."""
    if "w" not in net.params and not net.paired:
        return jacobian.mlp(net.params, x, net.sigmas, wrt=wrt)
    names = (
        wrt if wrt is None else list(wrt) if isinstance(wrt, Iterable) and not isinstance(wrt, str) else [wrt]
    )
    known = {"w": "w1"} if net.paired else {"w": "w1", "v": "w2"}
    if names is not None and not (names and set(names) <= set(known)):
        raise ValueError(f"wrt is {wrt!r}; expected {' or '.join(map(repr, known))}, or None")
    if net.paired:
        return net.jacobian(x)
    chosen = None if names is None else [known[name] for name in names]
    return jacobian.mlp({"w1": net.halves[0][0], "w2": net.v}, x, net.sigmas, wrt=chosen)


def _gradient_norm(j: Jacobian, left: Residuals) -> float:
    """Return a bound of ‖Jᵀr‖ ≤ ‖Ĵᵀr̂‖ + ‖J − Ĵ‖‖r̂‖ + ‖J‖‖r − r̂‖."""
    size, (r, power) = norms(j), fl.unit(left.r.ravel())
    with context.float64(), np.errstate(all="ignore"):
        evaluated = context.at_hand(j).evaluate()
        computed = float(_image_norm(evaluated, r)) if r.any() else 0.0
    moved = fl.product_up(size.perturbation, left.norm + left.rounding)
    hidden = fl.product_up(size.jacobian, left.rounding)
    exponent = power + int(evaluated.exponent)
    total = (fl.product_up(computed, exponent=exponent) + moved + hidden) * (1 + fl.SLACK)
    return total if math.isfinite(total) else math.inf


@compiled
def _image_norm(j: EvaluatedJacobian, u: Float[Computed, " r"]) -> Float[Computed, ""]:
    """Return a bound of ‖Ĵᵀu‖."""
    product, error = j.rmv_bounded(u)
    return fl.up(fl.norm_up(product) + error)
