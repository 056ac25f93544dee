"""``pyramidal``: the constants (3) to (8) in 150 digits, and descent under the bounds that are promised for it.

The descent runs in float64 and is compared with an allowance for its rounding; where a bound comes closer than that,
the same steps are taken in 150 digits.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import narrow_jax as nj
from benchmarks.adversary import exact
from benchmarks.adversary.exact import mp
from benchmarks.adversary.outcome import Outcome, call, judged

Rng = np.random.Generator
Params = dict[str, np.ndarray]
WIDTHS = ((8, 1), (6, 3, 2), (7, 4, 3, 1))
SAMPLES, INPUTS = 4, 5
SMOOTH = ((0.5, 1.0), (0.9, 0.2), (0.25, 3.0))
"""(γ, β) of the activations: few, since each compiles programs of its own."""

STEPS, EXACT_STEPS = 150, 2
ROUNDING = 1e-11
"""Relative: more than 150 steps of such nets lose to rounding in float64."""


@functools.cache
def activation(gamma: float, beta: float) -> Any:
    """Return activation (2)."""
    return nj.activations.smooth_leaky_relu(gamma, beta)


def matrices(params: Params) -> list[exact.Matrix]:
    """Return W_1 … W_L exactly."""
    return [exact.matrix(params[f"w{layer}"]) for layer in range(1, len(params) + 1)]


# problems


def start(rng: Rng) -> tuple[Params, np.ndarray, np.ndarray, tuple[float, float]]:
    """Return a start of section 3.1, its data and (γ, β)."""
    sizes = (INPUTS, *WIDTHS[rng.integers(len(WIDTHS))])
    scale = 10 ** rng.uniform(0, 1.5)
    params = {f"w{i}": scale * np.eye(sizes[i - 1], sizes[i]) for i in range(3, len(sizes))}
    for name in params:
        params[name] = params[name] + 0.2 * scale * rng.standard_normal(params[name].shape) * (
            rng.random() < 0.5
        )
    params["w1"] = rng.standard_normal(sizes[:2]) / np.sqrt(INPUTS) * 10 ** rng.uniform(0, 2)
    params["w2"] = rng.standard_normal(sizes[1:3]) * 10 ** rng.uniform(-6, -1) * (rng.random() < 0.5)
    x = rng.standard_normal((SAMPLES, INPUTS))
    x *= np.sqrt(INPUTS) / np.linalg.norm(x, axis=1, keepdims=True)
    y = rng.standard_normal((SAMPLES, sizes[-1]))
    return dict(sorted(params.items())), x, y, SMOOTH[rng.integers(len(SMOOTH))]


def descents(rng: Rng) -> list[Outcome]:
    """Check a start whose targets are as large as the paper's theorem, or the sharper one, can bear."""
    params, x, y, smooth = start(rng)
    which = ("paper", "sharper")[rng.integers(2)]

    def promised(exponent: float) -> Any:
        return nj.certificates.pyramidal(params, x, y * 10.0**exponent, activation(*smooth))

    low, high = -16.0, 4.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if getattr(promised(middle), which).holds else (low, middle)
    y = y * 10.0 ** (low - rng.choice([0.0, 0.5, 3.0]))
    found = nj.certificates.pyramidal(params, x, y, activation(*smooth))
    misses = constants(params, x, y, smooth, found)
    for name in ("paper", "sharper"):
        guarantee = getattr(found, name)
        if guarantee.holds:
            misses += [f"{name}: {text}" for text in broken(params, x, y, smooth, found, guarantee)]
    misses += refused_step(params, x, y, smooth, found)
    holds = getattr(found, which).holds
    text = call("nj.certificates.pyramidal", params, x, y, activation(*smooth))
    return [judged(f"descent, {which}", misses, holds, text)]


def refused_step(
    params: Params, x: np.ndarray, y: np.ndarray, smooth: tuple[float, float], found: Any
) -> list[str]:
    """Return what holds for a step size above its bound."""
    misses = []
    for name in ("paper", "sharper"):
        guarantee = getattr(found, name)
        eta = guarantee.learning_rate * (1 + 1e-6)
        if guarantee.holds and 0 < eta < math.inf:
            again = nj.certificates.pyramidal(params, x, y, activation(*smooth), learning_rate=eta)
            if getattr(again, name).holds:
                misses.append(f"{name}: holds for the step {eta!r} above its bound")
    return misses


