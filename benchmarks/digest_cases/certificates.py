"""Every certificate: where it holds, where it does not, and why."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import narrow_jax as nj
from benchmarks.digest_cases.given import case, enter_all, numbers, sphere, start
from benchmarks.digest_cases.solvers import KEY, samples, twice

c = nj.certificates
SMOOTH = nj.activations.smooth_leaky_relu(gamma=0.5, beta=1.0)
LINEAR = nj.activations.leaky_relu(1.0)


def memorized(radius: float = 0.5) -> Any:
    """Return samples, labels, and a net that memorizes them, with its start."""
    x = samples()
    y = np.sin(x[:, 0])
    return x, y, nj.memorize(KEY, x, y, 4, radius, certify=False, progress=False)


def memorization(radius: float = 0.5, move: float = 0.0, **options: Any) -> Any:
    """Certify a memorizing net, its weights moved."""
    x, y, m = memorized()
    params = m.params | {"w": m.params["w"] + move}
    return c.memorization(params, m.center, x, y, radius, **options)


enter_all(
    "memorization/",
    {
        "holds": memorization,
        "no ball": lambda: memorization(np.inf),
        "outside": lambda: memorization(1e-6),
        "moved": lambda: memorization(move=1e-9),
        "moved far": lambda: memorization(move=0.1),
        "not smooth": lambda: memorization(activation="relu"),
        "float32": lambda: c.memorization(start(inputs=4), start(inputs=4), samples(), np.zeros(6), 0.1),
        "equal samples": lambda: c.memorization(start(inputs=4), start(inputs=4), *twice(), 0.1),
    },
)


def small_start(**options: Any) -> Any:
    """Return a mirrored start for four inputs."""
    return nj.initializers.mirrored_lecun(KEY, inputs=4, width=options.pop("width", 4), **options)


enter_all(
    "nice_region/",
    {
        "holds": lambda: c.nice_region(small_start(), samples()),
        "labels": lambda: c.nice_region(small_start(), *twice()[:1], y=twice()[1]),
        "contradiction": lambda: c.nice_region(small_start(), np.ones((2, 4)), y=np.array([0.0, 1.0])),
        "more outputs": lambda: c.nice_region(small_start(width=16, outputs=3), samples(), "softplus"),
        "narrow": lambda: c.nice_region(small_start(width=2), samples()),
        "not smooth": lambda: c.nice_region(small_start(), samples(), "relu"),
    },
    x64=("holds",),
)


def kkt(**options: Any) -> Any:
    """Certify a start and a moved net against problem (7)."""
    center = small_start(kappa=2.0)
    moved = {"w": center["w"] * 1.001, "v": center["v"] * 1.5}
    found = []
    for params in (center, moved):
        arguments = (params, center, samples(), np.ones(6))
        found += [c.kkt(*arguments, **options), c.natural_residual(*arguments, **options)]
    return found


enter_all(
    "kkt/",
    {
        "small ball": lambda: kkt(radius=0.01, kappa=2.0),
        "large ball": lambda: kkt(radius=10.0, kappa=2.0),
        "no ball": lambda: kkt(radius=np.inf),
        "free v": lambda: kkt(radius=0.01, zeta=None),
        "not smooth": lambda: kkt(radius=0.01, activation="relu"),
    },
    x64=("small ball",),
)


@case("kkt/standard net")
def kkt_standard() -> Any:
    """The residual of a standard net with a ball."""
    center = nj.initializers.lecun(KEY, inputs=4, width=5)
    return c.natural_residual(center, center, samples(), np.ones(6), radius=0.1, zeta=None)


@case("kkt/solved")
def kkt_solved() -> Any:
    """A KKT point that was solved for."""
    s = nj.solvers.solve_kkt(KEY, samples(), np.ones(6), 4, 0.1, progress=False)
    return c.kkt(s.params, s.center, samples(), np.ones(6), 0.1)


@case("assumptions/audits", x64=True)
def assumptions() -> Any:
    """Audits of good data, repeated, parallel and constant ones, and of other activations."""
    x, y = numbers(0, 20, 5), numbers(1, 20, 1)
    parallel = x.copy()
    parallel[4] = -2 * parallel[2]
    discrete = np.round(numbers(2, 40, 4))
    return {
        "good": c.assumptions(x, y[:, 0], width=8),
        "narrow": c.assumptions(x, y, width=3, activation="relu"),
        "parallel": c.assumptions(parallel, y, width=8),
        "repeated": c.assumptions(*twice(), width=4, activation="softplus"),
        "discrete": c.assumptions(discrete, discrete[:, :1], width=40),
        "constant": c.assumptions(np.ones((3, 2)), np.eye(3), width=8),
    }


def two(width: float = 8.0) -> Any:
    """Return weights, samples and targets of a small pyramid."""
    params = {"w1": width * jnp.eye(2), "w2": jnp.zeros((2, 1))}
    return params, jnp.eye(2), jnp.full((2, 1), 0.1)


def deep(scale: float, second: float = 1e-9) -> Any:
    """Return weights, samples and targets of a pyramid of three layers."""
    params = nj.initializers.pyramidal(
        jax.random.key(1),
        inputs=6,
        widths=(10, 3, 2),
        scale=scale,
        variance=second,
        dtype=numbers(0, 1).dtype,
    )
    return params, sphere(4, 6), 0.01 * numbers(5, 4, 2)


def pyramidal(arguments: Any, *options: Any) -> Any:
    """Certify a pyramid, and read what is guaranteed."""
    found = c.pyramidal(*arguments, *(options or (SMOOTH,)))
    guarantees = [found.paper, found.sharper]
    read = [
        (g.log10_rate, g.log_factor, g.loss_bound(10.0), g.distance_bound(1e3), g.steps_to(1e-9))
        for g in guarantees
    ]
    return {"certificate": found, "read": read, "largest": found.max_learning_rate, "repr": repr(found)}


enter_all(
    "pyramidal/",
    {
        "holds": lambda: pyramidal(two()),
        "a step": lambda: pyramidal(two(), SMOOTH, 1e-4),
        "a large step": lambda: pyramidal(two(), SMOOTH, 10.0),
        "large targets": lambda: pyramidal((*two()[:2], jnp.full((2, 1), 9.0))),
        "another activation": lambda: pyramidal(two(), "tanh"),
        "deep": lambda: pyramidal(deep(1e4)),
        "deep, does not hold": lambda: pyramidal(deep(0.5, 0.3)),
        "not wide": lambda: pyramidal(
            ({"w1": jnp.ones((6, 2)), "w2": jnp.ones((2, 1))}, sphere(4, 6), np.ones((4, 1)))
        ),
    },
    x64=True,
)


@case("lambda_star/values", x64=True)
def lambda_star() -> Any:
    """λ_* by every method, with its series and the matrices behind it."""
    x = sphere(5, 3)
    powers = {r: c.khatri_rao_sigma_min(x, r) for r in (1, 2, 3)}
    series = {name: c.hermite_coefficients(name, 6) for name in ("relu", "abs", "tanh", "softplus")}
    return {
        "relu": c.lambda_star(x, "relu"),
        "smooth": c.lambda_star(x, SMOOTH),
        "tanh": c.lambda_star(x, "tanh"),
        "quadrature": c.lambda_star(x, SMOOTH, method="quadrature"),
        "hermite": c.lambda_star(x, "tanh", method="hermite"),
        "equal": c.lambda_star(x[[0, 0, 1]], "relu"),
        "powers": powers,
        "coefficients": series,
        "tails": {name: c.hermite_tail(name, coefficients) for name, coefficients in series.items()},
    }


@case("widths/required", x64=True)
def widths() -> Any:
    """Table 1, and the scaling of LeCun's initialisation."""
    x = sphere(5, 3)
    y = numbers(3, 5, 2)
    return {
        "table": [c.width_requirements(1000, 3), c.width_requirements(7, 20)],
        "lecun": c.lecun_width(x, y, (4, 2), SMOOTH),
        "equal samples": c.lecun_width(x[[0, 0]], y[:2], (2,), SMOOTH),
    }


