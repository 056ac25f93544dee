"""Newton's method for f(w; s·v⁰) = y in a ball, a pairwise net from a mirrored start: minimum-norm steps Jᵀ(JJᵀ)⁻¹r.

They come from conjugate gradients, whose products use X and D alone. The preconditioner is a Cholesky factor of JJᵀ at
some earlier point (exact there: one iteration), or, where n·k is too large for it, a diagonal plus the part of rank d
of the mean slope.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jax.scipy.sparse.linalg import cg

from narrow_jax import _progress
from narrow_jax._typing import Array, Float
from narrow_jax.activations import Activation
from narrow_jax.certificates import CARRIED
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import pairwise_apply
from narrow_jax.projections import l2_norm

TOLERANCE = 1e-8
"""Relative residual of the linear solve: each Newton step gains at most its square in the loss."""


class Slopes(NamedTuple):
    """J at one point: row (i, c), column (a, j) is x_ia d_icj.

    Not ``jacobian``'s blocks, which repeat x for each output: the products XP and Xᵀ(·) serve all k outputs here.
    """

    x: Float[Array, "n d"]
    d: Float[Array, "n k m"]

    @staticmethod
    @jax.jit(static_argnames="activation")
    def at(
        x: Float[Array, "n d"], w: Float[Array, "d m"], v: Float[Array, "h k"], activation: Activation
    ) -> Slopes:
        """Return J(w; v)."""
        signed = jnp.concatenate([v, -v])
        return Slopes(x, activation.derivative(fl.matmul(x, w))[:, None, :] * signed.T[None, :, :])

    def mv(self, p: Float[Array, "d m"]) -> Float[Array, " r"]:
        """Return Jp."""
        return jnp.sum(fl.matmul(self.x, p)[:, None, :] * self.d, axis=2).reshape(-1)

    def rmv(self, u: Float[Array, " r"]) -> Float[Array, "d m"]:
        """Return Jᵀu."""
        return fl.matmul(self.x.T, jnp.sum(self.d * u.reshape(self.d.shape[:2])[:, :, None], axis=1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Factor:
    """The Cholesky factor of JJᵀ = (XXᵀ) ∘ (DDᵀ), the strict upper triangle 0, and its smallest pivot.

    The pivot is relative to the diagonal entry, and NaN where the factorisation broke off.
    """

    lower: Float[Array, "r r"]
    pivot: Float[Array, ""]
    iterations: ClassVar[int] = 25  # of conjugate gradients: where it needs more, a new factor is cheaper

    @staticmethod
    @jax.jit(static_argnames="dtype")
    def of(j: Slopes, dtype: str) -> Factor:
        """Return the factor at J."""
        n, k, m = j.d.shape
        x, d = j.x.astype(dtype), j.d.reshape(n * k, m).astype(dtype)
        inputs = fl.matmul(x, x.T)[:, None, :, None]
        gram = (inputs * fl.matmul(d, d.T).reshape(n, k, n, k)).reshape(n * k, n * k)
        diagonal = jnp.diag(gram)
        if dtype == "float32":  # rounding there costs definiteness
            gram = gram + jnp.diag(1e-6 * diagonal)
        lower = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
        return Factor(lower, jnp.min(jnp.square(jnp.diag(lower)) / diagonal))

    def solve(self, u: Float[Array, " r"]) -> Float[Array, " r"]:
        """Return (JJᵀ)⁻¹u."""
        return cho_solve((self.lower, True), u.astype(self.lower.dtype)).astype(u.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRank:
    """For each output c the matrix a_c XXᵀ + diag(b_c), inverted by Woodbury's formula: x, 1/b, a factor."""

    x: Float[Array, "n d"]
    inverse: Float[Array, "n k"]
    factor: Float[Array, "k d d"]
    iterations: ClassVar[int] = 1000
    pivot: ClassVar[float] = 1.0  # it says nothing about the rank of J

    @staticmethod
    @jax.jit
    def of(j: Slopes) -> LowRank:
        """Return diag(JJᵀ) split into a_c‖x_i‖², a_c = Σ_j (mean_i d_icj)², and the rest."""
        mean = jnp.sum(jnp.square(jnp.mean(j.d, axis=0)), axis=1)  # (k,)
        sizes = jnp.sum(jnp.square(j.x), axis=1)
        rest = jnp.sum(jnp.square(j.d), axis=2) - mean[None, :]
        rest = sizes[:, None] * jnp.maximum(rest, 1e-3 * jnp.mean(rest, axis=0, keepdims=True))

        def inner(inverse: Array, a: Array) -> Array:
            square = fl.matmul(j.x.T * inverse[None, :], j.x)
            return jax.lax.linalg.cholesky(square + jnp.eye(square.shape[0]) / a)

        return LowRank(j.x, 1 / rest, jax.vmap(inner)((1 / rest).T, mean))

    def solve(self, u: Float[Array, " r"]) -> Float[Array, " r"]:
        """Return the inverse times u."""
        first = u.reshape(self.inverse.shape) * self.inverse

        def correct(factor: Array, column: Array) -> Array:
            return fl.matmul(self.x, cho_solve((factor, True), fl.matmul(self.x.T, column[:, None])))[:, 0]

        return (first - self.inverse * jax.vmap(correct, (0, 1), 1)(self.factor, first)).reshape(-1)


