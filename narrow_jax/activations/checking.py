"""The constants that an activation states, against what its functions compute."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev

from narrow_jax._typing import Array
from narrow_jax.activations.activation import Activation
from narrow_jax.activations.stock import get, is_stock
from narrow_jax.linalg import UNIT, context

POINTS = 4096
"""Points that are evaluated at once, always as many: one program an activation."""

PARTS, ROUNDS = 64, 5
"""In how many parts the steepest intervals are divided, and how often: from 1/64 down to 1e-11."""

DEGREE = 6
"""Polynomials up to this degree are told from functions that are none."""


def check(activation: str | Activation) -> Activation:
    """Return the activation after its functions were compared with each other and with the constants it states.

    σ is sampled in float64 at 4,096 points of [−2²⁰, 2²⁰], small, dyadic and large ones, and at 20,000 more where σ'
    is steepest: the stated derivative against autodiff and differences of σ; sup |σ'|, inf σ', sup |σ''| and
    sup |σ''/σ'| against what is found; the value for proofs, and the flags as far as samples can tell. Samples refute,
    they never verify: a jump of σ' below 1e-4 or a wiggle narrower than 1/64 may pass, and the rounding errors that are
    stated are taken as they are where they are finer than the samples can tell. The operators and certificates
    that rely on the constants call this, once an activation.

    Args:
        activation: a name, or an ``Activation``; stock ones pass at once.

    Raises:
        ValueError: the field that is wrong, what is stated, what was found and where; or an unknown name.
        TypeError: neither a name nor an ``Activation``, or functions that JAX cannot trace.

    Example:
        >>> cube = Activation("cube", lambda z: z**3, lambda z: 3 * z**2, math.inf, 0.0, math.inf)
        >>> check(cube).name
        'cube'
    """
    sigma = get(activation)
    for unit in sigma.units or (sigma,):
        if not is_stock(unit):
            examine(unit)
    return sigma


@functools.cache
def examine(sigma: Activation) -> None:
    """Raise ValueError if samples refute what an activation states."""
    evaluate = jax.jit(functools.partial(_columns, sigma))

    def at(z: np.ndarray) -> _Samples:
        return _Samples(sigma, z, *(np.asarray(column, float) for column in evaluate(z)))

    # concrete points: the same within a traced function as outside it
    with context.float64(), jax.ensure_compile_time_eval(), np.errstate(all="ignore"):
        try:
            grid, step = at(_grid()), _step(sigma)
        except jax.errors.TracerArrayConversionError as error:
            raise TypeError(
                f"activation {sigma.name!r} calls NumPy on what JAX traces: write its functions with jax.numpy"
            ) from error
        findings = [
            *grid.derivatives(at(grid.z - step), at(grid.z + step)),
            *grid.values(),
            *grid.zeros(),
            *grid.shapes(at(2 * grid.z)),
        ]
        for finding in findings:
            finding.refuse(sigma)
        fine = grid.refined(at)
        for finding in (*fine.bounds(), *fine.curvatures()):
            finding.refuse(sigma)


class _Finding(NamedTuple):
    """What is stated and found at points z, and by how much the two contradict each other there."""

    field: str
    stated: float | bool | np.ndarray
    words: str
    found: np.ndarray
    excess: np.ndarray
    z: np.ndarray

    def refuse(self, sigma: Activation) -> None:
        """Raise at the point of the worst contradiction, if there is one."""
        excess = np.where(np.isnan(self.excess), -np.inf, self.excess)
        i = int(np.argmax(excess))
        if excess[i] > 0:
            stated, found = (np.broadcast_to(a, excess.shape)[i] for a in (self.stated, self.found))
            number = stated if isinstance(self.stated, bool) else f"{stated:.12g}"
            raise ValueError(
                f"activation {sigma.name!r} states {self.field} = {number}, but {self.words} {found:.12g} at "
                f"z = {self.z[i]:.9g}: correct it, what relies on it would be wrong"
            )


@dataclass(frozen=True)
class _Samples:
    """σ, σ' by autodiff and as stated, and σ for proofs, at increasing z; NaN where there is none."""

    sigma: Activation
    z: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    stated: np.ndarray
    proof: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """Return where the stated errors hold."""
        return np.abs(self.z) < self.sigma.derivative_range

    @property
    def derivative(self) -> np.ndarray:
        """Return σ' as stated, by autodiff where nothing is stated."""
        return np.where(self.inside, self.stated, self.slope)

    @property
    def relative(self) -> float:
        """Return the relative error of σ': where none is stated nothing is proven, and 1e-6 is let pass."""
        return 2.0**-20 if self.sigma.derivative_error is None else self.sigma.derivative_error * UNIT

    @property
    def noise(self) -> np.ndarray:
        """Return the error of σ' that is put down to rounding, in ``derivative`` and in autodiff."""
        slack = 2.0**-20 if self.sigma.derivative_error is None else 2.0**-40
        return self.relative * np.abs(self.derivative) + slack * np.maximum(1, np.abs(self.derivative))

    def derivatives(self, left: _Samples, right: _Samples) -> Iterator[_Finding]:
        """Compare σ' with the slopes of σ on both sides, between which it lies or nearly so, and with autodiff."""
        before = (self.value - left.value) / (self.z - left.z)
        after = (right.value - self.value) / (right.z - self.z)
        turn = np.abs(after - before)
        rounding = (2.0**-22 if self.sigma.derivative_error is None else 2.0**-46) * np.maximum(
            1, np.abs(self.value)
        )
        between = np.maximum(self.stated - np.maximum(before, after), np.minimum(before, after) - self.stated)
        off = between - turn - rounding / (right.z - self.z) - self.noise
        found = (before + after) / 2
        yield _Finding(
            "derivative", self.stated, "differences of fn give", found, np.where(self.inside, off, -1), self.z
        )
        kink = 0.0 if self.sigma.sup_second_derivative < math.inf else turn
        off = np.where(self.inside, np.abs(self.stated - self.slope) - self.noise - kink, -1)
        yield _Finding("derivative", self.stated, "autodiff of fn gives", self.slope, off, self.z)
        if self.sigma.derivative_error is not None:
            lost = self.inside & np.isfinite(self.slope) & ~np.isfinite(self.stated)
            yield _Finding(
                "derivative", self.stated, "autodiff of fn gives", self.slope, lost.astype(float), self.z
            )

    def values(self) -> Iterator[_Finding]:
        """Compare the value for proofs with σ, whose own rounding is let pass."""
        allowed = self.sigma.value_error * UNIT * (1 + np.abs(self.z)) + 2.0**-44 * np.maximum(
            1, np.abs(self.value)
        )
        off = np.where(self.inside, np.abs(self.proof - self.value) - allowed, -1)
        yield _Finding("value", self.proof, "fn gives", self.value, off, self.z)

    def zeros(self) -> Iterator[_Finding]:
        """Look for σ(0) ≠ 0, and for zeros and changes of sign elsewhere; far out and close to 0 σ may underflow."""
        if not self.sigma.zero_only_at_zero:
            return
        resolved = (np.abs(self.z) >= 2.0**-10) & (np.abs(self.z) <= 4)
        wrong = np.where(self.z == 0, self.value != 0, resolved & (self.value == 0))
        yield _Finding("zero_only_at_zero", True, "fn gives", self.value, wrong * 1.0, self.z)
        clear = np.abs(self.value) > 2.0**-40 * (1 + np.abs(self.z))
        sides = (self.z[1:] * self.z[:-1] > 0) & clear[1:] & clear[:-1]
        turns = sides & (np.sign(self.value[1:]) != np.sign(self.value[:-1]))
        yield _Finding(
            "zero_only_at_zero", True, "fn changes its sign to", self.value[1:], turns * 1.0, self.z[1:]
        )

    def shapes(self, double: _Samples) -> Iterator[_Finding]:
        """Compare σ with what the flags say of its shape."""
        sigma = self.sigma
        scale = 2.0**-40 * np.maximum(1, np.abs(self.value))
        if sigma.homogeneous:
            off = np.abs(double.value - 2 * self.value) - scale
            yield _Finding(
                "homogeneous",
                True,
                "fn(2z)/2 differs from fn(z) by",
                double.value / 2 - self.value,
                off,
                self.z,
            )
        if sigma.smoothing is not None:
            left, right = sigma.min_derivative, sigma.lipschitz
            tails = np.vectorize(math.erfc)(-self.z / math.sqrt(2) / max(sigma.smoothing, 2.0**-200)) / 2
            expected = left + (right - left) * tails
            off = np.where(
                self.z == 0,
                np.abs(self.value) - scale,
                np.abs(self.stated - expected) - self.noise - 2.0**-40,
            )
            yield _Finding(
                "smoothing",
                sigma.smoothing,
                "σ' differs from that of s by",
                self.stated - expected,
                off,
                self.z,
            )
        if sigma.analytic and not sigma.smoothing:  # smoothed it is analytic, however wide or narrow its bend
            yield _Finding("analytic", True, *self._polynomial(), self.z)

    def _polynomial(self) -> tuple[str, np.ndarray, np.ndarray]:
        """Say where σ is linear on a side of 0, or a polynomial: it has no infinite Taylor series then."""
        left, right = (self.stated[(side >= 0.25) & (side <= 1)] for side in (-self.z, self.z))
        straight = any(np.all(side == side[0]) for side in (left, right))
        small = np.abs(self.value) < 1e100
        z, value = self.z[small] / np.max(np.abs(self.z[small])), self.value[small]
        gap = chebyshev.chebval(z, chebyshev.chebfit(z, value, DEGREE)) - value
        rest = np.max(np.abs(gap)) / np.max(np.abs(value), initial=2.0**-900)
        words = f"fn is linear or a polynomial of degree at most {DEGREE}, up to"
        return words, np.full(self.z.shape, rest), np.full(self.z.shape, float(straight or rest < 2.0**-40))

    def bounds(self) -> Iterator[_Finding]:
        """Compare sup |σ'| and inf σ' with the slopes found."""
        slopes, sigma = self.derivative, self.sigma
        yield _Finding(
            "lipschitz",
            sigma.lipschitz,
            "σ' is",
            slopes,
            np.abs(slopes) - sigma.lipschitz - self.noise,
            self.z,
        )
        yield _Finding(
            "min_derivative",
            sigma.min_derivative,
            "σ' is",
            slopes,
            sigma.min_derivative - slopes - self.noise,
            self.z,
        )

    def curvatures(self) -> Iterator[_Finding]:
        """Compare sup |σ''| and sup |σ''/σ'| with the differences of σ' and log |σ'|, by the mean value theorem."""
        slopes, sigma = self.derivative, self.sigma
        z, width, change = self.z[1:], np.diff(self.z) * (1 + 1e-9), self._changes()
        off = change - sigma.sup_second_derivative * width
        yield _Finding(
            "sup_second_derivative", sigma.sup_second_derivative, "σ'' is near", change / width, off, z
        )
        if sigma.analytic and sigma.sup_second_derivative == math.inf:
            jumps = np.where(width < 2.0**-30, change - 1e-4 * np.maximum(1, np.abs(slopes[1:])), -1)
            yield _Finding("analytic", True, "σ' jumps by", change, jumps, z)
        if sigma.log_derivative_lipschitz < math.inf:
            size, error = np.abs(slopes), self.relative * np.abs(slopes) + 2.0**-90
            low, high = np.log(np.maximum(size - error, 0)), np.log(size + error)
            ratio = np.maximum(low[1:] - high[:-1], low[:-1] - high[1:]) - 2.0**-48 * (1 + np.abs(high[1:]))
            off = ratio - sigma.log_derivative_lipschitz * width
            stated = sigma.log_derivative_lipschitz
            yield _Finding("log_derivative_lipschitz", stated, "(log σ')' is near", ratio / width, off, z)

    def _changes(self) -> np.ndarray:
        """Return the differences of σ' that are more than its noise."""
        return np.maximum(np.abs(np.diff(self.derivative)) - self.noise[1:] - self.noise[:-1], 0)

    def refined(self, at: Callable[[np.ndarray], _Samples]) -> _Samples:
        """Return samples with more points where σ' is steepest and where its slope changes most."""
        grid = self
        for _ in range(ROUNDS):
            width = np.diff(grid.z)
            slope = np.nan_to_num(grid._changes() / width, posinf=0)
            slope[width < 2.0**-44 * np.abs(grid.z[1:])] = 0
            turn = np.abs(np.diff(slope, prepend=slope[0])) * width
            half = POINTS // PARTS // 2
            steep = np.argsort(slope)[-half:]
            turn[steep] = 0
            chosen = np.concatenate([steep, np.argsort(turn)[-half:]])
            inner = grid.z[chosen, None] + width[chosen, None] * (np.arange(PARTS) + 0.5) / PARTS
            grid = grid._merged(at(inner.reshape(-1)))
        return grid

    def _merged(self, other: _Samples) -> _Samples:
        names = ("z", "value", "slope", "stated", "proof")
        columns = [np.concatenate([getattr(self, name), getattr(other, name)]) for name in names]
        order = np.unique(columns[0], return_index=True)[1]
        return _Samples(self.sigma, *(column[order] for column in columns))


