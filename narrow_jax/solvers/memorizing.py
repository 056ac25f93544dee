"""Theorem 1 as a solver: an interpolating pairwise net in a ball around a mirrored start, by Newton's method."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _progress, activations, certificates, initializers, jacobian
from narrow_jax._typing import Array, Float, Key
from narrow_jax.activations import Activation
from narrow_jax.certificates import CARRIED, distinct_samples
from narrow_jax.models import pairwise_apply
from narrow_jax.projections import l2_norm
from narrow_jax.solvers import steps as newton
from narrow_jax.spectra import sigma_min

CHOLESKY_ROWS = 30_000
"""Up to this many equations n·k "auto" factorises JJᵀ: 7 GB in float64."""

ITERATIONS = {"cholesky": 25, "cg": 1000}
"""Conjugate gradients in one solve: with a factor that needs more, a new factor is cheaper."""

DAMPINGS = (1.0, 0.5, 0.25, 0.125)
WIDTHS = 12
"""Widths that are tried where none is given."""

ROUNDING_FLOOR = 1e-7
"""‖y − f‖/‖y‖ below which a step that does not reduce it is rounding, not curvature."""


class Memorized(NamedTuple):
    """What ``memorize`` found.

    Fields:
        params: {"w": (d, m), "v": (m/2, k)}, NumPy float64.
        center: the mirrored start; v = scale · v⁰.
        scale: a power of two, ≥ 1.
        loss: ½‖y − f‖².
        residual: y − f, (n, k).
        radius_used: ε.
        history: "loss", "scale", "damping" and "distance" after each step, the first entry at the start.
        certificate: ``nj.certificates.memorization`` of the result; None if it was not asked for or nothing was solved.
        status: "solved", "not_converged" or "rank_deficient".
        message: what the status means here, and what to do.
    """

    params: dict[str, np.ndarray]
    center: dict[str, np.ndarray]
    scale: float
    loss: float
    residual: np.ndarray
    radius_used: float
    history: dict[str, np.ndarray]
    certificate: certificates.Memorization | None
    status: str
    message: str


class _Task(NamedTuple):
    """What stays the same along the path: everything is solved for v⁰ and labels y/s, so that no factor is rescaled."""

    x: Array
    y: Array
    center: dict[str, Array]
    activation: Activation
    radius: float
    method: str
    dtype: str


class _Point(NamedTuple):
    """Where Newton's method stands: the weights, the scale, y/s − f(w; v⁰), and the preconditioner in use."""

    w: Array
    scale: float
    r: Array
    preconditioner: newton.Preconditioner


def memorize(
    key: Key[Array, ""],
    x: Any,
    y: Any,
    width: int | None = None,
    radius: float | None = None,
    *,
    activation: str | Activation = "tanh",
    zeta: float = 1e-3,
    kappa: float = math.inf,
    tolerance: float = 1e-20,
    steps: int = 40,
    method: str = "auto",
    dtype: str = "float64",
    certify: bool = True,
    progress: bool | None = None,
) -> Memorized:
    """Find a pairwise net with zero loss inside a ball around a mirrored start.

    v = s·v⁰, and f(w; s·v⁰) = y is solved for w by Newton with minimum-norm steps δ = Jᵀ(JJᵀ)⁻¹(y − f), from w⁰, where
    f = 0. The scale s is such that the first step has length at most ε/2. A step that does not reduce the residual is
    damped; where that fails, or the ball would be left, s is doubled and w − w⁰ halved: the second-order error cancels
    in the pairs and the equations become linear.

    Samples that are equal, with equal labels, count once; zero samples with label 0 do not count.

    Args:
        key: random key of the start.
        x: data, (n, d).
        y: labels, (n,) or (n, k): real numbers or one-hot.
        width: m, even; None for the smallest that n, the rank of x and a factorisation admit.
        radius: ε > 0; None for ε₀ of Theorem 1, infinity for no ball.
        activation: name or ``Activation``; one that is not smooth runs, but nothing is certified.
        zeta: lower bound of the start's v.
        kappa: largest ratio of the start's v within an output.
        tolerance: solved when the loss is at most this times ½‖y‖², or when ‖y − f‖ is below 1e-7 of ‖y‖ and rounding
            lets no step reduce it: the certificate then still tells whether an exact solution is there.
        steps: Newton steps at most.
        method: "cholesky" (a factor of JJᵀ, n·k × n·k), "cg" (no matrix), or "auto" by n·k.
        dtype: "float32" halves the memory of the factor; products and residuals stay float64.
        certify: prove that an exact solution is there.
        progress: show a progress bar; by default where the standard error is a terminal.

    Returns:
        ``Memorized``; see its ``status``.

    Raises:
        ValueError: contradictory labels (the samples are named), width odd or too small, ε ≤ 0, non-finite values,
            an activation without region ε₀ while ``radius`` is None.
        TypeError: data that are not real floating numbers.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(6, 4))
        >>> m = memorize(jax.random.key(0), x, x[:, 0] ** 2, width=4, radius=0.1)
        >>> m.status, m.loss < 1e-16, m.certificate.holds
        ('solved', True, True)

    Reference:
        "When Expressivity Meets Trainability", Theorem 1 (i) and (5).
    """
    sigma = activations.get(activation)
    x, y = _checks.real_data(x, y)
    _check_options(radius, tolerance, steps, method, dtype)
    found = distinct_samples(x, y)
    if found.clash:
        raise ValueError(found.clash)
    rows = x[found.kept]
    if not len(rows):
        raise ValueError("every sample is 0: there is nothing to learn; f(0) = 0 for every pairwise net")
    method = method if method != "auto" else "cholesky" if len(rows) * y.shape[1] <= CHOLESKY_ROWS else "cg"
    with jax.enable_x64(True):
        draw = {"inputs": x.shape[1], "outputs": y.shape[1], "zeta": zeta, "kappa": kappa}
        center, first, pivot = _start(key, rows, width, sigma, draw, method, dtype)
        if not pivot > len(rows) * np.finfo(dtype).eps:
            return _deficient(center, x, y, rows, found.kept, sigma)
        epsilon = _radius(radius, center, rows, sigma)
        targets = jnp.asarray(y[found.kept]).reshape(-1)
        task = _Task(jnp.asarray(rows), targets, center, sigma, epsilon, method, dtype)
        w, scale, history, solved = _newton(task, first, tolerance, steps, progress)
        del first  # a square of n·k: the certificate needs the room
        v = scale * center["v"]
        params = {"w": np.asarray(w), "v": np.asarray(v)}
        residual = np.asarray(_residual(w, v, jnp.asarray(x), jnp.asarray(y).reshape(-1), sigma)).reshape(
            y.shape
        )
    center = jax.tree.map(np.asarray, center)
    certificate = (
        certificates.memorization(params, center, x, y, epsilon, sigma) if certify and solved else None
    )
    with np.errstate(over="ignore"):
        loss = float(np.sum(residual**2) / 2)
    status, message = _judge(solved, loss, len(history["loss"]) - 1, certificate)
    return Memorized(params, center, scale, loss, residual, epsilon, history, certificate, status, message)


