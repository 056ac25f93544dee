"""Problem (7) to a KKT point: Levenberg–Marquardt steps in the feasible set, then Newton on the natural residual."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _progress, activations, initializers
from narrow_jax._typing import Array, Key
from narrow_jax.activations import Activation
from narrow_jax.certificates import Constrained, Point, constrained, measure, start_gradient
from narrow_jax.solvers.kkt_steps import Model, damped_point, model_at, newton_point

WEIGHTS = 8000
"""Most hidden weights: Newton's matrix is dense, 8·p² bytes."""

SLOW = 0.9
"""Newton's method, which is drawn to any KKT point, starts where a step leaves more than this of the loss."""

NEWTON_SHIFTS = (1e-14, 1e-11, 1e-8, 1e-4)
"""Multiples of residual·‖H‖ that are added to the Hessian: large ones hold still what the loss hardly depends on."""


class KKTSolution(NamedTuple):
    """What ``solve_kkt`` found.

    Fields:
        params: the weights, NumPy float64, feasible.
        center: the start.
        loss: ½‖y − f‖².
        residual: as ``nj.certificates.natural_residual``; 0 at KKT points.
        history: "loss" and "residual" after each step, "newton" where it was a Newton step.
        converged: residual ≤ tolerance.
    """

    params: dict[str, np.ndarray]
    center: dict[str, np.ndarray]
    loss: float
    residual: float
    history: dict[str, np.ndarray]
    converged: bool


def solve_kkt(
    key: Key[Array, ""],
    x: Any,
    y: Any,
    width: int,
    radius: float,
    *,
    zeta: float | None = 1e-3,
    kappa: float = math.inf,
    activation: str | Activation = "tanh",
    model: str = "pairwise",
    tolerance: float = 1e-8,
    steps: int = 300,
    progress: bool | None = None,
) -> KKTSolution:
    """Solve ``min ½‖y − f(w; v)‖²`` over the ball and the cone to a KKT point.

    In the coordinates ŵ = (w − w⁰)/s, v̂ = s·v. Far away, θ ← θ + Δ with Δ from the better of two damped models over
    the feasible set: JᵀJ, and the exact Hessian with, where the ball pushes back, the curvature of its sphere; the
    damping from the ratio of actual to predicted decrease. Where that slows down, Newton's method on
    Φ(θ) = θ − P(θ − ∇) with the generalised Jacobian of the exact projections and the exact Hessian, kept where it
    halves ‖Φ‖ and does not raise the loss, or lowers the loss as its model predicts.

    Where m < 2n/d and ε is small the infimum is not attained: v grows without bound and the residual falls with it.
    The loop then ends at the tolerance, or, from ε = 0.01 down, at the rounding of the gradient.

    Args:
        key: random key of the start.
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        width: m.
        radius: ε.
        zeta: ζ.
        kappa: κ.
        activation: name or ``Activation``.
        model: "pairwise" from a mirrored start, or "standard" from a plain one: a ball and free v.
        tolerance: of the residual.
        steps: at most.
        progress: show a progress bar; by default where the standard error is a terminal.

    Returns:
        ``KKTSolution``.

    Raises:
        ValueError: bad ε, ζ, κ, width or model, too many weights, data that do not fit.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(6, 4))
        >>> s = solve_kkt(jax.random.key(0), x, x[:, 0] ** 2, width=4, radius=0.1)
        >>> s.converged, bool(np.linalg.norm(s.params["w"] - s.center["w"]) <= 0.1 + 1e-12)
        (True, True)

    Reference:
        Problem (7) of "When Expressivity Meets Trainability"; Qi and Sun, "A nonsmooth version of Newton's method"
        (1993); Transtrum and Sethna, "Improvements to the Levenberg–Marquardt algorithm" (2012), on acceleration.
    """
    _checks.choice("model", model, ("pairwise", "standard"))
    _checks.positive("tolerance", tolerance)
    _checks.count("steps", steps)
    x, y = _checks.real_data(x, y)
    sizes: dict[str, Any] = {
        "inputs": np.shape(x)[1],
        "width": width,
        "outputs": 1 if np.ndim(y) == 1 else np.shape(y)[1],
    }
    _checks.count("width", width)
    if sizes["inputs"] * width > WEIGHTS:
        raise ValueError(
            f"{sizes['inputs']} × {width} hidden weights; expected at most {WEIGHTS}: Newton's matrix is dense"
        )
    with jax.enable_x64(True):
        if model == "pairwise":
            center = initializers.mirrored_lecun(
                key, **sizes, zeta=zeta or 1e-3, kappa=kappa, dtype=jnp.float64
            )
        else:
            center = initializers.lecun(key, **sizes, dtype=jnp.float64)
            zeta = None
        problem = constrained(center, x, y, radius, zeta, kappa, activations.get(activation))
        point, history = _descend(problem, tolerance, steps, progress)
        loss, residual = history["loss"][-1], history["residual"][-1]
        params = jax.tree.map(np.asarray, problem.params(point))
    start = jax.tree.map(np.asarray, center)
    return KKTSolution(params, start, float(loss), float(residual), history, bool(residual <= tolerance))


