"""Activations with the constants that the theory asks of them.

An ``Activation`` is a function together with its derivative and the bounds that enter Lipschitz constants,
enclosures and theorems. ``get("tanh")`` returns a stock one; a user's own is made with the class and may be
passed wherever a name is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax._typing import Array

Elementwise = Callable[[Array], Array]


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
        derivative_error: bound of the relative error of ``derivative`` in float64, in units of 2⁻⁵³;
            None if it is not known, and then nothing that depends on it is certified.
        analytic: σ is real analytic with infinitely many non-zero Taylor coefficients at 0.
        zero_only_at_zero: σ(z) = 0 exactly at z = 0.

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
    analytic: bool = False
    zero_only_at_zero: bool = False

    def __call__(self, z: Array) -> Array:
        """Return σ(z)."""
        return self.fn(z)


def _tanh_derivative(z: Array) -> Array:
    e = jnp.exp(-2 * jnp.abs(z))  # 1 − tanh² loses all relative accuracy for large |z|
    return 4 * e / (1 + e) ** 2


def _sigmoid_derivative(z: Array) -> Array:
    e = jnp.exp(-jnp.abs(z))
    return e / (1 + e) ** 2


def _normal_pdf(z: Array) -> Array:
    return jnp.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


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
            analytic=True,
            zero_only_at_zero=True,
        ),
        Activation(
            "sigmoid",
            jax.nn.sigmoid,
            _sigmoid_derivative,
            lipschitz=0.25,
            min_derivative=0.0,
            sup_second_derivative=1 / (6 * math.sqrt(3)),
            analytic=True,
        ),
        Activation(
            "softplus",
            jax.nn.softplus,
            jax.nn.sigmoid,
            lipschitz=1.0,
            min_derivative=0.0,
            sup_second_derivative=0.25,
            analytic=True,
        ),
        Activation(
            "gelu",
            lambda z: jax.nn.gelu(z, approximate=False),
            lambda z: jax.scipy.stats.norm.cdf(z) + z * _normal_pdf(z),
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
            jnp.cos,
            lipschitz=1.0,
            min_derivative=-1.0,
            sup_second_derivative=1.0,
            analytic=True,
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
            "relu",
            jax.nn.relu,
            lambda z: (z > 0).astype(z.dtype),
            lipschitz=1.0,
            min_derivative=0.0,
            sup_second_derivative=math.inf,
            derivative_error=0.0,
        ),
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
