"""What is solved for: memorizing nets, KKT points, pyramidal starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import narrow_jax as nj
from benchmarks.digest_cases.given import case, enter_all, numbers

KEY = jax.random.key(0)


def samples(n: int = 6, inputs: int = 4) -> np.ndarray:
    """Return samples in float64."""
    return np.random.default_rng(n).normal(size=(n, inputs))


def memorize(x: np.ndarray, y: np.ndarray, *sizes: Any, **options: Any) -> Any:
    """Return what ``memorize`` finds, and its repr."""
    found = nj.memorize(KEY, x, y, *sizes, progress=False, **options)
    return {"result": found, "repr": repr(found)}


def twice() -> tuple[np.ndarray, np.ndarray]:
    """Return samples of which two are equal, with equal labels, and one is 0, with label 0."""
    x = samples(8)
    x[5], x[7] = x[2], 0
    y = np.sin(x[:, 0])
    return x, y


def nearly_equal() -> np.ndarray:
    """Return samples of which two differ by rounding."""
    x = samples()
    x[5] = np.nextafter(x[0], np.inf)
    return x


MEMORIZED: dict[str, Callable[[], Any]] = {
    "certified": lambda: memorize(samples(), samples()[:, 0] ** 2, 4, 0.1),
    "smallest width and radius": lambda: memorize(samples(), samples()[:, 0] ** 2),
    "more outputs": lambda: memorize(samples(), np.eye(3)[np.arange(6) % 3], 16, 0.5, kappa=4.0, zeta=0.01),
    "no ball": lambda: memorize(samples(), samples()[:, :1], 4, np.inf, activation="softplus"),
    "not certified": lambda: memorize(samples(), samples()[:, 0], 4, 0.5, certify=False),
    "not smooth": lambda: memorize(samples(), samples()[:, 0], 8, 0.5, activation="relu"),
    "conjugate gradients": lambda: memorize(samples(), samples()[:, 0], 6, 0.1, method="cg"),
    "float32": lambda: memorize(samples(), samples()[:, 0], 6, 0.1, dtype="float32"),
    "not converged": lambda: memorize(samples(), 1e3 * samples()[:, 0], 4, 0.5, steps=1),
    "equal samples": lambda: memorize(*twice(), 6, 0.1),
    "nearly equal samples": lambda: memorize(nearly_equal(), np.arange(6.0), 6, 0.1),
    "float32 data": lambda: memorize(samples().astype(np.float32), np.ones((6, 1), np.float32), 4, 0.1),
}
enter_all("memorize/", MEMORIZED)
enter_all("memorize/where x64 is on/", {"certified": MEMORIZED["certified"]}, x64=True)


def kkt(width: int = 4, radius: float = 0.1, **options: Any) -> Any:
    """Return what ``solve_kkt`` finds, its residual as the certificate has it, and its repr."""
    x = samples()
    y = options.pop("y", x[:, 0] ** 2)
    s = nj.solvers.solve_kkt(KEY, x, y, width, radius, progress=False, **options)
    return {"result": s, "repr": repr(s)}


enter_all(
    "solve_kkt/",
    {
        "interior": lambda: kkt(radius=2.0),
        "on the sphere": lambda: kkt(radius=0.1),
        "κ": lambda: kkt(radius=0.05, kappa=2.0, zeta=0.05),
        "free v": lambda: kkt(radius=0.1, zeta=None),
        "standard": lambda: kkt(width=5, radius=0.1, zeta=None, model="standard"),
        "more outputs": lambda: kkt(width=8, radius=0.1, y=samples()[:, :2]),
        "not converged": lambda: kkt(radius=0.1, steps=2),
    },
)


def pyramid(variant: str, widths: tuple[int, ...] = (40, 3, 1), dtype: Any = np.float32) -> Any:
    """Return the start that is found for small targets."""
    sigma = nj.activations.smooth_leaky_relu(gamma=0.5, beta=1.0)
    x = numbers(0, 4, 6)
    found = nj.solvers.pyramidal_start(jax.random.key(1), x, x[:, :1] / 100, widths, sigma, variant, dtype)
    return {"result": found, "repr": repr(found)}


enter_all(
    "pyramidal_start/",
    {"identity": lambda: pyramid("identity"), "gaussian": lambda: pyramid("gaussian", (60, 40, 1))},
)


@case("pyramidal_start/float64", x64=True)
def pyramid64() -> Any:
    """The start in the precision at hand."""
    return pyramid("identity", dtype=numbers(0, 1).dtype)