def relu_net(*widths: int, seed: int = 4) -> dict[str, np.ndarray]:
    """Return the weights of a deep net."""
    rng = np.random.default_rng(seed)
    return {f"w{i + 1}": rng.normal(size=size) for i, size in enumerate(itertools.pairwise(widths))}


def stationary(params: Any = None, n: int = 30, outputs: int = 1, **options: Any) -> Any:
    """Return the stationary value of a deep net on random data."""
    rng = np.random.default_rng(n)
    params = relu_net(4, 3, 2, outputs) if params is None else params
    return c.stationary_value(params, rng.normal(size=(n, 4)), rng.normal(size=(n, outputs)), **options)


STATIONARY: dict[str, Callable[[], Any]] = {
    **{m: partial(stationary, method=m) for m in ("auto", "dense", "qr", "cholesky", "lsmr")},
    **{x: partial(stationary, cutoff=x) for x in ("golub-van-loan", "lapack")},
    "more outputs": lambda: stationary(n=20, outputs=2),
    "leaky": lambda: stationary(activation=(nj.activations.leaky_relu(0.1), "abs")),
    "units": lambda: stationary(relu_net(4, 2, 1), activation=nj.activations.per_unit(["relu", LINEAR])),
    "dead": lambda: stationary({"w1": np.zeros((4, 3)), "w2": np.ones((3, 1))}),
    "no contributions": lambda: stationary(contributions=False, tolerance=10.0),
    "float32": lambda: stationary({k: w.astype(np.float32) for k, w in relu_net(4, 5, 1).items()}),
    "the example": lambda: c.stationary_value(
        {"w1": np.array([[1.0], [1.0], [-1.0]]), "w2": np.array([[1.0]])},
        np.eye(3),
        np.array([[1.0], [2.0], [4.0]]),
    ),
}
enter_all("stationary_value/", STATIONARY, x64=True)


