"""The smallest singular value of a Jacobian operator, with its enclosure: the public function."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _host
from narrow_jax._typing import Array, Computed, Float, HostArray
from narrow_jax.linalg import (
    DEVICE,
    HOST,
    TPU,
    Algebra,
    Device,
    EvaluatedJacobian,
    Jacobian,
    Stored,
    Tiles,
    arrays,
    compiled,
    context,
    isolated,
    on_tiles,
    tiles,
    xp,
)
from narrow_jax.linalg import rounding as fl
from narrow_jax.spectra import derivatives, plans, routes
from narrow_jax.spectra.enclosure import Operand
from narrow_jax.spectra.result import Method, SigmaMin, Status

METHODS = ("auto", "gram", "qr", "dense")
NORMAL = 2.0**-1021
"""The smallest float64 that no backend flushes to 0."""


def sigma_min(
    J: Any,
    method: str = "auto",
    certify: bool = True,
    dtype: Any = "float64",
    memory_budget: int | None = None,
) -> SigmaMin:
    """Return the smallest singular value of J over its rows, and an interval that contains it.

    σ_min(J) = min ‖Jᵀu‖ over unit u. The vector u comes from a Cholesky factor of JJᵀ ("gram") or from a QR factor
    of Jᵀ ("qr"), the value from ‖Jᵀu‖; "auto" takes the first where its measured residual and gap
    allow, else the second.

    The work is float64 whatever the dtype of params and whether or not x64 is on; in a program for a TPU it is float32,
    and the result an estimate. Concrete arguments give NumPy float64, from the host unless they are on a GPU; inside
    ``jit``, ``grad`` and ``vmap`` the result is float64 where x64 is on and float32 elsewhere (bounds rounded outward).
    Differentiable in the operator's arrays, any number of times: dσ = uᵀ dJ v; ``lower`` and ``upper`` move along.
    Where σ is not distinct, ``vector`` and second derivatives are NaN when differentiated.
    Under ``vmap`` "auto" is "gram", and the status says ``not_converged`` where that cannot be trusted.

    Args:
        J: an operator of ``narrow_jax.jacobian``.
        method: "auto", "gram", "qr" (J by column blocks), or "dense" (J as one matrix, for reference).
        certify: prove the bounds; without, the interval is [0, ∞] and the status ``estimate``.
        dtype: "float64", or "float32" for hardware without it (an estimate).
        memory_budget: bytes that may be used; None sets no limit. On the host "auto" and "gram" go by tiles for more
            than 8,192 rows, and where a budget holds no whole matrices; in a file in the folder of temporary ones where
            it holds no triangle. "auto" then goes on by "qr" where the interval is wide only if the memory allows it.

    Returns:
        ``SigmaMin``; see its ``status`` before using the bounds.

    Raises:
        ValueError: unknown method or dtype.
        TypeError: J is no operator.
        MemoryBudgetError: the plan exceeds ``memory_budget``.

    Example:
        >>> import numpy as np
        >>> from narrow_jax import jacobian
        >>> rng = np.random.default_rng(0)
        >>> params = {"w": rng.normal(size=(4, 6)), "v": rng.normal(size=(3, 1))}
        >>> s = sigma_min(jacobian.pairwise(params, rng.normal(size=(5, 4))))
        >>> bool(s.lower <= s.value <= s.upper), s.status, s.method
        (True, 'certified', 'gram')

    Reference:
        docs/proofs/enclosure.md.
    """
    require_operator(J)
    _checks.choice("method", method, METHODS)
    dtype = _checks.choice("dtype", str(np.dtype(dtype)), ("float64", "float32"))
    certify = certify and dtype == "float64"
    wide, traced = J.shape[0] <= J.shape[1], _host.traced(J)
    host = wide and dtype == "float64" and not traced and context.on_cpu(J)
    if host and _suits_tiles(J, method, certify, memory_budget):
        return _by_tiles(J, method, certify, memory_budget)
    if memory_budget is not None:
        _checks.memory_budget(memory_budget)
        needs = plans.of_sigma_min(plans.Sizes.of(J), "host" if host else plans.compiled_for(J), certify)
        half = 1 if dtype == "float64" else 2
        _checks.memory(
            memory_budget, {name: size // half for name, size in needs.items()}, method, "sigma_min"
        )
    if traced:
        return _followed(J, *_traced(wide, method, certify, dtype, context.ambient())(J))
    J = context.at_host(J)
    if host:
        return context.as_numpy(lambda: _solve(HOST, evaluated(J), method, certify, J.encloses)[0])
    certify = certify and not context.emulated()
    lasting = jnp.dtype(dtype if wide else "float64")
    program = _program(method, certify, dtype, lasting) if wide else _deficient(DEVICE, "float64", lasting)
    with context.place(J):
        return jax.tree.map(np.asarray, program(J)[0])


def _suits_tiles(J: Jacobian, method: str, certify: bool, budget: int | None) -> bool:
    """Return whether the Gram route goes by tiles: of many rows, and where a budget holds no whole matrices."""
    _checks.memory_budget(budget)
    rows = J.shape[0]
    if method not in ("auto", "gram") or rows <= min(tiles.TILE, on_tiles.WHOLE):
        return False
    if rows > on_tiles.WHOLE or budget is None:
        return rows > on_tiles.WHOLE
    return plans.of_sigma_min(plans.Sizes.of(J), "host", certify)[method] > budget


def _by_tiles(J: Jacobian, method: str, certify: bool, budget: int | None) -> SigmaMin:
    """Return the result of the Gram route by tiles; "auto" goes on where that says little and the memory allows it."""
    room = on_tiles.room_for(*J.shape, budget, "sigma_min")

    def run() -> SigmaMin:
        j = evaluated(J)
        j = jax.tree.map(np.asarray, j) if j.cheap_gram else j
        s = _solve(Tiles(j, tiles.TILE, room), j, "gram", certify, J.encloses)[0]
        narrow = s.upper - s.lower <= routes.LOOSE * s.sigma_max or not certify
        said = narrow and s.status in ("certified", "estimate", "numerically_zero")
        whole = plans.of_sigma_min(plans.Sizes.of_evaluated(j), "host", certify)["qr"]
        if method == "gram" or said or whole > (context.machine_memory() if budget is None else budget):
            return s
        return _solve(HOST, j, "qr", certify, J.encloses)[0]

    return context.as_numpy(run)


def evaluated(J: Jacobian) -> EvaluatedJacobian:
    """Return the matrix on the host, of few entries as NumPy's: its formulas compile nothing then."""
    j = context.at_hand(J).evaluate()
    few = isinstance(j, Stored) and math.prod(j.shape) <= context.FEW
    return jax.tree.map(np.asarray, j) if few else j


