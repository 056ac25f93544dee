"""The two routes to the smallest singular value, and the choice between them."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array, Float
from narrow_jax.linalg import EvaluatedJacobian, Gram, lanczos
from narrow_jax.linalg import rounding as fl
from narrow_jax.spectra import enclosure
from narrow_jax.spectra.result import DENSE, GRAM, QR

TOLERANCE = 1e-16
"""Lanczos stops here: the value is then exact to rounding, and one more inverse step does the same for C."""

LOOSE = 1e-11
"""An interval wider than this times σ_max, where one can be proven, says that the vector is not that of σ_min."""

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
        sharp: the interval is as narrow as the route can give it.
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

    First the Gram matrix ("auto"), then QR with the vector from Lanczos, last with the one from the QR iteration.

    Args:
        algebra: ``host`` or ``device``.
        j: the evaluated matrix, no more rows than columns.
        gram: its Gram matrix.
        sigma_max: its largest singular value, about.
        method: "auto", "gram", "qr" or "dense".
        certify: whether to prove bounds.
    """
    route = functools.partial(_route, algebra, j, gram, sigma_max, certify=certify)
    if method in ("gram", "dense"):
        return route(accurate=method == "dense", iterated=method == "gram", dense=method == "dense")
    first_by_qr = 0 if method == "qr" else 1

    def next_route(index: Any, before: Found) -> Found:
        found = route(accurate=method == "qr" or index > 0, iterated=index <= first_by_qr)
        lower, upper = jnp.maximum(found.lower, before.lower), jnp.minimum(found.upper, before.upper)
        return found._replace(lower=lower, upper=upper, value=jnp.clip(found.value, lower, upper))

    return enclosure.attempts(
        algebra,
        next_route,
        lambda index, found: (index <= first_by_qr + 1) & ~(found.sharp if certify else found.reliable),
        _nothing(j.shape, gram.trace),
    )


def _nothing(shape: tuple[int, int], like: Array) -> Found:
    """Return what is known before the first route."""
    zero, no = jnp.zeros_like(like), jnp.array(False)
    vectors = jnp.zeros(shape[0], zero.dtype), jnp.zeros(shape[1], zero.dtype)
    return Found(zero, zero, zero + jnp.inf, *vectors, no, no, jnp.asarray(GRAM, jnp.int32))


def _route(
    algebra: ModuleType,
    j: EvaluatedJacobian,
    gram: Gram,
    sigma_max: Any,
    *,
    accurate: Any,
    iterated: Any,
    dense: bool = False,
    certify: bool,
) -> Found:
    """The vector from a factor of ĴĴᵀ and Lanczos on its inverse, the value from ‖Ĵᵀu‖.

    The factor is the Cholesky factor of K̂, or for the ``accurate`` route the triangle of Jᵀ = QR, taken by
    column blocks, whose singular vectors serve where Lanczos does not or is not ``iterated``. One program for both
    routes, since XLA would compile two.
    """
    factor, regular = algebra.cond(
        accurate, lambda: algebra.triangle(j, block), lambda: algebra.cholesky(gram.matrix)
    )
    ritz = _smallest(algebra, j, factor, regular, accurate, iterated, dense)
    pair = (enclosure.measure if certify else enclosure.measure_roughly)(j, ritz.vector)
    lower, separated = jnp.zeros_like(pair.value), True
    if certify:
        # beyond this condition number ZĴ is not near orthogonal
        worthwhile = jnp.asarray(regular) & (pair.value > jnp.where(accurate, 1e-13 * sigma_max, -1.0))
        beta = algebra.cond(
            worthwhile,
            lambda: algebra.cond(
                accurate,
                lambda: enclosure.preconditioned(algebra, j, gram, factor, pair.vector, block),
                lambda: enclosure.separation(algebra, gram, pair.vector, ritz, j.shape[0]),
            ),
            lambda: lower,
        )
        lower = enclosure.best_lower_bound(algebra, j, factor, pair, beta, jnp.where(accurate, 2, 1))
        # where K̂ resolves ν² and finds no gap above it, the vector may be that of another singular value
        separated = (beta > 0) | (pair.value**2 <= gram.error)
    trusted = jnp.asarray(regular) & ritz.converged & separated
    found = _judge(pair, lower, gram.majorant, gram.error, ritz.first, ritz.second, sigma_max, trusted)
    return _believed(found, sigma_max, accurate, dense)


def _smallest(
    algebra: ModuleType,
    j: EvaluatedJacobian,
    factor: Any,
    regular: Any,
    accurate: Any,
    iterated: Any,
    dense: bool,
) -> lanczos.Ritz:
    if dense:
        return algebra.singular(jnp.concatenate([block(j, i) for i in range(j.block_count)], axis=1))
    ritz = algebra.cond(regular, lambda: algebra.smallest(factor, TOLERANCE), lambda: algebra.unknown(factor))
    return algebra.cond(
        accurate,
        lambda: algebra.cond(ritz.converged & iterated, lambda: ritz, lambda: algebra.singular(factor)),
        lambda: ritz,
    )


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


@functools.partial(jax.jit, static_argnames="dense")
def _believed(found: Found, sigma_max: Array, accurate: Any, dense: bool) -> Found:
    """Return what the Gram route is believed only after judgement, and the accurate one unless its interval is wide."""
    reliable = jnp.where(accurate, jnp.isfinite(found.value), found.reliable)
    sharp = jnp.where(accurate, found.upper - found.lower <= LOOSE * sigma_max, found.sharp)
    code = jnp.where(accurate, DENSE if dense else QR, GRAM).astype(jnp.int32)
    return found._replace(reliable=reliable, sharp=sharp, method_code=code)


@jax.jit
def block(j: EvaluatedJacobian, index: Any) -> Array:
    """Return a column block of the evaluated matrix."""
    return j.block(index)
