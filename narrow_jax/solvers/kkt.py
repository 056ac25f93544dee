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
from narrow_jax.certificates.constrained import Constrained, Point, constrained, natural, start_gradient

WEIGHTS = 8000
"""Most hidden weights: Newton's matrix is dense, 8·p² bytes."""

SLOW = 0.9
"""Newton's method, which is drawn to any KKT point, starts where a step leaves more than this of the loss."""

NEWTON_SHIFTS = (1e-14, 1e-11, 1e-8, 1e-4)
"""Multiples of residual·‖H‖ that are added to the Hessian: large ones hold still what the loss hardly depends on."""

INNER, CORRECTIONS = 60, 12
"""Accelerated gradient steps, and Newton steps at most, for one quadratic subproblem."""


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
    _checks.samples(x, y)
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
            model = _model(problem, state.point)
            slow = state.loss > SLOW * history[max(step - 1, 0)][0] or state.residual <= 100 * tolerance
            waiting -= 1
            tried = bool(step and slow and waiting < 0)
            better = _newton(problem, state, model, unit) if tried else None
            if tried:
                patience = 1 if better else min(2 * patience, 8)
                waiting = 0 if better else patience
            newton = better is not None
            better = better or _levenberg_marquardt(problem, state, model, unit)
            if (
                better is None and not tried
            ):  # where rounding hides what the loss loses, Newton's method goes on
                better = _newton(problem, state, model, unit)
                newton = True
            if better is None:
                break
            state = better
            history.append((state.loss, state.residual, newton))
    columns = zip(*history, strict=True)
    return state.point, {
        name: np.array(column) for name, column in zip(("loss", "residual", "newton"), columns, strict=True)
    }


def _evaluated(problem: Constrained, point: Point, unit: float, mu: tuple[float, float]) -> _State:
    loss, _, phi = natural(problem, point)
    return _State(point, float(loss), float(jnp.linalg.norm(phi)) / unit, mu)


def _newton(problem: Constrained, state: _State, model: _Model, unit: float) -> _State | None:
    """Return the Newton point of least residual if that is at most half, else one that lowers the loss.

    The second kind moves along a valley, which the first kind keeps to.
    """
    best, lower = None, None
    for weight in NEWTON_SHIFTS:
        trial, predicted = _newton_point(problem, state.point, model, weight * min(state.residual, 1e-2))
        found = _evaluated(problem, trial, unit, state.mu)
        flat = found.loss <= state.loss * (1 + 1e-9) + 1e-25 * unit
        if flat and found.residual <= (best or state).residual / 2:
            best = found
        drop = state.loss - found.loss
        if lower is None and drop > max(0.1 * float(predicted), 1e-12 * state.loss) and predicted > 0:
            lower = found
    return best or lower


def _levenberg_marquardt(problem: Constrained, state: _State, model: _Model, unit: float) -> _State | None:
    """Return the better of the steps with the exact model and with JᵀJ; the first alone where it needs no more μ."""
    curved, mu = _damped(problem, state, model, unit, exact=True)
    if curved and mu <= state.mu[0]:
        return curved._replace(mu=(mu, state.mu[1]))
    plain, plain_mu = _damped(problem, state, model, unit, exact=False)
    found = [step for step in (curved, plain) if step]
    return min(found, key=lambda step: step.loss)._replace(mu=(mu, plain_mu)) if found else None


def _damped(
    problem: Constrained, state: _State, model: _Model, unit: float, exact: bool
) -> tuple[_State | None, float]:
    """Return the first point, over growing μ, whose decrease is a tenth of the predicted one, and the next μ."""
    mu = jnp.asarray(state.mu[0 if exact else 1])
    for _ in range(12):
        trial, predicted, mu = _regularized_point(problem, state.point, model, mu, exact)
        found = _evaluated(problem, trial, unit, state.mu)
        ratio = (state.loss - found.loss) / max(float(predicted), 1e-300)
        if predicted > 0 and ratio > 0.1:
            return found, max(float(mu) / 4, 1e-15) if ratio > 0.5 else float(mu)
        mu = 6 * mu
    return None, state.mu[0 if exact else 1]


class _Model(NamedTuple):
    """The loss near a point: gradient, JᵀJ and its largest eigenvalue, Hessian; those of the Lagrangian."""

    slope: Array
    gauss: Array
    top: Array
    hessian: Array
    bound_slope: Array
    bound_hessian: Array
    bound_reach: Array