def violations(rng: Rng) -> list[Outcome]:
    """Check that a start that breaks an assumption is refused."""
    params, x, y, smooth = start(rng)
    sigma, y = activation(*smooth), y * 1e-9
    case = VIOLATIONS[rng.integers(len(VIOLATIONS))]
    if case == "equal samples":
        x[1] = x[0]
    elif case == "sample at 0":
        x[2] = 0.0
    elif case == "narrow first layer":
        params["w1"], params["w2"] = params["w1"][:, :3], params["w2"][:3]
    elif case == "singular layer":
        params = {
            **params,
            "w2": np.ones((len(params["w2"]), 3)),
            "w3": np.ones((3, y.shape[1])) @ np.eye(y.shape[1]),
        }
        params = {name: params[name] for name in ("w1", "w2", "w3")}
        params["w3"][:, :] = 0.0
    elif case == "increasing widths":
        outputs = y.shape[1]
        params = {"w1": params["w1"], "w2": params["w2"][:, :1], "w3": np.eye(1, 2), "w4": np.eye(2, outputs)}
    else:
        sigma = nj.activations.get(case)
    found = nj.certificates.pyramidal(params, x, y, sigma)
    holds = found.holds or found.paper.holds or found.sharper.holds
    misses = [f"holds: {found.reason}"] if holds else []
    if not holds and "Assumption" not in found.reason:
        misses.append(f"names no assumption: {found.reason}")
    return [
        judged(f"violation, {case}", misses, False, call("nj.certificates.pyramidal", params, x, y, sigma))
    ]


VIOLATIONS = (
    *("equal samples", "sample at 0", "narrow first layer", "singular layer", "increasing widths"),
    *("tanh", "softplus", "relu", "sin"),
)


def pyramidal(rng: Rng) -> list[Outcome]:
    """Check a start that the theorem may speak of, or one that it must not."""
    return descents(rng) if rng.random() < 0.75 else violations(rng)


# the constants


def features(params: Params, x: np.ndarray, smooth: tuple[float, float]) -> list[exact.Matrix]:
    """Return F_0 … F_L."""
    value, _ = exact.smooth_leaky_relu(*smooth)
    layers, weights = [exact.matrix(x)], matrices(params)
    for index, w in enumerate(weights, start=1):
        z = exact.product(layers[-1], w)
        layers.append(z if index == len(weights) else [[value(entry) for entry in row] for row in z])
    return layers


def extremes(a: exact.Matrix) -> tuple[Any, Any]:
    """Return σ_min and σ_max, over the smaller side."""
    k = exact.gram(a if len(a) <= len(a[0]) else exact.transposed(a))
    return exact.smallest(k), exact.largest(k, 2**14)


def constants(
    params: Params, x: np.ndarray, y: np.ndarray, smooth: tuple[float, float], found: Any
) -> list[str]:
    """Return which of the constants (3) to (8) are on the wrong side, or not what the paper says."""
    reference = exact_constants(params, x, y, smooth)
    low, high = reference["low"], reference["high"]
    misses = []
    for name, value in low.items():
        got = getattr(found, name)
        for mine, theirs in zip(value, got, strict=True) if isinstance(value, list) else [(value, got)]:
            misses += _one_sided(name, theirs, mine, +1)
    for name, value in high.items():
        got = getattr(found, name)
        for mine, theirs in zip(value, got, strict=True) if isinstance(value, list) else [(value, got)]:
            misses += _one_sided(name, theirs, mine, -1)
    return misses


def _one_sided(name: str, got: float, reference: Any, sign: int) -> list[str]:
    """Return a miss if sign·(reference − got) < 0, or if they are far from each other."""
    if sign * (reference - got) < -(mp.mpf(10) ** -11) * abs(reference) * (
        sign < 0 and name in LARGEST_FROM_BELOW
    ):
        return [f"{name} = {got!r} is on the wrong side of {mp.nstr(reference, 20)}"]
    if abs(reference - got) > mp.mpf(10) ** -6 * (abs(reference) + (name in LOGARITHMS)):
        return [f"{name} = {got!r}, and {mp.nstr(reference, 20)} in 150 digits"]
    return []


