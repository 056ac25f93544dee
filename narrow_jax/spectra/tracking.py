"""σ_min along a changing matrix: LOBPCG from the last vector, preconditioned by a kept inverse of JJᵀ.

A ``Tracked`` holds what carries over, in float32 (a preconditioner need not be exact): the inverse of an earlier
K = JJᵀ and the last vector. One look costs a few products with J and the inverse. When the residual does not
come down, the inverse is stale: K is formed and inverted anew.

Reference: Knyazev, "Toward the optimal preconditioned eigensolver" (2001), block size 1.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array, Float
from narrow_jax.linalg import DEVICE, TPU, Device, EvaluatedJacobian, Jacobian, context, isolated, lanczos
from narrow_jax.spectra import derivatives

TOLERANCE = 3e-2
"""Residual ‖Ku − θu‖/θ at which a look ends; the error of θ is of the order of its square."""

STEPS, STEPS_AFTER_REFRESH = 8, 60


class Tracked(NamedTuple):
    """What carries over from look to look.

    Fields:
        inverse: K⁻¹ of an earlier matrix, float32, scaled like it.
        vector: the last left singular vector, float32.
        refreshes: how often the inverse was made.
    """

    inverse: Float[Array, "n n"]
    vector: Float[Array, " n"]
    refreshes: Array


class _Iterate(NamedTuple):
    """u, the last direction, their images under Jᵀ, θ = ‖Jᵀu‖², the residual ‖Ku − θu‖/θ, and the step."""

    u: Array
    direction: Array
    image: Array
    direction_image: Array
    theta: Array
    residual: Array
    gradient: Array
    step: Array


def start(rows: int, columns: int | None = None) -> Tracked:
    """Return a state without knowledge: the first look refreshes it. Of more rows than columns nothing is tracked."""
    rows = 0 if columns is not None and rows > columns else rows
    return Tracked(
        jnp.zeros((rows, rows), jnp.float32), jnp.ones(rows, jnp.float32), jnp.zeros((), jnp.int32)
    )


def look(tracked: Tracked, J: Jacobian) -> tuple[Tracked, Array]:
    """Return the state after a look at J, and ‖Jᵀu‖, an upper bound of σ_min(J) up to its own rounding.

    NaN where the iteration neither settles nor comes down to rounding; 0 for more rows than columns. Differentiable
    like σ_min.
    """
    if J.shape[0] > J.shape[1]:
        return tracked, jnp.zeros((), float)
    lasting = context.ambient()
    program = context.by_platform(_program(lasting), _program(context.SINGLE, TPU, "float32"))
    state, *triple = program(tracked, J)
    return state, derivatives.follow(J, triple[0], *triple)


@functools.cache
def _program(lasting: Any, algebra: Device = DEVICE, dtype: str = "float64") -> Any:
    def run(tracked: Tracked, J: Jacobian) -> Any:
        j = J.evaluate(dtype)
        inverse, vector = (leaf.astype(dtype) for leaf in tracked[:2])
        near = _lobpcg(j, inverse, vector, STEPS)
        settled = (near.residual < TOLERANCE) & (tracked.refreshes > 0)  # false for NaN
        inverse, last, refreshed, noise = jax.lax.cond(
            settled,
            lambda: (inverse, near, jnp.zeros((), jnp.int32), jnp.zeros((), dtype)),
            lambda: _refresh(algebra, j),
        )
        known = (last.residual < TOLERANCE) | (last.theta <= noise)
        value = jnp.where(known, jnp.ldexp(jnp.sqrt(last.theta), j.exponent), jnp.nan)
        state = Tracked(
            inverse.astype(jnp.float32), last.u.astype(jnp.float32), tracked.refreshes + refreshed
        )
        right = last.image / jnp.linalg.norm(last.image)
        return state, *(number.astype(lasting) for number in (value, last.u, right))

    return isolated(jax.jit(run), dtype == "float64")


def _refresh(algebra: Device, j: EvaluatedJacobian) -> tuple[Array, _Iterate, Array, Array]:
    """Return a new inverse, the iterate from a drawn vector, that this was one, and the rounding of θ."""
    gram = j.gram(algebra).matrix
    lower, size = jnp.tril(gram), gram.shape[0]
    # the shift keeps the factorisation going where K is singular to rounding
    shift = 4 * size * jnp.finfo(gram.dtype).eps * jnp.max(jnp.diagonal(gram))
    inverse = algebra.inverse(lower + shift * jnp.eye(size, dtype=gram.dtype))
    # not the last vector, which could be a singular vector of another value, and not a known one either
    vector = inverse @ lanczos.drawn(jnp.sum(inverse, axis=1))
    return inverse, _lobpcg(j, inverse, vector, STEPS_AFTER_REFRESH), jnp.ones((), jnp.int32), shift


def _lobpcg(j: EvaluatedJacobian, inverse: Array, vector: Array, steps: int) -> _Iterate:
    """Minimise ‖Jᵀu‖²/‖u‖² over span{u, K̃⁻¹r, last direction}, until the residual settles or steps run out."""

    def begin() -> _Iterate:
        u = vector / jnp.linalg.norm(vector)
        image = j.rmv(u)
        zero = jnp.zeros_like
        return _measured(j, u, zero(u), image, zero(image), jnp.zeros((), jnp.int32))

    def unsettled(it: _Iterate) -> Array:
        return (it.step < steps) & ~(it.residual < TOLERANCE)

    def step(it: _Iterate) -> _Iterate:
        basis, images = [it.u], [it.image]
        for raw, raw_image in ((inverse @ it.gradient, None), (it.direction, it.direction_image)):
            vector, image = _orthonormal(j, raw, raw_image, basis, images)
            basis.append(vector)
            images.append(image)
        s, g = jnp.stack(basis), jnp.stack(images)
        empty = jnp.sum(s * s, axis=1) == 0  # no direction yet: kept out of the smallest eigenvector
        t = g @ g.T
        t = t + jnp.diag(jnp.where(empty, 4 * jnp.trace(t) + 1, 0.0))
        y = jnp.linalg.eigh(t)[1][:, 0]
        y_side = y.at[0].set(0.0)
        return _measured(j, y @ s, y_side @ s, y @ g, y_side @ g, it.step + 1)

    return jax.lax.while_loop(unsettled, step, begin())


def _measured(
    j: EvaluatedJacobian, u: Array, direction: Array, image: Array, side: Array, step: Array
) -> _Iterate:
    theta = jnp.sum(image**2) / jnp.sum(u**2)
    gradient = j.mv(image) - theta * u
    residual = jnp.linalg.norm(gradient) / theta
    return _Iterate(u, direction, image, side, theta, residual, gradient, step)


def _orthonormal(
    j: EvaluatedJacobian, vector: Array, image: Array | None, basis: list[Array], images: list[Array]
) -> tuple[Array, Array]:
    """Return the vector made orthonormal to the basis, and its image; zero if nothing is left of it."""
    size = jnp.linalg.norm(vector)
    vector = vector / jnp.where(size > 0, size, 1.0)
    image = j.rmv(vector) if image is None else image / jnp.where(size > 0, size, 1.0)
    for _ in range(2):  # twice is enough
        for other, other_image in zip(basis, images, strict=True):
            overlap = jnp.sum(other * vector)
            vector, image = vector - overlap * other, image - overlap * other_image
    left = jnp.linalg.norm(vector)
    scale = jnp.where(left > 1e-10, 1 / jnp.where(left > 1e-10, left, 1.0), 0.0)
    return vector * scale, image * scale
