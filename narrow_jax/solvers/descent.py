"""Directions towards a KKT point of problem (7): minimisers of quadratic models over the set, and Newton's step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array, Float
from narrow_jax.certificates import Constrained, Point, natural

# Measured by ``python -m benchmarks.kkt_constants`` over 30 problems: 1,288 steps in all, and all converge.

INNER, CORRECTIONS, STALE = 60, 12, 3
"""For one quadratic subproblem: accelerated gradient steps; Newton steps at most, and in a row that do not halve Φ.

15 and 240 gradient steps: 1,309 and 1,305 steps; 3 and 48 Newton steps: 1,324 and 1,288; 1 stale: 1,338, 12: 1,266.
"""

SOLVED = 1e-13
"""‖Φ‖ of a subproblem's solution over that at θ. From 1e-15 to 1e-6 the steps are within 1 %."""

ON_SPHERE = 1e-12
"""What rounding may leave, relatively, between a projected point and the sphere. 1e-15 and 1e-9: the same steps."""

DEFINITE, LARGEST_MU = 8, 1
"""μ grows by this factor until the matrix is definite, or μ at least this.

Factor 2: 1,225 steps, 32: 1,584, each with one failure; at least 0.01: 1,264 steps, 100: 1,342.
"""

BATCH = 64
"""Hessian products at once: memory, not the result, depends on it."""


class Trial(NamedTuple):
    """A point that a descent offers, the decrease of the loss that its model predicts, and the damping it took."""

    point: Point
    predicted: Array
    damping: Array


class Quadratic(NamedTuple):
    """A model of the loss near θ: its Hessian or JᵀJ; gradient and matrix of what is minimised, and the ball of ŵ.

    What is minimised may be a Lagrangian with the same minimisers.
    """

    hessian: Float[Array, "p p"]
    slope: Point
    matrix: Float[Array, "p p"]
    reach: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Descent:
    """What leads on from a feasible point θ: ∇, ‖J‖², the diagonal of D, and two models of the loss. Made by ``at``.

    One model has JᵀJ, the other the Hessian and, where the ball pushes back, the curvature of its sphere.
    """

    problem: Constrained
    point: Point
    slope: Point
    top: Array
    scale: Point
    gauss: Quadratic
    exact: Quadratic

    @staticmethod
    @jax.jit
    def at(problem: Constrained, point: Point) -> Descent:
        """Return the descent from a point.

        D is ‖J‖² for w, and for v the geometric mean of that and of v's largest column, mostly far smaller.
        """
        J = jax.jacrev(problem.residuals)(point)
        residuals = problem.residuals(point)
        slope, gauss, top = J.T @ residuals, J.T @ J, jnp.linalg.eigvalsh(J @ J.T)[-1]
        hidden = jnp.arange(point.size) < problem.hidden
        outer = jnp.max(jnp.where(hidden, 0.0, jnp.diag(gauss)))
        scale = jnp.where(hidden, top, jnp.sqrt(outer * top))
        exact = _lagrangian(problem, point, slope, gauss + _curvature(problem, point, residuals), top)
        plain = Quadratic(gauss, slope, gauss, problem.reach)
        return Descent(problem, point, slope, top, scale, plain, exact)

    @jax.jit
    def damped(self, mu: float | Array, exact: bool | Array) -> Trial:
        """Return the minimiser of a model over the feasible set.

        To its matrix μD is added, with the first of μ, 8μ, … to make it positive definite.
        """
        problem, point, scale = self.problem, self.point, jnp.diag(self.scale)
        model = Quadratic(*(jnp.where(exact, a, b) for a, b in zip(self.exact, self.gauss, strict=True)))
        mu = _definite(model.matrix, scale, jnp.asarray(mu))
        B = model.matrix + mu * scale

        def minimiser(slope: Point) -> Point:
            return _Subproblem(problem, point, slope, B, self.top, model.reach).minimiser()

        move = minimiser(model.slope) - point
        predicted = -(self.slope @ move + move @ ((model.hessian + mu * scale) @ move) / 2)
        trial = problem.move(point, move)
        if not problem.paired:  # of a pair ``move`` knows how the valley bends
            bent = problem.project(minimiser(model.slope + self.bend(move)))
            trial = jnp.where(problem.loss(bent) < problem.loss(trial), bent, trial)
        return Trial(trial, predicted, mu)

    def bend(self, move: Point) -> Point:
        """Return ½Jᵀr''(Δ, Δ): geodesic acceleration, by which a step follows a curved valley."""

        def slope(at: Point) -> Array:
            return jax.jvp(self.problem.residuals, (at,), (move,))[1]

        second = jax.jvp(slope, (self.point,), (move,))[1]
        return jax.vjp(self.problem.residuals, self.point)[1](second)[0] / 2

    @jax.jit
    def newton(self, shift: float | Array) -> Trial:
        """Return Newton's point for the natural map Φ: (I − D(I − H − νI))Δ = −Φ, D the derivative of P at θ − ∇.

        ν is the shift times the mean size of H's eigenvalues.
        """
        problem, point, hessian = self.problem, self.point, self.exact.hessian
        _, gradient, phi = natural(problem, point)
        size = jnp.linalg.norm(hessian) / jnp.sqrt(point.size)
        inner = jnp.eye(point.size) * (1 - shift * size) - hessian
        matrix = jnp.eye(point.size) - _projected(problem, point - gradient, inner, problem.reach)
        step = jnp.linalg.solve(matrix, -phi)
        predicted = -(gradient @ step + step @ (hessian @ step) / 2)
        return Trial(problem.move(point, step), predicted, shift * size)