LOGARITHMS = ("condition4", "condition5", "log10_r")
LARGEST_FROM_BELOW = ("lambda_bars", "x_norm", "q0", "q1", "log10_r")
"""Their references come from norms by the power method, which end 1e-12 below the truth."""


def exact_constants(
    params: Params, x: np.ndarray, y: np.ndarray, smooth: tuple[float, float]
) -> dict[str, Any]:
    """Return the constants that are rounded down, and those rounded up."""
    gamma, beta = (mp.mpf(constant) for constant in smooth)
    layers = features(params, x, smooth)
    spectra = [extremes(w) for w in matrices(params)]
    depth = len(spectra)
    lambdas, norms = [s for s, _ in spectra], [t for _, t in spectra]
    bars = [mp.mpf(2) / 3 * (1 + t) if layer < 2 else t for layer, t in enumerate(norms)]
    lambda_f, x_norm = extremes(layers[1])[0], extremes(layers[0])[1]
    x_frobenius = exact.norm(exact.flat(layers[0]))
    errors = [a - b for a, b in zip(exact.flat(layers[-1]), exact.vector(y), strict=True)]
    root = exact.norm(errors)
    above = math.prod(lambdas[2:], start=mp.mpf(1))
    whole = math.prod(bars, start=mp.mpf(1))
    common = (6 / gamma**2) ** depth * x_frobenius * root * math.prod(bars[2:], start=mp.mpf(1)) / above**2
    largest = max(bars[:2])
    if depth > 2:
        smallest = min(a * b for a, b in zip(lambdas[2:], bars[2:], strict=True))
        largest = max(largest, 2 * bars[0] * bars[1] / smallest)
    alpha = 4 / gamma**4 * (gamma**2 / 4) ** depth * lambda_f**2 * above**2
    r = math.prod((max(mp.mpf(1), mp.mpf(3) / 2 * bar) for bar in bars), start=mp.mpf(1))
    front = depth * mp.sqrt(depth) * x_frobenius
    q0 = front * x_frobenius * mp.mpf(1.5) ** (2 * (depth - 1)) * (whole / min(bars)) ** 2
    q0 += front * (1 + depth * beta * x_frobenius * r) * r * root
    q1 = mp.mpf(4) / 3 * mp.mpf(1.5) ** depth * x_frobenius / alpha * sum(whole / bar for bar in bars) * root
    return {
        "low": {
            "condition4": mp.log10(lambda_f**2 / (gamma**4 / 3 * common * largest)),
            "condition5": mp.log10(lambda_f**3 / (2 * gamma**4 / 3 * common * x_norm * bars[1])),
            "lambdas": lambdas,
            "lambda_f": lambda_f,
            "alpha0": alpha,
            "max_learning_rate": min(1 / alpha, 1 / q0),
        },
        "high": {
            "lambda_bars": bars,
            "x_norm": x_norm,
            "x_frobenius": x_frobenius,
            "initial_loss": root**2 / 2,
            "q0": q0,
            "q1": q1,
            "log10_r": mp.log10(r),
        },
    }


# the descent

Algebra = tuple[Callable[[Any, Any], Any], Callable[[Any], Any], Callable[[Any], Any]]


def gradients(weights: list[Any], x: Any, y: Any, value: Any, slope: Any) -> tuple[Any, list[Any]]:
    """Return Φ and its gradient, in the arithmetic of the arrays: float64 or objects of 150 digits."""
    layers, before = [x], []
    for w in weights:
        before.append(layers[-1] @ w)
        layers.append(value(before[-1]) if len(before) < len(weights) else before[-1])
    back, found = layers[-1] - y, []
    loss = (back * back).sum() / 2
    for index in reversed(range(len(weights))):
        found.append(layers[index].T @ back)
        if index:
            back = (back @ weights[index].T) * slope(before[index - 1])
    return loss, found[::-1]


def float_activation(gamma: float, beta: float) -> tuple[Any, Any]:
    """Return σ and σ' of activation (2) in float64, by SciPy."""
    from scipy import special

    tau = (1 - gamma) / (beta * math.sqrt(2 * math.pi))

    def value(z: np.ndarray) -> np.ndarray:
        bump = tau / math.sqrt(2 * math.pi) * np.expm1(-((z / tau) ** 2) / 2)
        return gamma * z + (1 - gamma) * (z * special.ndtr(z / tau) + bump)

    return value, lambda z: gamma + (1 - gamma) * special.ndtr(z / tau)


