"""The smallest singular value of a Jacobian operator, with its enclosure: the public function."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _host
from narrow_jax._typing import Array, Float
from narrow_jax.linalg import (
    DEVICE,
    HOST,
    TPU,
    Device,
    EvaluatedJacobian,
    Jacobian,
    context,
    isolated,
)
from narrow_jax.linalg import rounding as fl
from narrow_jax.spectra import derivatives, plans, routes, solving
from narrow_jax.spectra.result import Method, SigmaMin, Status

METHODS = ("auto", "gram", "qr", "dense")


def sigma_min(
    J: Any,
    method: str = "auto",
    certify: bool = True,
    dtype: Any = "float64",
    memory_budget: int | None = None,
    devices: Sequence[jax.Device] | None = None,
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
    Under ``vmap`` "auto" is "gram", and the status says ``not_converged`` where that cannot be trusted. What is known
    there beforehand stays NumPy's float64: without x64 JAX rounds it to the nearest where it meets an array of its own.

    Args:
        J: an operator of ``narrow_jax.jacobian``.
        method: "auto", "gram", "qr" (J by column blocks), or "dense" (J as one matrix, for reference).
        certify: prove the bounds; without, the interval is [0, ∞] and the status ``estimate``.
        dtype: "float64", or "float32" for hardware without it (an estimate).
        memory_budget: bytes that may be used; None sets no limit. On the host "auto" and "gram" go by tiles for more
            than 8,192 rows, and where a budget holds no whole matrices; in a file in the folder of temporary ones where
            it holds no triangle. "auto" goes on by "qr" where the interval is wide only if the budget allows it.
            With ``devices`` it is what each of them may use.
        devices: deal the squares of numbers out over these, such as ``jax.devices()`` of one process or, after
            ``jax.distributed.initialize``, of all, each of which calls this with the same J. "auto" is "gram" there.
            None for one machine's host, or the device that J is on.

    Returns:
        ``SigmaMin``; see its ``status`` before using the bounds.

    Raises:
        ValueError: unknown method or dtype; devices of several kinds, or without float64 where that is asked for.
        TypeError: J is no operator, or traced while devices are given; what is no device.
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
    if devices is not None:
        given = solving.required(J, devices, method, dtype)
        if wide:
            return solving.by_devices(J, given, certify, dtype, memory_budget)
    host = wide and dtype == "float64" and not traced and context.on_cpu(J)
    if host and solving.suits_tiles(J, method, certify, memory_budget):
        return _outward(solving.by_tiles(J, method, certify, memory_budget))
    if memory_budget is not None:
        _checks.memory_budget(memory_budget)
        needs = plans.of_sigma_min(plans.Sizes.of(J), "host" if host else plans.compiled_for(J), certify)
        half = 1 if dtype == "float64" else 2
        needs = {name: size // half for name, size in needs.items()}
        if method == "auto" and needs["gram"] <= memory_budget < needs["auto"]:
            method = "gram"
        _checks.memory(memory_budget, needs, method, "sigma_min")
    if traced:
        return _followed(J, *_traced(wide, method, certify, dtype, context.ambient())(J))
    J = context.at_host(J)
    if host:
        with solving.finite_entries():
            return _outward(
                context.as_numpy(
                    lambda: solving.solve(HOST, solving.evaluated(J), method, certify, J.encloses)[0]
                )
            )
    certify = certify and not context.emulated()
    lasting = jnp.dtype(dtype if wide else "float64")
    program = _program(method, certify, dtype, lasting) if wide else _deficient(DEVICE, "float64", lasting)
    with context.place(J), context.concrete():
        return _outward(jax.tree.map(np.asarray, program(J)[0]))


def require_operator(J: Any) -> None:
    """Raise unless J is a Jacobian operator."""
    if not isinstance(J, Jacobian):
        raise TypeError(
            f"J is a {type(J).__name__}; expected a Jacobian operator: make one with nj.jacobian.pairwise, "
            "standard, autodiff or explicit"
        )


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
        s, right, u_max = solving.solve(algebra, j, method, certify, J.encloses, routes.TOLERANCE)
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
        lower, upper = (bound.astype(dtype) for bound in solving.normal(lower, upper))
        lost = (s.status_code == Status.CERTIFIED.value) & (lower == 0)
        status = jnp.where(lost, Status.ESTIMATE.value, s.status_code).astype(jnp.int32)
        s = dataclasses.replace(s, lower=lower, upper=upper, status_code=status)
    return s, right, top


def _outward(s: SigmaMin) -> SigmaMin:
    """Return what is known in the dtype of what is traced around it: JAX would round both bounds to the nearest."""
    ambient = context.ambient()
    if not context.tracing() or ambient == s.value.dtype:
        return s
    with context.concrete(), jax.enable_x64(True):
        return jax.tree.map(np.asarray, _cast((jax.tree.map(jnp.asarray, s), (), ()), ambient)[0])


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