@jax.jit
def minimum_norm(
    j: Slopes, preconditioner: Factor | LowRank, r: Float[Array, " r"]
) -> tuple[Float[Array, "d m"], Float[Array, ""]]:
    """Return δ = Jᵀ(JJᵀ)⁻¹r, of the shape of w, and the relative residual ‖Jδ − r‖/‖r‖ that is left."""
    u, _ = cg(
        lambda u: j.mv(j.rmv(u)), r, tol=TOLERANCE, maxiter=preconditioner.iterations, M=preconditioner.solve
    )
    delta = j.rmv(u)
    size = jnp.linalg.norm(r)
    return delta, jnp.linalg.norm(j.mv(delta) - r) / jnp.where(size > 0, size, 1.0)


@jax.jit(static_argnames="activation")
def residual(
    w: Float[Array, "d m"],
    v: Float[Array, "h k"],
    x: Float[Array, "n d"],
    y: Float[Array, " r"],
    activation: Activation,
) -> Float[Array, " r"]:
    """Return y − f(w; v), rows (i, c)."""
    return y - pairwise_apply({"w": w, "v": v}, x, activation).reshape(-1)


class Point(NamedTuple):
    """Where the method stands: the weights, the scale s, y/s − f(w; v⁰), and the preconditioner in use."""

    w: Float[Array, "d m"]
    scale: float
    r: Float[Array, " r"]
    preconditioner: Factor | LowRank

    @property
    def misfit(self) -> float:
        """Return ‖y − f(w; s·v⁰)‖."""
        return self.scale * float(l2_norm(self.r))


class Path(NamedTuple):
    """Where the method ended: the weights and the scale, the history, and whether that is a solution."""

    w: Float[Array, "d m"]
    scale: float
    history: dict[str, np.ndarray]
    solved: bool


@dataclass(frozen=True)
class Interpolation:
    """f(w; s·v⁰) = y with ‖w − w⁰‖ ≤ ε, solved as f(w; v⁰) = y/s, so that no factor is rescaled."""

    x: Float[Array, "n d"]
    y: Float[Array, " r"]
    center: dict[str, Array]
    activation: Activation
    radius: float
    preconditioner: Callable[[Slopes], Factor | LowRank]

    def solve(self, first: Factor | LowRank, tolerance: float, steps: int, show: bool | None) -> Path:
        """Return the path: solved where ½‖y − f‖² fell to the tolerance, or to rounding."""
        size, largest = float(l2_norm(self.y)), float(np.max(np.abs(self.y)))
        goal, floor = math.sqrt(tolerance) * size, 1e-7 * size
        delta, point = self._start(first)
        history = [self._record(point, 0.0)]
        with _progress.bar(steps, show) as advance:
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
        resolved = largest == 0 or largest / point.scale >= CARRIED  # y/s flushed to 0 leaves no residual
        return Path(point.w, point.scale, columns, bool(solved and resolved))

    def _start(self, preconditioner: Factor | LowRank) -> tuple[Array, Point]:
        """Return the first step and the start, s a power of two that makes its length at most ε/2."""
        delta, point = self._step(Point(self.center["w"], 1.0, self.y, preconditioner))
        growth = max(2 * float(l2_norm(delta)) / self.radius, 1.0)
        scale = 2.0 ** min(math.ceil(math.log2(growth)), 1000) if math.isfinite(growth) else 2.0**1000
        return delta / scale, point._replace(scale=scale, r=self.y / scale)  # exact

    def _step(self, point: Point) -> tuple[Array, Point]:
        """Return the minimum-norm step, with a new factor where the old one no longer serves."""
        j = Slopes.at(self.x, point.w, self.center["v"], self.activation)
        delta, left = minimum_norm(j, point.preconditioner, point.r)
        if left > 10 * TOLERANCE and isinstance(point.preconditioner, Factor):
            fresh = self.preconditioner(j)
            if fresh.pivot > 0:
                return minimum_norm(j, fresh, point.r)[0], point._replace(preconditioner=fresh)
        return delta, point

    def _damped(self, point: Point, delta: Array) -> tuple[Point | None, float]:
        """Return the first damped step that stays in the ball and reduces the residual, or None; its damping."""
        before = float(l2_norm(point.r))
        for damping in (1.0, 0.5, 0.25, 0.125):
            w = point.w + damping * delta
            if float(l2_norm(w - self.center["w"])) > self.radius:
                break
            r = self._residual(w, point.scale)
            if float(l2_norm(r)) < (1 - damping / 4) * before:
                return point._replace(w=w, r=r), damping
        return None, 0.0

    def _rescaled(self, point: Point) -> Point:
        """Return the point with the scale doubled and the way from the start halved."""
        w0, scale = self.center["w"], 2 * point.scale
        w = w0 + (point.w - w0) / 2
        return point._replace(w=w, scale=scale, r=self._residual(w, scale))

    def _residual(self, w: Array, scale: float) -> Array:
        return residual(w, self.center["v"], self.x, self.y / scale, self.activation)

    def _record(self, point: Point, damping: float) -> dict[str, float]:
        distance, size = float(l2_norm(point.w - self.center["w"])), point.misfit
        return {"loss": size * size / 2, "scale": point.scale, "damping": damping, "distance": distance}
