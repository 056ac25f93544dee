"""σ_min: random problems made to be hard, the same after hill climbing, and the check of an interval."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

import narrow_jax as nj
from benchmarks.adversary import exact, tricks
from benchmarks.adversary.exact import mp
from benchmarks.adversary.outcome import Outcome, call, judged
from narrow_jax.linalg import lanczos

Rng = np.random.Generator
METHODS = ("auto", "gram", "qr", "dense")
SMOOTH = ("tanh", "sin", "sigmoid", "softplus")
SLR = nj.activations.smooth_leaky_relu(0.25, 2.0)
UNPROVEN = ("relu", "abs", "gelu", "erf", SLR)
"""Activations whose σ' jumps or has no stated error: the interval says little, and has to be right all the same."""

SHAPES = {  # n, d, m, k: few, since each compiles programs of its own
    "wide": (12, 6, 8, 1),
    "two outputs": (6, 6, 8, 2),
    "three outputs": (4, 6, 8, 3),
    "square": (12, 3, 4, 1),
    "tiny": (2, 2, 2, 1),
    "one row": (1, 3, 4, 1),
    "tall": (12, 2, 4, 1),
}
CLIMB, POOL = 20, 5
"""Problems of a climb: the best of so many random ones, and so many steps from there, all of them checked."""

BATCH = 4
LARGEST_ERROR = 1e-5
"""σ_max is said to be an estimate to about 1e-6."""


@dataclass(frozen=True)
class Problem:
    """Arrays by the names that the operator of that ``kind`` takes: w, v and x, or matrix."""

    kind: str
    arrays: dict[str, np.ndarray]
    activation: Any = "tanh"

    def operator(self, arrays: dict[str, Any] | None = None) -> Any:
        """Return the Jacobian operator."""
        a = self.arrays if arrays is None else arrays
        if self.kind == "explicit":
            return nj.jacobian.explicit(a["matrix"])
        params = {"w": a["w"], "v": a["v"]}
        if self.kind in FUNCTIONS:
            return nj.jacobian.autodiff(FUNCTIONS[self.kind][0], params, a["x"], wrt="w")
        make = nj.jacobian.pairwise if self.kind == "pairwise" else nj.jacobian.standard
        return make(params, a["x"], self.activation)

    def rows(self) -> exact.Matrix:
        """Return J exactly: rows (i, c), columns (j, a)."""
        if self.kind == "explicit":
            return exact.matrix(self.arrays["matrix"])
        x, w, v = (exact.matrix(self.arrays[name]) for name in ("x", "w", "v"))
        v = v + [[-entry for entry in row] for row in v] if self.kind == "pairwise" else v
        slope = derivative(FUNCTIONS[self.kind][1] if self.kind in FUNCTIONS else self.activation)
        slopes = [[slope(z) for z in row] for row in exact.product(x, w)]
        weights = exact.transposed(v)
        return [
            [s * weight * entry for s, weight in zip(row, column, strict=True) for entry in sample]
            for row, sample in zip(slopes, x, strict=True)
            for column in weights
        ]


def derivative(activation: Any) -> Callable[[Any], Any]:
    """Return σ' in 150 digits."""
    if activation is SLR:
        return exact.smooth_leaky_relu(0.25, 2.0)[1]
    return exact.DERIVATIVES[activation]


def quadratic(params: Any, x: Any) -> Any:
    """Return Σ v_j (w_jᵀx)²: with few bits its Jacobian has no rounding."""
    return jnp.matmul(jnp.matmul(x, params["w"]) ** 2, params["v"])


def rectified(params: Any, x: Any) -> Any:
    """Return Σ v_j max(w_jᵀx, 0)."""
    z = jnp.matmul(x, params["w"])
    return jnp.matmul(jnp.where(z > 0, z, 0.0), params["v"])


def absolute(params: Any, x: Any) -> Any:
    """Return Σ v_j |w_jᵀx|, of slope −v_j at 0."""
    z = jnp.matmul(x, params["w"])
    return jnp.matmul(jnp.where(z > 0, z, -z), params["v"])