@jax.jit
def _model(problem: Constrained, point: Point) -> _Model:
    J = jax.jacrev(problem.residuals)(point)
    residuals = problem.residuals(point)
    slope, gauss, top = J.T @ residuals, J.T @ J, jnp.linalg.eigvalsh(J @ J.T)[-1]
    hessian = gauss + _curvature(problem, point, residuals)
    return _Model(slope, gauss, top, hessian, *_lagrangian(problem, point, slope, hessian, top))


def _lagrangian(
    problem: Constrained, point: Point, slope: Point, hessian: Array, top: Array
) -> tuple[Point, Array, Array]:
    """Return gradient and Hessian of the loss + λ(‖ŵ‖² − R²)/2 + τ(‖ŵ‖² − R²)²/8R² and the ball where they hold.

    What is added vanishes on the sphere. Where the ball pushes back, the first term is the curvature of the sphere, the
    second keeps a step on it, and no ball is left. Elsewhere λ = τ = 0.
    """
    hidden = (jnp.arange(point.size) < problem.w0.size).astype(point.dtype)
    w = hidden * point
    norm = jnp.linalg.norm(w)
    u = w / jnp.where(norm > 0, norm, 1.0)
    multiplier = -(u @ slope) / jnp.where(norm > 0, norm, 1.0)
    pushes = (norm >= problem.reach * (1 - 1e-12)) & (norm > 0) & (multiplier > 0)
    multiplier, top = (jnp.where(pushes, value, 0.0) for value in (multiplier, top))
    return (
        slope + multiplier * w,
        hessian + multiplier * jnp.diag(hidden) + top * u[:, None] * u[None, :],
        jnp.where(pushes, jnp.inf, problem.reach),
    )


def _curvature(problem: Constrained, point: Point, residuals: Array) -> Array:
    """Return Σ r_i ∇²f_i, which couples only the weights of one unit (of one pair of units) with each other.

    So one Hessian product serves one kind of weight, such as the weights to input a, of all units at once.
    """
    units = problem.v0.shape[0]
    unit = jnp.concatenate(
        [
            jnp.arange(problem.w0.size) % problem.w0.shape[1] % units,
            jnp.arange(problem.v0.size) // problem.v0.shape[1],
        ]
    )
    order = jnp.argsort(unit, stable=True)  # the weights, unit by unit, in the same order of kinds
    members = order.reshape(units, -1)
    slope = jax.grad(lambda at: residuals @ problem.residuals(at))

    def product(kind: Array) -> Array:
        return jax.jvp(slope, (point,), (jnp.zeros_like(point).at[kind].set(1.0),))[1]

    columns = jax.lax.map(product, members.T, batch_size=64)  # (kinds, p)
    blocks = columns[:, members]  # (kinds, units, kinds)
    return (
        jnp.zeros_like(point, shape=(point.size, point.size))
        .at[members.T[:, :, None], members[None]]
        .set(blocks)
    )


@jax.jit
def _regularized_point(
    problem: Constrained, point: Point, model: _Model, mu: Any, exact: Any
) -> tuple[Point, Array, Array]:
    """Return the minimiser of the model over the feasible set, the decrease it predicts, and the μ it took.

    The model's matrix is the Lagrangian's Hessian or JᵀJ, + μD with the first of μ, 8μ, … to make it positive definite.
    """
    matrix = jnp.where(exact, model.bound_hessian, model.gauss)
    damping = _damping(problem, model)

    def definite(mu: Array) -> Array:
        factor = jax.lax.linalg.cholesky(matrix + mu * damping, symmetrize_input=False)
        return jnp.isfinite(factor[-1, -1])

    mu, _ = jax.lax.while_loop(
        lambda carry: ~carry[1] & (carry[0] < 1),
        lambda carry: (8 * carry[0], definite(8 * carry[0])),
        (mu, definite(mu)),
    )
    B, slope = matrix + mu * damping, jnp.where(exact, model.bound_slope, model.slope)
    bound = jnp.max(jnp.sum(jnp.abs(B), axis=1))  # ≥ ‖B‖₂
    reach = jnp.where(exact, model.bound_reach, problem.reach)

    def minimiser(slope: Point) -> Point:
        return _quadratic(problem, point, slope, B, model.top, bound, reach)

    move = minimiser(slope) - point
    bare = jnp.where(exact, model.hessian, model.gauss) + mu * damping
    predicted = -(model.slope @ move + move @ (bare @ move) / 2)
    trial = problem.move(point, move)
    if not problem.paired:  # of a pair ``move`` knows how the valley bends
        bent = problem.project(minimiser(slope + _bend(problem, point, move)))
        trial = jnp.where(problem.loss(bent) < problem.loss(trial), bent, trial)
    return trial, predicted, mu


