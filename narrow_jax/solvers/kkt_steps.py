"""One step towards a KKT point: quadratic models of the loss, their minimisers over the set, Newton's step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array
from narrow_jax.certificates import Constrained, Point, natural

INNER, CORRECTIONS, STALE = 60, 12, 3
"""For one quadratic subproblem: accelerated gradient steps; Newton steps at most, and in a row that do not halve Φ."""


class Model(NamedTuple):
    """The loss near a point, in two quadratic models.

    Fields:
        slope: ∇.
        gauss: JᵀJ.
        top: its largest eigenvalue ‖J‖².
        hessian: of the loss.
        bound_slope, bound_hessian: of the Lagrangian, where the ball pushes back.
        bound_reach: radius of the ball that is left to them.
    """

    slope: Array
    gauss: Array
    top: Array
    hessian: Array
    bound_slope: Array
    bound_hessian: Array
    bound_reach: Array


@jax.jit
def model_at(problem: Constrained, point: Point) -> Model:
    """Return the models at a point."""
    J = jax.jacrev(problem.residuals)(point)
    residuals = problem.residuals(point)
    slope, gauss, top = J.T @ residuals, J.T @ J, jnp.linalg.eigvalsh(J @ J.T)[-1]
    hessian = gauss + _curvature(problem, point, residuals)
    return Model(slope, gauss, top, hessian, *_lagrangian(problem, point, slope, hessian, top))


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
def damped_point(
    problem: Constrained, point: Point, model: Model, mu: Any, exact: Any
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


def _damping(problem: Constrained, model: Model) -> Array:
    """Return D: ‖J‖² for w, and for v the geometric mean of that and of v's largest column, mostly far smaller."""
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

    def newton(carry: tuple[Point, Array, Point, Array, Array, Array]) -> tuple[Any, ...]:
        at, phi, best, size, count, stale = carry
        inner = jnp.eye(point.size) - B / tau
        matrix = jnp.eye(point.size) - _derivative(problem, at - gradient(at) / tau, inner, reach)
        at = problem.project(at - jnp.linalg.solve(matrix, phi), reach)
        phi = natural_map(at)
        found = jnp.linalg.norm(phi)
        stale = jnp.where(found < size / 2, 0, stale + 1)
        return at, phi, jnp.where(found < size, at, best), jnp.minimum(found, size), count + 1, stale

    (start, _, _), _ = jax.lax.scan(accelerated, (point, point, jnp.ones(())), length=INNER)
    phi = natural_map(start)
    size = jnp.linalg.norm(phi)
    goal = 1e-13 * jnp.linalg.norm(natural_map(point))
    none = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(
        lambda carry: (carry[3] > goal) & (carry[4] < CORRECTIONS) & (carry[5] < STALE),
        newton,
        (start, phi, start, size, none, none),
    )[2]


@jax.jit
def newton_point(problem: Constrained, point: Point, model: Model, shift: Any) -> tuple[Point, Array]:
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
