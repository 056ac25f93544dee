"""``memorization``: where it holds, Newton's method in 150 digits must find a zero; it must not where there is none."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

import narrow_jax as nj
from benchmarks.adversary import exact
from benchmarks.adversary.exact import mp
from benchmarks.adversary.outcome import Outcome, call, judged

Rng = np.random.Generator
SHAPES = ((6, 4, 6, 1), (3, 4, 6, 2))  # n, d, m, k
ACTIVATIONS = ("tanh", "sigmoid", "softplus", "sin")
ZERO = mp.mpf(10) ** -60
"""‖y − f‖ below this times the labels counts as a zero: Newton's method squares it with every step."""

LIPSCHITZ = {"tanh": 1.0, "sigmoid": 0.25, "softplus": 1.0, "sin": 1.0}


class Net(NamedTuple):
    """A pairwise net on data, as the library gets it."""

    w: np.ndarray
    v: np.ndarray
    center: np.ndarray
    x: np.ndarray
    y: np.ndarray
    activation: str

    def certificate(self, radius: float) -> Any:
        """Return the library's answer."""
        params = {"w": self.w, "v": self.v}
        return nj.certificates.memorization(params, self.center, self.x, self.y, radius, self.activation)

    def statement(self, radius: float) -> str:
        """Return the call again."""
        params = {"w": self.w, "v": self.v}
        arguments = params, self.center, self.x, self.y, radius, self.activation
        return call("nj.certificates.memorization", *arguments)


def forward(w: exact.Matrix, v: exact.Matrix, x: exact.Matrix, activation: str) -> exact.Row:
    """Return f by rows (i, c)."""
    half, value = len(v), exact.VALUES[activation]
    hidden = [[value(z) for z in row] for row in exact.product(x, w)]
    pairs = [[a - b for a, b in zip(row[:half], row[half:], strict=True)] for row in hidden]
    return exact.flat(exact.product(pairs, v))


def jacobian(w: exact.Matrix, v: exact.Matrix, x: exact.Matrix, activation: str) -> exact.Matrix:
    """Return ∂f/∂w, rows (i, c), columns (a, j)."""
    slope = exact.DERIVATIVES[activation]
    signed = exact.transposed([*v, *([-entry for entry in row] for row in v)])
    slopes = [[slope(z) for z in row] for row in exact.product(x, w)]
    return [
        [entry * s * weight for entry in sample for s, weight in zip(row, column, strict=True)]
        for row, sample in zip(slopes, x, strict=True)
        for column in signed
    ]


def gram(w: Any, v: Any, x: Any, activation: str) -> exact.Matrix:
    """Return JJᵀ of arrays."""
    return exact.gram(jacobian(exact.matrix(w), exact.matrix(v), exact.matrix(x), activation))


def lipschitz(v: Any, x: Any, activation: str) -> tuple[Any, exact.Matrix]:
    """Return S₂ max_j‖v_j,:‖ and the rows ‖x_i‖x_i, whose norm is the other factor of L."""
    sizes = [exact.norm(row) for row in exact.matrix(v)]
    rows = [[exact.norm(row) * entry for entry in row] for row in exact.matrix(x)]
    return exact.SECOND[activation] * max(sizes), rows


def is_lipschitz(bound: float, v: Any, x: Any, activation: str) -> bool:
    """Return whether L ≤ bound."""
    front, rows = lipschitz(v, x, activation)
    return not front or exact.bounds_norm(rows, mp.mpf(bound) / front)


def newton(net: Net, steps: int = 40) -> tuple[bool, Any, Any]:
    """Return whether Newton's method with minimum-norm steps ends at a zero, ‖w − its start‖, and ‖w − w⁰‖."""
    start, v, x = (exact.matrix(a) for a in (net.w, net.v, net.x))
    y, w = exact.vector(net.y), exact.matrix(net.w)
    scale = max(exact.norm(y), mp.mpf(2) ** -2000)
    residual = [a - b for a, b in zip(y, forward(w, v, x, net.activation), strict=True)]
    for _ in range(steps):
        if exact.norm(residual) <= ZERO * scale:
            break
        rows = jacobian(w, v, x, net.activation)
        lower = exact.factor(exact.gram(rows))
        if lower is None:
            break
        u = exact.solve(lower, residual)
        step = [mp.fdot(column, u) for column in exact.transposed(rows)]
        moved = [a + b for a, b in zip(exact.flat(w), step, strict=True)]
        units = len(w[0])
        w = [moved[i : i + units] for i in range(0, len(moved), units)]
        residual = [a - b for a, b in zip(y, forward(w, v, x, net.activation), strict=True)]
    return exact.norm(residual) <= ZERO * scale, _apart(w, start), _apart(w, exact.matrix(net.center))