def require_operator(J: Any) -> None:
    """Raise unless J is a Jacobian operator."""
    if not isinstance(J, Jacobian):
        raise TypeError(
            f"J is a {type(J).__name__}; expected a Jacobian operator: make one with nj.jacobian.pairwise, "
            "standard, autodiff or explicit"
        )


def _solve(
    algebra: Algebra, j: EvaluatedJacobian, method: str, certify: bool, encloses: str, top: float = 1e-8
) -> tuple[SigmaMin, HostArray, Float[HostArray, " n"]]:
    """Return the result in true scale, the right singular vector, and the vector of σ_max."""
    gram = j.gram(algebra)
    largest = algebra.largest(gram.matrix, top)  # of σ²: it judges, and proves nothing
    sigma_max = xp.sqrt(largest.first)
    again = isinstance(algebra, Device) and plans.formed_again(plans.Sizes.of_evaluated(j), certify)
    if again:  # one matrix at a time: the next is formed when this one has been used
        j, largest = arrays.barrier((j, largest))
    operand = Operand(algebra, j, gram.bounds, None if again else gram.matrix)
    found = routes.find(operand, sigma_max, method, certify)
    s = _assemble(found, sigma_max, gram.bounds.perturbation, j.exponent, j.shape, encloses)
    return s, found.right, largest.vector