def _damping(problem: Constrained, model: _Model) -> Array:
    """Return D: ‖J‖² for w, and for v the geometric mean of that and of the largest column, which is far smaller."""
    hidden = jnp.arange(len(model.slope)) < problem.w0.size
    outer = jnp.max(jnp.where(hidden, 0.0, jnp.diag(model.gauss)))
    return jnp.diag(jnp.where(hidden, model.top, jnp.sqrt(outer * model.top)))


def _bend(problem: Constrained, point: Point, move: Point) -> Point:
    """Return ½Jᵀr''(Δ, Δ): geodesic acceleration, by which a step follows a curved valley."""

    def slope(at: Point) -> Array:
        return jax.jvp(problem.residuals, (at,), (move,))[1]

    return jax.vjp(problem.residuals, point)[1](jax.jvp(slope, (point,), (move,))[1])[0] / 2


def _quadratic(
    problem: Constrained, point: Point, slope: Point, B: Array, tau: Array, bound: Array, reach: Array
) -> Point:
    """Return the minimiser of the convex quadratic over a ball and the cone: accelerated gradients, then Newton."""

    def gradient(at: Point) -> Point:
        return slope + B @ (at - point)

    def natural_map(at: Point) -> Point:
        return at - problem.project(at - gradient(at) / tau, reach)

    def accelerated(carry: tuple[Point, Point, Array], _: None) -> tuple[tuple[Point, Point, Array], None]:
        at, ahead, momentum = carry
        step = problem.project(ahead - gradient(ahead) / bound, reach)
        # restart where the step goes against the momentum
        momentum = jnp.where(jnp.vdot(ahead - step, step - at) > 0, 1.0, momentum)
        following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        return (step, step + (momentum - 1) / following * (step - at), following), None

    def newton(carry: tuple[Point, Array, Point, Array, Array]) -> tuple[Point, Array, Point, Array, Array]:
        at, phi, best, size, count = carry
        inner = jnp.eye(point.size) - B / tau
        matrix = jnp.eye(point.size) - _derivative(problem, at - gradient(at) / tau, inner, reach)
        at = problem.project(at - jnp.linalg.solve(matrix, phi), reach)
        phi = natural_map(at)
        found = jnp.linalg.norm(phi)
        return at, phi, jnp.where(found < size, at, best), jnp.minimum(found, size), count + 1

    (start, _, _), _ = jax.lax.scan(accelerated, (point, point, jnp.ones(())), length=INNER)
    phi = natural_map(start)
    size = jnp.linalg.norm(phi)
    goal = 1e-13 * jnp.linalg.norm(natural_map(point))
    return jax.lax.while_loop(
        lambda carry: (carry[3] > goal) & (carry[4] < CORRECTIONS),
        newton,
        (start, phi, start, size, jnp.zeros((), jnp.int32)),
    )[2]


@jax.jit
def _newton_point(problem: Constrained, point: Point, model: _Model, shift: Any) -> tuple[Point, Array]:
    """Return θ + Δ, feasible, and the decrease that the model predicts.

    (I − D(I − H − νI))Δ = −Φ with D the derivative of P at θ − ∇.
    """
    _, gradient, phi = natural(problem, point)
    hessian = model.hessian
    scale = jnp.linalg.norm(hessian) / jnp.sqrt(point.size)
    inner = jnp.eye(point.size) * (1 - shift * scale) - hessian
    matrix = jnp.eye(point.size) - _derivative(problem, point - gradient, inner, problem.reach)
    step = jnp.linalg.solve(matrix, -phi)
    return problem.move(point, step), -(gradient @ step + step @ (hessian @ step) / 2)


def _derivative(problem: Constrained, at: Point, matrix: Array, reach: Array) -> Array:
    """Return P'(θ̂)·M: on the ball's sphere (R/‖ŵ‖)(I − uuᵀ), u = ŵ/‖ŵ‖, on the cone by differentiation."""
    moved, v = problem.split(at)
    size = moved.size
    w, inner = moved.reshape(-1), matrix[:size]
    norm = jnp.linalg.norm(w)
    outside = norm > reach
    u = w / jnp.where(norm > 0, norm, 1.0)
    factor = jnp.where(outside, reach / jnp.where(outside, norm, 1.0), 1.0)
    top = factor * (inner - jnp.where(outside, 1.0, 0.0) * u[:, None] * (u @ inner)[None, :])
    slope = jax.jacfwd(problem.project_outer)(v).reshape(v.size, v.size)
    return jnp.concatenate([top, slope @ matrix[size:]])
