"""An activation as the theory sees it: a function, its derivative, and the constants that bound both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from narrow_jax._typing import Array, HostArray

Elementwise = Callable[[Any], Any]

_CONSTANTS = {
    "lipschitz": "sup |σ'|",
    "min_derivative": "inf σ'",
    "sup_second_derivative": "sup |σ''|",
    "log_derivative_lipschitz": "sup |σ''/σ'|",
    "derivative_error": "roundings of derivative in units of 2⁻⁵³",
    "derivative_range": "the |z| below which the errors hold",
    "value_error": "roundings of value in units of 2⁻⁵³",
    "smoothing": "the deviation τ of the Gaussian",
}
_OPTIONAL = ("derivative_error", "smoothing")


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
        units: the activations that are applied column by column, where there are several (``per_unit``).

    Raises:
        TypeError: functions that are not callable, constants that are not numbers.
        ValueError: constants that no function has, such as NaN or a negative bound. Whether they are those of ``fn``
            is what ``check`` asks.

    Example:
        >>> import jax.numpy as jnp
        >>> import narrow_jax as nj
        >>> square = Activation("square", jnp.square, lambda z: 2 * z, lipschitz=float("inf"),
        ...                     min_derivative=float("-inf"), sup_second_derivative=2.0)
        >>> nj.activations.get(square).name
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
    units: tuple[Activation, ...] = ()

    def __post_init__(self) -> None:
        """Refuse constants that no function has."""
        for field in ("fn", "derivative", "value"):
            function = getattr(self, field)
            if not callable(function) and (field, function) != ("value", None):
                raise TypeError(f"{self._states(field)}; expected a function")
        for field in ("analytic", "zero_only_at_zero", "homogeneous"):
            if not isinstance(getattr(self, field), bool | np.bool_):
                raise TypeError(f"{self._states(field)}; expected True or False")
        for field in _CONSTANTS:
            self._check_constant(field)
        if not self.min_derivative <= self.lipschitz:
            raise ValueError(
                f"{self._states('min_derivative')} and lipschitz = {self.lipschitz!r}; expected inf σ' ≤ sup |σ'|"
            )

    def _check_constant(self, field: str) -> None:
        constant = getattr(self, field)
        if constant is None and field in _OPTIONAL:
            return
        if isinstance(constant, bool) or not isinstance(constant, int | float | np.integer | np.floating):
            raise TypeError(f"{self._states(field)}; expected a number")
        if math.isnan(constant) or (constant < 0 and field != "min_derivative"):
            expected = "a number" if field == "min_derivative" else "a number ≥ 0"
            raise ValueError(f"{self._states(field)}; expected {expected}: {_CONSTANTS[field]}")

    def _states(self, field: str) -> str:
        return f"activation {self.name!r} states {field} = {getattr(self, field)!r}"

    @property
    def vanishes(self) -> bool:
        """Return whether σ(0) = 0 exactly is known: a computed 0 would not tell."""
        if self.units:
            return all(unit.vanishes for unit in self.units)
        return self.zero_only_at_zero or self.homogeneous or self.fn is jax.numpy.sin

    def __call__(self, z: HostArray) -> Array:
        """Return σ(z)."""
        return self.fn(z)
