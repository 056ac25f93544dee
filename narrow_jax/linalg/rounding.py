"""Floating-point error bounds and products with a known error, all in float64.

Notation of docs/proofs/enclosure.md: u = 2⁻⁵³, γ_k = ku/(1 − ku). Every bound is rounded outward by ``up`` or
``down``: an expression of non-negative numbers with +, ×, ÷ and √ of at most 30 operations deep differs from its
exact value by a factor within 1 ± 31u, and SLACK = 32u.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import blas

from narrow_jax._typing import Array, Bool, Computed, Float, Int
from narrow_jax.linalg.arrays import barrier, bits, is_jax, module, xp

UNIT = 2.0**-53
SLACK = 2.0**-48
TINY = 2.0**-500
"""Larger than everything that underflow can lose in a problem scaled to entries of size one."""

NORMAL = 2.0**-1022
"""The smallest normal float64: what is below may have lost any of its digits, or be flushed to 0."""

CARRIED = 2.0**-900
"""Products below that could be flushed to 0: where the largest is, nothing is measured."""


def gamma(terms: int | float) -> float:
    """Return γ_k = ku/(1 − ku), rounded up: the relative error bound of k roundings.

    Example:
        >>> gamma(1) > 2.0**-53
        True
    """
    return terms * UNIT / (1 - terms * UNIT) * (1 + SLACK)


def up(value: Any) -> Any:
    """Return an upper bound of the exact value of a non-negative expression."""
    return value * (1 + SLACK) + TINY


def down(value: Any) -> Any:
    """Return a lower bound, not below 0, of the exact value of a non-negative expression."""
    return xp.maximum(value * (1 - SLACK) - TINY, 0.0)


def at_least_normal(value: Any) -> Any:
    """Return max(value, 2⁻¹⁰²²): an upper bound of a positive number stays one where it underflowed.

    For every upper bound, Python number or array, of what is not known to be exactly 0.

    Example:
        >>> float(at_least_normal(2.0**-600 * 2.0**-600)), float(at_least_normal(1.0))
        (2.2250738585072014e-308, 1.0)
    """
    return xp.maximum(value, NORMAL)


def unit(values: Any) -> tuple[np.ndarray, int]:
    """Return (a, e) with values = a·2^e, exact short of underflow below the largest entry, which lies in [½, 1).

    Example:
        >>> unit([2.0**-700, 0.0])
        (array([0.5, 0. ]), -699)
    """
    values = np.asarray(values, float)
    exponent = int(np.frexp(np.max(np.abs(values), initial=0.0))[1])
    return np.ldexp(values, -exponent), exponent


def at_scale(values: Any, exponent: int | Int[np.ndarray, ...]) -> Any:
    """Return values·2^exponent for numbers ≥ 0: those that underflow stay above 0, those that overflow are infinite.

    Example:
        >>> float(at_scale(1.0, -2000)), float(at_scale(0.0, -2000)), float(at_scale(3.0, -1))
        (2.2250738585072014e-308, 0.0, 1.5)
    """
    with np.errstate(over="ignore", under="ignore"):
        return np.where(np.equal(values, 0), values, at_least_normal(np.ldexp(values, exponent)))


def half_square(values: Any, exponent: int = 0) -> float:
    """Return ½‖values·2^exponent‖², no square of which over- or underflows, as ``at_scale`` does.

    Example:
        >>> half_square([3.0, 4.0]), half_square([2.0**-700], 700)
        (12.5, 0.5)
    """
    values, own = unit(np.ravel(values))
    return float(at_scale(float(values @ values) / 2, 2 * (own + exponent)))


def cast_up(bound: Float[Array, ...], dtype: Any) -> Float[Array, ...]:
    """Return an upper bound in another dtype, its rounding and the underflow of a positive number included.

    Example:
        >>> float(cast_up(jnp.float32(1e-7), jnp.float16)) >= 1e-7
        True
    """
    if bound.dtype == dtype:
        return bound
    cast = bound.astype(dtype)
    return jnp.maximum(jnp.nextafter(cast, jnp.full_like(cast, jnp.inf)), jnp.finfo(dtype).tiny)


def widened(values: Any, dtype: Any) -> Computed:
    """Return floats in a dtype that is not narrower, exactly: in a cast XLA would flush the denormals of float32 to 0.

    Example:
        >>> with jax.enable_x64(True):
        ...     float(jax.jit(lambda x: widened(x, jnp.float64))(jnp.float32(2.0**-140))) == 2.0**-140
        True
    """
    if isinstance(values, np.ndarray):
        return np.asarray(values, dtype)
    if values.dtype not in (jnp.float32, jnp.bfloat16) or jnp.dtype(dtype) != jnp.float64:
        return jnp.asarray(values, dtype)
    if values.dtype == jnp.float32:
        word = jax.lax.bitcast_convert_type(values, jnp.uint32)
    else:
        word = jax.lax.bitcast_convert_type(values, jnp.uint16).astype(jnp.uint32) << 16
    size = word & jnp.uint32(0x7FFFFFFF)
    tiny = size.astype(jnp.float64) * 2.0**-149  # a denormal is its mantissa, in units of the smallest
    tiny = jnp.where(word == size, tiny, -tiny)
    return jnp.where(size < jnp.uint32(0x00800000), tiny, values.astype(jnp.float64))


def matmul(a: Float[Computed, "a k"], b: Float[Computed, "k b"]) -> Float[Computed, "a b"]:
    """Return a @ b with each entry's error at most γ_k (|a||b|): no TF32, no bfloat16; by SciPy's BLAS for NumPy."""
    if is_jax((a, b)):
        return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    (a, by_rows), (b, by_columns) = _for_blas(a), _for_blas(b)
    return blas.dgemm(1.0, b, a, trans_a=by_columns, trans_b=by_rows).T


def _for_blas(a: Float[np.ndarray, "a b"]) -> tuple[np.ndarray, bool]:
    """Return Aᵀ as it lies in memory, in Fortran's order, or A where that is so: no copy; and whether it is A."""
    return (a, True) if a.flags.f_contiguous and not a.flags.c_contiguous else (a.T, False)


