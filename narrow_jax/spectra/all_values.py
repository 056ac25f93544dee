"""All singular values with proven error bounds, and the numbers that follow from them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _host
from narrow_jax._printing import brief
from narrow_jax._typing import Array, Computed, Float
from narrow_jax.linalg import (
    DEVICE,
    HOST,
    TPU,
    Algebra,
    Device,
    EvaluatedJacobian,
    Jacobian,
    arrays,
    compiled,
    context,
    isolated,
    xp,
)
from narrow_jax.linalg import rounding as fl
from narrow_jax.spectra import derivatives, plans, smallest_value, solving
from narrow_jax.spectra.enclosure import Operand
from narrow_jax.spectra.result import SigmaMin, Status


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SingularValues:
    """Singular values, descending, min(rows, columns) of them.

    Args:
        values: σ_1 ≥ σ_2 ≥ …
        bounds: those of ``error``, as arrays.
        encloses: the matrix that the bounds speak of.
    """

    values: Any
    bounds: Any
    encloses: str = field(metadata={"static": True})

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief("SingularValues", vars(self))

    @property
    def error(self) -> Any:
        """Return bounds, |values − exact| ≤ error, one a value: infinite where nothing is proven.

        Raises:
            TypeError: differentiated; a bound of rounding has no derivative.
        """
        return _constant(self.bounds) if _checks.concrete(self.bounds) is None else self.bounds

    @property
    def rank(self) -> Any:
        """Return how many are proven to be positive: a lower bound of the rank."""
        return (self.values > self.bounds).sum()


def singular_values(J: Any, memory_budget: int | None = None) -> SingularValues:
    """Return all singular values of J with a bound of each one's error.

    Differentiable in the operator's arrays, any number of times: dσ_i = u_iᵀ dJ v_i, 0 where σ_i = 0 (a subgradient);
    second derivatives are NaN where values coincide. Differentiating needs both sets of vectors in memory. The bounds
    have no derivative, and say so.

    R from Jᵀ = QR by column blocks, its singular vectors U and values by the QR iteration. G = diag(σ̂)⁻¹UᵀĴ is
    nearly orthogonal; σ_i lies in σ̂_i[σ_min(G), σ_max(G)] (Ostrowski), and |σ_i² − σ̂_i²| is at most
    ‖UᵀĴĴᵀU − diag(σ̂²)‖ (Weyl). The better of the two holds for each.

    Args:
        J: an operator of ``narrow_jax.jacobian``.
        memory_budget: bytes that may be used; None sets no limit.

    Returns:
        ``SingularValues``: NumPy float64 for concrete operators; inside ``jit`` and ``vmap`` as for ``sigma_min``.

    Raises:
        TypeError: J is no operator.
        MemoryBudgetError: the plan exceeds ``memory_budget``.

    Example:
        >>> import numpy as np
        >>> from narrow_jax import jacobian
        >>> s = singular_values(jacobian.explicit(np.diag([3.0, 2.0])))
        >>> s.values.round(12).tolist(), int(s.rank)
        ([3.0, 2.0], 2)

    Reference:
        Horn and Johnson, Matrix Analysis, theorem 4.5.9 (Ostrowski); docs/proofs/enclosure.md.
    """
    return _found(J, memory_budget, "singular_values")[0]


def condition_number(J: Any, memory_budget: int | None = None) -> Any:
    """Return σ_max/σ_min over the rows of J; ``memory_budget`` as for ``sigma_min``.

    Infinity where J is rank-deficient to rounding, with a derivative that is not finite; NaN where σ_min is
    ``not_converged``, as it may be under ``vmap``, or outside the range of numbers. Differentiable like ``sigma_min``.

    Example:
        >>> import numpy as np
        >>> from narrow_jax import jacobian
        >>> round(float(condition_number(jacobian.explicit(np.diag([3.0, 2.0])))), 12)
        1.5
    """
    try:
        s = smallest_value.sigma_min(J, certify=False, memory_budget=memory_budget)
    except _checks.MemoryBudgetError as error:
        raise _checks.MemoryBudgetError(
            f"condition_number is s.sigma_max / s.value of s = nj.sigma_min(J, method, certify=False): {error}"
        ) from None
    if _host.traced(J):
        return _ratio(s)
    with context.concrete(), context.float64():
        return np.float64(_ratio(s))


def _ratio(s: SigmaMin) -> Array:
    value, sigma_max = jnp.asarray(s.value), jnp.asarray(s.sigma_max)
    status = jnp.asarray(s.status_code)
    deficient = (status == Status.NUMERICALLY_ZERO.value) | (status == Status.RANK_DEFICIENT_BY_SHAPE.value)
    normal = (value >= jnp.finfo(value.dtype).tiny) & jnp.isfinite(sigma_max)
    reliable = deficient | (normal & (status != Status.NOT_CONVERGED.value))
    # by division, so that the derivative of ∞ is not 0; one more, so that 0/0 does not arise
    ratio = (sigma_max + deficient.astype(value.dtype)) / jnp.where(deficient, 0.0, value)
    return jnp.where(reliable, ratio, jnp.nan)


def effective_rank(J: Any, memory_budget: int | None = None) -> Any:
    """Return exp(−Σ p_i log p_i) with p_i = σ_i/Σσ: between 1 and the rank, and equal to it for equal values.

    0 for a matrix of zeros, with derivative 0; NaN where the values leave the range of numbers. Differentiable like
    ``singular_values``; a value that is exactly 0 takes no part. ``memory_budget`` as there.

    Example:
        >>> import numpy as np
        >>> from narrow_jax import jacobian
        >>> round(float(effective_rank(jacobian.explicit(np.eye(3)))), 12)
        3.0

    Reference:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007).
    """
    s, zero = _found(J, memory_budget, "effective_rank")
    if _host.traced(J):
        return _entropic(s.values, zero)
    with context.concrete(), context.float64():
        return np.float64(_entropic(jnp.asarray(s.values), zero))


def _entropic(values: Array, zero: Any) -> Array:
    largest = jnp.max(values)
    reliable = (largest >= jnp.finfo(values.dtype).tiny) & jnp.isfinite(largest)
    size = jnp.where(reliable, values / jnp.where(reliable, largest, 1.0), 1.0)  # their sum may overflow
    p = size / jnp.sum(size)
    rank = jnp.exp(-jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1.0))))
    return jnp.where(zero, 0.0, jnp.where(reliable, rank, jnp.nan))


def _found(J: Any, memory_budget: int | None, what: str) -> tuple[SingularValues, Any]:
    """Return the singular values, with derivatives where traced, and whether the evaluated matrix is 0."""
    smallest_value.require_operator(J)
    if memory_budget is not None:
        _checks.memory_budget(memory_budget)
        place = plans.compiled_for(J)
        on_host = place == "cpu" and not _host.traced(J)
        needs = plans.of_singular_values(plans.Sizes.of(J), "host" if on_host else place)
        _checks.memory(memory_budget, {"qr": needs}, "qr", what)
    if not _host.traced(J):
        J = context.at_host(J)
        if context.on_cpu(J):
            with solving.finite_entries():
                return _outward(
                    *context.as_numpy(lambda: _true_scale(_run(HOST, solving.evaluated(J)), J.encloses))
                )
        program = _program(jnp.dtype("float64"), proven=not context.emulated())
        with context.concrete():
            return _outward(*jax.tree.map(np.asarray, program(J)[:2]))
    lasting = context.ambient()
    single = _program(context.SINGLE, TPU, "float32", proven=False)
    s, zero, u, p = context.by_platform(_program(lasting), single, _program(lasting, proven=False))(J)
    J = context.in_default_precision(J)
    follow = jax.vmap(functools.partial(derivatives.follow, J))
    return SingularValues(follow(s.values, s.values, u, p), _tied(J, s.bounds), s.encloses), zero


@functools.cache
def _program(lasting: Any, algebra: Device = DEVICE, dtype: str = "float64", *, proven: bool = True) -> Any:
    """Return J ↦ (singular values, whether Ĵ = 0, left vectors, right vectors), vectors as rows."""

    def run(J: Jacobian) -> Any:
        j = J.evaluate(dtype)
        found = _run(algebra, j, proven)
        s, zero = _true_scale(found, J.encloses)
        near = found.vectors.T
        blocks = jax.lax.map(
            lambda i: fl.matmul(near, found.near.block(i)),
            jnp.arange(found.near.block_count, dtype=jnp.int32),
        )
        far = jnp.moveaxis(blocks, 0, 1).reshape(near.shape[0], -1)[:, : found.near.shape[1]]
        size = jnp.linalg.norm(far, axis=1, keepdims=True)
        far = far / jnp.where(size > 0, size, 1.0)  # at σ = 0 the smallest subgradient, 0
        pair = (near, far) if j.shape[0] <= j.shape[1] else (far, near)
        return _lasting(s, lasting), zero, *(rows.astype(lasting) for rows in pair)

    return isolated(jax.jit(run), dtype == "float64")


@jax.custom_jvp
def _tied(J: Any, bounds: Array) -> Array:
    """Return the bounds, marked as made from J, so that ``_constant`` hears of it when they are differentiated."""
    return bounds


@_tied.defjvp
def _tied_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    none = jnp.zeros_like(primals[1])
    moving = (
        leaf for leaf in jax.tree.leaves(tangents[0]) if leaf.dtype != jax.dtypes.float0
    )  # not integers
    for leaf in moving:  # a tangent that is 0 and depends on that of J
        none += 0.0 * jnp.sum(leaf).astype(none.dtype)
    return _tied(*primals), none


@jax.custom_jvp
def _constant(bounds: Array) -> Array:
    return bounds


@_constant.defjvp
def _constant_jvp(primals: Any, tangents: Any) -> Any:
    raise TypeError(
        "the error bounds of singular values have no derivative; expected .values where something is "
        "differentiated: take the bounds from singular_values(jax.lax.stop_gradient(J))"
    )


def _outward(s: SingularValues, zero: Any) -> tuple[SingularValues, Any]:
    """Return what is known in the dtype of what is traced around it: JAX would round the bounds to the nearest."""
    ambient = context.ambient()
    if not context.tracing() or ambient == s.values.dtype:
        return s, zero
    with context.concrete(), jax.enable_x64(True):
        return jax.tree.map(np.asarray, _lasting(jax.tree.map(jnp.asarray, s), ambient)), zero


def _lasting(s: SingularValues, dtype: Any) -> SingularValues:
    """Return the values in the dtype that outlives the float64 context, their rounding added to the error."""
    if dtype == s.values.dtype:
        return s
    values = s.values.astype(dtype)
    # casting moves a value by up to 2⁻²⁴ of it, and flushes what is below the smallest normal number
    error = fl.cast_up(s.bounds + s.values * 2.0**-23 + 2 * float(jnp.finfo(dtype).tiny), dtype)
    return SingularValues(values, jnp.where(jnp.isfinite(values), error, jnp.inf), s.encloses)


class _Found(NamedTuple):
    """Values and error bounds in the scale of the evaluated matrix.

    ``near`` is that matrix or its transpose, with no more rows than columns, ``vectors`` its left ones, as columns.
    """

    values: Any
    error: Any
    exponent: Any
    near: EvaluatedJacobian
    vectors: Any


def _run(algebra: Algebra, j: EvaluatedJacobian, proven: bool = True) -> _Found:
    """Return the values, with bounds where they can be proven."""
    if j.shape[0] > j.shape[1]:
        extra, j = j.distance(), j.transposed()
        gram = j.gram(algebra)
        # entries are rounded once where blocks are formed
        extra = fl.up(extra + 1.01 * fl.UNIT * xp.sqrt(gram.bounds.trace))
    else:
        gram = j.gram(algebra)
        extra = gram.bounds.perturbation
    operand = Operand(algebra, j, gram.bounds, gram.matrix)
    vectors, values = algebra.decompose(operand.triangle()[0])
    if not proven:
        return _Found(values, xp.full_like(values, np.inf), j.exponent, j, vectors)
    scale = xp.maximum(values, xp.max(values) * 2.0**-200 + fl.TINY)
    z = vectors.T / scale[:, None]
    near = _Decomposition(vectors, values, scale, z, operand.weighted_gram(z))
    error = _error(near, gram.bounds.majorant, extra, j.block_width + j.block_count)
    return _Found(values=values, error=error, exponent=j.exponent, near=j, vectors=vectors)


@compiled(static_argnames="encloses")
def _true_scale(found: _Found, encloses: str) -> tuple[SingularValues, Computed]:
    values, error = (xp.ldexp(numbers, found.exponent) for numbers in (found.values, found.error))
    proven = xp.where(xp.isfinite(values), error + solving.NORMAL, np.inf)
    zero = (found.values[0] == 0) & xp.isfinite(found.error[0])  # else denormals may have been flushed
    return SingularValues(values, proven, encloses), zero


class _Decomposition(NamedTuple):
    """R = VΣ̂Uᵀ, Z = diag(scale)⁻¹Uᵀ, and N̂ = fl(GGᵀ) for G = ZĴ.

    ``scale`` is σ̂, but for values so small that they cannot be divided by.
    """

    vectors: Any
    values: Any
    scale: Float[Computed, " n"]
    z: Float[Computed, "n n"]
    n: Any


class _Errors(NamedTuple):
    """φ with ‖fl(G) − G‖_F ≤ φ‖Z‖_F, skew ≥ ‖UᵀU − I‖₂, and a bound of ‖Ĵ‖₂²."""

    forming: Computed
    skew: Computed
    majorant: Computed


@compiled(static_argnames="terms")
def _error(near: _Decomposition, majorant: Computed, extra: Computed, terms: int) -> Computed:
    """Return the better of Ostrowski's and Weyl's bounds."""
    vectors, rows = near.vectors, near.values.size
    product = fl.matmul(vectors.T, vectors)
    skew = fl.up(
        fl.lower_norm(product - arrays.module(product).eye(rows))
        + fl.gamma(rows + 1) * fl.norm_up(vectors) ** 2
    )
    forming = fl.up((fl.gamma(rows + 2) + 3 * fl.UNIT) * xp.sqrt(majorant))
    errors = _Errors(forming, skew, majorant)
    bounds = (_ostrowski(near, errors, terms), _weyl(near, errors, terms))
    error = xp.minimum(*(xp.where(xp.isnan(bound), np.inf, bound) for bound in bounds))
    return fl.up(error + extra)


def _ostrowski(near: _Decomposition, errors: _Errors, terms: int) -> Computed:
    """Return the best bounds over k: the first k rows of G are nearly orthogonal, the others of UᵀĴ small.

    With ‖I − G_kG_kᵀ‖ < 1 the σ_i(U_kᵀĴ), i ≤ k, are within σ̂_i[σ_min(G_k), σ_max(G_k)]; they are at most
    σ_i(UᵀĴ), and σ_i(UᵀĴ)² is at most τ² more, τ = ‖U_{>k}ᵀĴ‖_F; where i > k, σ_i(UᵀĴ) ≤ τ.
    """
    _, values, scale, z, n = near
    forming, skew, _ = errors
    rows = values.size
    strict = xp.tril(n, -1) ** 2
    diagonal = xp.diag(n)
    summed = 1 + fl.gamma(2 * rows + terms + 4)
    defects = xp.cumsum(2 * xp.sum(strict, axis=1) + (diagonal - 1) ** 2)
    traces = xp.cumsum(xp.abs(diagonal)) * summed
    count = np.arange(1, rows + 1, dtype=np.int32)
    f = fl.up(xp.sqrt(defects * summed) + fl.UNIT * count.astype(n.dtype) + fl.gamma(terms + 2) * traces)
    sizes = xp.sum(z * z, axis=1) * summed
    loss = fl.up(forming * xp.sqrt(xp.cumsum(sizes) * summed))
    low = fl.down(fl.down(xp.sqrt(fl.down(1 - f))) - loss) / xp.sqrt(fl.up(1 + skew))
    high = fl.up(xp.sqrt(1 + f) + loss)
    usable = (low > 0) & xp.isfinite(high) & (xp.cumsum(scale != values) == 0)

    rest = fl.up(scale * (xp.sqrt(xp.abs(diagonal) * summed) + fl.up(forming * xp.sqrt(sizes)))) ** 2
    tau = xp.append(xp.cumsum(rest[::-1])[::-1][1:], 0.0) * summed  # τ², the last of no rows
    stretch = fl.up(1 / xp.sqrt(fl.down(1 - skew)))

    index, k = count[:, None], count[None, :]
    value, low, high, tau = values[:, None], fl.down(low)[None, :], high[None, :], tau[None, :]
    upper = fl.up(stretch * xp.sqrt(xp.where(index <= k, (value * high) ** 2, 0.0) + tau))
    lower = xp.where(index <= k, fl.down(value * low), 0.0)
    error = fl.up(xp.maximum(fl.up(upper) - value, value - lower) + 4 * fl.UNIT * (value + upper))
    return xp.min(xp.where(usable[None, :], error, np.inf), axis=1)


def _weyl(near: _Decomposition, errors: _Errors, terms: int) -> Computed:
    """Return the bounds from UᵀĴ = diag(scale)G: its Gram matrix against diag(σ̂²)."""
    _, values, scale, _, n = near
    forming, skew, majorant = errors
    rows = values.size
    summing = fl.gamma(terms + 2)
    defect = n - arrays.module(n).eye(rows)
    weighted = scale[:, None] * defect * scale[None, :]
    replaced = xp.sum(xp.where(scale > values, scale**2, 0.0)) * 1.01
    weighted_trace = xp.sum(scale**2 * xp.abs(xp.diag(n))) * (1 + fl.gamma(rows + terms + 6))
    size = xp.sqrt(fl.up(1 + skew)) * xp.sqrt(majorant)
    absolute = math.sqrt(rows) * fl.up(1 + skew) * forming
    square = fl.up(fl.lower_norm(weighted) + (summing + 4 * fl.UNIT) * weighted_trace)
    square = fl.up(square + replaced + 2 * fl.UNIT * xp.sum(scale**2) + 2 * absolute * size + absolute**2)
    stretch = fl.up(1 / xp.sqrt(fl.down(1 - skew)) - fl.down(1 / xp.sqrt(fl.up(1 + skew))))
    moved = fl.up(square / xp.maximum(values, xp.sqrt(square)))
    return fl.up(moved + (values + moved) * stretch)
