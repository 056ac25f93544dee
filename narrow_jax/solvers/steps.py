"""Minimum-norm steps δ = Jᵀ(JJᵀ)⁻¹r of a pairwise net by preconditioned conjugate gradients.

Products use X and D alone. The preconditioner is a Cholesky factor of JJᵀ at some earlier point (exact there, so that
one iteration is enough), or, where n·k is too large for it, a diagonal plus the part of rank d of the mean slope.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jax.scipy.sparse.linalg import cg

from narrow_jax._typing import Array, Float
from narrow_jax.activations import Activation
from narrow_jax.linalg import rounding as fl

TOLERANCE = 1e-8
"""Relative residual of the linear solve: each Newton step gains at most its square in the loss."""

SHIFT = 1e-6
"""What a float32 factor adds to each entry of the diagonal, relatively: rounding there costs definiteness."""


class Slopes(NamedTuple):
    """J at one point: row (i, c), column (a, j) is x_ia d_icj."""

    x: Float[Array, "n d"]
    d: Float[Array, "n k m"]


class Factor(NamedTuple):
    """A Cholesky factor of JJᵀ; the strict upper triangle is 0."""

    lower: Float[Array, "r r"]


class LowRank(NamedTuple):
    """For each output c the matrix a_c XXᵀ + diag(b_c), inverted by Woodbury's formula: x, 1/b, a factor."""

    x: Float[Array, "n d"]
    inverse: Float[Array, "n k"]
    factor: Float[Array, "k d d"]


Preconditioner = Factor | LowRank


@jax.jit(static_argnames="activation")
def slopes(
    x: Float[Array, "n d"], w: Float[Array, "d m"], v: Float[Array, "h k"], activation: Activation
) -> Slopes:
    """Return the factors of J(w; v)."""
    signed = jnp.concatenate([v, -v])
    return Slopes(x, activation.derivative(fl.matmul(x, w))[:, None, :] * signed.T[None, :, :])


def mv(j: Slopes, p: Float[Array, "d m"]) -> Float[Array, " r"]:
    """Return Jp."""
    return jnp.sum(fl.matmul(j.x, p)[:, None, :] * j.d, axis=2).reshape(-1)


def rmv(j: Slopes, u: Float[Array, " r"]) -> Float[Array, "d m"]:
    """Return Jᵀu."""
    return fl.matmul(j.x.T, jnp.sum(j.d * u.reshape(j.d.shape[:2])[:, :, None], axis=1))


@jax.jit(static_argnames="dtype")
def factorize(j: Slopes, dtype: str) -> tuple[Factor, Array]:
    """Return the Cholesky factor of JJᵀ and its smallest pivot over the diagonal entry; NaN where it broke off."""
    n, k, m = j.d.shape
    x, d = j.x.astype(dtype), j.d.reshape(n * k, m).astype(dtype)
    inputs = fl.matmul(x, x.T)[:, None, :, None]
    gram = (inputs * fl.matmul(d, d.T).reshape(n, k, n, k)).reshape(n * k, n * k)
    diagonal = jnp.diag(gram)
    if dtype == "float32":
        gram = gram + jnp.diag(SHIFT * diagonal)
    lower = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
    pivots = jnp.square(jnp.diag(lower)) / diagonal
    return Factor(lower), jnp.min(pivots)


@jax.jit
def low_rank(j: Slopes) -> LowRank:
    """Return diag(JJᵀ) split into a_c‖x_i‖², a_c = Σ_j (mean_i d_icj)², and the rest."""
    mean = jnp.sum(jnp.square(jnp.mean(j.d, axis=0)), axis=1)  # (k,)
    sizes = jnp.sum(jnp.square(j.x), axis=1)
    rest = jnp.sum(jnp.square(j.d), axis=2) - mean[None, :]
    rest = sizes[:, None] * jnp.maximum(rest, 1e-3 * jnp.mean(rest, axis=0, keepdims=True))

    def inner(inverse: Array, a: Array) -> Array:
        square = fl.matmul(j.x.T * inverse[None, :], j.x)
        return jax.lax.linalg.cholesky(square + jnp.eye(square.shape[0]) / a)

    return LowRank(j.x, 1 / rest, jax.vmap(inner)((1 / rest).T, mean))


def precondition(p: Preconditioner, u: Float[Array, " r"]) -> Float[Array, " r"]:
    """Return the preconditioner's inverse times u."""
    if isinstance(p, Factor):
        return cho_solve((p.lower, True), u.astype(p.lower.dtype)).astype(u.dtype)
    first = u.reshape(p.inverse.shape) * p.inverse

    def correct(factor: Array, column: Array) -> Array:
        return fl.matmul(p.x, cho_solve((factor, True), fl.matmul(p.x.T, column[:, None])))[:, 0]

    return (first - p.inverse * jax.vmap(correct, (0, 1), 1)(p.factor, first)).reshape(-1)


@jax.jit(static_argnames="iterations")
def minimum_norm(j: Slopes, p: Preconditioner, r: Any, iterations: int) -> tuple[Array, Array]:
    """Return δ = Jᵀ(JJᵀ)⁻¹r, of the shape of w, and the relative residual ‖Jδ − r‖/‖r‖ that is left."""
    u, _ = cg(
        lambda u: mv(j, rmv(j, u)), r, tol=TOLERANCE, maxiter=iterations, M=lambda u: precondition(p, u)
    )
    delta = rmv(j, u)
    size = jnp.linalg.norm(r)
    return delta, jnp.linalg.norm(mv(j, delta) - r) / jnp.where(size > 0, size, 1.0)