def outer(a: Float[Computed, "a k"]) -> Float[Computed, "a a"]:
    """Return aaᵀ."""
    return matmul(a, a.T)


def total(term: Callable[..., Float[Computed, "a a"]], count: int) -> Array:
    """Return Σ term(i)."""
    first, last = np.int32(1), np.int32(count)  # typed: XLA lowers the loop where x64 may be off
    return jax.lax.fori_loop(first, last, lambda i, partial: partial + term(i), term(jnp.int32(0)))


def symmetric(lower: Float[Computed, "a a"]) -> Any:
    """Return the symmetric matrix with this lower triangle: whatever lies above is not read. NumPy or JAX as given."""
    return xp.tril(lower) + xp.tril(lower, -1).T


def lower_norm(a: Float[Computed, "a a"]) -> Float[Computed, ""]:
    """Return an upper bound of the Frobenius norm of the symmetric matrix with the lower triangle of a."""
    return up(norm_up(symmetric(a)))


_FEW = 64
"""Sums this short are taken in one stage."""


def sum_terms(size: int) -> int:
    """Return the number of roundings in ``stable_sum`` of that many terms."""
    return size if size <= _FEW else 3 * _side(size)


def _side(size: int) -> int:
    return max(1, math.ceil(max(size, 1) ** (1 / 3) + 1e-9))


def stable_sum(values: Float[Computed, ...]) -> Float[Computed, ""]:
    """Return the sum in three stages of N^⅓ terms: relative error γ of ``sum_terms`` if no term is negative.

    The barriers keep XLA from merging the stages into one sum of N terms, whose bound would be γ_N.
    """
    if values.size <= _FEW:
        return xp.sum(values)
    side = _side(values.size)
    flat = xp.pad(values.reshape(-1), (0, side**3 - values.size))
    stage = barrier(xp.sum(flat.reshape(side, side, side), axis=2))
    stage = barrier(xp.sum(stage, axis=1))
    return xp.sum(stage)


def norm(values: Float[Computed, ...]) -> Float[Computed, ""]:
    """Return the Frobenius norm with relative error at most ``norm_error(values.size)``, beside TINY for underflow."""
    return xp.sqrt(stable_sum(xp.square(values)))


def norm_error(size: int) -> float:
    """Return the relative error bound of ``norm``: √ halves γ of the sum, and adds its own rounding."""
    return gamma(0.5 * (sum_terms(size) + 2) + 2)


