"""The activations that go by a name, and those with a parameter: rectifiers and their smoothed form."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks
from narrow_jax._typing import Array
from narrow_jax.activations import formulas
from narrow_jax.activations.activation import Activation, Elementwise
from narrow_jax.linalg import elementary, xp


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
    return _leaky_relu(float(slope))


@functools.cache
def _leaky_relu(slope: float) -> Activation:
    def fn(z: Array) -> Array:
        return jnp.where(z > 0, z, slope * z)

    return Activation(
        "relu" if slope == 0 else "abs" if slope == -1 else f"leaky_relu({slope})",
        fn,
        lambda z: xp.where(z > 0, xp.ones_like(z), xp.full_like(z, slope)),
        lipschitz=1.0,
        min_derivative=slope,
        sup_second_derivative=math.inf,
        derivative_error=0.0 if slope in (0, -1) else 1.0,
        zero_only_at_zero=slope != 0,
        homogeneous=True,
        smoothing=0.0,
        value=lambda z: xp.where(z > 0, z, slope * z),
        value_error=0.0 if slope in (0, -1) else 1.0,
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
    return _smooth_leaky_relu(float(gamma), float(beta))


@functools.cache
def _smooth_leaky_relu(gamma: float, beta: float) -> Activation:
    tau = (1 - gamma) / (beta * math.sqrt(2 * math.pi))

    def fn(z: Array) -> Array:
        # τφ(0) is the shift: their difference through expm1, so that σ(0) = 0 without rounding
        bump = tau / math.sqrt(2 * math.pi) * jnp.expm1(-((z / tau) ** 2) / 2)
        return gamma * z + (1 - gamma) * (z * formulas.normal_cdf(z / tau) + bump)

    return Activation(
        f"smooth_leaky_relu({gamma}, {beta})",
        fn,
        lambda z: gamma + (1 - gamma) * formulas.normal_cdf(z / tau),
        lipschitz=1.0,
        min_derivative=gamma,
        sup_second_derivative=beta,
        log_derivative_lipschitz=beta / gamma,
        analytic=True,
        zero_only_at_zero=True,
        smoothing=tau,
    )


# σ' of swish is extreme where 2 + z(1 − 2s) = 0, at z tanh(z/2) = 2: there s = 1/2 ± 1/z and σ' = 1/2 ± z/4
_SWISH_EXTREME = 2.3993572805154677

_NAMED = {
    activation.name: activation
    for activation in (
        Activation(
            "tanh",
            jnp.tanh,
            formulas.tanh_derivative,
            lipschitz=1.0,
            min_derivative=0.0,
            sup_second_derivative=4 / (3 * math.sqrt(3)),
            derivative_error=9.0,
            log_derivative_lipschitz=2.0,
            analytic=True,
            zero_only_at_zero=True,
            value=formulas.tanh_value,
            value_error=5.0,
        ),
        Activation(
            "sigmoid",
            jax.nn.sigmoid,
            formulas.sigmoid_derivative,
            lipschitz=0.25,
            min_derivative=0.0,
            sup_second_derivative=1 / (6 * math.sqrt(3)),
            derivative_error=9.0,
            log_derivative_lipschitz=1.0,
            analytic=True,
            value=formulas.sigmoid_value,
            value_error=4.0,
        ),
        Activation(
            "softplus",
            jax.nn.softplus,
            formulas.sigmoid,
            lipschitz=1.0,
            min_derivative=0.0,
            sup_second_derivative=0.25,
            derivative_error=7.0,
            log_derivative_lipschitz=1.0,
            analytic=True,
            value=formulas.softplus_value,
            value_error=12.0,
        ),
        Activation(
            "gelu",
            lambda z: jax.nn.gelu(z, approximate=False),
            lambda z: formulas.normal_cdf(z) + z * formulas.normal_pdf(z),
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
            elementary.cos,
            lipschitz=1.0,
            min_derivative=-1.0,
            sup_second_derivative=1.0,
            derivative_error=elementary.COS_ERROR,
            derivative_range=elementary.COS_RANGE,
            analytic=True,
            value=lambda z: elementary.cos(z - math.pi / 2),
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
        Activation(
            "swish",
            jax.nn.silu,
            formulas.swish_derivative,
            lipschitz=0.5 + _SWISH_EXTREME / 4,
            min_derivative=0.5 - _SWISH_EXTREME / 4,
            sup_second_derivative=0.5,  # at 0
            analytic=True,
            zero_only_at_zero=True,
        ),
        Activation(
            "mish",
            formulas.mish,
            formulas.mish_derivative,
            # σ' is extreme at z = 1.490571… and −2.256376…, σ'' at −0.087934…: roots to 40 digits, no closed form
            lipschitz=1.0884981612517280,
            min_derivative=-0.11252612238946256,
            sup_second_derivative=0.64420463723697243,
            analytic=True,
            zero_only_at_zero=True,
        ),
        Activation(
            "gelu_tanh",
            formulas.gelu_tanh,
            formulas.gelu_tanh_derivative,
            # σ'' = 0 at z = ±1.418504…, to 40 digits; |σ''| is largest at 0
            lipschitz=1.1289930686587718,
            min_derivative=-0.12899306865877177,
            sup_second_derivative=math.sqrt(2 / math.pi),
            analytic=True,
            zero_only_at_zero=True,
        ),
        leaky_relu(0.0),
        leaky_relu(-1.0),
    )
}
_STOCK = {**_NAMED, "silu": _NAMED["swish"]}


def names() -> tuple[str, ...]:
    """Return the names that ``get`` knows."""
    return tuple(_STOCK)


def is_stock(activation: Activation) -> bool:
    """Return whether the activation is one that goes by a name."""
    return activation in _STOCK.values()


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


def shared(activation: str | Activation) -> Activation:
    """Return the activation of a pairwise net of one hidden layer, whose units share one.

    Raises:
        ValueError: ``per_unit``, or an unknown name.
    """
    sigma = get(activation)
    if sigma.units:
        raise ValueError(
            f"activation is {sigma.name}; the units of a pairwise net of one hidden layer share one activation: take a "
            "standard net, or a deep pair, whose halves may have units that differ"
        )
    return sigma


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
        units=tuple(kinds),
    )