def _check_options(radius: float | None, tolerance: float, steps: int, method: str, dtype: str) -> None:
    if radius is not None:
        _checks.radius(radius)
        if radius == 0:
            raise ValueError("radius is 0, which freezes w at the start, where f = 0; expected a number > 0")
    _checks.positive("tolerance", tolerance)
    _checks.count("steps", steps)
    _checks.choice("method", method, ("auto", *ITERATIONS))
    _checks.choice("dtype", dtype, ("float64", "float32"))


def _start(
    key: Any,
    x: np.ndarray,
    width: int | None,
    sigma: Activation,
    draw: dict[str, Any],
    method: str,
    dtype: str,
) -> tuple[dict[str, Array], newton.Preconditioner, float]:
    """Return the start, its preconditioner, and the smallest relative pivot of its JJᵀ."""
    if width is not None:
        jacobian.check_width(x, width, draw["outputs"], strict=True)
    smallest = jacobian.admissible_width(x, draw["outputs"]) if width is None else width
    for candidate in range(smallest, smallest + (2 * WIDTHS if width is None else 1), 2):
        center = initializers.mirrored_lecun(key, width=candidate, dtype=jnp.float64, **draw)
        j = newton.slopes(jnp.asarray(x), center["w"], center["v"], sigma)
        preconditioner, pivot = _preconditioner(j, method, dtype)
        if pivot > len(x) * np.finfo(dtype).eps:
            break
    return center, preconditioner, pivot


def _preconditioner(j: newton.Slopes, method: str, dtype: str) -> tuple[newton.Preconditioner, float]:
    if method == "cg":
        return newton.low_rank(j), 1.0
    factor, pivot = newton.factorize(j, dtype)
    return factor, float(pivot)


def _radius(radius: float | None, center: dict[str, Array], x: np.ndarray, sigma: Activation) -> float:
    if radius is not None:
        return float(radius)
    region = certificates.nice_region(jax.tree.map(np.asarray, center), x, sigma)
    if not region.holds:
        raise ValueError(f"radius is None and Theorem 1 gives no ε₀: {region.reason}. Pass a radius")
    return region.radius


@jax.jit(static_argnames="activation")
def _residual(w: Array, v: Array, x: Array, targets: Array, activation: Activation) -> Array:
    return targets - pairwise_apply({"w": w, "v": v}, x, activation).reshape(-1)


