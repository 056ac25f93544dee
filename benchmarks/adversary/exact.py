"""References: exact data, 150 digits for what is not rational, and integers for ranks and projections.

σ_min(J) ∈ [lower, upper] is not computed but decided, by Sylvester's law of inertia: K − lower²I has only positive
pivots and K − upper²I has not, K = JJᵀ. Pivots are taken until the first that is not positive, so that the elimination
never leaves what is positive definite, where it is stable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np

mp = mpmath.MPContext()
mp.prec = 500
"""A context of its own: 150 digits, where κ² = 1e28 and rounding below 1e-40 need 70."""

EQUAL = mp.mpf(10) ** -40
"""Relative allowance where a bound may be attained."""

Row = list[Any]
Matrix = list[Row]


def matrix(array: Any) -> Matrix:
    """Return an array of any floating dtype, exactly."""
    return [[mp.mpf(float(entry)) for entry in row] for row in np.asarray(array)]


def vector(array: Any) -> Row:
    """Return all entries of an array, exactly."""
    return [mp.mpf(float(entry)) for entry in np.ravel(array)]


def transposed(a: Matrix) -> Matrix:
    """Return Aᵀ."""
    return [list(column) for column in zip(*a, strict=True)]


def product(a: Matrix, b: Matrix) -> Matrix:
    """Return AB."""
    columns = transposed(b)
    return [[mp.fdot(row, column) for column in columns] for row in a]


def gram(a: Matrix) -> Matrix:
    """Return the lower triangle of AAᵀ."""
    return [[mp.fdot(row, other) for other in a[: i + 1]] for i, row in enumerate(a)]


def norm(values: Sequence[Any]) -> Any:
    """Return the Euclidean norm."""
    return mp.sqrt(mp.fdot(values, values))


def flat(a: Matrix) -> Row:
    """Return the entries by rows."""
    return list(itertools.chain.from_iterable(a))


def factor(k: Matrix, shift: Any = 0) -> Matrix | None:
    """Return the Cholesky factor of K − shift·I, from lower triangles; None if a pivot is not positive."""
    rows: Matrix = []
    for i, source in enumerate(k):
        row: Row = []
        for j in range(i):
            row.append((source[j] - mp.fdot(row, rows[j][:j])) / rows[j][j])
        pivot = source[i] - shift - mp.fdot(row, row)
        if not pivot > 0:
            return None
        rows.append([*row, mp.sqrt(pivot)])
    return rows


def solve(lower: Matrix, b: Row) -> Row:
    """Return x with LLᵀx = b."""
    y: Row = []
    for row, value in zip(lower, b, strict=True):
        y.append((value - mp.fdot(row[:-1], y)) / row[-1])
    x: Row = []
    for i in reversed(range(len(y))):
        below = [lower[j][i] for j in range(len(y) - 1, i, -1)]
        x.append((y[i] - mp.fdot(below, x)) / lower[i][i])
    return x[::-1]


def enclosure(k: Matrix, lower: float, upper: float) -> list[str]:
    """Return what is wrong with lower ≤ √λ_min(K) ≤ upper."""
    if not 0 <= lower <= upper:
        return [f"[{lower!r}, {upper!r}] is no interval of numbers ≥ 0"]
    misses = []
    if lower > 0 and not at_least(k, lower):
        misses.append(f"lower = {lower!r} is above σ_min = {mp.nstr(smallest(k), 20)}")
    if upper < np.inf and factor(k, mp.mpf(upper) ** 2 * (1 + EQUAL)) is not None:
        misses.append(f"upper = {upper!r} is below σ_min = {mp.nstr(smallest(k), 20)}")
    return misses


def at_least(k: Matrix, sigma: Any) -> bool:
    """Return whether √λ_min(K) ≥ σ."""
    return factor(k, mp.mpf(sigma) ** 2 * (1 - EQUAL)) is not None


def bounds_norm(a: Matrix, bound: Any) -> bool:
    """Return whether ‖A‖₂ ≤ bound."""
    negative = [[-entry for entry in row] for row in gram(a)]
    shift = -(mp.mpf(bound) ** 2) * (1 + EQUAL)
    return mp.isinf(shift) or not any(flat(a)) or factor(negative, shift) is not None


def smallest(k: Matrix) -> Any:
    """Return √λ_min(K) to a relative 1e-30, 0 where K is singular.

    Inverse iteration gives Rayleigh quotients θ ≥ λ_min, Cholesky factors give shifts μ < λ_min. With the residual r
    of θ the next shift is θ − 2r, or halfway there where that is not below λ_min.
    """
    shift, lower = mp.mpf(0), factor(k)
    x = [mp.mpf(1) / (i + 2) for i in range(len(k))]
    if lower is None:
        return mp.mpf(0)
    for _ in range(300):
        x = solve(lower, x)
        size = norm(x)
        x = [entry / size for entry in x]
        image = times(k, x)
        theta = mp.fdot(x, image)
        if theta - shift <= THIRTY_DIGITS * theta:
            break
        nearer = theta - 2 * norm([a - theta * b for a, b in zip(image, x, strict=True)])
        nearer = max(nearer, (theta + shift) / 2 if nearer <= shift else shift)
        for _ in range(3):
            better = factor(k, nearer)
            if better is not None:
                shift, lower = nearer, better
                break
            nearer = (nearer + shift) / 2
    return mp.sqrt(theta)


THIRTY_DIGITS = mp.mpf(10) ** -30


def times(k: Matrix, x: Row) -> Row:
    """Return Kx from the lower triangle of K."""
    full = [[k[max(i, j)][min(i, j)] for j in range(len(k))] for i in range(len(k))]
    return [mp.fdot(row, x) for row in full]


def largest(k: Matrix, steps: int = 3000) -> Any:
    """Return √λ_max(K) by the power method with squarings: relative error below 1e-12, from below."""
    full = [[k[max(i, j)][min(i, j)] for j in range(len(k))] for i in range(len(k))]
    trace = sum(full[i][i] for i in range(len(k)))
    if not trace:
        return mp.mpf(0)
    power = [[entry / trace for entry in row] for row in full]
    while steps > 1:
        power, steps = product(power, power), steps // 2
        scale = sum(power[i][i] for i in range(len(k)))
        power = [[entry / scale for entry in row] for row in power]
    x = max(transposed(power), key=norm)
    return mp.sqrt(mp.fdot(x, times(k, x)) / mp.fdot(x, x))


# activations: σ, σ', sup|σ''|


def _normal_cdf(z: Any) -> Any:
    if abs(z) > 2**20:  # mpmath overflows for more; the difference is below e^(−2³⁹)
        return mp.mpf(z > 0)
    return mp.erfc(-z / mp.sqrt(2)) / 2


VALUES: dict[str, Callable[[Any], Any]] = {
    "tanh": mp.tanh,
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "softplus": lambda z: mp.log1p(mp.exp(-abs(z))) + max(z, mp.mpf(0)),
    "sin": mp.sin,
    "relu": lambda z: max(z, mp.mpf(0)),
}
DERIVATIVES: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda z: 1 / mp.cosh(z) ** 2,
    "sigmoid": lambda z: 1 / (4 * mp.cosh(z / 2) ** 2),
    "softplus": lambda z: 1 / (1 + mp.exp(-z)),
    "sin": mp.cos,
    "square": lambda z: 2 * z,
    "relu": lambda z: mp.mpf(z > 0),
    "abs": lambda z: mp.mpf(1 if z > 0 else -1),
    "gelu": lambda z: _normal_cdf(z) + z * mp.exp(-(z**2) / 2) / mp.sqrt(2 * mp.pi),
    "erf": lambda z: 2 / mp.sqrt(mp.pi) * mp.exp(-(z**2)),
}
SECOND = {
    "tanh": 4 / (3 * mp.sqrt(3)),
    "sigmoid": 1 / (6 * mp.sqrt(3)),
    "softplus": mp.mpf(1) / 4,
    "sin": mp.mpf(1),
}


def smooth_leaky_relu(gamma: float, beta: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return σ and σ' of activation (2): its closed form."""
    low, high = mp.mpf(gamma), 1 - mp.mpf(gamma)
    tau = high / (mp.mpf(beta) * mp.sqrt(2 * mp.pi))

    def value(z: Any) -> Any:
        bump = tau / mp.sqrt(2 * mp.pi) * mp.expm1(-((z / tau) ** 2) / 2)
        return low * z + high * (z * _normal_cdf(z / tau) + bump)

    return value, lambda z: low + high * _normal_cdf(z / tau)