def descend(
    params: Params, x: Any, y: Any, smooth: tuple[float, float], eta: float, steps: int, digits: bool
) -> Any:
    """Return the losses and weights of every step, the start first."""
    value, slope = exact.smooth_leaky_relu(*smooth) if digits else float_activation(*smooth)
    weights = [params[f"w{layer}"] for layer in range(1, len(params) + 1)]
    if digits:
        value, slope = (np.vectorize(f, otypes=[object]) for f in (value, slope))
        x, y, *weights = (np.array(exact.matrix(a), dtype=object) for a in (x, y, *weights))
        eta = mp.mpf(eta)
    losses, path = [], [weights]
    for _ in range(steps):
        loss, gradient = gradients(path[-1], x, y, value, slope)
        losses.append(loss)
        path.append([w - eta * g for w, g in zip(path[-1], gradient, strict=True)])
    losses.append(gradients(path[-1], x, y, value, slope)[0])
    return losses, path


def broken(
    params: Params, x: np.ndarray, y: np.ndarray, smooth: tuple[float, float], found: Any, guarantee: Any
) -> list[str]:
    """Return which promises the descent breaks."""
    eta = guarantee.learning_rate
    losses, path = descend(params, x, y, smooth, eta, STEPS, digits=False)
    misses = []
    over = [k for k, loss in enumerate(losses) if loss > guarantee.loss_bound(k) * (1 - ROUNDING)]
    steps = max([k for k in over if k <= EXACT_STEPS] or [1])
    exactly, _ = descend(params, x, y, smooth, eta, steps, digits=True)
    misses += [
        f"Φ(θ_{k}) = {mp.nstr(loss, 20)} is above its bound {guarantee.loss_bound(k)!r}"
        for k, loss in enumerate(exactly)
        if loss > mp.mpf(guarantee.loss_bound(k)) * (1 + mp.mpf(10) ** -14 * (k + 1))
    ]
    misses += [
        f"Φ(θ_{k}) = {losses[k]!r} is above its bound {guarantee.loss_bound(k)!r}"
        for k in over
        if losses[k] > guarantee.loss_bound(k) * (1 + ROUNDING) + 1e-28 * losses[0]
    ]
    end = guarantee.distance_bound(STEPS)
    for k, weights in enumerate(path):
        apart = math.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(weights, path[-1], strict=True)))
        if apart > (guarantee.distance_bound(k) + end) * (1 + ROUNDING):
            misses.append(
                f"‖θ_{k} − θ_{STEPS}‖ = {apart!r} is above its bound {guarantee.distance_bound(k)!r}"
            )
            break
    return misses + left(path, x, smooth, found, guarantee)


def left(
    path: list[Any], x: np.ndarray, smooth: tuple[float, float], found: Any, guarantee: Any
) -> list[str]:
    """Return which balls and which invariants (21) the path leaves."""
    value, _ = float_activation(*smooth)
    misses = []
    for k in (1, 2, STEPS // 2, STEPS):
        for layer, (w, w0, radius) in enumerate(zip(path[k], path[0], guarantee.radii, strict=True), start=1):
            moved = np.linalg.norm(w - w0)
            if moved > radius * (1 + ROUNDING) + 1e-13 * np.linalg.norm(w0):
                misses.append(f"‖W_{layer}^{k} − W_{layer}⁰‖ = {moved!r} is above its radius {radius!r}")
        if guarantee is not found.paper:
            continue
        values = [np.linalg.svd(w, compute_uv=False) for w in path[k]]
        smallest = [
            v[-1] >= s / 2 * (1 - ROUNDING) for v, s in zip(values[2:], found.lambdas[2:], strict=True)
        ]
        largest = [v[0] <= 1.5 * b * (1 + ROUNDING) for v, b in zip(values, found.lambda_bars, strict=True)]
        first = np.linalg.svd(value(x @ path[k][0]), compute_uv=False)[-1] >= found.lambda_f / 2 * (
            1 - ROUNDING
        )
        if not all(itertools.chain(smallest, largest, [first])):
            misses.append(f"the invariants (21) are broken at step {k}: {smallest}, {largest}, {first}")
    return misses