def _newton(
    task: _Task, preconditioner: newton.Preconditioner, tolerance: float, steps: int, show: bool | None
) -> tuple[Array, float, dict[str, np.ndarray], bool]:
    """Return the last w, the scale of v⁰, the history, and whether the tolerance was met."""
    size = float(l2_norm(task.y))
    w0 = task.center["w"]
    point = _Point(w0, 1.0, task.y, preconditioner)
    delta, point = _step(task, point)
    growth = max(2 * float(l2_norm(delta)) / task.radius, 1.0)
    scale = 2.0 ** min(math.ceil(math.log2(growth)), 1000) if math.isfinite(growth) else 2.0**1000
    point = point._replace(scale=scale, r=task.y / scale)
    delta = delta / scale  # a power of two: exact
    history = [_record(point, 0.0, w0)]
    goal = math.sqrt(tolerance) * size
    with _progress.bar(steps, show) as advance:
        for step in range(steps):
            advance(step, history[-1]["loss"])
            if not _norm(point) > goal:
                break
            if step:
                delta, point = _step(task, point)
            better, damping = _search(task, point, delta)
            if better is None and _norm(point) <= ROUNDING_FLOOR * size:
                break
            point = _rescaled(task, point) if better is None else better
            history.append(_record(point, damping, w0))
    columns = {name: np.array([record[name] for record in history]) for name in history[0]}
    solved = _norm(point) <= (goal if len(history) > steps else max(goal, ROUNDING_FLOOR * size))
    largest = float(np.max(np.abs(task.y)))
    resolved = largest == 0 or largest / point.scale >= CARRIED  # y/s that is flushed to 0 leaves no residual
    return point.w, point.scale, columns, bool(solved and resolved)


def _norm(point: _Point) -> float:
    return point.scale * float(l2_norm(point.r))


def _record(point: _Point, damping: float, w0: Array) -> dict[str, float]:
    distance, size = float(l2_norm(point.w - w0)), _norm(point)
    return {
        "loss": size * size / 2,
        "scale": point.scale,
        "damping": damping,
        "distance": distance,
    }


def _step(task: _Task, point: _Point) -> tuple[Array, _Point]:
    """Return the minimum-norm step, with a new factor where the old one no longer serves."""
    j = newton.slopes(task.x, point.w, task.center["v"], task.activation)
    iterations = ITERATIONS[task.method]
    delta, left = newton.minimum_norm(j, point.preconditioner, point.r, iterations)
    if left > 10 * newton.TOLERANCE and task.method == "cholesky":
        fresh, pivot = _preconditioner(j, task.method, task.dtype)
        if pivot > 0:
            delta, left = newton.minimum_norm(j, fresh, point.r, iterations)
            point = point._replace(preconditioner=fresh)
    return delta, point


def _search(task: _Task, point: _Point, delta: Array) -> tuple[_Point | None, float]:
    """Return the first damped step that stays in the ball and reduces the residual, or None."""
    before = float(l2_norm(point.r))
    for damping in DAMPINGS:
        w = point.w + damping * delta
        if float(l2_norm(w - task.center["w"])) > task.radius:
            return None, 0.0
        r = _residual(w, task.center["v"], task.x, task.y / point.scale, task.activation)
        if float(l2_norm(r)) < (1 - damping / 4) * before:
            return point._replace(w=w, r=r), damping
    return None, 0.0


def _rescaled(task: _Task, point: _Point) -> _Point:
    """Return the point with the scale doubled and the way from the start halved."""
    w0 = task.center["w"]
    w, scale = w0 + (point.w - w0) / 2, 2 * point.scale
    return point._replace(
        w=w, scale=scale, r=_residual(w, task.center["v"], task.x, task.y / scale, task.activation)
    )


def _judge(
    solved: bool, loss: float, taken: int, certificate: certificates.Memorization | None
) -> tuple[str, str]:
    if not solved:
        return "not_converged", (
            f"the loss is {loss:.3g} after {taken} steps: widen the net, enlarge the radius, bound kappa, or scale "
            "x and y to entries of size one, where w is near w⁰ with enough digits"
        )
    proof = "" if certificate is None else f"; {certificate.reason}"
    return "solved", f"loss {loss:.3g} after {taken} Newton steps{proof}"


def _deficient(
    center: dict[str, Array],
    x: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    kept: np.ndarray,
    sigma: Activation,
) -> Memorized:
    """Say which samples depend on each other: the largest entries of the left singular vector of σ_min."""
    start: dict[str, Float[np.ndarray, "_ _"]] = jax.tree.map(np.asarray, center)
    s = sigma_min(jacobian.pairwise(start, rows, sigma), certify=False)
    weight = np.abs(np.asarray(s.vector)).reshape(len(rows), -1).max(axis=1)
    order = np.argsort(-weight)[:10]
    named = sorted(int(kept[i]) for i in order if weight[i] > 0.3 * weight.max())
    width = start["w"].shape[1]
    message = (
        f"the Jacobian at the start has no full row rank at width {width} (σ_min {float(s.value):.3g}, σ_max "
        f"{float(s.sigma_max):.3g}): samples {named} depend on each other. Remove one of them if they are parallel, "
        f"scale x to entries of size one, or try width {width + 2}"
    )
    loss = float(np.sum(y**2) / 2)
    record = {"loss": loss, "scale": 1.0, "damping": 0.0, "distance": 0.0}
    history = {name: np.array([value]) for name, value in record.items()}
    return Memorized(start, start, 1.0, loss, y, math.nan, history, None, "rank_deficient", message)
