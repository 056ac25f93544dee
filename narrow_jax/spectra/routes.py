"""The two routes to the smallest singular value, and the choice between them."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from narrow_jax import _rounding as fl
from narrow_jax._operators import EvaluatedJacobian, Gram
from narrow_jax._typing import Array, Float
from narrow_jax.spectra import enclosure
from narrow_jax.spectra.result import DENSE, GRAM, QR

TOLERANCE = 1e-16
"""Lanczos stops here: the value is then exact to rounding, and one more inverse step does the same for C."""

EXCESS = 2e-14
"""A Gram enclosure is kept if B, C and β cost at most this times σ_max: the aim is a width of 1e-13·σ_max."""


class Found(NamedTuple):
    """What a route found, in the scale of the evaluated matrix.

    Args:
        value: ‖Ĵᵀu‖.
        lower: proven for Ĵ; 0 where nothing is.
        upper: proven for Ĵ; infinite where nothing is.
        vector: u.
        right: Ĵᵀu/ν.
        reliable: the value is as accurate as the accurate route would give it.
        sharp: the interval is as narrow as the accurate route would give it.
        method_code: which route.
    """

    value: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    vector: Float[Array, " n"]
    right: Float[Array, " p"]
    reliable: Array
    sharp: Array
    method_code: Array


def find(
    algebra: ModuleType, j: EvaluatedJacobian, gram: Gram, sigma_max: Any, method: str, certify: bool
) -> Found:
    """Return the smallest singular value by a route, or by the one that the measurements choose.

    Args:
        algebra: ``host`` or ``device``.
        j: the evaluated matrix, no more rows than columns.
        gram: its Gram matrix.
        sigma_max: its largest singular value, about.
        method: "auto", "gram", "qr" or "dense".
        certify: whether to prove bounds.
    """
    if method in ("qr", "dense"):
        return triangular_route(algebra, j, gram, sigma_max, method, certify)
    fast = gram_route(algebra, j, gram, sigma_max, certify)
    if method == "gram":
        return fast

    def accurate() -> Found:
        slow = triangular_route(algebra, j, gram, sigma_max, "qr", certify)
        lower, upper = jnp.maximum(slow.lower, fast.lower), jnp.minimum(slow.upper, fast.upper)
        return slow._replace(lower=lower, upper=upper, value=jnp.clip(slow.value, lower, upper))

    return algebra.cond(fast.sharp if certify else fast.reliable, lambda: fast, accurate)


def gram_route(algebra: ModuleType, j: EvaluatedJacobian, gram: Gram, sigma_max: Any, certify: bool) -> Found:
    """The vector from a Cholesky factor of K̂ and Lanczos on its inverse, the value from ‖Ĵᵀu‖."""
    rows = j.shape[0]
    factor, completed = algebra.cholesky(gram.matrix)
    ritz = algebra.smallest(factor, TOLERANCE)
    pair = (enclosure.measure if certify else enclosure.measure_roughly)(j, ritz.vector)
    beta = jnp.zeros_like(pair.value)
    lower = beta
    if certify:
        beta = algebra.cond(
            completed,
            lambda: enclosure.separation(algebra, gram, pair.vector, ritz, rows),
            lambda: beta,
        )
        lower = enclosure.best_lower_bound(algebra, j, factor, pair, beta, rounds=1)
    trusted = jnp.asarray(completed & ritz.converged)
    return _judge(pair, lower, gram.majorant, gram.error, ritz.first, ritz.second, sigma_max, trusted)


@jax.jit
def _judge(
    pair: enclosure.Pair,
    lower: Array,
    majorant: Array,
    error: Array,
    first: Array,
    second: Array,
    sigma_max: Array,
    trusted: Array,
) -> Found:
    """Decide from the measured residual and gap whether the Gram route may be believed.

    ``first`` and ``second`` are the largest eigenvalues of K̂⁻¹. The relative error of ν is at most ‖K̂ − K‖/(2λ₁),
    and C²/(2(λ₂ − λ₁)) where λ₁ is isolated from the rest of K̂.
    """
    first, second = enclosure.eigenvalues(first, second)
    rows, unit = pair.vector.size, jnp.finfo(pair.value.dtype).eps / 2
    error = (error + fl.gamma(rows + 3) * majorant) * (unit / fl.UNIT)
    allowed = 10 * unit * sigma_max / jnp.maximum(pair.value, jnp.finfo(pair.value.dtype).tiny)
    gap = second - first
    isolated = (error <= 0.1 * gap) & (jnp.sum(pair.residual**2) <= 2 * allowed * gap) if rows > 1 else True
    reliable = trusted & (isolated | (error <= allowed * first)) & jnp.isfinite(pair.value)
    sharp = (lower > 0) & (pair.upper - lower <= EXCESS * sigma_max + 2 * EXCESS * pair.value)
    method = jnp.asarray(GRAM, jnp.int32)
    return Found(pair.value, lower, pair.upper, pair.vector, pair.right, reliable | sharp, sharp, method)


def triangular_route(
    algebra: ModuleType, j: EvaluatedJacobian, gram: Gram, sigma_max: Any, method: str, certify: bool
) -> Found:
    """The vector from the triangular factor of Jᵀ = QR, taken by column blocks, the value from ‖Ĵᵀu‖."""
    factor, regular = algebra.triangle(j, block)
    if method == "dense":
        ritz = algebra.singular(jnp.concatenate([block(j, i) for i in range(j.block_count)], axis=1))
    else:
        ritz = algebra.cond(
            regular, lambda: algebra.smallest(factor, TOLERANCE), lambda: algebra.singular(factor)
        )
        ritz = algebra.cond(ritz.converged, lambda: ritz, lambda: algebra.singular(factor))
    pair = (enclosure.measure if certify else enclosure.measure_roughly)(j, ritz.vector)
    lower = jnp.zeros_like(pair.value)
    if certify:
        # beyond this condition number ZĴ is not near orthogonal
        worthwhile = jnp.asarray(regular) & (pair.value > 1e-13 * sigma_max)
        lower = algebra.cond(
            worthwhile,
            lambda: enclosure.best_lower_bound(
                algebra,
                j,
                factor,
                pair,
                enclosure.preconditioned(algebra, j, gram, factor, pair.vector, block),
                rounds=2,
            ),
            lambda: lower,
        )
    code = jnp.asarray(DENSE if method == "dense" else QR, jnp.int32)
    return Found(
        pair.value, lower, pair.upper, pair.vector, pair.right, jnp.isfinite(pair.value), lower > 0, code
    )


@jax.jit
def block(j: EvaluatedJacobian, index: Any) -> Array:
    """Return a column block of the evaluated matrix."""
    return j.block(index)
