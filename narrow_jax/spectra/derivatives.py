"""Derivatives of singular values and vectors, of any order, from ``J.bilinear`` alone.

    dσ = uᵀ dJ p,   (σ²I − JJᵀ) du = σ dJ p + J dJᵀu − 2σ dσ u for du ⟂ u,   σ dp = Jᵀdu + dJᵀu − dσ p;

for more rows than columns u and p change places. Numbers and vectors come in as computed in float64. What is
differentiated runs in the dtype of the weights, outside of any float64 context, where a transpose would run anyway.
Nothing is solved where only first derivatives of σ are asked.

Reference: Stewart and Sun, Matrix Perturbation Theory (1990), section IV.2; Magnus, "On differentiating eigenvalues and
eigenvectors" (1985).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array
from narrow_jax.linalg import DEVICE, TPU, Device, Jacobian, context, isolated
from narrow_jax.linalg import rounding as fl


@jax.custom_jvp
def follow(J: Any, number: Array, sigma: Array, u: Array, p: Array) -> Array:
    """Return ``number``, whose derivatives are those of the singular value σ of J with the vectors u and p."""
    return number


@follow.defjvp
def _follow_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    J, number, *triple = primals
    u, p = (vector.astype(J.dtype) for vector in vectors(J, *triple))
    slope = jax.jvp(lambda J: J.bilinear(u, p), (J,), (tangents[0],))[1]
    return follow(J, number, *triple), slope.astype(number.dtype)


@jax.custom_jvp
def vectors(J: Any, sigma: Array, u: Array, p: Array) -> tuple[Array, Array]:
    """Return u and p as functions of J; their derivatives are NaN where σ is not distinct from all others."""
    return u, p


@vectors.defjvp
def _vectors_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    J, sigma, *given = primals
    pair = vectors(J, sigma, *given)
    u, p = (vector.astype(J.dtype) for vector in pair)
    sigma = follow(J, sigma, sigma, *given).astype(J.dtype)
    a, b = (jax.jvp(f, (J,), (tangents[0],))[1] for f in (lambda J: _mv(J, p), lambda J: _rmv(J, u)))
    slope = jnp.vdot(u, a)
    a, b = a - slope * u, b - slope * p
    if J.shape[0] <= J.shape[1]:
        du = _solve(J, sigma, u, sigma * a + _mv(J, b))
        dp = (_rmv(J, du) + b) / sigma
    else:
        dp = _solve(J, sigma, p, sigma * b + _rmv(J, a))
        du = (_mv(J, dp) + a) / sigma
    return pair, tuple(moved.astype(vector.dtype) for moved, vector in zip((du, dp), pair, strict=True))


def _mv(J: Jacobian, p: Array) -> Array:
    return jax.grad(lambda u: J.bilinear(u, p))(jnp.zeros(J.shape[0], p.dtype))


def _rmv(J: Jacobian, u: Array) -> Array:
    return jax.grad(lambda p: J.bilinear(u, p))(jnp.zeros(J.shape[1], u.dtype))


def _solve(J: Jacobian, sigma: Array, w: Array, b: Array) -> Array:
    """Return y ⟂ w with (σ²I − AAᵀ)y = b ⟂ w, for A = J or Jᵀ, the one with no more rows than columns.

    With σ²wwᵀ added the matrix is regular; ``custom_linear_solve`` differentiates the equation instead of the solution.
    """
    wide = J.shape[0] <= J.shape[1]

    def product(y: Array) -> Array:
        square = _mv(J, _rmv(J, y)) if wide else _rmv(J, _mv(J, y))
        return sigma**2 * (y + w * jnp.vdot(w, y)) - square

    def solve(_: Callable[[Array], Array], y: Array) -> Array:
        program = context.by_platform(_complement(b.dtype), _complement(context.SINGLE, TPU, "float32"))
        basis, inverse = program(J, w)  # here: a derivative that nobody takes costs nothing
        return _apply(basis, inverse * _apply(basis.T, y))

    return jax.lax.custom_linear_solve(product, b, solve, symmetric=True)


def _apply(matrix: Array, y: Array) -> Array:
    return fl.matmul(matrix, y[:, None])[:, 0]


@functools.cache
def _complement(lasting: Any, algebra: Device = DEVICE, dtype: str = "float64") -> Any:
    """Return (J, w) ↦ W and g with (σ²(I + wwᵀ) − AAᵀ)⁻¹ = W diag(g) Wᵀ, NaN where σ is not distinct."""

    def run(J: Jacobian, w: Array) -> tuple[Array, Array]:
        j = J.evaluate(dtype)
        if j.shape[0] > j.shape[1]:
            j = j.transposed()
        factor, _ = algebra.triangle(j.block, j.block_count, j.shape[0])
        basis, values = algebra.decompose(factor)
        others = _apply(basis.T, w.astype(basis.dtype)) ** 2 < 0.5  # all but the one that w is
        sigma = jnp.sum(jnp.where(others, 0.0, values))
        apart = jnp.min(jnp.abs(sigma - values), where=others, initial=jnp.inf)
        gap = jnp.where(others, (sigma - values) * (sigma + values), sigma**2)
        unit = float(jnp.finfo(dtype).eps) / 2
        distinct = (apart > 16 * max(j.shape) * unit * values[0]) & ~jnp.all(others)
        inverse = jnp.ldexp(1 / jnp.where(distinct, gap, jnp.nan), -2 * j.exponent)
        return basis.astype(lasting), inverse.astype(lasting)

    return isolated(run, dtype == "float64")