def _apart(a: exact.Matrix, b: exact.Matrix) -> Any:
    return exact.norm([p - q for p, q in zip(exact.flat(a), exact.flat(b), strict=True)])


def check(net: Net, radius: float, found: Any, case: str, solvable: bool = True) -> Outcome:
    """Return whether the verdict and its constants are right.

    Args:
        net: the problem.
        radius: ε.
        found: the library's answer.
        case: what problem this is.
        solvable: False where no zero lies in the ball.
    """
    misses = [] if not found.holds or solvable else ["holds, but no net in the ball has loss 0"]
    facts = {}
    if found.rows == net.y.size:
        misses += constants(net, found)
    if found.holds and solvable and found.rows == net.y.size:
        zero, moved, away = newton(net)
        if not zero:
            misses.append("holds, and Newton's method finds no zero")
        elif moved > found.rho * (1 + exact.EQUAL) or away > radius * (1 + exact.EQUAL):
            misses.append(
                f"the zero is {mp.nstr(moved, 9)} away, ρ = {found.rho!r}; ‖w − w⁰‖ = {mp.nstr(away, 9)}"
            )
        facts["tight"] = float(moved / found.rho) if found.rho else 0.0
    return judged(case, misses, found.holds, net.statement(radius), **facts)


def constants(net: Net, found: Any) -> list[str]:
    """Return which constants are on the wrong side."""
    w, v, x = (exact.matrix(a) for a in (net.w, net.v, net.x))
    k = gram(net.w, net.v, net.x, net.activation)
    f = forward(w, v, x, net.activation)
    residual = exact.norm([a - b for a, b in zip(exact.vector(net.y), f, strict=True)])
    wrong = {
        f"sigma = {found.sigma!r} is above σ_min": found.sigma > 0 and not exact.at_least(k, found.sigma),
        f"lipschitz = {found.lipschitz!r} is below L": not is_lipschitz(
            found.lipschitz, net.v, net.x, net.activation
        ),
        f"residual = {found.residual!r} is off by more than {found.rounding!r}": abs(
            residual - found.residual
        )
        > found.rounding,
        f"distance = {found.distance!r} is below ‖w − w⁰‖": found.distance
        < _apart(w, exact.matrix(net.center)) * (1 - exact.EQUAL),
    }
    return [text for text, is_wrong in wrong.items() if is_wrong]


# problems


