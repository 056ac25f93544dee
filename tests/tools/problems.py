"""One table of problems: data from a frozen generator, references of 50 digits from ``make_problems.py``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REFERENCES = Path(__file__).with_name("problems.json")


@dataclass(frozen=True)
class Problem:
    name: str
    params: dict
    x: np.ndarray
    activation: str = "tanh"
    standard: bool = False

    @property
    def shape(self):
        n, k = self.x.shape[0], self.params["v"].shape[1]
        return n * k, self.params["w"].size


def _draw(seed, n, d, m, k=1, mirrored=False, standard=False):
    rng = np.random.RandomState(seed)  # the legacy generator: its stream is frozen
    x, w = rng.standard_normal((n, d)), rng.standard_normal((d, m)) / np.sqrt(d)
    v = rng.standard_normal((m if standard else m // 2, k)) / np.sqrt(m)
    if mirrored:
        w[:, m // 2 :] = w[:, : m // 2]
    return {"w": w, "v": v}, x


def _problems():
    n, d, m = 12, 6, 8
    for activation in ("tanh", "softplus", "sin"):
        yield Problem(f"generic-{activation}", *_draw(1, n, d, m), activation)
        yield Problem(f"mirrored-{activation}", *_draw(2, n, d, m, mirrored=True), activation)
        for digits in (4, 8, 10):
            params, x = _draw(3, n, d, m)
            yield Problem(f"graded-inputs-{digits}-{activation}", params, x * _grades(d, digits), activation)
    for seed in range(6):
        yield Problem(f"random-{seed}", *_draw(20 + seed, n, d, m))
    for digits in range(1, 15):
        params, x = _draw(100 + digits, n, d, m)
        yield Problem(f"graded-samples-{digits}", params, x * _grades(n, digits / 2)[:, None])
    for digits in (6, 12, 13, 14):
        params, x = _draw(5, n, d, m)
        yield Problem(f"graded-inputs-{digits}", params, x * _grades(d, digits))
    for digits in (2, 5, 8, 11, 13):
        params, x = _draw(6, n, d, m)
        x[1] = x[0] + 10.0**-digits * x[1]
        yield Problem(f"nearly-duplicate-{digits}", params, x)
    params, x = _draw(6, n, d, m)
    x[1] = x[0]
    yield Problem("duplicate", params, x)
    params, x = _draw(7, n, d, m)
    params["w"][:, :3] *= 40.0
    yield Problem("saturated", params, x)
    params, x = _draw(7, n, d, m)
    params["v"][1:] = 0.0
    yield Problem("dead-units", params, x)
    for name, a, b in (
        ("tiny", 1e-150, 1.0),
        ("huge", 1.0, 1e150),
        ("both", 1e-150, 1e-150),
        ("cross", 1e-150, 1e150),
    ):
        params, x = _draw(8, n, d, m)
        yield Problem(
            f"scale-{name}", {"w": params["w"] / a if a < 1 else params["w"], "v": params["v"] * b}, x * a
        )
    yield Problem("n-1", *_draw(9, 1, 3, 4))
    yield Problem("two-outputs", *_draw(10, n // 2, d, m, k=2))
    yield Problem("standard", *_draw(11, n, d, m, standard=True), standard=True)
    yield Problem("square", *_draw(12, 12, 3, 4))
    yield Problem("edge-mirrored", *_draw(13, 60, 10, 12, mirrored=True))
    yield Problem("sixty", *_draw(14, 60, 10, 12))
    params, x = _draw(15, 60, 10, 12)
    yield Problem("sixty-graded", params, x * _grades(10, 8))


def _grades(size, digits):
    return 10.0 ** -np.linspace(0, digits, size)


PROBLEMS = {problem.name: problem for problem in _problems()}


def references():
    return json.loads(REFERENCES.read_text())