def _lagrangian(problem: Constrained, point: Point, slope: Point, hessian: Array, top: Array) -> Quadratic:
    """Return the model of the loss + λ(‖ŵ‖² − R²)/2 + τ(‖ŵ‖² − R²)²/8R² and the ball where it holds.

    What is added vanishes on the sphere. Where the ball pushes back, the first term is the curvature of the sphere, the
    second keeps a step on it, and no ball is left. Elsewhere λ = τ = 0.
    """
    hidden = (jnp.arange(point.size) < problem.hidden).astype(point.dtype)
    w = hidden * point
    norm = jnp.linalg.norm(w)
    u = w / jnp.where(norm > 0, norm, 1.0)
    multiplier = -(u @ slope) / jnp.where(norm > 0, norm, 1.0)
    pushes = (norm >= problem.reach * (1 - ON_SPHERE)) & (norm > 0) & (multiplier > 0)
    multiplier, top = (jnp.where(pushes, value, 0.0) for value in (multiplier, top))
    return Quadratic(
        hessian,
        slope + multiplier * w,
        hessian + multiplier * jnp.diag(hidden) + top * u[:, None] * u[None, :],
        jnp.where(pushes, jnp.inf, problem.reach),
    )


def _curvature(problem: Constrained, point: Point, residuals: Array) -> Float[Array, "p p"]:
    """Return Σ r_i ∇²f_i, column by column.

    With one hidden layer it couples only the weights of one unit (of one pair of units) with each other: there one
    Hessian product serves one kind of weight, such as the weights to input a, of all units at once.
    """
    slope = jax.grad(lambda at: residuals @ problem.residuals(at))
    if not isinstance(problem.w0, jax.Array):
        columns = jnp.eye(point.size)
        return jax.lax.map(lambda e: jax.jvp(slope, (point,), (e,))[1], columns, batch_size=BATCH)
    w, v, units = problem.w0, problem.v0, problem.v0.shape[0]
    unit = jnp.concatenate([jnp.arange(w.size) % w.shape[1] % units, jnp.arange(v.size) // v.shape[1]])
    order = jnp.argsort(unit, stable=True)  # the weights, unit by unit, in the same order of kinds
    members = order.reshape(units, -1)

    def product(kind: Array) -> Array:
        return jax.jvp(slope, (point,), (jnp.zeros_like(point).at[kind].set(1.0),))[1]

    columns = jax.lax.map(product, members.T, batch_size=BATCH)  # (kinds, p)
    blocks = columns[:, members]  # (kinds, units, kinds)
    empty = jnp.zeros_like(point, shape=(point.size, point.size))
    return empty.at[members.T[:, :, None], members[None]].set(blocks)


def _definite(matrix: Array, scale: Array, mu: Array) -> Array:
    """Return the first of μ, 8μ, … that makes the matrix + μD positive definite."""

    def definite(mu: Array) -> Array:
        factor = jax.lax.linalg.cholesky(matrix + mu * scale, symmetrize_input=False)
        return jnp.isfinite(factor[-1, -1])

    return jax.lax.while_loop(
        lambda carry: ~carry[1] & (carry[0] < LARGEST_MU),
        lambda carry: (DEFINITE * carry[0], definite(DEFINITE * carry[0])),
        (mu, definite(mu)),
    )[0]


class _Newton(NamedTuple):
    """Where Newton's method for a subproblem stands: the point, its Φ, the best point, its ‖Φ‖, and two counts."""

    at: Point
    phi: Point
    best: Point
    size: Array
    tries: Array
    stale: Array


class _Subproblem(NamedTuple):
    """The minimum of slopeᵀΔ + ½ΔᵀBΔ over the θ + Δ in the cone and in a ball of ŵ; B is positive definite."""

    problem: Constrained
    point: Point
    slope: Point
    B: Float[Array, "p p"]
    tau: Array
    reach: Array

    def gradient(self, at: Point) -> Point:
        return self.slope + self.B @ (at - self.point)

    def phi(self, at: Point) -> Point:
        """Return the natural map for the step 1/τ."""
        return at - self.problem.project(at - self.gradient(at) / self.tau, self.reach)

    def minimiser(self) -> Point:
        """Return the minimiser: accelerated gradients, then Newton."""
        bound = jnp.max(jnp.sum(jnp.abs(self.B), axis=1))  # ≥ ‖B‖₂
        origin = (self.point, self.point, jnp.ones(()))
        start = jax.lax.scan(lambda c, _: (self._accelerated(bound, *c), None), origin, length=INNER)[0][0]
        phi, none = self.phi(start), jnp.zeros((), jnp.int32)
        goal = SOLVED * jnp.linalg.norm(self.phi(self.point))
        return jax.lax.while_loop(
            lambda c: (c.size > goal) & (c.tries < CORRECTIONS) & (c.stale < STALE),
            self._corrected,
            _Newton(start, phi, start, jnp.linalg.norm(phi), none, none),
        ).best

    def _accelerated(
        self, bound: Array, at: Point, ahead: Point, momentum: Array
    ) -> tuple[Point, Point, Array]:
        step = self.problem.project(ahead - self.gradient(ahead) / bound, self.reach)
        # restart where the step goes against the momentum
        momentum = jnp.where(jnp.vdot(ahead - step, step - at) > 0, 1.0, momentum)
        following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        return step, step + (momentum - 1) / following * (step - at), following

    def _corrected(self, last: _Newton) -> _Newton:
        identity, moved = jnp.eye(self.point.size), last.at - self.gradient(last.at) / self.tau
        matrix = identity - _projected(self.problem, moved, identity - self.B / self.tau, self.reach)
        at = self.problem.project(last.at - jnp.linalg.solve(matrix, last.phi), self.reach)
        phi = self.phi(at)
        size = jnp.linalg.norm(phi)
        stale = jnp.where(size < last.size / 2, 0, last.stale + 1)
        best = jnp.where(size < last.size, at, last.best)
        return _Newton(at, phi, best, jnp.minimum(size, last.size), last.tries + 1, stale)


def _projected(problem: Constrained, at: Point, matrix: Array, reach: Array) -> Float[Array, "p p"]:
    """Return P'(θ̂)·M: on the ball's sphere (R/‖ŵ‖)(I − uuᵀ), u = ŵ/‖ŵ‖, on the cone by differentiation."""
    _, v = problem.split(at)
    size = problem.hidden
    w, inner = at[:size], matrix[:size]
    norm = jnp.linalg.norm(w)
    outside = norm > reach
    u = w / jnp.where(norm > 0, norm, 1.0)
    factor = jnp.where(outside, reach / jnp.where(outside, norm, 1.0), 1.0)
    top = factor * (inner - jnp.where(outside, 1.0, 0.0) * u[:, None] * (u @ inner)[None, :])
    slope = jax.jacfwd(problem.project_outer)(v).reshape(v.size, v.size)
    return jnp.concatenate([top, slope @ matrix[size:]])
