"""σ_min of deep nets and of pairs: random problems made to be hard; the check is that of ``sigma``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import narrow_jax as nj
from benchmarks.adversary import exact, sigma
from benchmarks.adversary.exact import mp
from benchmarks.adversary.outcome import Outcome, call

Rng = np.random.Generator
SHAPES = (  # n, d, widths, k, σ beside tanh: few, since each compiles programs of its own
    (8, 2, (5, 5), 1, "softplus"),
    (4, 3, (3, 4), 2, "relu"),
    (6, 3, (3, 3, 3), 1, "sin"),
    (5, 2, (3, 3, 3, 3), 1, "relu"),
    (3, 2, (2, 2, 2, 2, 2), 2, "softplus"),
)


@dataclass(frozen=True)
class Deep:
    """A net W_1 … W_H, V, or a pair of two; ``wrt`` names the layers of a net, all where it is None."""

    x: np.ndarray
    halves: tuple[tuple[np.ndarray, ...], ...]
    v: np.ndarray
    activation: str
    wrt: tuple[str, ...] | None = None

    @property
    def kind(self) -> str:
        """Return the name of the operator."""
        return "mlp" if len(self.halves) == 1 else "pairwise_mlp"

    @property
    def params(self) -> Any:
        """Return the weights as the operator takes them."""
        named = [{f"w{layer}": w for layer, w in enumerate(half, start=1)} for half in self.halves]
        if self.kind == "mlp":
            return named[0] | {f"w{len(named[0]) + 1}": self.v}
        return {"plus": named[0], "minus": named[1], "v": self.v}

    def operator(self) -> Any:
        """Return the Jacobian operator."""
        if self.kind == "mlp":
            return nj.jacobian.mlp(self.params, self.x, self.activation, wrt=self.wrt)
        return nj.jacobian.pairwise_mlp(self.params, self.x, self.activation)

    def statement(self, method: str) -> str:
        """Return the call again."""
        keywords = {"wrt": self.wrt} if self.kind == "mlp" else {}
        J = call(f"nj.jacobian.{self.kind}", self.params, self.x, self.activation, **keywords)
        return f"nj.sigma_min({J}, {method!r})"

    def rows(self) -> exact.Matrix:
        """Return J exactly; the order of its columns does not matter."""
        outer = len(self.halves[0]) + 1
        layers = range(1, outer + 1) if self.wrt is None else [int(name[1:]) for name in self.wrt]
        chosen = layers if self.kind == "mlp" else range(1, outer)
        parts = [self._of_half(half, list(chosen)) for half in self.halves]
        return [[entry for part in row for entry in part] for row in zip(*parts, strict=True)]

    def _of_half(self, half: tuple[np.ndarray, ...], chosen: list[int]) -> exact.Matrix:
        weights, v = [exact.matrix(w) for w in half], exact.matrix(self.v)
        return [
            row
            for sample in exact.matrix(self.x)
            for row in _rows_of_sample(sample, weights, v, self.activation, chosen)
        ]


def _rows_of_sample(
    sample: list[Any], weights: list[exact.Matrix], v: exact.Matrix, activation: str, chosen: list[int]
) -> list[list[Any]]:
    """Return the rows of one sample, an output each, by the chain rule."""
    value, slope = exact.VALUES[activation], exact.DERIVATIVES[activation]
    inputs, slopes = [sample], []
    for w in weights:
        (z,) = exact.product([inputs[-1]], w)
        slopes.append([slope(entry) for entry in z])
        inputs.append([value(entry) for entry in z])
    rows = []
    for output, column in enumerate(exact.transposed(v)):
        unit = [mp.mpf(int(output == other)) for other in range(len(v[0]))]
        entries = {len(weights) + 1: [a * e for a in inputs[-1] for e in unit]}
        delta = [a * b for a, b in zip(column, slopes[-1], strict=True)]
        for layer in range(len(weights), 0, -1):
            entries[layer] = [a * e for a in inputs[layer - 1] for e in delta]
            if layer > 1:
                (back,) = exact.product([delta], exact.transposed(weights[layer - 1]))
                delta = [a * b for a, b in zip(back, slopes[layer - 2], strict=True)]
        rows.append([entry for layer in chosen for entry in entries[layer]])
    return rows


def draw(rng: Rng) -> Deep:
    """Return a random net or pair: tilted spectra, equal and parallel samples, dead units, saturation, far scales."""
    n, d, widths, k, other = SHAPES[rng.integers(len(SHAPES))]
    sizes = (d, *widths)
    scale = 10 ** rng.uniform(-0.5, 1.0)

    def half() -> tuple[np.ndarray, ...]:
        return tuple(
            scale * rng.standard_normal(size) / np.sqrt(size[0]) for size in zip(sizes, widths, strict=False)
        )

    first = half()
    paired = bool(rng.random() < 0.5)
    second = first if rng.random() < 0.4 else half()
    x, v = rng.standard_normal((n, d)), rng.standard_normal((widths[-1], k))
    activation = "tanh" if rng.random() < 0.5 else other
    x, v = _spoilt(rng, x, v, first)
    wrt = None if paired or rng.random() < 0.7 else ("w1",)
    return Deep(x, (first, second) if paired else (first,), v, activation, wrt)


def _spoilt(
    rng: Rng, x: np.ndarray, v: np.ndarray, weights: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return x and v changed by some tricks; weights are changed in place."""
    i, j = rng.integers(0, len(x), 2)
    if rng.random() < 0.2:
        x[i] = x[j] * rng.choice([1.0, -1.0, 2.0]) + 10.0 ** -rng.uniform(1, 16) * x[i]
    if rng.random() < 0.1:
        x[i] = 0.0
    if rng.random() < 0.2:
        layer = weights[rng.integers(len(weights))]
        layer[:, rng.integers(layer.shape[1])] *= rng.choice([0.0, 1e-6, 1e3])
    if rng.random() < 0.2:
        x = x * 10.0 ** -rng.uniform(0, 8, x.shape[1])
    if rng.random() < 0.2:
        v = np.ldexp(v, int(rng.integers(-300, 300)))
    return x, v


def random_problems(rng: Rng) -> list[Outcome]:
    """Check one random problem of concrete arrays."""
    problem, method = draw(rng), sigma.METHODS[rng.choice(4, p=[0.55, 0.15, 0.15, 0.15])]
    with jax.enable_x64(bool(rng.integers(2))):
        s = nj.sigma_min(problem.operator(), method)
    return [sigma.check(problem, s, method, problem.statement(method))]