# integers: ranks, and projections of rational data


def integers(array: Any) -> list[list[int]]:
    """Return the rows times powers of two of their own, which make them integers."""
    return [whole([Fraction(float(entry)) for entry in row]) for row in np.asarray(array)]


def whole(row: Sequence[Fraction]) -> list[int]:
    """Return a row of fractions without their common denominator and common factor."""
    shared = math.lcm(*(entry.denominator for entry in row))
    entries = [int(entry * shared) for entry in row]
    return [entry // (math.gcd(*entries) or 1) for entry in entries]


def independent(rows: list[list[int]]) -> list[int]:
    """Return the indices of rows that are linearly independent of those before them: their number is the rank."""
    basis: list[tuple[int, list[int]]] = []
    kept = []
    for index, row in enumerate(rows):
        rest = row
        for pivot, other in basis:
            if rest[pivot]:
                rest = [other[pivot] * a - rest[pivot] * b for a, b in zip(rest, other, strict=True)]
        if shared := math.gcd(*rest):  # of Python's integers: NumPy's would become floats
            rest = [entry // shared for entry in rest]
            basis.append((next(i for i, entry in enumerate(rest) if entry), rest))
            kept.append(index)
    return kept


def rank(array: Any) -> int:
    """Return the rank, exactly."""
    return len(independent(integers(array)))


def residual(columns: Sequence[Sequence[Fraction]], y: Sequence[Fraction]) -> tuple[Row, int]:
    """Return (I − P[M])y in 150 digits, and the rank of M, for the columns of a rational M."""
    rows = [whole(column) for column in columns]
    basis = [[mp.mpf(entry) for entry in rows[i]] for i in independent(rows)]
    basis = [[entry / norm(row) for entry in row] for row in basis]
    rest = [mp.mpf(entry.numerator) / entry.denominator for entry in y]
    if basis:
        lower = factor(gram(basis))
        assert lower is not None, "independent rows have a positive definite Gram matrix"
        weights = solve(lower, [mp.fdot(row, rest) for row in basis])
        fit = [mp.fdot(weights, entries) for entries in zip(*basis, strict=True)]
        rest = [a - b for a, b in zip(rest, fit, strict=True)]
    return rest, len(basis)


def unexplained(columns: Sequence[Sequence[Fraction]], y: Sequence[Fraction]) -> tuple[Any, int]:
    """Return ½‖(I − P[M])y‖² and the rank of M."""
    rest, size = residual(columns, y)
    return mp.fdot(rest, rest) / 2, size
