"""Activations with the constants that the theory asks of them.

An ``Activation`` is a function together with its derivative and the bounds that enter Lipschitz constants,
enclosures and theorems. ``get("tanh")`` returns a stock one; a user's own is made with the class and may be
passed wherever a name is accepted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _elementary
from narrow_jax._typing import Array, HostArray

Elementwise = Callable[[Any], Array]


@dataclass(frozen=True)
class Activation:
    """An elementwise activation σ and its constants.

    Args:
        name: what messages and reports call it.
        fn: σ, elementwise, any floating dtype.
        derivative: σ', elementwise, accurate in relative terms where that is possible.
        lipschitz: sup |σ'|.
        min_derivative: inf σ'.
        sup_second_derivative: sup |σ''|; infinity where σ' jumps.
        derivative_error: c with |computed σ'(z) − σ'(z)| ≤ c·2⁻⁵³|σ'(z)| + 2⁻⁹⁰ in float64; None if none is known,
            and then nothing that depends on it is certified.
        derivative_range: the |z| below which ``derivative_error`` and ``value_error`` hold.
        log_derivative_lipschitz: sup |σ''/σ'|; infinity where σ' vanishes. It makes bounds tight where σ saturates.
        analytic: σ is real analytic with infinitely many non-zero Taylor coefficients at 0.
        zero_only_at_zero: σ(z) = 0 exactly at z = 0.
        homogeneous: σ(az) = aσ(z) for every a > 0: linear on both sides of its kink at 0.
        smoothing: τ where σ(z) = E[s(z + τg)] − E[s(τg)] for a standard normal g and s of slopes inf σ' left of 0
            and sup σ' right of it; None for any other σ.
        value: σ from correctly rounded operations alone, for proofs; None if there is none.
        value_error: c with |computed value(z) − σ(z)| ≤ c·2⁻⁵³(1 + |z|) in float64.

    Example:
        >>> import jax.numpy as jnp
        >>> square = Activation("square", jnp.square, lambda z: 2 * z, lipschitz=float("inf"),
        ...                     min_derivative=float("-inf"), sup_second_derivative=2.0)
        >>> get(square).name
        'square'
    """

    name: str
    fn: Elementwise
    derivative: Elementwise
    lipschitz: float
    min_derivative: float
    sup_second_derivative: float
    derivative_error: float | None = None
    derivative_range: float = math.inf
    log_derivative_lipschitz: float = math.inf
    analytic: bool = False
    zero_only_at_zero: bool = False
    homogeneous: bool = False
    smoothing: float | None = None
    value: Elementwise | None = None
    value_error: float = math.inf

    def __call__(self, z: HostArray) -> Array:
        """Return σ(z)."""
        return self.fn(z)


# The errors of the values below, in units of 2⁻⁵³ with EXP_ERROR = 4. tanh = (1 − e)/(1 + e), e = exp(−2|z|): slope
# 2e/(1 + e)² ≤ 1/2 for log e and 3 roundings: 5. sigmoid: slope ≤ 1/4, 2 roundings: 3, stated as 4. softplus = log1p(e)
# + max(z, 0): LOG1P_ERROR·log 2, slope ≤ 1/2, one rounding of at most 1 + |z|: 10, stated as 12. sin z = cos(z − π/2):
# the difference is off by 2 + |z|, COS_ERROR = 8: 10, stated as 12.


def _tanh_value(z: Array) -> Array:
    e = _elementary.exp_negative(2 * jnp.abs(z))
    return jnp.sign(z) * ((1 - e) / (1 + e))


def _sigmoid_value(z: Array) -> Array:
    e = _elementary.exp_negative(jnp.abs(z))
    return jnp.where(z >= 0, 1.0, e) / (1 + e)


def _softplus_value(z: Array) -> Array:
    return jnp.maximum(z, 0.0) + _elementary.log1p(_elementary.exp_negative(jnp.abs(z)))


# The errors of the derivatives below, in units of 2⁻⁵³: e carries EXP_ERROR = 4, and log e ↦ log(e/(1 + e)²) has slope
# in [0, 1]; 1 + e, its square and the quotient add 2 + 1 + 1: 8, stated as 9. For the sigmoid: 4 + 1 + 1, stated as 7.


def _tanh_derivative(z: Array) -> Array:
    e = _elementary.exp_negative(2 * jnp.abs(z))  # 1 − tanh² loses all relative accuracy for large |z|
    return 4 * e / (1 + e) ** 2


def _sigmoid_derivative(z: Array) -> Array:
    e = _elementary.exp_negative(jnp.abs(z))
    return e / (1 + e) ** 2


@jax.custom_jvp
def _sigmoid(z: Array) -> Array:
    return _sigmoid_value(z)


@_sigmoid.defjvp
def _sigmoid_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # differentiated through |z| it would be 0 at z = 0
    return _sigmoid(*primals), _sigmoid_derivative(*primals) * tangents[0]


def _normal_cdf(z: Array) -> Array:
    return jax.scipy.special.erfc(-z / math.sqrt(2)) / 2


def _normal_pdf(z: Array) -> Array:
    return jnp.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def leaky_relu(slope: float) -> Activation:
    """Return max(az, z) with slope a, |a| ≤ 1: a = 0 is the ReLU, a = −1 is |z|.

    Raises:
        ValueError: a slope outside [−1, 1].

    Example:
        >>> print(leaky_relu(0.25)(jnp.array([-4.0, 4.0])))
        [-1.  4.]
    """
    if not -1 <= slope <= 1:
        raise ValueError(f"slope is {slope}; expected a number in [-1, 1] (0: ReLU, -1: absolute value)")
    return Activation(
        "relu" if slope == 0 else "abs" if slope == -1 else f"leaky_relu({slope})",
        lambda z: jnp.where(z > 0, z, slope * z),
        lambda z: jnp.where(z > 0, jnp.ones_like(z), jnp.full_like(z, slope)),
        lipschitz=1.0,
        min_derivative=float(slope),
        sup_second_derivative=math.inf,
        derivative_error=0.0 if slope in (0, -1) else 1.0,
        zero_only_at_zero=slope != 0,
        homogeneous=True,
        smoothing=0.0,
    )


def per_unit(activations: Sequence[str | Activation]) -> Activation:
    """Return the activation that applies the j-th of these to column j: units of one layer that differ.

    Raises:
        ValueError: none given; when applied, another number of columns.

    Example:
        >>> print(per_unit(["abs", leaky_relu(0.5)])(jnp.array([[-2.0, -2.0], [1.0, 1.0]])))
        [[ 2. -1.]
         [ 1.  1.]]
    """
    units = [get(activation) for activation in activations]
    if not units:
        raise ValueError("activations is empty; expected one a unit")
    kinds = list(dict.fromkeys(units))
    chosen = np.array([kinds.index(unit) for unit in units])

    def columns(functions: list[Elementwise]) -> Elementwise:
        def apply(z: Array) -> Array:
            if z.shape[-1:] != chosen.shape:
                raise ValueError(f"z has shape {z.shape}; expected {len(units)} columns, one an activation")
            here = jnp.broadcast_to(jnp.asarray(chosen), z.shape)
            return functools.reduce(
                lambda other, kind: jnp.where(here == kind, functions[kind](z), other),
                range(1, len(kinds)),
                functions[0](z),
            )

        return apply

    errors = [unit.derivative_error for unit in kinds]
    return Activation(
        f"per_unit({', '.join(unit.name for unit in units)})",
        columns([unit.fn for unit in kinds]),
        columns([unit.derivative for unit in kinds]),
        lipschitz=max(unit.lipschitz for unit in kinds),
        min_derivative=min(unit.min_derivative for unit in kinds),
        sup_second_derivative=max(unit.sup_second_derivative for unit in kinds),
        derivative_error=None if None in errors else max(error for error in errors if error is not None),
        derivative_range=min(unit.derivative_range for unit in kinds),
        log_derivative_lipschitz=max(unit.log_derivative_lipschitz for unit in kinds),
        analytic=all(unit.analytic for unit in kinds),
        zero_only_at_zero=all(unit.zero_only_at_zero for unit in kinds),
        homogeneous=all(unit.homogeneous for unit in kinds),
    )


def smooth_leaky_relu(gamma: float, beta: float) -> Activation:
    """Return the leaky ReLU max(γz, z) smoothed by a Gaussian, with σ(0) = 0, σ' in (γ, 1) and |σ''| ≤ β.

    σ(z) = γz + (1 − γ)(zΦ(z/τ) + τφ(z/τ)) − (1 − γ)²/(2πβ) with τ = (1 − γ)/(β√(2π)), Φ and φ the
    standard normal distribution and density.

    Raises:
        ValueError: γ outside (0, 1) or β ≤ 0.

    Example:
        >>> float(smooth_leaky_relu(gamma=0.5, beta=1.0)(jnp.zeros(())))
        0.0

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", equation (2).
    """
    if not 0 < gamma < 1:
        raise ValueError(f"gamma is {gamma}; expected a number in (0, 1), the smallest slope")
    _checks.positive("beta", beta)
    tau = (1 - gamma) / (beta * math.sqrt(2 * math.pi))

    def fn(z: Array) -> Array:
        # τφ(0) is the shift: their difference through expm1, so that σ(0) = 0 without rounding
        bump = tau / math.sqrt(2 * math.pi) * jnp.expm1(-((z / tau) ** 2) / 2)
        return gamma * z + (1 - gamma) * (z * _normal_cdf(z / tau) + bump)

    return Activation(
        f"smooth_leaky_relu({gamma}, {beta})",
        fn,
        lambda z: gamma + (1 - gamma) * _normal_cdf(z / tau),
        lipschitz=1.0,
        min_derivative=float(gamma),
        sup_second_derivative=float(beta),
        log_derivative_lipschitz=beta / gamma,
        analytic=True,
        zero_only_at_zero=True,
        smoothing=tau,
    )


_STOCK = {
    activation.name: activation
    for activation in (
        Activation(
            "tanh",
            jnp.tanh,
            _tanh_derivative,
            lipschitz=1.0,
            min_derivative=0.0,
            sup_second_derivative=4 / (3 * math.sqrt(3)),
            derivative_error=9.0,
            log_derivative_lipschitz=2.0,
            analytic=True,
            zero_only_at_zero=True,
            value=_tanh_value,
            value_error=5.0,
        ),
        Activation(
            "sigmoid",
            jax.nn.sigmoid,
            _sigmoid_derivative,
            lipschitz=0.25,
            min_derivative=0.0,
            sup_second_derivative=1 / (6 * math.sqrt(3)),
            derivative_error=9.0,
            log_derivative_lipschitz=1.0,
            analytic=True,
            value=_sigmoid_value,
            value_error=4.0,
        ),
        Activation(
            "softplus",
            jax.nn.softplus,
            _sigmoid,
            lipschitz=1.0,
            min_derivative=0.0,
            sup_second_derivative=0.25,
            derivative_error=7.0,
            log_derivative_lipschitz=1.0,
            analytic=True,
            value=_softplus_value,
            value_error=12.0,
        ),
        Activation(
            "gelu",
            lambda z: jax.nn.gelu(z, approximate=False),
            lambda z: _normal_cdf(z) + z * _normal_pdf(z),
            # σ'' = (2 − z²)φ(z): σ' is extreme at z = ±√2, σ'' at 0
            lipschitz=0.5 * (1 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi),
            min_derivative=0.5 * (1 - math.erf(1.0)) - math.exp(-1.0) / math.sqrt(math.pi),
            sup_second_derivative=2 / math.sqrt(2 * math.pi),
            analytic=True,
            zero_only_at_zero=True,
        ),
        Activation(
            "sin",
            jnp.sin,
            _elementary.cos,
            lipschitz=1.0,
            min_derivative=-1.0,
            sup_second_derivative=1.0,
            derivative_error=_elementary.COS_ERROR,
            derivative_range=_elementary.COS_RANGE,
            analytic=True,
            value=lambda z: _elementary.cos(z - math.pi / 2),
            value_error=12.0,
        ),
        Activation(
            "erf",
            jax.scipy.special.erf,
            lambda z: 2 / math.sqrt(math.pi) * jnp.exp(-(z**2)),
            lipschitz=2 / math.sqrt(math.pi),
            min_derivative=0.0,
            sup_second_derivative=math.sqrt(8 / math.pi) * math.exp(-0.5),
            analytic=True,
            zero_only_at_zero=True,
        ),
        leaky_relu(0.0),
        leaky_relu(-1.0),
    )
}


def names() -> tuple[str, ...]:
    """Return the names that ``get`` knows."""
    return tuple(_STOCK)


def get(activation: str | Activation) -> Activation:
    """Return the stock activation of that name, or the argument itself if it is an ``Activation``.

    Raises:
        ValueError: unknown name; close matches are named.
        TypeError: neither a name nor an ``Activation``.

    Example:
        >>> get("tanh").lipschitz
        1.0
    """
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str):
        raise TypeError(
            f"activation is a {type(activation).__name__}; expected a name ({', '.join(_STOCK)}) or an "
            "nj.activations.Activation with its derivative and constants"
        )
    return _STOCK[_checks.choice("activation", activation, _STOCK)]
