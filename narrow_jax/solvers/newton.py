"""Newton's method for f(θ; s·v⁰) = y in a ball, a pair from a mirrored start: minimum-norm steps Jᵀ(JJᵀ)⁻¹r.

They come from conjugate gradients, whose products never form J. The preconditioner is a Cholesky factor of JJᵀ at some
earlier point (exact there: one iteration), or, where n·k is too large for it, a diagonal plus the part of low rank of
the mean slopes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jax.scipy.sparse.linalg import cg
from scipy.linalg import blas

from narrow_jax import _printing
from narrow_jax._typing import Array, Float, HostArray
from narrow_jax.jacobian import KhatriRao
from narrow_jax.linalg import DEVICE, EvaluatedJacobian
from narrow_jax.linalg import rounding as fl

TOLERANCE = 1e-8
"""Relative residual of the linear solve: each Newton step gains at most its square in the loss."""

Theta = Float[HostArray, " p"]
"""The hidden weights as one vector, in the order of the Jacobian's columns."""


@runtime_checkable
class Equations(Protocol):
    """f(θ; v⁰) at all samples, and its Jacobian."""

    def predict(self, theta: Theta) -> Float[Array, " r"]:
        """Return f, rows (i, c)."""

    def jacobian(self, theta: Theta) -> EvaluatedJacobian:
        """Return J."""


class Step(NamedTuple):
    """δ = Jᵀ(JJᵀ)⁻¹r, and the relative residual ‖Jδ − r‖/‖r‖ that is left."""

    delta: Theta
    left: Float[HostArray, ""]


