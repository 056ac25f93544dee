"""The largest eigenpair of a symmetric positive operator by Lanczos with full reorthogonalisation.

With A = K⁻¹ = L⁻ᵀL⁻¹ it is the smallest eigenpair of K. It stops when the residual says so: res²/(gap·θ) bounds the
relative error of the Ritz value. Two forms of one iteration: on the host, with SciPy's BLAS, and in JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import blas, eigh_tridiagonal

from narrow_jax._typing import Array, Float

MAX_STEPS = 120
CHECK_EVERY = 4
_BREAKDOWN = 2.0**-46


class Ritz(NamedTuple):
    """A unit vector, its Ritz value, the next one (0 where there is none), and whether the residual is small."""

    vector: Any
    first: Any
    second: Any
    converged: Any


def start_vector(rows: int) -> np.ndarray:
    """Return a fixed unit vector without structure: fractional parts of i²√2."""
    vector = np.modf(np.square(np.arange(1.0, rows + 1)) * np.sqrt(2.0))[0] - 0.5
    return vector / np.linalg.norm(vector)


def host(apply: Callable[[np.ndarray], np.ndarray], start: np.ndarray, tolerance: float) -> Ritz:
    """Return the largest eigenpair of ``apply``, all on the host.

    Args:
        apply: v ↦ Av.
        start: first vector.
        tolerance: stop at res²/(gap·θ) below this.

    Returns:
        The Ritz pair after at most MAX_STEPS steps.
    """
    rows = start.size
    steps = min(rows, MAX_STEPS)
    basis = np.zeros((rows, steps), order="F")
    diagonal, off = np.zeros(steps), np.zeros(steps)
    basis[:, 0] = start / blas.dnrm2(start)
    for k in range(steps):
        w = apply(basis[:, k])
        diagonal[k] = blas.ddot(basis[:, k], w)
        kept = basis[:, : k + 1]
        for _ in range(2):
            w = blas.dgemv(-1.0, kept, blas.dgemv(1.0, kept, w, trans=1), beta=1.0, y=w)
        off[k] = blas.dnrm2(w)
        last = k + 1 == steps or not off[k] > _BREAKDOWN * np.max(np.abs(diagonal))
        if last or (k + 1) % CHECK_EVERY == 0:
            values, vectors = eigh_tridiagonal(diagonal[: k + 1], off[:k])
            residual = 0.0 if k + 1 == rows or (last and k + 1 < steps) else off[k] * abs(vectors[-1, -1])
            second = values[-2] if k else 0.0
            error = residual * residual / max((values[-1] - second) * values[-1], np.finfo(float).tiny)
            if last or error < tolerance:
                break
        basis[:, k + 1] = w / off[k]
    vector = blas.dgemv(1.0, kept, vectors[:, -1])
    return Ritz(vector / blas.dnrm2(vector), values[-1], second, bool(error < tolerance))


class _State(NamedTuple):
    step: Array
    basis: Float[Array, "s n"]
    diagonal: Float[Array, " s"]
    off: Float[Array, " s"]
    ritz: Ritz
    done: Array


def device(apply: Callable[[Array], Array], start: Array, tolerance: float) -> Ritz:
    """Return the largest eigenpair of ``apply`` as a ``lax.while_loop``: arguments and result as for ``host``."""
    rows = start.size
    steps = min(rows, MAX_STEPS)
    zeros, zero = jnp.zeros(steps, start.dtype), jnp.zeros((), start.dtype)
    basis = jnp.zeros((steps + 1, rows), start.dtype).at[0].set(start / jnp.linalg.norm(start))
    state = _State(
        jnp.array(0), basis, zeros, zeros, Ritz(zeros, zero, zero, jnp.array(False)), jnp.array(False)
    )
    number = jnp.arange(steps)

    def step(state: _State) -> _State:
        k = state.step
        v = jax.lax.dynamic_index_in_dim(state.basis, k, keepdims=False)
        w = apply(v)
        diagonal = jnp.where(number == k, jnp.vdot(v, w), state.diagonal)
        w = jax.lax.fori_loop(0, 2, lambda _, w: w - _tall(state.basis.T, _tall(state.basis, w)), w)
        off = jnp.linalg.norm(w)
        broken = ~(off > _BREAKDOWN * jnp.max(jnp.abs(diagonal)))
        last = (k + 1 == steps) | broken
        exact = broken | (k + 1 == rows)
        ritz = jax.lax.cond(
            last | ((k + 1) % CHECK_EVERY == 0),
            lambda: _ritz(diagonal, state.off, k, jnp.where(exact, 0.0, off), tolerance),
            lambda: state.ritz,
        )
        basis = jax.lax.dynamic_update_index_in_dim(state.basis, w / jnp.where(off > 0, off, 1.0), k + 1, 0)
        return _State(
            k + 1, basis, diagonal, jnp.where(number == k, off, state.off), ritz, last | ritz.converged
        )

    state = jax.lax.while_loop(lambda state: ~state.done, step, state)
    vector = _tall(state.basis[:-1].T, state.ritz.vector)
    return state.ritz._replace(vector=vector / jnp.linalg.norm(vector))


def _ritz(diagonal: Array, off: Array, k: Array, residual: Array, tolerance: float) -> Ritz:
    """The top Ritz pair of the leading block: rows not yet filled are eigenvalue 0, below all others."""
    row, column = jnp.arange(diagonal.size)[:, None], jnp.arange(diagonal.size)[None, :]
    lower = jnp.where(row == column, diagonal[:, None], jnp.where(row == column + 1, off[None, :], 0.0))
    values, vectors = jnp.linalg.eigh(lower, symmetrize_input=False)
    first, second = values[-1], values[-2] if values.size > 1 else jnp.zeros((), values.dtype)
    last = jax.lax.dynamic_index_in_dim(vectors[:, -1], k, keepdims=False)
    error = (residual * last) ** 2 / jnp.maximum((first - second) * first, jnp.finfo(first.dtype).tiny)
    return Ritz(vectors[:, -1], first, jnp.maximum(second, 0.0), error < tolerance)


def _tall(a: Array, v: Array) -> Array:
    return jnp.matmul(a, v, precision=jax.lax.Precision.HIGHEST)