Function = Callable[[Any, Any], Any]
FUNCTIONS: dict[str, tuple[Function, str]] = {  # for autodiff: exact in float64 on data of few bits
    "quadratic": (quadratic, "square"),
    "rectified": (rectified, "relu"),
    "absolute": (absolute, "abs"),
}
KINDS = ("pairwise", "standard", "explicit", *FUNCTIONS)


# problems


def draw(rng: Rng) -> Problem:
    """Return a random problem with some of the tricks."""
    kind = str(rng.choice(KINDS, p=[0.55, 0.1, 0.15, *[0.2 / 3] * 3]))
    if kind == "explicit":
        return Problem(kind, {"matrix": graded_matrix(rng)})
    shape = (
        str(rng.choice(list(SHAPES), p=[0.46, 0.14, 0.1, 0.1, 0.08, 0.06, 0.06]))
        if kind == "pairwise"
        else "wide"
    )
    n, d, m, k = SHAPES[shape]
    arrays = {
        "x": rng.standard_normal((n, d)),
        "w": rng.standard_normal((d, m)) / np.sqrt(d),
        "v": rng.standard_normal((m // 2 if kind == "pairwise" else m, k)) / np.sqrt(m),
    }
    if kind in FUNCTIONS:
        return Problem(kind, few_bits(rng, arrays))
    smooth = SMOOTH if shape == "wide" else SMOOTH[:2]
    activation: Any = smooth[rng.integers(len(smooth))]
    if shape == "wide" and rng.random() < 0.1:
        activation = UNPROVEN[rng.integers(len(UNPROVEN))]
    for trick in rng.choice(list(tricks.TRICKS), size=rng.integers(0, 4), replace=False):
        tricks.TRICKS[str(trick)](rng, arrays)
    if rng.random() < 0.25:
        tricks.SCALES[rng.integers(len(tricks.SCALES))](rng, arrays)
    if rng.random() < 0.15 and max(np.abs(a).max() for a in arrays.values()) < 1e30:
        arrays = {name: a.astype(np.float32) for name, a in arrays.items()}
        if rng.random() < 0.1:  # into the denormal numbers
            arrays["x"] = np.ldexp(arrays["x"], -140)
    return Problem(kind, arrays, activation)


def graded_matrix(rng: Rng) -> np.ndarray:
    """Return a matrix of a condition number up to 1e15, its singular values graded, clustered or repeated."""
    rows, columns = ((12, 48), (3, 8), (12, 8), (1, 4))[rng.choice(4, p=[0.6, 0.2, 0.1, 0.1])]
    size = min(rows, columns)
    left = rng.standard_normal((rows, size))
    if rng.random() < 0.2:
        left[:, 0] = lanczos.start_vector(rows)  # a singular vector from which Lanczos' method gets nowhere
    left = np.linalg.qr(left)[0]
    right = np.linalg.qr(rng.standard_normal((columns, size)))[0]
    values = 10.0 ** -rng.uniform(0, rng.uniform(0, 15), size)
    if rng.random() < 0.3:
        values = values[rng.integers(0, size, size)]
    matrix = left * values @ right.T if rng.random() < 0.8 else np.eye(rows, columns) * rng.choice(values)
    if rng.random() < 0.2:
        matrix[rng.integers(rows)] = matrix[rng.integers(rows)]
    return np.ldexp(matrix, int(rng.choice([0, 0, 0, -500, 500, int(rng.integers(-1060, 1020))])))


def few_bits(rng: Rng, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return data of 7 bits and powers of two."""
    rounded = {name: np.round(a * 16).clip(-64, 64) for name, a in arrays.items()}
    size = rounded["x"].shape
    rounded["x"] *= 2.0 ** -rng.integers(0, rng.integers(1, 40), size[:1])[:, None]
    rounded["x"] *= 2.0 ** -rng.integers(0, rng.integers(1, 10), size[1])
    return {name: a * 2.0 ** rng.integers(-20, 20) for name, a in rounded.items()}


# the library's answers


def solve(problem: Problem, method: str) -> Any:
    """Return the interval of concrete arrays."""
    return nj.sigma_min(problem.operator(), method)


@functools.partial(jax.jit, static_argnames="method")
def _jitted(J: Any, method: str) -> Any:
    return nj.sigma_min(J, method)


@functools.partial(jax.jit, static_argnames="method")
def _batched(J: Any, method: str) -> Any:
    return jax.vmap(lambda J: nj.sigma_min(J, method))(J)


def solve_traced(problems: list[Problem], method: str, x64: bool, batch: bool) -> list[Any]:
    """Return the intervals of problems of one shape, under jit one by one, or under jit and vmap together."""
    with jax.enable_x64(x64):
        operators = [problem.operator() for problem in problems]
        if not batch:
            return [jax.tree.map(np.asarray, _jitted(J, method)) for J in operators]
        stacked = _batched(jax.tree.map(lambda *leaves: np.stack(leaves), *operators), method)
        return [jax.tree.map(lambda leaf: np.asarray(leaf)[i], stacked) for i in range(len(problems))]  # noqa: B023


# the check


class Operated(Protocol):
    """A problem whose Jacobian is known exactly."""

    @property
    def kind(self) -> str:
        """Return the name of its operator."""

    def rows(self) -> exact.Matrix:
        """Return J exactly."""


def check(problem: Operated, s: Any, how: str, statement: str = "") -> Outcome:
    """Return whether the interval, the value and the status are right."""
    rows = problem.rows()
    k = exact.gram(rows)
    lower, upper, value = (float(np.asarray(number)) for number in (s.lower, s.upper, s.value))
    if s.status == "rank_deficient_by_shape":
        misses = (
            [] if len(rows) > len(rows[0]) and lower == upper == value == 0 else [f"{s.status}: {value!r}"]
        )
    else:
        misses = exact.enclosure(k, lower, upper)
    certified = s.status == "certified"
    if certified != bool(s.certified) or (certified and not 0 < lower <= value <= upper):
        misses.append(f"{s.status}: lower = {lower!r}, value = {value!r}, upper = {upper!r}")
    sigma, (largest, kappa) = exact.smallest(k), spectrum(rows)
    if s.status not in ("not_converged", "rank_deficient_by_shape"):
        misses += inaccuracies(s, sigma, largest, max(len(rows), len(rows[0])))
    facts = {"kappa": kappa}
    if certified and not misses:
        facts |= {"width": (upper - lower) / value if value else 0.0, "edge": edge(sigma, lower, upper)}
    return judged(f"{problem.kind}, {how}", misses, certified, statement, **facts)


def inaccuracies(s: Any, sigma: Any, largest: Any, side: int) -> list[str]:
    """Return what the estimates are off by more than rounding, and more than the interval admits of itself."""
    limits = np.finfo(np.asarray(s.value).dtype)
    if largest > float(limits.max):
        return []
    value, sigma_max, upper = (mp.mpf(float(number)) for number in (s.value, s.sigma_max, s.upper))
    size = 32 * side * mp.mpf(float(limits.eps)) * largest + mp.mpf(float(limits.tiny))
    admitted = max(upper - value, mp.mpf(0))
    misses = []
    if not abs(value - sigma) <= size + admitted:
        misses.append(f"{s.status}, value = {mp.nstr(value, 17)}, and σ_min = {mp.nstr(sigma, 17)}")
    if not abs(sigma_max - largest) <= largest * LARGEST_ERROR + size + admitted:
        misses.append(
            f"{s.status}, sigma_max = {mp.nstr(sigma_max, 17)}, and in truth {mp.nstr(largest, 12)}"
        )
    return misses


def spectrum(rows: exact.Matrix) -> tuple[Any, float]:
    """Return σ_max to 1e-12, and κ in float64 for the record: infinity beyond 1e16."""
    size = max((abs(entry) for entry in exact.flat(rows)), default=mp.mpf(0))
    if not size:
        return mp.mpf(0), math.inf
    values = np.linalg.svd(
        np.array([[float(entry / size) for entry in row] for row in rows]), compute_uv=False
    )
    deficient = len(rows) > len(rows[0]) or values[-1] <= 1e-16 * values[0]
    return size * mp.mpf(float(values[0])), math.inf if deficient else float(values[0] / values[-1])


def edge(sigma: Any, lower: float, upper: float) -> float:
    """Return where in the interval the truth lies: 0 in the middle, 1 at a bound, above 1 outside."""
    return float(abs(2 * sigma - lower - upper) / (mp.mpf(upper) - lower)) if upper > lower else 0.0


def statement(problem: Problem, method: str, how: str = "") -> str:
    """Return the call again."""
    a = problem.arrays
    if problem.kind == "explicit":
        J = call("nj.jacobian.explicit", a["matrix"])
    elif problem.kind in FUNCTIONS:
        params = {"w": a["w"], "v": a["v"]}
        J = call("nj.jacobian.autodiff", FUNCTIONS[problem.kind][0], params, a["x"], wrt="w")
    else:
        J = call(f"nj.jacobian.{problem.kind}", {"w": a["w"], "v": a["v"]}, a["x"], problem.activation)
    return f"nj.sigma_min({J}, {method!r})" + (f"  # under {how}" if how else "")


def random_problems(rng: Rng) -> list[Outcome]:
    """Check one random problem of concrete arrays."""
    problem, method = draw(rng), METHODS[rng.choice(4, p=[0.55, 0.15, 0.15, 0.15])]
    with jax.enable_x64(bool(rng.integers(2))):
        s = solve(problem, method)
    return [check(problem, s, method, statement(problem, method))]


def traced_problems(rng: Rng) -> list[Outcome]:
    """Check ``BATCH`` problems of one shape under jit or jit and vmap, x64 on or off."""
    x64, batch = bool(rng.integers(2)), bool(rng.integers(2))
    method = "auto" if batch else ("auto", "qr")[rng.integers(2)]
    family = ("tanh", "sin", "explicit")[rng.integers(3)] if method == "auto" else "tanh"
    problems: list[Problem] = []
    while len(problems) < BATCH:
        problem = traceable(draw(rng), family, x64)
        problems += [problem] if problem else []
    how = f"{'jit(vmap)' if batch else 'jit'}, x64 {'on' if x64 else 'off'}, {method}"
    found = solve_traced(problems, method, x64, batch)
    return [check(p, s, how, statement(p, method, how)) for p, s in zip(problems, found, strict=True)]


def traceable(problem: Problem, family: str, x64: bool) -> Problem | None:
    """Return the problem as the family's one shape, activation and dtype have it; None if it does not fit.

    While x64 is off JAX makes float32 of what enters ``jit``.
    """
    arrays = problem.arrays
    fits = arrays["matrix"].shape == (12, 48) if "matrix" in arrays else arrays["x"].shape == (12, 6)
    if not fits or problem.kind != ("explicit" if family == "explicit" else "pairwise"):
        return None
    with np.errstate(over="ignore"):
        arrays = {name: a.astype(np.float64 if x64 else np.float32) for name, a in arrays.items()}
    finite = all(np.isfinite(a).all() for a in arrays.values())
    return replace(problem, arrays=arrays, activation=family) if finite else None


def climb(rng: Rng) -> list[Outcome]:
    """Check a random problem and its changes, each the one before if the truth came nearer to a bound."""
    method = METHODS[rng.choice(4, p=[0.4, 0.2, 0.2, 0.2])]

    def attempt(problem: Problem) -> tuple[Outcome, Problem]:
        return check(problem, solve(problem, method), f"climb, {method}", statement(problem, method)), problem

    def height(found: tuple[Outcome, Problem]) -> float:
        return found[0].facts.get("edge", -1.0)

    tried = [attempt(draw(rng)) for _ in range(POOL)]
    best = max(tried, key=height)
    for _ in range(CLIMB - POOL):
        tried.append(attempt(changed(rng, best[1])))
        best = max(best, tried[-1], key=height)
    return [outcome for outcome, _ in tried]


def changed(rng: Rng, problem: Problem) -> Problem:
    """Return the problem with some entries of one array moved, by much or by little."""
    name = str(rng.choice(list(problem.arrays)))
    a = problem.arrays[name]
    size = 2.0 ** -rng.integers(1, 52 if a.dtype == np.float64 else 22)
    moved = a * (1 + size * rng.standard_normal(a.shape) * (rng.random(a.shape) < rng.uniform(0.05, 1)))
    if problem.kind in FUNCTIONS:  # few bits have to stay few
        moved = a * 2.0 ** rng.integers(-1, 2, a.shape)
    return replace(problem, arrays=problem.arrays | {name: moved.astype(a.dtype)})