def start(rng: Rng) -> Net:
    """Return a net at its mirrored start, labels 0."""
    n, d, m, k = SHAPES[rng.choice(2, p=[0.7, 0.3])]
    half = rng.standard_normal((d, m // 2)) / np.sqrt(d) * 10 ** rng.uniform(-0.5, 0.7)
    w = np.concatenate([half, half], axis=1)
    x = rng.standard_normal((n, d)) * 10.0 ** -rng.uniform(0, rng.uniform(0, 3), n)[:, None]
    v = np.abs(rng.standard_normal((m // 2, k))) / np.sqrt(m) + 1e-3
    v *= 10.0 ** -rng.uniform(0, rng.uniform(0, 2), len(v))[:, None]
    return Net(w, v, w, x, np.zeros((n, k)), ACTIVATIONS[rng.integers(4)])


def rescaled(net: Net, inputs: int, outputs: int) -> Net:
    """Return the same net in other units, exactly: x·2^a with w/2^a, v and y·2^b."""
    a, b = 2.0**inputs, 2.0**outputs
    return net._replace(w=net.w / a, center=net.center / a, x=net.x * a, v=net.v * b, y=net.y * b)


def with_labels(net: Net, w: np.ndarray) -> Net:
    """Return the net with labels that it has, to rounding, at other weights."""
    f = forward(exact.matrix(w), exact.matrix(net.v), exact.matrix(net.x), net.activation)
    return net._replace(y=np.array([float(value) for value in f]).reshape(net.y.shape))


def planted(rng: Rng) -> list[Outcome]:
    """Check a net near a solution, as far from it as the certificate can hold, in a ball that just fits.

    It is moved at random, or along the singular vector for which the Newton step is as long as its bound.
    """
    net = start(rng)
    size = net.w.size
    direction, noise = (rng.standard_normal(net.w.shape) / np.sqrt(size) for _ in range(2))
    solution = net.center + 10 ** rng.uniform(-3, 1) * direction
    net = with_labels(net, solution)
    if rng.random() < 0.5:
        rows = jacobian(exact.matrix(solution), exact.matrix(net.v), exact.matrix(net.x), net.activation)
        noise = np.linalg.svd(np.array(rows, float), full_matrices=False)[2][-1].reshape(noise.shape)
    if rng.random() < 0.4:
        inputs, outputs = rng.integers(-190, 190, 2)
        factor = 2.0 ** -float(inputs)
        net, solution, noise = rescaled(net, inputs, outputs), solution * factor, noise * factor
    reach = float(np.linalg.norm(solution - net.center))

    def at(exponent: float) -> Net:
        return net._replace(w=solution + 10.0**exponent * reach * noise)

    low, high = -14.0, 1.0
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle).certificate(math.inf).holds else (low, middle)
    near = at(low)
    found = near.certificate(math.inf)
    radius = (found.distance + found.rho) * (1 + 1e-9) if found.holds else reach
    return [check(near, radius, near.certificate(radius), "planted")]


def impossible(rng: Rng) -> list[Outcome]:
    """Check labels that no net in the ball has: too large for it, or contradicting each other or the symmetry of σ."""
    net = start(rng)
    case, net, radius = IMPOSSIBLE[rng.integers(len(IMPOSSIBLE))](rng, net)
    if case != "tiny" and rng.random() < 0.5:
        inputs, outputs = rng.integers(-450, 450), rng.integers(-450, 450)
        net, radius = rescaled(net, int(inputs), int(outputs)), radius * 2.0 ** -float(inputs)
    if not all(np.isfinite(a).all() for a in (net.w, net.v, net.x, net.y)):
        return []
    return [check(net, radius, net.certificate(radius), case, solvable=False)]


def _too_large(rng: Rng, net: Net) -> tuple[str, Net, float]:
    """|f_i| ≤ Lip‖x_i‖ Σ_j|v_j|‖w_j+ − w_j−‖ ≤ Lip‖x_i‖‖v‖√2 ε in the ball, and labels beyond that.

    The weights are where Newton's method gets with the ball left out.
    """
    radius = 10 ** rng.uniform(-3, 1)
    bound = (
        LIPSCHITZ[net.activation]
        * np.linalg.norm(net.x, axis=1)
        * np.linalg.norm(net.v)
        * np.sqrt(2)
        * radius
    )
    y = rng.standard_normal(net.y.shape)
    index = rng.integers(len(y))
    y *= bound[index] * (1 + 10 ** rng.uniform(-9, 0)) / np.abs(y[index]).max()
    return "labels too large for the ball", approached(net._replace(y=y)), radius


def approached(net: Net, steps: int = 6) -> Net:
    """Return the net after steps of Newton's method in float64, as long as they help."""
    w = net.w
    for _ in range(steps):
        z = net.x @ w
        values = np.array([[float(exact.VALUES[net.activation](q)) for q in row] for row in exact.matrix(z)])
        slopes = np.array(
            [[float(exact.DERIVATIVES[net.activation](q)) for q in row] for row in exact.matrix(z)]
        )
        plus, minus = np.split(values, 2, axis=1)
        residual = net.y - (plus - minus) @ net.v
        d = slopes[:, None, :] * np.concatenate([net.v, -net.v]).T
        rows = (net.x[:, None, :, None] * d[:, :, None, :]).reshape(net.y.size, -1)
        step = np.linalg.lstsq(rows, residual.ravel(), rcond=None)[0].reshape(w.shape)
        if not np.isfinite(step).all() or np.linalg.norm(step) > 1e3 * (1 + np.linalg.norm(net.w)):
            break
        w = w + step
    return net._replace(w=w)


def _contradictory(rng: Rng, net: Net) -> tuple[str, Net, float]:
    """Two equal samples whose labels differ in the last bit."""
    x, net = net.x.copy(), with_labels(net, net.w + 0.1 * rng.standard_normal(net.w.shape))
    i, j = rng.choice(len(x), 2, replace=False)
    x[i] = x[j]
    y = net.y.copy()
    y[i] = np.nextafter(y[j], np.inf)
    return "equal samples", approached(net._replace(x=x, y=y)), math.inf


def _symmetric(rng: Rng, net: Net) -> tuple[str, Net, float]:
    """f(−x) = −f(x) where σ is odd up to a constant, and labels that are not."""
    activation = ("tanh", "sigmoid", "sin")[rng.integers(3)]
    x, net = net.x.copy(), net._replace(activation=activation)
    i, j = rng.choice(len(x), 2, replace=False)
    x[i] = -x[j]
    net = with_labels(net._replace(x=x), net.w + 0.1 * rng.standard_normal(net.w.shape))
    y = net.y.copy()
    y[i] = np.nextafter(-y[j], np.inf) if rng.random() < 0.5 else y[j] + 1.0
    return "opposite samples", approached(net._replace(y=y)), math.inf


def _at_zero(rng: Rng, net: Net) -> tuple[str, Net, float]:
    """f(0) = 0, and a label that is not."""
    x, y = net.x.copy(), rng.standard_normal(net.y.shape)
    i = rng.integers(len(x))
    x[i], y[i] = 0.0, 10.0 ** -rng.uniform(0, 300)
    return "a sample at 0", net._replace(x=x, y=y), math.inf


def _too_close(rng: Rng, net: Net) -> tuple[str, Net, float]:
    """In the ball |f_i − f_l| ≤ Lip‖x_i − x_l‖ Σ_j|v_j|(‖w_j+‖ + ‖w_j−‖), and the labels are further apart."""
    x, radius = net.x.copy(), 10 ** rng.uniform(-2, 0.5)
    i, j = rng.choice(len(x), 2, replace=False)
    x[i] = x[j] * (1 + 2.0 ** -rng.integers(8, 52))
    gap = np.linalg.norm(x[i] - x[j])
    reach = np.linalg.norm(net.center, axis=0) + radius
    bound = LIPSCHITZ[net.activation] * gap * np.sum(np.abs(net.v)) * 2 * reach.max()
    net = with_labels(net._replace(x=x), net.w + 0.1 * rng.standard_normal(net.w.shape))
    y = net.y.copy()
    y[i] = y[j] + bound * (1 + 10 ** rng.uniform(-9, 3))
    return "samples too close", approached(net._replace(y=y)), radius


def _tiny(rng: Rng, net: Net) -> tuple[str, Net, float]:
    """|f_ic| ≤ sup σ − inf σ times Σ_j|v_jc| for every w, where x and v are so small that products of them vanish."""
    activation = ("tanh", "sigmoid", "sin")[rng.integers(3)]
    inputs, outputs = rng.integers(-399, -330, 2)
    x = net.x[:3] / np.abs(net.x[:3]).max(axis=1, keepdims=True) * 2.0**inputs
    v = net.v / np.abs(net.v).max() * 2.0**outputs
    y = 2 * np.sum(np.abs(v)) * (1 + 10 ** rng.uniform(-9, 6)) * np.ones((3, v.shape[1]))
    w = net.w if rng.random() < 0.5 else rng.standard_normal(net.w.shape)
    return "tiny", net._replace(w=w, v=v, x=x, y=y, activation=activation), math.inf


IMPOSSIBLE = (_too_large, _too_large, _contradictory, _symmetric, _at_zero, _too_close, _tiny, _tiny)


def memorization(rng: Rng) -> list[Outcome]:
    """Check a problem that has a solution, or one that has none."""
    return planted(rng) if rng.random() < 0.6 else impossible(rng)
