"""Theorem 1 of "When Expressivity Meets Trainability", checked on a net and its data."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from narrow_jax import _checks, activations, jacobian
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.samples import distinct
from narrow_jax.jacobian import weights
from narrow_jax.linalg import rounding as fl
from narrow_jax.spectra import SigmaMin, sigma_min

_PROVISO = ", provided that equal samples have equal labels and zero samples the label 0"


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


def memorization(
    params: Any,
    center: Any,
    x: Any,
    y: Any,
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
    radius = float(radius)  # beside a float32 NumPy would compare in float32
    sigma = activations.check(activations.get(activation))
    x, y = _checks.real_data(x, y)
    w, v = (np.asarray(leaf, float) for leaf in weights(params))
    start = _center(center, w)
    jacobian.pairwise({"w": w, "v": v}, x, sigma)  # checks the shapes
    _check_labels(y, v)
    found = distinct(x, y)
    away = constants.distance(w, start)
    nothing = Memorization(
        False, found.clash, math.inf, away, radius, math.inf, math.nan, math.inf, 0.0, math.inf, math.inf, 0
    )
    if found.clash:
        return nothing
    if not found.kept.size:
        inside = _inside(0.0, away, radius)
        reason = "nothing to learn" if inside else _outside(0.0, away, radius)
        return nothing._replace(holds=inside, reason=reason, rho=0.0)
    x, y = x[found.kept], y[found.kept]
    with jax.enable_x64(True):
        residual, rounding = constants.residual({"w": w, "v": v}, x, y, sigma)
    smallest = sigma_min(jacobian.pairwise({"w": w, "v": v}, x, sigma))
    lower = float(smallest.lower)
    lipschitz = constants.lipschitz(v, constants.input_norm(x), sigma)
    eta = fl.product_up(residual + rounding, over=lower)
    g = fl.product_up(lipschitz, eta, over=lower)
    rho = fl.product_up(2.0, eta, over=1 + math.sqrt(max(1 - 2 * g, 0.0))) if g <= 0.5 else math.inf
    holds = g <= 0.5 and _inside(rho, away, radius)
    reason = _verdict(sigma, smallest, lipschitz, rounding, g, rho, away, radius)
    return Memorization(
        holds,
        reason,
        rho,
        away,
        radius,
        eta,
        residual,
        rounding,
        lower,
        lipschitz,
        g,
        y.size,
    )


def _verdict(
    sigma: Activation,
    smallest: SigmaMin,
    lipschitz: float,
    rounding: float,
    g: float,
    rho: float,
    away: float,
    radius: float,
) -> str:
    if not math.isfinite(sigma.sup_second_derivative):
        return f"{constants.unbounded(sigma)} and the theorem does not apply; use a smooth activation"
    if sigma.value is None:
        return f"the rounding error of {sigma.name} is not known: use tanh, sigmoid, softplus or sin"
    if not smallest.lower > 0:
        return f"σ_min(J) > 0 is not proven: {smallest.message}"
    if not math.isfinite(rounding):
        return "the rounding error of f is not bounded: x, w, v or y is too large or too small; rescale them"
    if not math.isfinite(lipschitz):
        return constants.unbounded(sigma)
    if g > 0.5:
        return f"g = {g:.3g} > ½: no zero is proven near these weights; take more Newton steps"
    if not _inside(rho, away, radius):
        return _outside(rho, away, radius)
    return f"an exact zero-loss net lies within {rho:.3g} of these weights and inside the ball"


def _inside(rho: float, away: float, radius: float) -> bool:
    return (away + rho) * (1 + fl.SLACK) <= radius


def _outside(rho: float, away: float, radius: float) -> str:
    return f"the zero within {rho:.3g} may lie outside the ball: ‖w − w⁰‖ = {away:.6g}, ε = {radius:.6g}"


def nice_region(center: Any, x: Any, activation: str | Activation = "tanh", *, y: Any = None) -> NiceRegion:
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
        >>> import narrow_jax as nj
        >>> center = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=4)
        >>> nice_region(center, np.random.default_rng(0).normal(size=(6, 4))).holds
        True

    Reference:
        "When Expressivity Meets Trainability", Theorem 1.
    """
    sigma = activations.check(activations.get(activation))
    x = np.asarray(_checks.real_matrix("x", x), float)
    w, v = (np.asarray(leaf, float) for leaf in weights(center, "center"))
    every_v = v.shape[1] == 1
    v = np.ones_like(v) if every_v else v
    jacobian.pairwise({"w": w, "v": v}, x, sigma)
    labels = np.zeros((len(x), v.shape[1])) if y is None else _checks.real_data(x, y)[1]
    _check_labels(labels, v)
    found = distinct(x, labels)
    if found.clash or not found.kept.size:
        reason = found.clash or "all samples are 0: there is nothing to learn"
        return NiceRegion(False, reason, 0.0, 0.0, 0.0, every_v, 0)
    proviso = "" if y is not None or len(found.kept) == len(x) else _PROVISO
    x = x[found.kept]
    smallest = sigma_min(jacobian.pairwise({"w": w, "v": v}, x, sigma))
    lipschitz = constants.lipschitz(v, constants.input_norm(x), sigma)
    radius = fl.product_down(float(smallest.lower), over=lipschitz)
    holds = radius > 0
    if holds:
        scope = "every v without zeros" if every_v else "the given v"
        reason = f"every stationary point within ε₀ = {radius:.6g} has loss 0, for {scope}{proviso}"
    elif not math.isfinite(lipschitz):
        reason = f"{constants.unbounded(sigma)} and the theorem gives no region"
    elif smallest.lower > 0:
        reason = "ε₀ is below the smallest number: rescale x or v"
    else:
        reason = f"σ_min(J(w⁰)) > 0 is not proven: {smallest.message}"
    rows = len(x) * v.shape[1]
    return NiceRegion(holds, reason, radius, float(smallest.lower), lipschitz, every_v, rows)


def _check_labels(y: np.ndarray, v: np.ndarray) -> None:
    if y.shape[1] != v.shape[1]:
        raise ValueError(f"y has {y.shape[1]} columns and v {v.shape[1]}; expected one an output")


def _center(center: Any, w: np.ndarray) -> np.ndarray:
    if isinstance(center, dict) and "w" not in center:
        raise ValueError(f"center is {sorted(center)}; expected w⁰ (d, m), or a dict with it under 'w'")
    start = np.asarray(center["w"] if isinstance(center, dict) else center, float)
    if start.shape != w.shape:
        raise ValueError(f"center has shape {start.shape} and w {w.shape}; expected the same")
    _checks.finite("center", start)
    return start