@compiled(static_argnames=("shape", "encloses"))
def _assemble(
    found: routes.Found,
    sigma_max: Computed,
    perturbation: Computed,
    exponent: Computed,
    shape: tuple[int, int],
    encloses: str,
) -> SigmaMin:
    """Add δ, judge, and scale back by the power of two, bounds rounded outward where denormals begin."""
    lower = fl.down(found.lower - perturbation)
    lower = xp.where(xp.isfinite(lower), lower, 0.0)
    upper = fl.up(found.upper + perturbation)
    zero = found.value <= max(shape) * (jnp.finfo(found.value.dtype).eps / 2) * sigma_max
    zero = zero & ((sigma_max > 0) | xp.isfinite(perturbation))  # denormals may have been flushed
    status = xp.where(zero, Status.NUMERICALLY_ZERO.value, Status.ESTIMATE.value)
    value, lower, upper, sigma_max = (
        xp.ldexp(number, exponent) for number in (found.value, lower, upper, sigma_max)
    )
    lower, upper = _normal(lower, upper)
    status = xp.where(lower > 0, Status.CERTIFIED.value, status)
    # any u with ‖Jᵀu‖ at rounding proves that, converged or not
    status = xp.where(found.reliable | zero, status, Status.NOT_CONVERGED.value).astype(np.int32)
    return SigmaMin(
        value=value,
        lower=lower,
        upper=upper,
        sigma_max=sigma_max,
        vector=found.vector,
        status_code=status,
        method_code=found.method_code,
        encloses=encloses,
    )


def _normal(lower: Computed, upper: Computed) -> tuple[Computed, Float[Computed, ""]]:
    """Return the bounds where over- and underflow of their dtype are taken into account."""
    limits = jnp.finfo(lower.dtype)
    smallest = max(NORMAL, float(limits.tiny))
    lower = xp.where(lower > smallest, xp.minimum(lower, float(limits.max)), 0.0)
    return lower, xp.where(xp.isnan(upper), np.inf, xp.maximum(upper, smallest))


@functools.cache
def _traced(wide: bool, method: str, certify: bool, dtype: str, lasting: Any) -> Any:
    """Return J ↦ (result, right vector, vectors of σ_max) for traced operators: on a TPU an estimate in float32."""
    if not wide:
        return context.by_platform(
            _deficient(DEVICE, "float64", lasting), _deficient(TPU, "float32", context.SINGLE)
        )
    single = _program(method, False, "float32", context.SINGLE, TPU)
    unproven = _program(method, False, dtype, lasting)
    return context.by_platform(_program(method, certify, dtype, lasting), single, unproven)


@functools.cache
def _program(method: str, certify: bool, dtype: str, lasting: Any, algebra: Device = DEVICE) -> Any:
    """Return J ↦ (result, right vector, vectors of σ_max) in JAX; under ``vmap`` "auto" becomes "gram"."""

    def run(J: Jacobian, method: str) -> Any:
        j = J.evaluate(dtype)
        # derivatives of σ_max need its vector, whose error is the root of that of σ²
        s, right, u_max = _solve(algebra, j, method, certify, J.encloses, routes.TOLERANCE)
        return _cast((s, right, (u_max, _partner(j, u_max))), lasting)

    batched = jax.jit(functools.partial(run, method="gram")) if method == "auto" else None
    return isolated(jax.jit(functools.partial(run, method=method)), dtype == "float64", batched)


def _partner(j: EvaluatedJacobian, u: Any) -> Array:
    """Return Jᵀu/‖Jᵀu‖, 0 where that is."""
    image = j.rmv(u)
    size = jnp.linalg.norm(image)
    return image / jnp.where(size > 0, size, 1.0)