class _State(NamedTuple):
    """A feasible point with its loss, relative residual, and the damping μ of the exact model and of JᵀJ."""

    point: Point
    loss: float
    residual: float
    mu: tuple[float, float]


def _descend(
    problem: Constrained, tolerance: float, steps: int, show: bool | None
) -> tuple[Point, dict[str, np.ndarray]]:
    unit = start_gradient(problem)
    start = problem.project(problem.point({"w": problem.w0, "v": problem.v0}))
    state = _evaluated(problem, start, unit, (1e-3, 1e-3))
    history = [(state.loss, state.residual, False)]
    waiting, patience = 0, 1  # a failed Newton step is tried again after 1, 2, 4, 8, 8, … others
    with _progress.bar(steps, show) as advance:
        for step in range(steps):
            advance(step, state.loss)
            if state.residual <= tolerance:
                break
            model = model_at(problem, state.point)
            slow = state.loss > SLOW * history[max(step - 1, 0)][0] or state.residual <= 100 * tolerance
            waiting -= 1
            tried = bool(step and slow and waiting < 0)
            better = _newton(problem, state, model, unit) if tried else None
            if tried:
                patience = 1 if better else min(2 * patience, 8)
                waiting = 0 if better else patience
            better, newton = _best(problem, state, model, unit, better, tried)
            if better is None:
                break
            state = better
            history.append((state.loss, state.residual, newton))
    columns = zip(*history, strict=True)
    return state.point, {
        name: np.array(column) for name, column in zip(("loss", "residual", "newton"), columns, strict=True)
    }


def _best(
    problem: Constrained, state: _State, model: Model, unit: float, newton: _State | None, tried: bool
) -> tuple[_State | None, bool]:
    """Return the Newton point if it halves the residual, else the lower of it and the damped one; which it is."""
    if newton and newton.residual <= state.residual / 2:
        return newton, True
    damped = _levenberg_marquardt(problem, state, model, unit)
    if damped and (newton is None or damped.loss < newton.loss):
        return damped, False
    if newton or tried:
        return newton, True
    return _newton(problem, state, model, unit), True  # rounding hides what the loss would lose


def _evaluated(problem: Constrained, point: Point, unit: float, mu: tuple[float, float]) -> _State:
    return _State(point, *measure(problem, point, unit), mu)


def _newton(problem: Constrained, state: _State, model: Model, unit: float) -> _State | None:
    """Return the Newton point of least residual if that is at most half, else one that lowers the loss.

    The second kind moves along a valley, which the first kind keeps to.
    """
    best, lower = None, None
    for weight in NEWTON_SHIFTS:
        trial, predicted = newton_point(problem, state.point, model, weight * min(state.residual, 1e-2))
        found = _evaluated(problem, trial, unit, state.mu)
        flat = found.loss <= state.loss * (1 + 1e-9) + 1e-25 * unit
        if flat and found.residual <= (best or state).residual / 2:
            best = found
        drop = state.loss - found.loss
        if lower is None and drop > max(0.1 * float(predicted), 1e-12 * state.loss) and predicted > 0:
            lower = found
    return best or lower


def _levenberg_marquardt(problem: Constrained, state: _State, model: Model, unit: float) -> _State | None:
    """Return the better of the steps with the exact model and with JᵀJ; the first alone where it needs no more μ."""
    curved, mu = _damped(problem, state, model, unit, exact=True)
    if curved and mu <= state.mu[0]:
        return curved._replace(mu=(mu, state.mu[1]))
    plain, plain_mu = _damped(problem, state, model, unit, exact=False)
    found = [step for step in (curved, plain) if step]
    return min(found, key=lambda step: step.loss)._replace(mu=(mu, plain_mu)) if found else None


def _damped(
    problem: Constrained, state: _State, model: Model, unit: float, exact: bool
) -> tuple[_State | None, float]:
    """Return the first point, over growing μ, whose decrease is a tenth of the predicted one, and the next μ."""
    mu = jnp.asarray(state.mu[0 if exact else 1])
    for _ in range(12):
        trial, predicted, mu = damped_point(problem, state.point, model, mu, exact)
        found = _evaluated(problem, trial, unit, state.mu)
        ratio = (state.loss - found.loss) / max(float(predicted), 1e-300)
        if predicted > 0 and ratio > 0.1:
            return found, max(float(mu) / 4, 1e-15) if ratio > 0.5 else float(mu)
        mu = 6 * mu
    return None, state.mu[0 if exact else 1]