@runtime_checkable
class Preconditioner(Protocol):
    """An approximate inverse of JJᵀ, by which steps are computed.

    ``pivot`` is relative to the diagonal, and says whether J has full row rank; ``renewable`` whether a new one at
    another J serves better there.
    """

    @property
    def pivot(self) -> Any:
        """Return the smallest pivot."""

    @property
    def renewable(self) -> bool:
        """Return whether to make a new one where this no longer serves."""

    def minimum_norm(self, j: EvaluatedJacobian, r: Float[np.ndarray, " r"]) -> Step:
        """Return the step at Ĵ."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Factor:
    """The Cholesky factor of ĴĴᵀ, the strict upper triangle 0, and its smallest pivot.

    The pivot is relative to the diagonal entry, and NaN where the factorisation broke off.
    """

    lower: Float[Array, "r r"]
    pivot: Float[Array, ""]
    iterations: ClassVar[int] = 25  # of conjugate gradients: where it needs more, a new factor is cheaper
    renewable: ClassVar[bool] = True

    @staticmethod
    @jax.jit(static_argnames="dtype")
    def of(j: EvaluatedJacobian, dtype: str) -> Factor:
        """Return the factor at Ĵ."""
        if dtype == "float32":
            j = jax.tree.map(lambda a: a.astype(dtype) if a.dtype == jnp.float64 else a, j)
        gram = jnp.asarray(j.gram(DEVICE).matrix)
        diagonal = jnp.diag(gram)
        if dtype == "float32":  # rounding there costs definiteness
            gram = gram + jnp.diag(1e-6 * diagonal)
        lower = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
        return Factor(lower, jnp.min(jnp.square(jnp.diag(lower)) / diagonal))

    def solve(self, u: Float[Array, " r"]) -> Float[Array, " r"]:
        """Return (ĴĴᵀ)⁻¹u."""
        return cho_solve((self.lower, True), u.astype(self.lower.dtype)).astype(u.dtype)

    def minimum_norm(self, j: EvaluatedJacobian, r: Float[np.ndarray, " r"]) -> Step:
        """Return the step at Ĵ."""
        return minimum_norm(j, self, r)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRank:
    """For each output c the matrix X diag(a_c) Xᵀ + diag(b_c), inverted by Woodbury's formula: X, 1/b, a factor.

    X is what enters the layers, side by side.
    """

    x: Float[Array, "n a"]
    inverse: Float[Array, "n k"]
    factor: Float[Array, "k a a"]
    iterations: ClassVar[int] = 1000
    renewable: ClassVar[bool] = False
    pivot: ClassVar[float] = 1.0  # it says nothing about the rank of J

    @staticmethod
    @jax.jit
    def of(j: KhatriRao) -> LowRank:
        """Return diag(ĴĴᵀ), layer by layer, split into a_c‖x_i‖², a_c = Σ_b (mean_i d_icb)², and the rest."""
        means, rest = [], jnp.zeros(j.layers[0].d.shape[:2], j.layers[0].d.dtype)
        for layer in j.layers:
            mean = jnp.sum(jnp.square(jnp.mean(layer.d, axis=0)), axis=1)  # (k,)
            sizes = jnp.sum(jnp.square(layer.x), axis=1)
            left = jnp.sum(jnp.square(layer.d), axis=2) - mean[None, :]
            left = jnp.maximum(left, 1e-3 * jnp.mean(left, axis=0, keepdims=True))
            means.append(jnp.repeat(mean[:, None], layer.x.shape[1], axis=1))
            rest = rest + sizes[:, None] * left
        x = jnp.concatenate([layer.x for layer in j.layers], axis=1)

        def inner(inverse: Array, a: Array) -> Array:
            square = fl.matmul(x.T * inverse[None, :], x)
            return jax.lax.linalg.cholesky(square + jnp.diag(1 / a))

        return LowRank(x, 1 / rest, jax.vmap(inner)((1 / rest).T, jnp.concatenate(means, axis=1)))

    def solve(self, u: Float[Array, " r"]) -> Float[Array, " r"]:
        """Return the inverse times u."""
        first = u.reshape(self.inverse.shape) * self.inverse

        def correct(factor: Array, column: Array) -> Array:
            return fl.matmul(self.x, cho_solve((factor, True), fl.matmul(self.x.T, column[:, None])))[:, 0]

        return (first - self.inverse * jax.vmap(correct, (0, 1), 1)(self.factor, first)).reshape(-1)

    def minimum_norm(self, j: EvaluatedJacobian, r: Float[np.ndarray, " r"]) -> Step:
        """Return the step at Ĵ."""
        return minimum_norm(j, self, r)


@jax.jit
def minimum_norm(j: EvaluatedJacobian, preconditioner: Factor | LowRank, r: Float[Array, " r"]) -> Step:
    """Return the step at Ĵ."""
    u, _ = cg(
        lambda u: j.mv(j.rmv(u)), r, tol=TOLERANCE, maxiter=preconditioner.iterations, M=preconditioner.solve
    )
    delta = j.rmv(u)
    size = jnp.linalg.norm(r)
    left = jnp.linalg.norm(j.mv(delta) - r) / jnp.where(size > 0, size, 1.0)
    return Step(fl.scaled(delta, -j.exponent), left)


class Point(NamedTuple):
    """Where the method stands: the weights, the scale s, y/s − f(θ; v⁰), and the preconditioner in use."""

    theta: Theta
    scale: float
    r: Float[np.ndarray, " r"]
    preconditioner: Preconditioner

    @property
    def misfit(self) -> float:
        """Return ‖y − f(θ; s·v⁰)‖."""
        return self.scale * _norm(self.r)


class Path(NamedTuple):
    """Where the method ended: the weights and the scale, the history, and whether that is a solution."""

    theta: Theta
    scale: float
    history: dict[str, np.ndarray]
    solved: bool


@dataclass(frozen=True)
class Interpolation:
    """f(θ; s·v⁰) = y with ‖θ − θ⁰‖ ≤ ε, solved as f(θ; v⁰) = y/s, so that no factor is rescaled.

    The vectors are NumPy's: a step compiles what is large, and nothing to add two of them.
    """

    equations: Equations
    y: Float[np.ndarray, " r"]
    start: Theta
    radius: float
    preconditioner: Callable[[EvaluatedJacobian], Preconditioner]

    def solve(self, first: Preconditioner, tolerance: float, steps: int, show: bool | None) -> Path:
        """Return the path: solved where ½‖y − f‖² fell to the tolerance, or to rounding."""
        size, largest = _norm(self.y), float(np.max(np.abs(self.y)))
        goal, floor = math.sqrt(tolerance) * size, 1e-7 * size
        delta, point = self._start(first)
        history = [self._record(point, 0.0)]
        with _printing.bar(steps, show) as advance:
            for step in range(steps):
                advance(step, history[-1]["loss"])
                if not point.misfit > goal:
                    break
                if step:
                    delta, point = self._step(point)
                better, damping = self._damped(point, delta)
                if better is None and point.misfit <= floor:  # the step met rounding, not curvature
                    break
                point = self._rescaled(point) if better is None else better
                history.append(self._record(point, damping))
        columns = {name: np.array([record[name] for record in history]) for name in history[0]}
        solved = point.misfit <= (goal if len(history) > steps else max(goal, floor))
        resolved = largest == 0 or largest / point.scale >= fl.CARRIED  # y/s flushed to 0 leaves no residual
        return Path(point.theta, point.scale, columns, bool(solved and resolved))

    def _start(self, preconditioner: Preconditioner) -> tuple[Theta, Point]:
        """Return the first step and the start, s a power of two that makes its length at most ε/2."""
        delta, point = self._step(Point(self.start, 1.0, self.y, preconditioner))
        growth = max(2 * _norm(delta) / self.radius, 1.0)
        scale = 2.0 ** min(math.ceil(math.log2(growth)), 1000) if math.isfinite(growth) else 2.0**1000
        return delta / scale, point._replace(scale=scale, r=self.y / scale)  # exact

    def _step(self, point: Point) -> tuple[Theta, Point]:
        """Return the minimum-norm step, with a new factor where the old one no longer serves."""
        j = self.equations.jacobian(point.theta)
        delta, left = map(np.asarray, point.preconditioner.minimum_norm(j, point.r))
        if left > 10 * TOLERANCE and point.preconditioner.renewable:
            fresh = self.preconditioner(j)
            if fresh.pivot > 0:
                return np.asarray(fresh.minimum_norm(j, point.r).delta), point._replace(preconditioner=fresh)
        return delta, point

    def _damped(self, point: Point, delta: Theta) -> tuple[Point | None, float]:
        """Return the first damped step that stays in the ball and reduces the residual, or None; its damping."""
        before = _norm(point.r)
        for damping in (1.0, 0.5, 0.25, 0.125):
            theta = point.theta + damping * delta
            if _norm(theta - self.start) > self.radius:
                break
            r = self._residual(theta, point.scale)
            if _norm(r) < (1 - damping / 4) * before:
                return point._replace(theta=theta, r=r), damping
        return None, 0.0

    def _rescaled(self, point: Point) -> Point:
        """Return the point with the scale doubled and the way from the start halved."""
        scale = 2 * point.scale
        theta = self.start + (point.theta - self.start) / 2
        return point._replace(theta=theta, scale=scale, r=self._residual(theta, scale))

    def _residual(self, theta: Theta, scale: float) -> Float[np.ndarray, " r"]:
        return self.y / scale - np.asarray(self.equations.predict(theta))

    def _record(self, point: Point, damping: float) -> dict[str, float]:
        distance, size = _norm(point.theta - self.start), point.misfit
        return {"loss": size * size / 2, "scale": point.scale, "damping": damping, "distance": distance}


def _norm(values: Float[HostArray, " p"]) -> float:
    """Return the Euclidean norm, at any scale."""
    values, exponent = fl.unit(values)
    with np.errstate(over="ignore"):
        return float(np.ldexp(blas.dnrm2(values), exponent))
