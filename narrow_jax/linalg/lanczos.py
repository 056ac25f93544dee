"""The largest eigenpair of a symmetric positive operator by Lanczos with full reorthogonalisation.

With A = K⁻¹ = L⁻ᵀL⁻¹ it is the smallest eigenpair of K. It stops when the residual says so: res²/(gap·θ) bounds the
relative error of the Ritz value. Two forms of one iteration: on the host, with SciPy's BLAS, and in JAX.

The residual speaks of what the first vector reaches, so that a matrix made for a known vector would hide an eigenvector
from it. The first vector is therefore drawn from all bits of A·start, and where the iteration breaks down, in an
invariant subspace, it goes on with a drawn vector orthogonal to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import blas, eigh_tridiagonal

from narrow_jax._typing import Array, Float, HostArray
from narrow_jax.linalg.algebra import Ritz

MAX_STEPS = 120
CHECK_EVERY = 4
_BREAKDOWN = 2.0**-46
_DISTINCT = 1 - 2.0**-40
"""Ritz values closer than this are copies of one eigenvalue, found after a breakdown."""


def start_vector(rows: int) -> np.ndarray:
    """Return a fixed unit vector without structure: fractional parts of i²√2."""
    vector = np.modf(np.square(np.arange(1.0, rows + 1)) * np.sqrt(2.0))[0] - 0.5
    return vector / np.linalg.norm(vector)


def drawn(values: Any, count: Any = 0) -> Any:
    """Return entries in [−½, ½) that all bits of ``values`` decide, the ``count``-th such vector of the same shape.

    Example:
        >>> ones = np.ones(3)
        >>> bool(np.all(drawn(ones) == drawn(ones))), bool(np.all(drawn(ones) == drawn(ones, 1)))
        (True, False)
    """
    xp = jnp if isinstance(values, jax.Array) else np
    words = (
        jax.lax.bitcast_convert_type(values, jnp.uint32).reshape(-1) if xp is jnp else values.view(np.uint32)
    )
    seed = xp.sum(_mixed(words ^ _mixed(xp.arange(words.size, dtype=np.uint32))), dtype=np.uint32)
    offset = xp.asarray(count, np.uint32) * np.uint32(values.size)
    index = xp.arange(values.size, dtype=np.uint32) + offset
    return _mixed(_mixed(index) + seed).astype(values.dtype) * 2.0**-32 - 0.5


def _mixed(words: Any) -> Any:
    """Return 32-bit words mixed so that each bit depends on all (Wellons' triple of xorshifts and products)."""
    words = (words ^ (words >> np.uint32(16))) * np.uint32(0x7FEB352D)
    words = (words ^ (words >> np.uint32(15))) * np.uint32(0x846CA68B)
    return words ^ (words >> np.uint32(16))


def host(apply: Callable[[np.ndarray], np.ndarray], start: np.ndarray, tolerance: float) -> Ritz:
    """Return the largest eigenpair of ``apply``, all on the host.

    Args:
        apply: v ↦ Av.
        start: a vector that A maps to another, from which the first one is drawn.
        tolerance: stop at res²/(gap·θ) below this.

    Returns:
        The Ritz pair after at most MAX_STEPS steps.
    """
    rows = start.size
    steps = min(rows, MAX_STEPS)
    basis = np.zeros((rows, steps), order="F")
    diagonal, off = np.zeros(steps), np.zeros(steps)
    image = np.ascontiguousarray(apply(start))
    vector, whole = drawn(image), False
    basis[:, 0] = vector / blas.dnrm2(vector)
    for k in range(steps):
        kept = basis[:, : k + 1]
        diagonal[k], w = _orthogonal(kept, apply(basis[:, k]))
        off[k] = blas.dnrm2(w)
        broken = not off[k] > _BREAKDOWN * np.max(np.abs(diagonal))
        last = k + 1 == steps
        if last or ((k + 1) % CHECK_EVERY == 0 and (whole or not broken)):
            values, vectors = eigh_tridiagonal(diagonal[: k + 1], off[:k])
            residual = 0.0 if k + 1 == rows or broken else off[k] * abs(vectors[-1, -1])
            first, second = values[-1], np.max(values, where=values < _DISTINCT * values[-1], initial=0.0)
            # relatively, since the square of an eigenvalue of an inverse may overflow
            size = max(abs(first), np.finfo(float).tiny)
            error = (residual / size) ** 2 / max(1 - second / size, 2.0**-60)
            if last or error < tolerance:
                break
        if broken:
            off[k], whole = 0.0, True
            w = _orthogonal(kept, drawn(image, k + 1))[1]
        basis[:, k + 1] = w / blas.dnrm2(w)
    vector = blas.dgemv(1.0, kept, vectors[:, -1])
    return Ritz(vector / blas.dnrm2(vector), first, second, bool(error < tolerance))


def _orthogonal(basis: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the component of w along the last vector of the basis, and w made orthogonal to all."""
    along = blas.ddot(basis[:, -1], w)
    for _ in range(2):  # twice is enough
        w = blas.dgemv(-1.0, basis, blas.dgemv(1.0, basis, w, trans=1), beta=1.0, y=w)
    return along, w


class _State(NamedTuple):
    step: Array
    basis: Float[Array, "s n"]
    diagonal: Float[Array, " s"]
    off: Float[Array, " s"]
    ritz: Ritz
    whole: Array
    done: Array


def device(apply: Callable[[Array], Array], start: Array, tolerance: float) -> Ritz:
    """Return the largest eigenpair of ``apply`` as a ``lax.while_loop``: arguments and result as for ``host``."""
    rows = start.size
    steps = min(rows, MAX_STEPS)
    zeros, zero, no = jnp.zeros(steps, start.dtype), jnp.zeros((), start.dtype), jnp.array(False)
    image = apply(start)
    vector = drawn(image)
    basis = jnp.pad((vector / jnp.linalg.norm(vector))[None], ((0, steps), (0, 0)))
    state = _State(jnp.int32(0), basis, zeros, zeros, Ritz(zeros, zero, zero, no), no, no)
    number = jnp.arange(steps, dtype=jnp.int32)

    def orthogonal(basis: Array, w: Array) -> Array:
        twice = np.int32(0), np.int32(2)  # twice is enough; typed, since XLA lowers where x64 may be off
        return jax.lax.fori_loop(*twice, lambda _, w: w - _tall(basis.T, _tall(basis, w)), w)

    def step(state: _State) -> _State:
        k = state.step
        v = jax.lax.dynamic_index_in_dim(state.basis, k, keepdims=False)
        w = apply(v)
        diagonal = jnp.where(number == k, jnp.vdot(v, w), state.diagonal)
        w = orthogonal(state.basis, w)
        off = jnp.linalg.norm(w)
        broken = ~(off > _BREAKDOWN * jnp.max(jnp.abs(diagonal)))
        off = jnp.where(broken, 0.0, off)
        last = k + 1 == steps
        ritz = jax.lax.cond(
            last | (((k + 1) % CHECK_EVERY == 0) & (state.whole | ~broken)),
            lambda: _ritz(diagonal, state.off, k, jnp.where(k + 1 == rows, 0.0, off), tolerance),
            lambda: state.ritz,
        )
        w = jax.lax.cond(broken, lambda: orthogonal(state.basis, drawn(image, k + 1)), lambda: w)
        size = jnp.linalg.norm(w)
        following = w / jnp.where(size > 0, size, 1.0)
        return _State(
            k + 1,
            jax.lax.dynamic_update_index_in_dim(state.basis, following, k + 1, 0),
            diagonal,
            jnp.where(number == k, off, state.off),
            ritz,
            state.whole | broken,
            last | ritz.converged,
        )

    state = jax.lax.while_loop(lambda state: ~state.done, step, state)
    vector = _tall(state.basis[:-1].T, state.ritz.vector)
    return state.ritz._replace(vector=vector / jnp.linalg.norm(vector))


def _ritz(diagonal: Array, off: Array, k: Array, residual: Array, tolerance: float) -> Ritz:
    """The top Ritz pair of the leading block: rows not yet filled are eigenvalue 0, below all others."""
    number = jnp.arange(diagonal.size, dtype=jnp.int32)
    row, column = number[:, None], number[None, :]
    lower = jnp.where(row == column, diagonal[:, None], jnp.where(row == column + 1, off[None, :], 0.0))
    values, vectors = jnp.linalg.eigh(lower, symmetrize_input=False)
    first = values[-1]
    second = jnp.max(values, where=values < _DISTINCT * first, initial=0.0)
    last = jax.lax.dynamic_index_in_dim(vectors[:, -1], k, keepdims=False)
    error = (residual * last) ** 2 / jnp.maximum((first - second) * first, jnp.finfo(first.dtype).tiny)
    return Ritz(vectors[:, -1], first, second, error < tolerance)


def _tall(a: Array, v: HostArray) -> Array:
    return jnp.matmul(a, v, precision=jax.lax.Precision.HIGHEST)
