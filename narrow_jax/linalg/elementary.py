"""exp(−t), log(1 + e) and cos(z) from additions and multiplications alone, with proven float64 error bounds.

XLA states no error bound for its own; these have one that holds on every backend with IEEE arithmetic, with
or without contraction to FMA (docs/proofs/enclosure.md, section "Elementary functions").
"""

from __future__ import annotations

import math

import numpy as np

from narrow_jax._typing import Computed, Float
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.arrays import CustomJvp, xp

EXP_ERROR = 4.0
"""Relative error of ``exp_negative`` in units of 2⁻⁵³ (3 derived), beside an absolute 2⁻¹⁰²⁰ for underflow."""

LOG1P_ERROR = 12.0
"""Relative error of ``log1p`` in units of 2⁻⁵³ (8 derived)."""

COS_ERROR = 8.0
"""Relative error of ``cos`` in units of 2⁻⁵³ (5 derived), beside an absolute 2⁻⁹⁷."""

COS_RANGE = 2.0**20
"""Where COS_ERROR holds: |z| below this."""

# ln 2 and π/2 in parts whose products with the integer k are exact
_LN2 = (float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33"))
_HALF_PI = (
    float.fromhex("0x1.921fb54400000p+0"),
    float.fromhex("0x1.0b4611a600000p-34"),
    float.fromhex("0x1.3198a2e037073p-69"),
)
_EXP_TERMS = tuple(1 / math.factorial(i) for i in range(14))
_ATANH_TERMS = tuple(2 / (2 * i + 1) for i in range(18))
_SIN_TERMS = tuple((-1) ** i / math.factorial(2 * i + 1) for i in range(9))
_COS_TERMS = tuple((-1) ** i / math.factorial(2 * i) for i in range(9))


def _horner(terms: tuple[float, ...], r: Computed) -> Computed:
    result = xp.full_like(r, terms[-1])
    for term in reversed(terms[:-1]):
        result *= r  # in place where NumPy has it
        result += term
    return result


@CustomJvp
def exp_negative(t: Float[Computed, ...]) -> Float[Computed, ...]:
    """Return exp(−t) for t ≥ 0, in float64 with relative error EXP_ERROR·2⁻⁵³.

    t = k ln 2 − r with |r| ≤ 0.35; t − k·hi is exact, and Taylor's polynomial of degree 13 leaves 4e-18.

    Example:
        >>> import jax.numpy as jnp
        >>> float(exp_negative(jnp.array(0.0)))
        1.0
    """
    if t.dtype != np.float64:
        return xp.exp(-t)
    k = xp.round(xp.minimum(t, 1100.0) * (1 / math.log(2)))
    r = -((xp.minimum(t, 1100.0) - k * _LN2[0]) - k * _LN2[1])
    half = xp.floor(k / 2)  # 2^−k in two factors: it may be below the smallest number
    return _horner(_EXP_TERMS, r) * fl.power(-half) * fl.power(half - k)


@exp_negative.defjvp
def _exp_negative_jvp(primals: tuple[Computed], tangents: tuple[Computed]) -> tuple[Computed, Computed]:
    value = exp_negative(*primals)
    return value, -value * tangents[0]


def log1p(e: Float[Computed, ...]) -> Float[Computed, ...]:
    """Return log(1 + e) for 0 ≤ e ≤ 1, in float64 with relative error LOG1P_ERROR·2⁻⁵³.

    log(1 + e) = 2 artanh t with t = e/(2 + e) ≤ 1/3; Taylor's polynomial of degree 35 leaves 2e-19 relatively.

    Example:
        >>> import jax.numpy as jnp
        >>> f"{float(log1p(jnp.array(1.0))):.4f}"
        '0.6931'
    """
    t = e / (2 + e)
    return t * _horner(_ATANH_TERMS, t * t)


@CustomJvp
def cos(z: Float[Computed, ...]) -> Float[Computed, ...]:
    """Return cos z, in float64 with relative error COS_ERROR·2⁻⁵³ + 2⁻⁹⁷ for |z| < COS_RANGE.

    z = k π/2 + r by three parts of π/2 (Cody and Waite), then Taylor's polynomials for |r| ≤ π/4.

    Example:
        >>> import jax.numpy as jnp
        >>> float(cos(jnp.array(0.0)))
        1.0
    """
    if z.dtype != np.float64:
        return xp.cos(z)
    k = xp.round(xp.clip(z, -COS_RANGE, COS_RANGE) * (2 / math.pi))
    r = ((z - k * _HALF_PI[0]) - k * _HALF_PI[1]) - k * _HALF_PI[2]
    quadrant = xp.mod(k, 4.0)
    sine, cosine = r * _horner(_SIN_TERMS, r * r), _horner(_COS_TERMS, r * r)
    sign = xp.where((quadrant == 1) | (quadrant == 2), -1.0, 1.0)
    reduced = sign * xp.where((quadrant == 1) | (quadrant == 3), sine, cosine)
    return xp.where(xp.abs(z) < COS_RANGE, reduced, xp.cos(z))


@cos.defjvp
def _cos_jvp(primals: tuple[Computed], tangents: tuple[Computed]) -> tuple[Computed, Computed]:
    return cos(*primals), -xp.sin(primals[0]) * tangents[0]