def norm_up(values: Float[Computed, ...]) -> Float[Computed, ""]:
    """Return an upper bound of the Frobenius norm."""
    return up(norm(values) * (1 + norm_error(values.size)))


def collatz_wielandt(
    apply: Callable[[Any], Any], diagonal: Float[Computed, " r"], terms: int
) -> Float[Computed, ""]:
    """Return an upper bound of ‖M‖₂ for M = |Ĵ||Ĵ|ᵀ: max_i (My)_i/y_i with y = √diag(M), about tr M at most.

    Theorem (Collatz, Wielandt): the Perron root of M ≥ 0 is at most that ratio for any y > 0.

    Args:
        apply: y ↦ My, computed with relative error at most γ_terms.
        diagonal: of M, about; of size one or below.
        terms: as above.
    """
    y = xp.sqrt(diagonal) + 2.0**-20  # a floor keeps y positive where a row of M vanishes
    return up(xp.max(apply(y) / y) * (1 + gamma(terms)))


def power_of_two(values: Float[Computed, ...], axis: int | None = None) -> Int[Computed, ...]:
    """Return e with max |values| along ``axis`` in [2^(e−1), 2^e), 0 where all are 0, clipped to ±1000."""
    largest = xp.max(xp.abs(values), axis=axis, initial=0.0)
    return xp.clip(_exponent(largest), -1000, 1000)


def _exponent(value: Any) -> Int[Computed, ...]:
    if value.dtype != np.float64:
        return xp.frexp(value)[1]
    # from the bits: frexp and ldexp compile to a hundred operations each
    biased = (bits(value, np.int64) >> 52).astype(np.int32)
    return xp.where(value == 0, 0, biased - 1022)


def power(exponent: Any, dtype: Any = jnp.float64) -> Float[Computed, ...]:
    """Return 2^exponent, for integers of at most 1022 in size."""
    if dtype != np.float64:
        return xp.ldexp(module(exponent).ones(np.shape(exponent), dtype), exponent)
    return bits((exponent.astype(np.int64) + 1023) << 52, np.float64)


def carried(values: Float[Computed, ...]) -> Bool[Computed, ""]:
    """Return whether float64 values survive scaling: all are 0, or the largest lies in [2⁻⁹⁰⁰, 2⁹⁰⁰].

    Below, denormals, which XLA may flush, could matter; above, scales overflow. Zero is tested on the bits, since
    a flushed denormal compares equal to it.
    """
    zero = xp.all(bits(values, np.uint64) << 1 == 0)
    largest = xp.max(xp.abs(values), initial=0.0)
    return zero | ((largest >= 2.0**-900) & (largest <= 2.0**900))


def scaled(values: Float[Computed, ...], exponent: Int[Computed, ...]) -> Float[Computed, ...]:
    """Return values·2^exponent, exact short of under- and overflow: |exponent| ≤ 1000; shapes as for ×."""
    return values * power(exponent, values.dtype)


def normalized(values: Float[Computed, ...]) -> tuple[Float[Computed, ...], Int[Computed, ...]]:
    """Return (a, e) with values = a·2^e and entries of a of size one, traced or not."""
    exponent = power_of_two(values)
    return scaled(values, -exponent), exponent


def two_product(
    a: Float[Computed, ...], b: Float[Computed, ...]
) -> tuple[Float[Computed, ...], Float[Computed, ...]]:
    """Return (h, l) with |ab − (h + l)| ≤ 2⁻⁷⁴|ab|, h = fl(ab).

    The halves come from a mask, not from Veltkamp's subtraction, so that neither contraction to FMA nor
    algebraic simplification by the compiler can change them; hi(a)·hi(b) has 52 bits and is exact.
    """
    high_a, high_b = _high_half(a), _high_half(b)
    low_a, low_b = a - high_a, b - high_b
    product = barrier(a * b)  # contracted with what follows, the tail would be lost
    return product, ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b


def _high_half(a: Float[Computed, ...]) -> Float[Computed, ...]:
    return bits(bits(a, np.int64) & np.int64(-(1 << 27)), np.float64)


