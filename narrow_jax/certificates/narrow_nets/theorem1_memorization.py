"""Theorem 1 (i) of "When Expressivity Meets Trainability": an exact zero-loss net near a given one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax._typing import HostArray, Params, Samples
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import distinct_samples
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.certificates.narrow_nets.residuals import residuals
from narrow_jax.jacobian import Net
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations
from narrow_jax.spectra import SigmaMin, sigma_min


class Memorization(NamedTuple):
    """Whether an exact zero-loss net is proven to lie within ``rho`` of the given weights, inside the ball.

    Fields:
        holds: the verdict.
        reason: why, in words.
        rho: an exact solution w lies within this distance of the given w; infinite if none is proven.
        distance: ‖w − w⁰‖.
        radius: ε.
        eta: η̄ ≥ the length of the Newton step at w: (residual + rounding)/σ.
        residual: ‖y − f‖ as computed.
        rounding: a bound of what rounding hides in it.
        sigma: proven lower bound of σ_min(J(w; v)).
        lipschitz: L, on the ball of radius 2η̄ around w.
        g: ωη̄ with ω = L/σ; at most ½ where the theorem applies.
        rows: equations n·k after samples that follow from others are dropped.
    """

    holds: bool
    reason: str
    rho: float
    distance: float
    radius: float
    eta: float
    residual: float
    rounding: float
    sigma: float
    lipschitz: float
    g: float
    rows: int


@host_only
def memorization(
    params: Params,
    center: Params | HostArray,
    x: Samples,
    y: Samples,
    radius: float = math.inf,
    activation: Activations = "tanh",
    memory_budget: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Memorization:
    """Theorem 1 (i), Newton–Kantorovich: is there an exact zero-loss net at these weights?

    With σ ≤ σ_min(J(w; v)), η̄ ≥ ‖y − f(w; v)‖/σ, L a Lipschitz constant of J near w and g = Lη̄/σ ≤ ½, an exact
    solution lies within ρ = 2η̄/(1 + √(1 − 2g)) of the hidden weights w with the same v. Rounding is included in every
    constant.

    Args:
        params: {"w": (d, m), "v": (m/2, k)} of a pairwise net; {"plus": {"w1", …}, "minus": {"w1", …}, "v"} of a deep
            one; {"w": (d, m), "v": (m, k)} and {"w1", …, "wL"} of nets that are no pairs.
        center: w⁰: a tree like the params, its v or last layer aside, or for one hidden layer the array.
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        radius: ε; the solution has to lie in the ball: ‖w − w⁰‖ + ρ ≤ ε.
        activation: name or ``Activation``; for deep nets also a sequence with one a layer.
        memory_budget: bytes that the proof of σ may use, as for ``sigma_min``; None sets no limit.
        devices: over which that proof goes, as for ``sigma_min``.

    Returns:
        ``Memorization``.

    Raises:
        ValueError: shapes that do not fit, no sample, non-finite values, negative radius.
        TypeError: arrays that are not real floating numbers.

    Example:
        >>> import jax, narrow_jax as nj
        >>> x = np.random.default_rng(0).normal(size=(6, 4))
        >>> m = nj.memorize(jax.random.key(0), x, np.sin(x[:, 0]), width=4, radius=0.5, certify=False)
        >>> memorization(m.params, m.center, x, np.sin(x[:, 0]), radius=0.5).holds
        True

    Reference:
        "When Expressivity Meets Trainability", Theorem 1; Kantorovich's theorem for surjective derivatives:
        docs/proofs/theorem1.md.
    """
    _checks.radius(radius)
    x, y = _checks.real_data(x, y)
    net = Net.of(params, activation)
    start = _center(center, net)
    net.jacobian(x)  # checks the shapes
    constants.check_outputs(y, net.v)
    samples = distinct_samples(x, y, net.vanishing)
    found = Memorization(
        holds=False,
        reason=samples.clash,
        rho=math.inf,
        distance=constants.distance(net.hidden, start.hidden),
        radius=float(radius),  # beside a float32 NumPy would compare in float32
        eta=math.inf,
        residual=math.nan,
        rounding=math.inf,
        sigma=0.0,
        lipschitz=math.inf,
        g=math.inf,
        rows=0,
    )
    if samples.clash:
        return found
    if not samples.kept.size:
        return _verdict(found._replace(rho=0.0), "", "nothing to learn")
    rows, labels = samples.of(x), samples.of(y)
    left = residuals(net, rows, labels)
    smallest = sigma_min(net.jacobian(rows), memory_budget=memory_budget, devices=devices)
    lower = float(smallest.lower)
    eta = fl.product_up(left.norm + left.rounding, over=lower)
    slope = lipschitz(net, rows, fl.product_up(2.0, eta))
    g = fl.product_up(slope, eta, over=lower)
    rho = fl.product_up(2.0, eta, over=1 + math.sqrt(max(1 - 2 * g, 0.0))) if g <= 0.5 else math.inf
    found = found._replace(
        rho=rho,
        eta=eta,
        residual=left.norm,
        rounding=left.rounding,
        sigma=lower,
        lipschitz=slope,
        g=g,
        rows=labels.size,
    )
    proven = f"an exact zero-loss net lies within {rho:.3g} of these weights and inside the ball"
    return _verdict(found, _obstacle(found, net, smallest), proven)


def _obstacle(m: Memorization, net: Net, smallest: SigmaMin) -> str:
    """Return why the theorem proves no zero; empty if it does."""
    for sigma in net.sigmas:
        if not math.isfinite(sigma.sup_second_derivative):
            return (
                f"{constants.unbounded(net.sigmas)} and the theorem does not apply; use a smooth activation"
            )
        if sigma.value is None:
            return f"the rounding error of {sigma.name} is not known: use tanh, sigmoid, softplus or sin"
    if not m.sigma > 0:
        return constants.unproven_rank(net, smallest)
    if not math.isfinite(m.rounding):
        return "the rounding error of f is not bounded: x, w, v or y is too large or too small; rescale them"
    if not math.isfinite(m.lipschitz):
        return constants.unbounded(net.sigmas)
    if not m.g <= 0.5:
        return f"g = {m.g:.3g} > ½: no zero is proven near these weights; take more Newton steps"
    return ""


def _verdict(m: Memorization, obstacle: str, proven: str) -> Memorization:
    """Return the result with what it proves: nothing, a zero within ρ, or one inside the ball."""
    inside = (m.distance + m.rho) * (1 + fl.SLACK) <= m.radius
    outside = f"the zero within {m.rho:.3g} may lie outside the ball: ‖w − w⁰‖ = {m.distance:.6g}, ε = {m.radius:.6g}"
    return m._replace(holds=inside and not obstacle, reason=obstacle or (proven if inside else outside))


def _center(center: Params | HostArray, net: Net) -> Net:
    """Return the net at w⁰, its shapes and entries checked."""
    if "w" in net.params:
        return _one_hidden_center(center, net)
    outer = "v" if net.paired else f"w{len(net.params)}"
    if not isinstance(center, Mapping):
        raise ValueError(f"center is a {type(center).__name__}; expected a tree like the params")
    if set(center) | {outer} != set(net.params):
        raise ValueError(
            f"center is {sorted(center)} and params are {sorted(net.params)}; expected the same leaves"
        )
    start = Net.of({**center, outer: net.v}, net.sigmas, "center")
    shapes = [[w.shape for half in side.halves for w in half] for side in (start, net)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"center has the shapes {shapes[0]} and the params {shapes[1]}; expected the same")
    return start


def _one_hidden_center(center: Params | HostArray, net: Net) -> Net:
    if isinstance(center, Mapping) and "w" not in center:
        raise ValueError(f"center is {sorted(center)}; expected w⁰ (d, m), or a dict with it under 'w'")
    start = np.asarray(center["w"] if isinstance(center, Mapping) else center, float)
    shape = np.shape(net.params["w"])
    if start.shape != shape:
        raise ValueError(f"center has shape {start.shape} and w {shape}; expected the same")
    _checks.finite("center", start)
    return Net.of({"w": start, "v": net.v}, net.sigmas, "center")
