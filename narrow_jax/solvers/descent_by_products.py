"""Directions towards a KKT point of problem (7) by products and conjugate gradients, where matrices do not fit.

The same two models, and the same step for the natural map, as ``solvers/descent.py`` has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array
from narrow_jax.certificates import Constrained, Point, natural
from narrow_jax.solvers.descent import ON_SPHERE, Trial

Product = Callable[[Point], Point]

POWERS = 30
"""Steps of the power iteration for ‖J‖²: an order of magnitude is enough for a scale."""

LEAST = 1e-6
"""The scale of v beside that of w, at least: at a mirrored start J_v = 0."""

INNER, CORRECTIONS, STALE, SOLVED = 60, 6, 2, 1e-8
"""For one quadratic subproblem: accelerated gradient steps; Newton steps at most, and in a row that do not halve Φ;
what they may leave of it."""

ITERATIONS, ACCURATE = 1000, 1e-10
"""Conjugate gradients at most, and what they may leave of the right side."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ProductDescent:
    """What leads on from a feasible point θ: ∇, ‖J‖², the diagonal of D, the multiplier of the ball. Made by ``at``."""

    problem: Constrained
    point: Point
    slope: Point
    top: Array
    scale: Point
    multiplier: Array

    @staticmethod
    @jax.jit
    def at(problem: Constrained, point: Point) -> ProductDescent:
        """Return the descent from a point. D is ‖J‖² for w, and for v the geometric mean of that and ‖J_v‖²."""
        slope, hidden = jax.grad(problem.loss)(point), _hidden(problem, point)
        gauss = _gauss(problem, point)
        top = _norm(gauss, point)
        outer = _norm(lambda z: (1 - hidden) * gauss((1 - hidden) * z), point)
        scale = jnp.where(hidden > 0, top, jnp.maximum(jnp.sqrt(outer * top), LEAST * top))
        norm = jnp.linalg.norm(hidden * point)
        multiplier = -((hidden * point) @ slope) / jnp.where(norm > 0, norm, 1.0) ** 2
        pushes = (norm >= problem.reach * (1 - ON_SPHERE)) & (norm > 0) & (multiplier > 0)
        return ProductDescent(problem, point, slope, top, scale, jnp.where(pushes, multiplier, 0.0))

    @jax.jit
    def damped(self, mu: float | Array, exact: bool | Array) -> Trial:
        """Return the minimiser of a model over the feasible set, or what conjugate gradients found of it.

        To its matrix μD is added. Where that is not positive definite they end at the direction that shows it.
        """
        problem, point = self.problem, self.point
        multiplier = jnp.where(exact, self.multiplier, 0.0)
        w = _hidden(problem, point) * point
        u = w / jnp.maximum(jnp.linalg.norm(w), jnp.finfo(w.dtype).tiny)
        curved, gauss = _hessian(problem, point), _gauss(problem, point)

        def plain(z: Point) -> Point:
            return jax.lax.cond(exact, curved, gauss, z) + mu * self.scale * z

        def product(z: Point) -> Point:
            sphere = multiplier * _hidden(problem, z) * z
            return plain(z) + sphere + jnp.where(multiplier > 0, self.top, 0.0) * u * (u @ z)

        reach = jnp.where(multiplier > 0, jnp.inf, problem.reach)
        model = _Model(problem, point, self.slope + multiplier * w, product, self.scale, reach)
        move = model.minimiser() - point
        predicted = -(self.slope @ move + move @ plain(move) / 2)
        return Trial(problem.move(point, move), predicted, jnp.asarray(mu))

    @jax.jit
    def newton(self, shift: float | Array) -> Trial:
        """Return Newton's point for the natural map, ν being the shift times about the mean size of H's eigenvalues."""
        problem, point = self.problem, self.point
        hessian = _hessian(problem, point)
        _, gradient, phi = natural(problem, point)
        size = jnp.linalg.norm(hessian(_probe(point))) / jnp.sqrt(point.size)
        step = _newton(
            problem,
            point - gradient,
            lambda z: hessian(z) + shift * size * z,
            jnp.ones_like(point),
            phi,
            problem.reach,
        )
        predicted = -(gradient @ step + step @ hessian(step) / 2)
        return Trial(problem.move(point, step), predicted, shift * size)


def _hidden(problem: Constrained, point: Point) -> Point:
    return (jnp.arange(point.size) < problem.hidden).astype(point.dtype)


def _gauss(problem: Constrained, point: Point) -> Product:
    """Return z ↦ JᵀJz."""
    _, forward = jax.linearize(problem.residuals, point)
    backward = jax.linear_transpose(forward, point)
    return lambda z: backward(forward(z))[0]


def _hessian(problem: Constrained, point: Point) -> Product:
    """Return z ↦ ∇²z."""
    return jax.linearize(jax.grad(problem.loss), point)[1]


def _probe(point: Point) -> Point:
    # at random: at a mirrored start J of ones is 0
    return jax.random.rademacher(jax.random.key(0), point.shape, point.dtype)


def _norm(product: Product, like: Point) -> Array:
    """Return about the largest size of an eigenvalue of a product."""

    def step(z: Point, _: None) -> tuple[Point, Array]:
        image = product(z)
        size = jnp.linalg.norm(image)
        return image / jnp.where(size > 0, size, 1.0), size

    return jax.lax.scan(step, _probe(like), length=POWERS)[1][-1]