def split_product(
    a: Float[Computed, "a k"], b: Float[Computed, "k b"]
) -> tuple[Float[Computed, "a b"], Float[Computed, "a b"]]:
    """Return (C, E) with |ab − C| ≤ E: the leading bits are multiplied exactly.

    a = A₁ + A₂ by rows and b = B₁ + B₂ by columns, with q = ⌊(53 − ⌈log₂ k⌉)/2⌋ leading bits: A₁B₁ is a sum of k
    integers below 2^2q and exact in any order. |A₂| ≤ τ, |B₂| ≤ τ with τ = 2^−(q+1) of the largest entry, so
    E = u|C| + γ_{2k+4}(rowsum|A₁| τ + τ colsum|B|).

    Args:
        a: left factor.
        b: right factor.

    Returns:
        The product and its elementwise error bound.
    """
    inner = a.shape[1]
    bits = (53 - math.ceil(math.log2(max(inner, 2)))) // 2
    rows, columns = power_of_two(a, axis=1), power_of_two(b, axis=0)
    a, b = scaled(a, -rows[:, None]), scaled(b, -columns[None, :])
    # rounding to integers, not (a + c) − c: XLA folds the latter to a
    a1, b1 = xp.round(a * 2.0**bits) * 2.0**-bits, xp.round(b * 2.0**bits) * 2.0**-bits
    # the barrier keeps the exact product from being accumulated on top of another
    exact, rest = barrier((matmul(a1, b1), matmul(a1, b - b1) + matmul(a - a1, b)))
    product = exact + rest
    tau = 2.0 ** -(bits + 1)
    tails = xp.sum(xp.abs(a1), axis=1)[:, None] * tau + tau * xp.sum(xp.abs(b), axis=0)[None, :]
    error = up(UNIT * xp.abs(product) + gamma(2 * inner + 4) * tails)
    return _rescaled(product, rows, columns), _rescaled(error, rows, columns)


def _rescaled(
    c: Float[Computed, "a b"], rows: Int[Computed, ...], columns: Int[Computed, ...]
) -> Float[Computed, "a b"]:
    return scaled(scaled(c, rows[:, None]), columns[None, :])


def product_up(*factors: float, over: float = 1.0, exponent: int = 0) -> float:
    """Return an upper bound of 2^exponent·Π factors/over, for numbers ≥ 0 of which ``over`` is not too large.

    Mantissas and exponents apart, at most 30 factors: no intermediate product over- or underflows. At least the
    smallest normal number unless a factor is 0; infinity where that is all that is known: beyond the largest number,
    for a factor that is infinite or NaN, for ``over`` = 0.

    Example:
        >>> product_up(2.0**-600, 2.0**-600, 2.0**1000) == 2.0**-200 * (1 + SLACK)
        True
        >>> product_up(2.0**-600, 2.0**-600) == NORMAL, product_up(0.0, 1.0), product_up(1.0, over=0.0)
        (True, 0.0, inf)
    """
    if not (all(map(math.isfinite, factors)) and 0 < over < math.inf):
        return math.inf
    mantissa, power = _parts(factors, over)
    try:
        return (
            float(at_least_normal(math.ldexp(mantissa * (1 + SLACK), power + exponent))) if mantissa else 0.0
        )
    except OverflowError:
        return math.inf


def product_down(*factors: float, over: float = 1.0, exponent: int = 0) -> float:
    """Return a lower bound of 2^exponent·Π factors/over, for numbers ≥ 0 of which ``over`` is not too small.

    0 below the smallest normal number and where nothing is known, the largest number beyond it, and infinity for
    ``over`` = 0 alone.

    Example:
        >>> product_down(2.0**-600, 2.0**-600), product_down(2.0**600, 2.0**600) < float("inf")
        (0.0, True)
        >>> product_down(1.0, over=0.0), product_down(0.0, over=0.0)
        (inf, 0.0)
    """
    if any(map(math.isnan, (*factors, over))) or 0 in factors or over == math.inf:
        return 0.0
    if over == 0:
        return math.inf
    mantissa, power = _parts([min(factor, sys.float_info.max) for factor in factors], over)
    try:
        value = math.ldexp(mantissa * (1 - SLACK), power + exponent)
    except OverflowError:
        return sys.float_info.max
    return value if value >= NORMAL else 0.0


def _parts(factors: Iterable[float], over: float) -> tuple[float, int]:
    """Return (m, e) with Π factors/over = m·2^e up to rounding."""
    mantissas, powers = zip(*map(math.frexp, factors), strict=True)
    divisor, power = math.frexp(over)
    return math.prod(mantissas) / divisor, sum(powers) - power
