"""The routes to the smallest singular value, and the choice between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Computed, Float, Int
from narrow_jax.linalg import Bounds, Ritz, Square, Truth, arrays, compiled, xp
from narrow_jax.linalg import rounding as fl
from narrow_jax.spectra import enclosure
from narrow_jax.spectra.enclosure import Operand, SingularPair
from narrow_jax.spectra.result import Method

TOLERANCE = 1e-16
"""Lanczos stops here: the value is then exact to rounding, and one more inverse step does the same for C."""

LOOSE = 1e-11
"""An interval wider than this times σ_max, where one can be proven, says that the vector is not that of σ_min.

One no wider than this times σ_min tells its first eleven digits, whatever the iteration says of itself.
"""

EXCESS = 2e-14
"""A Gram enclosure is kept if C and β cost at most this times σ_max: the aim is a width of 1e-13·σ_max."""


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

    value: Float[Computed, ""]
    lower: Float[Computed, ""]
    upper: Float[Computed, ""]
    vector: Float[Computed, " n"]
    right: Float[Computed, " p"]
    reliable: Truth
    sharp: Truth
    method_code: Int[Computed, ""]


class Route(NamedTuple):
    """A way to the smallest singular pair; what is traced in it is chosen while running: one program for all routes.

    Args:
        by_qr: the factor is the triangle of Ĵᵀ = QR, taken by column blocks; else the Cholesky factor of K̂.
        by_lanczos: the vector is that of Lanczos on the inverse, if it converges; else that of the QR iteration.
        whole: the QR iteration works on Ĵ itself, not on the triangle.
    """

    by_qr: Truth
    by_lanczos: Truth
    whole: bool = False


def route(method: str, index: Any) -> Route:
    """Return what a method tries first, second, …"""
    if method == "gram":
        return Route(by_qr=False, by_lanczos=True)
    if method == "dense":
        return Route(by_qr=True, by_lanczos=False, whole=True)
    if method == "qr":
        return Route(by_qr=True, by_lanczos=index < 1)
    return Route(by_qr=index > 0, by_lanczos=index < 2)  # "auto": gram, then both of qr


def find(operand: Operand, sigma_max: Float[Computed, ""], method: str, certify: bool) -> Found:
    """Return the smallest singular value by a route, or by the one that the measurements choose.

    Args:
        operand: the evaluated matrix, no more rows than columns, and its Gram matrix.
        sigma_max: its largest singular value, about.
        method: "auto", "gram", "qr" or "dense".
        certify: whether to prove bounds.
    """
    if method in ("gram", "dense"):
        return _travel(operand, sigma_max, route(method, 0), certify)

    def following(index: Any, before: Found) -> Found:
        found = _travel(operand, sigma_max, route(method, index), certify)
        lower, upper = xp.maximum(found.lower, before.lower), xp.minimum(found.upper, before.upper)
        return found._replace(lower=lower, upper=upper, value=xp.clip(found.value, lower, upper))

    last = 1 if method == "qr" else 2
    return enclosure.attempts(
        operand.algebra,
        following,
        lambda index, found: (index <= last) & ~(found.sharp if certify else found.reliable),
        _nothing(operand.j.shape, operand.bounds.trace),
    )


def _nothing(shape: tuple[int, int], like: Float[Computed, ""]) -> Found:
    """Return what is known before the first route."""
    zero, no = xp.zeros_like(like), np.array(False)
    return Found(
        value=zero,
        lower=zero,
        upper=zero + np.inf,
        vector=arrays.module(like).zeros(shape[0], zero.dtype),
        right=arrays.module(like).zeros(shape[1], zero.dtype),
        reliable=no,
        sharp=no,
        method_code=np.asarray(Method.GRAM.value, np.int32),
    )


def _travel(operand: Operand, sigma_max: Float[Computed, ""], route: Route, certify: bool) -> Found:
    """The vector from a factor of ĴĴᵀ and Lanczos on its inverse, or the QR iteration; the value from ‖Ĵᵀu‖."""
    algebra, j, bounds = operand.algebra, operand.j, operand.bounds
    factor, regular = algebra.cond(route.by_qr, operand.triangle, lambda: algebra.cholesky(operand.gram()))
    ritz = _smallest(operand, factor, regular, route)
    pair = (enclosure.measure if certify else enclosure.measure_roughly)(j, ritz.vector)
    lower, separated = xp.zeros_like(pair.value), np.array(True)
    if certify:
        # beyond this condition number ZĴ is not near orthogonal
        worthwhile = regular & (pair.value > xp.where(route.by_qr, 1e-13 * sigma_max, -1.0))
        # the factor of K̂ is not needed after this: another takes its place
        rounds = xp.where(
            worthwhile, xp.where(route.by_qr, *map(np.int32, (enclosure.ROUNDS, 1))), np.int32(0)
        )
        every = enclosure.corrected(operand, factor, pair, rounds)
        beta = algebra.cond(
            worthwhile, lambda: _complement(operand, factor, pair.vector, ritz, route), lambda: lower
        )
        lower = xp.max(enclosure.lower_bound(every, beta))
        # where K̂ resolves ν² and finds no gap above it, the vector may be that of another singular value
        separated = (beta > 0) | (pair.value**2 <= bounds.error)
    trusted = regular & ritz.converged & separated
    return _judge(pair, lower, bounds, ritz, sigma_max, trusted, route)


def _smallest(operand: Operand, factor: Square, regular: Truth, route: Route) -> Ritz:
    """Return the vector of the route, with the largest eigenvalues of (LLᵀ)⁻¹."""
    algebra = operand.algebra
    if route.whole:
        blocks = [operand.block(i) for i in range(operand.j.block_count)]
        return algebra.singular(xp.concatenate(blocks, axis=1))
    ritz = algebra.cond(regular, lambda: algebra.smallest(factor, TOLERANCE), lambda: algebra.unknown(factor))
    return algebra.cond(
        route.by_qr,
        lambda: algebra.cond(
            ritz.converged & route.by_lanczos, lambda: ritz, lambda: algebra.singular(factor)
        ),
        lambda: ritz,
    )


def _complement(
    operand: Operand, factor: Square, u: Computed, ritz: Ritz, route: Route
) -> Float[Computed, ""]:
    """Return β with yᵀĴĴᵀy ≥ β‖y‖² for y ⟂ u, by what the route has at hand; 0 where nothing is proven."""
    return operand.algebra.cond(
        route.by_qr,
        lambda: enclosure.preconditioned(operand, factor, u),
        lambda: enclosure.separation(operand, u, ritz),
    )


@compiled
def _judge(
    pair: SingularPair,
    lower: Float[Computed, ""],
    bounds: Bounds,
    ritz: Ritz,
    sigma_max: Float[Computed, ""],
    trusted: Truth,
    route: Route,
) -> Found:
    """Decide from the measured residual and gap whether the Gram route may be believed, and all from the interval.

    The relative error of ν is at most ‖K̂ − K‖/(2λ₁), and C²/(2(λ₂ − λ₁)) where λ₁ is isolated from the rest of K̂.
    The accurate routes are believed unless their interval is wide.
    """
    first, second = ritz.of_inverse()
    rows, limits = pair.vector.size, jnp.finfo(pair.value.dtype)
    unit = limits.eps / 2
    error = (bounds.error + fl.gamma(rows + 3) * bounds.majorant) * (unit / fl.UNIT)
    allowed = 10 * unit * sigma_max / xp.maximum(pair.value, limits.tiny)
    gap = second - first
    isolated = (error <= 0.1 * gap) & (xp.sum(pair.residual**2) <= 2 * allowed * gap) if rows > 1 else True
    finite, width = xp.isfinite(pair.value), pair.upper - lower
    # what rounding leaves open of ‖Ĵᵀu‖ above the value, it leaves open below it, by every route
    sharp = (lower > 0) & (width <= EXCESS * (sigma_max + 2 * pair.value) + 2 * (pair.upper - pair.value))
    proven = (lower > 0) & (width <= LOOSE * pair.value) & finite
    reliable = (trusted & (isolated | (error <= allowed * first)) & finite) | sharp | proven
    accurate = xp.where(route.whole, Method.DENSE.value, Method.QR.value)
    return Found(
        value=pair.value,
        lower=lower,
        upper=pair.upper,
        vector=pair.vector,
        right=pair.right,
        reliable=xp.where(route.by_qr, finite, reliable),
        sharp=xp.where(route.by_qr, width <= LOOSE * sigma_max, sharp),
        method_code=xp.where(route.by_qr, accurate, Method.GRAM.value).astype(np.int32),
    )
