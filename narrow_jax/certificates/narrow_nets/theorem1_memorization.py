"""Theorem 1 (i) of "When Expressivity Meets Trainability": an exact zero-loss net near a given one."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np

from narrow_jax import _checks, activations, jacobian
from narrow_jax._typing import HostArray, Params, Samples
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import distinct_samples
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.jacobian import Net, weights
from narrow_jax.linalg import rounding as fl
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
        lipschitz: L.
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


def memorization(
    params: Params,
    center: Params | HostArray,
    x: Samples,
    y: Samples,
    radius: float = math.inf,
    activation: str | Activation = "tanh",
) -> Memorization:
    """Theorem 1 (i), Newton–Kantorovich: is there an exact zero-loss pairwise net at these weights?

    With σ ≤ σ_min(J(w; v)), η̄ ≥ ‖y − f(w; v)‖/σ, L a Lipschitz constant of J and g = Lη̄/σ ≤ ½, an exact solution
    lies within ρ = 2η̄/(1 + √(1 − 2g)) of w with the same v. Rounding is included in every constant.

    Args:
        params: {"w": (d, m), "v": (m/2, k)}.
        center: w⁰, or a tree with it under "w".
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        radius: ε; the solution has to lie in the ball: ‖w − w⁰‖ + ρ ≤ ε.
        activation: name or ``Activation``.

    Returns:
        ``Memorization``.

    Raises:
        ValueError: shapes that do not fit, no sample, non-finite values, negative radius.
        TypeError: arrays that are not real floating numbers.

    Example:
        >>> import narrow_jax as nj
        >>> x = np.random.default_rng(0).normal(size=(6, 4))
        >>> m = nj.memorize(jax.random.key(0), x, np.sin(x[:, 0]), width=4, radius=0.5, certify=False)
        >>> memorization(m.params, m.center, x, np.sin(x[:, 0]), radius=0.5).holds
        True

    Reference:
        "When Expressivity Meets Trainability", Theorem 1; Kantorovich's theorem on the affine space w + range(Jᵀ).
    """
    _checks.radius(radius)
    sigma = activations.check(activations.get(activation))
    x, y = _checks.real_data(x, y)
    w, v = (np.asarray(leaf, float) for leaf in weights(params))
    start = _center(center, w)
    jacobian.pairwise({"w": w, "v": v}, x, sigma)  # checks the shapes
    constants.check_outputs(y, v)
    samples = distinct_samples(x, y)
    found = Memorization(
        holds=False,
        reason=samples.clash,
        rho=math.inf,
        distance=constants.distance(w, start),
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
    rows, labels = np.asarray(x[samples.kept]), y[samples.kept]
    with jax.enable_x64(True):
        residual, rounding = constants.residual({"w": w, "v": v}, rows, labels, sigma)
    smallest = sigma_min(jacobian.pairwise({"w": w, "v": v}, rows, sigma))
    lower = float(smallest.lower)
    constant = lipschitz(Net.of({"w": w, "v": v}, sigma), rows, math.inf)
    eta = fl.product_up(residual + rounding, over=lower)
    g = fl.product_up(constant, eta, over=lower)
    rho = fl.product_up(2.0, eta, over=1 + math.sqrt(max(1 - 2 * g, 0.0))) if g <= 0.5 else math.inf
    found = found._replace(
        rho=rho,
        eta=eta,
        residual=residual,
        rounding=rounding,
        sigma=lower,
        lipschitz=constant,
        g=g,
        rows=labels.size,
    )
    proven = f"an exact zero-loss net lies within {rho:.3g} of these weights and inside the ball"
    return _verdict(found, _obstacle(found, sigma, smallest), proven)


def _obstacle(m: Memorization, sigma: Activation, smallest: SigmaMin) -> str:
    """Return why the theorem proves no zero; empty if it does."""
    if not math.isfinite(sigma.sup_second_derivative):
        return f"{constants.unbounded(sigma)} and the theorem does not apply; use a smooth activation"
    if sigma.value is None:
        return f"the rounding error of {sigma.name} is not known: use tanh, sigmoid, softplus or sin"
    if not m.sigma > 0:
        return f"σ_min(J) > 0 is not proven: {smallest.message}"
    if not math.isfinite(m.rounding):
        return "the rounding error of f is not bounded: x, w, v or y is too large or too small; rescale them"
    if not math.isfinite(m.lipschitz):
        return constants.unbounded(sigma)
    if not m.g <= 0.5:
        return f"g = {m.g:.3g} > ½: no zero is proven near these weights; take more Newton steps"
    return ""


def _verdict(m: Memorization, obstacle: str, proven: str) -> Memorization:
    """Return the result with what it proves: nothing, a zero within ρ, or one inside the ball."""
    inside = (m.distance + m.rho) * (1 + fl.SLACK) <= m.radius
    outside = f"the zero within {m.rho:.3g} may lie outside the ball: ‖w − w⁰‖ = {m.distance:.6g}, ε = {m.radius:.6g}"
    return m._replace(holds=inside and not obstacle, reason=obstacle or (proven if inside else outside))


def _center(center: Params | HostArray, w: np.ndarray) -> np.ndarray:
    if isinstance(center, dict) and "w" not in center:
        raise ValueError(f"center is {sorted(center)}; expected w⁰ (d, m), or a dict with it under 'w'")
    start = np.asarray(center["w"] if isinstance(center, dict) else center, float)
    if start.shape != w.shape:
        raise ValueError(f"center has shape {start.shape} and w {w.shape}; expected the same")
    _checks.finite("center", start)
    return start