def _columns(sigma: Activation, z: Array) -> tuple[Array, ...]:
    """Return σ, its derivative by autodiff and as stated, and σ for proofs."""
    value = sigma.fn(z)
    none = jnp.full_like(z, jnp.nan)
    try:
        slope = jax.vjp(sigma.fn, z)[1](jnp.ones_like(value))[0]
    except (TypeError, ValueError, NotImplementedError):  # no reverse mode: the differences have to tell
        slope = none
    return value, slope, sigma.derivative(z), none if sigma.value is None else sigma.value(z)


def _grid() -> np.ndarray:
    """Return multiples of 1/64 up to 20, powers of two from 2⁻¹⁰⁰ to 2²⁰, and points in between."""
    dyadic = np.arange(-1280, 1281) / 64
    powers = 2.0 ** np.concatenate([np.arange(-100, 21), np.linspace(4.4, 19.9, 200)])
    known = np.unique(np.concatenate([dyadic, powers, -powers]))
    golden = (np.arange(1, POINTS - known.size + 1) * (math.sqrt(5) - 1) / 2) % 1
    return np.sort(np.concatenate([known, 40 * golden - 20]))


def _step(sigma: Activation) -> float:
    """Return the step of differences, below the scale on which σ' moves."""
    return float(np.clip(1 / (64 * max(sigma.sup_second_derivative, UNIT)), 2.0**-30, 2.0**-24))