def _cast(out: Any, dtype: Any) -> Any:
    """Return the floats in the dtype that outlives the float64 context, the bounds rounded outward."""
    s, right, top = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, out
    )
    if dtype != out[0].lower.dtype and dtype == jnp.float32:
        lower, upper = jnp.nextafter(s.lower, jnp.zeros_like(s.lower)), fl.cast_up(out[0].upper, dtype)
        lower, upper = (bound.astype(dtype) for bound in _normal(lower, upper))
        lost = (s.status_code == Status.CERTIFIED.value) & (lower == 0)
        status = jnp.where(lost, Status.ESTIMATE.value, s.status_code).astype(jnp.int32)
        s = dataclasses.replace(s, lower=lower, upper=upper, status_code=status)
    return s, right, top


def _followed(J: Jacobian, s: SigmaMin, right: Array, top: tuple[Array, Array]) -> SigmaMin:
    """Return the result with derivatives: value, lower and upper are those of one pair, σ_max has its own.

    Of more rows than columns all three are 0 whatever the entries.
    """
    J = context.in_default_precision(J)
    follow = functools.partial(derivatives.follow, J)
    pair = (s.value, s.vector, right)
    wide = J.shape[0] <= J.shape[1]
    moved: dict[str, Any] = (
        {name: follow(getattr(s, name), *pair) for name in ("value", "lower", "upper")} if wide else {}
    )
    return dataclasses.replace(
        s,
        **moved,
        sigma_max=follow(s.sigma_max, s.sigma_max, *top),
        vector=derivatives.vectors(J, *pair)[0],
    )


def _null_vector(basis: Float[Array, "n p"]) -> Float[Array, " n"]:
    """Return a unit vector orthogonal to all p < n columns: what a basis of them leaves of the e_i farthest from it."""
    sizes, number = jnp.sum(basis**2, axis=1), jnp.arange(len(basis), dtype=jnp.int32)
    # no argmin: XLA lowers that of float64 for a GPU where x64 may be off, and fails
    farthest = jnp.min(jnp.where(sizes == jnp.min(sizes), number, jnp.int32(len(basis))))
    u = (number == farthest).astype(basis.dtype)
    for _ in range(2):  # once leaves rounding of size u/‖rest‖
        u = u - fl.matmul(basis, fl.matmul(basis.T, u[:, None]))[:, 0]
    return u / jnp.linalg.norm(u)


@functools.cache
def _deficient(algebra: Device, dtype: str, lasting: Any) -> Any:
    """Return J ↦ (result, right vector, vectors of σ_max) for more rows than columns: σ_min over the rows is 0."""

    def run(J: Jacobian) -> Any:
        j = J.evaluate(dtype)
        thin = j.transposed()
        largest, vector = algebra.top(thin.gram(algebra).matrix)
        zero, image = jnp.zeros((), dtype), thin.rmv(vector)
        size = jnp.linalg.norm(image)
        u_max = image / jnp.where(size > 0, size, 1.0)
        s = SigmaMin(
            value=zero,
            lower=zero,
            upper=zero,
            sigma_max=jnp.ldexp(jnp.sqrt(jnp.maximum(largest, 0.0)), j.exponent),
            vector=_null_vector(algebra.basis(thin.matrix.T)),
            status_code=jnp.asarray(Status.RANK_DEFICIENT_BY_SHAPE.value, jnp.int32),
            method_code=jnp.asarray(Method.SHAPE.value, jnp.int32),
            encloses=J.encloses,
        )
        out = s, jnp.zeros(j.shape[1], dtype), (u_max, _partner(j, u_max))
        return jax.tree.map(
            lambda leaf: leaf.astype(lasting) if leaf.dtype == jnp.dtype(dtype) else leaf, out
        )

    return isolated(jax.jit(run), dtype == "float64")