class _Model(NamedTuple):
    """slopeᵀΔ + ½Δᵀ·product(Δ) over the θ + Δ in the cone and in a ball of ŵ."""

    problem: Constrained
    point: Point
    slope: Point
    product: Product
    scale: Point
    reach: Array

    def minimiser(self) -> Point:
        """Return the minimiser, in the metric of the scale: accelerated gradients, then Newton on the natural map."""
        bound = jnp.maximum(_norm(lambda z: self.product(z) / self.scale, self.point), 1.0)
        origin = (self.point, self.point, jnp.ones(()))
        start = jax.lax.scan(lambda c, _: (self._accelerated(2 * bound, *c), None), origin, length=INNER)[0][
            0
        ]
        goal = SOLVED * self._size(self.point)
        none = jnp.zeros((), jnp.int32)
        return jax.lax.while_loop(
            lambda c: (c.size > goal) & (c.tries < CORRECTIONS) & (c.stale < STALE),
            self._corrected,
            _Corrected(start, start, self._size(start), none, none),
        ).best

    def _accelerated(
        self, bound: Array, at: Point, ahead: Point, momentum: Array
    ) -> tuple[Point, Point, Array]:
        step = self.problem.project(ahead - self._gradient(ahead) / bound, self.reach)
        # restart where the step goes against the momentum
        momentum = jnp.where(jnp.vdot(self.scale * (ahead - step), step - at) > 0, 1.0, momentum)
        following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        return step, step + (momentum - 1) / following * (step - at), following

    def _corrected(self, last: _Corrected) -> _Corrected:
        base = last.at - self._gradient(last.at)
        phi = last.at - self.problem.project(base, self.reach)
        move = _newton(self.problem, base, self.product, self.scale, phi, self.reach)
        at = self.problem.project(last.at + move, self.reach)
        size = self._size(at)
        stale = jnp.where(size < last.size / 2, 0, last.stale + 1)
        best = jnp.where(size < last.size, at, last.best)
        return _Corrected(at, best, jnp.minimum(size, last.size), last.tries + 1, stale)

    def _gradient(self, at: Point) -> Point:
        return (self.slope + self.product(at - self.point)) / self.scale

    def _size(self, at: Point) -> Array:
        """Return ‖Φ‖."""
        return jnp.linalg.norm(at - self.problem.project(at - self._gradient(at), self.reach))


class _Corrected(NamedTuple):
    """Where Newton's method for a subproblem stands: the point, the best one, its ‖Φ‖, and two counts."""

    at: Point
    best: Point
    size: Array
    tries: Array
    stale: Array


def _newton(
    problem: Constrained, base: Point, product: Product, scale: Point, phi: Point, reach: Array
) -> Point:
    """Return Δ with (I − P' + P'S⁻¹B)Δ = −Φ, P' = CΠ the derivative of P at ``base``, B the product, S the scale.

    Π is an orthogonal projection, C and S are numbers on w and on v, so that all three commute. Δ = N + T with
    N = −(I − Π)Φ and (S(C⁻¹ − 1) + ΠBΠ)T = −SC⁻¹ΠΦ − ΠBN, a symmetric equation in the range of Π.
    """
    hidden = _hidden(problem, base)
    w, v = hidden * base, problem.split(base)[1]
    norm = jnp.linalg.norm(w)
    outside = norm > reach
    u = jnp.where(outside, w / jnp.where(norm > 0, norm, 1.0), 0.0)
    shrink = jnp.where(outside, reach / jnp.where(outside, norm, 1.0), 1.0)
    inverse = jnp.where(hidden > 0, 1 / shrink, 1.0)

    def tangent(z: Point) -> Point:
        along = jax.jvp(problem.project_outer, (v,), (problem.split(z)[1],))[1]
        inner = (z - u * (u @ z))[: problem.hidden]
        return jnp.concatenate([inner, along.reshape(-1)])

    normal = tangent(phi) - phi
    right = -scale * inverse * tangent(phi) - tangent(product(normal))
    return normal + _conjugate_gradients(
        lambda z: scale * (inverse - 1) * z + tangent(product(tangent(z))), right, scale
    )


def _conjugate_gradients(product: Product, right: Point, scale: Point) -> Point:
    """Solve product(z) = right, preconditioned by the scale; end at a direction of negative curvature.

    If the first one is that, it is returned.
    """
    first = right / scale
    goal = ACCURATE * jnp.sqrt(right @ first)

    def advance(last: _Conjugate) -> _Conjugate:
        image = product(last.direction)
        curvature = last.direction @ image
        bad = ~(curvature > 0)
        step = jnp.where(bad, 0.0, last.size / jnp.where(bad, 1.0, curvature))
        residual = last.residual - step * image
        size = residual @ (residual / scale)
        direction = residual / scale + size / jnp.where(last.size > 0, last.size, 1.0) * last.direction
        return _Conjugate(last.z + step * last.direction, residual, direction, size, last.tries + 1, bad)

    none = jnp.zeros((), jnp.int32)
    found = jax.lax.while_loop(
        lambda c: (jnp.sqrt(c.size) > goal) & (c.tries < ITERATIONS) & ~c.bad,
        advance,
        _Conjugate(jnp.zeros_like(right), right, first, right @ first, none, jnp.zeros((), bool)),
    )
    return jnp.where(found.bad & (found.tries == 1), first, found.z)


class _Conjugate(NamedTuple):
    """Where conjugate gradients stand: z, its residual, the direction, the residual's size, and whether to stop."""

    z: Point
    residual: Point
    direction: Point
    size: Array
    tries: Array
    bad: Array