def separated(strong: bool, first_layer: int = 0) -> Any:
    """Return drawn weights with separated units, where they are found, and the bound that they give."""
    x, y = np.abs(samples(8, 3)), samples(8, 2)
    activation = "relu" if not strong else LINEAR
    params = c.separated_params(KEY, x, (4, 4, 2), first_layer, activation, strong=strong)
    separation = "strong" if strong else "weak"
    layers = [first_layer] if strong else list(range(first_layer, 3))
    return {
        "params": params,
        "units": c.linear_units(params, x, first_layer, activation, strong=strong),
        "bound": c.basis_function_bound(
            params, x, y, [first_layer], first_layer, activation, separation=separation
        ),
        "more layers": c.basis_function_bound(
            params, x, y, layers, first_layer, activation, separation="weak"
        ),
        "regression": [c.regression_value(params, x, y, [layer], activation) for layer in (0, 1, 2)],
    }


enter_all(
    "basis_function_bound/",
    {
        "weak": lambda: separated(strong=False),
        "strong": lambda: separated(strong=True),
        "above the first": lambda: separated(strong=False, first_layer=1),
    },
    x64=True,
)


@case("basis_function_bound/nothing separated")
def not_separated() -> Any:
    """Units that are nowhere linear together."""
    x, y = samples(9, 4), samples(9, 4)[:, :1]
    params = relu_net(4, 3, 2, 1)
    return {
        "units": [
            c.linear_units(params, x, layer, strong=strong) for layer in (0, 1) for strong in (False, True)
        ],
        "bound": c.basis_function_bound(params, x, y, [0, 1], 0),
    }


@case("white_noise_loss/predictions", x64=True)
def white_noise() -> Any:
    """Predicted and simulated losses of narrow and wide patterns."""
    patterns = np.random.default_rng(0).integers(0, 2, (30, 4)).astype(float)
    few = {"trials": 20, "subsets": 10}
    return {
        "tall": c.white_noise_loss(KEY, patterns, 3, **few),
        "wide": c.white_noise_loss(KEY, patterns[:6], 3, **few),
        "δ": c.white_noise_loss(KEY, patterns, 2, delta=0.1, t=1.0, **few),
        "equal units": c.white_noise_loss(KEY, np.ones((12, 3)), 2, **few),
    }
