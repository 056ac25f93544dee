"""What is said about bad input: type and full text of the exceptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import narrow_jax as nj
from benchmarks.digest_cases.given import data, enter_all, fit, folder, numbers, start
from narrow_jax import runs

X, Y, KEY = np.arange(20.0).reshape(5, 4) / 7, np.ones((5, 1)), jax.random.key(0)
NAN = np.full((5, 4), np.nan)
NET = {"w": np.ones((4, 6)), "v": np.ones((3, 1))}


def in_folder(function: Callable[[Any], Any]) -> Any:
    """Call a function with a folder of its own."""
    with folder() as place:
        return function(place)


def sweep(setup: Any, **options: Any) -> Any:
    """Sweep over radii."""
    chosen: dict[str, Any] = {
        "data": data(),
        "steps": 3,
        "grid": {"radius": [0.1]},
        "progress": False,
    } | options
    return nj.sweep(nj.models.pairwise_apply, setup, **chosen)


FIT: dict[str, Callable[[], Any]] = {
    "data is no pair": lambda: fit(data=data()[0]),
    "rows that differ": lambda: fit(data=(data()[0], data()[1][:5])),
    "a column that is missing": lambda: fit(data=(data()[0], data()[1][:, 0])),
    "integer targets": lambda: fit(data=(data()[0], np.ones((12, 1), int))),
    "NaN": lambda: fit(data=(np.full((12, 5), np.nan), data()[1])),
    "words": lambda: fit(data=([["a"]], [["b"]])),
    "labels out of range": lambda: fit(
        data=(data()[0], np.full(12, 3)), params=start(outputs=2), loss="cross_entropy"
    ),
    "a large batch": lambda: fit(batch_size=13, key=KEY),
    "no key": lambda: fit(batch_size=3),
    "a key that is none": lambda: fit(batch_size=3, key=42),
    "no steps": lambda: fit(steps=0),
    "half a step": lambda: fit(steps=2.5),
    "every": lambda: fit(every=0),
    "loss": lambda: fit(loss="sqared"),
    "a loss of many numbers": lambda: fit(loss=lambda f, y: f - y),
    "a loss in NumPy": lambda: fit(loss=lambda f, y: np.sum(np.asarray(f))),
    "optimizer": lambda: fit("adam"),
    "lookahead": lambda: fit(optax.lookahead(optax.sgd(0.1), 5, 0.5)),
    "monitors of one name": lambda: fit(monitors=[nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise)] * 2),
    "a monitor that is none": lambda: fit(monitors=["sigma_min"]),
    "a metric's name": lambda: fit(metrics={"loss": lambda f, y: jnp.mean(f)}),
    "evaluation": lambda: fit(evaluation=(numbers(0, 3, 4), numbers(0, 3, 1))),
    "params": lambda: fit(params={"w": "none", "v": 1}),
    "other params": lambda: fit(params={"w": numbers(0, 5, 8)}),
    "opt_state": lambda: fit(optax.adam(0.1), opt_state=optax.sgd(0.1).init(start())),
    "model_state": lambda: fit(model_state={"a": jnp.ones(2)}),
    "a callback that is none": lambda: fit(callbacks=["record"]),
    "a config that is none": lambda: nj.callbacks.Checkpoint("nowhere", config={"f": print}),
    "a record that is there": lambda: in_folder(
        lambda place: [fit(callbacks=[nj.callbacks.Record(place / "a")], steps=2) for _ in range(2)]
    ),
    "a record nowhere": lambda: in_folder(
        lambda place: fit(callbacks=[nj.callbacks.Record(place / "none" / "a")])
    ),
    "sweep: a stream": lambda: sweep(lambda radius: None, data=nj.data.Stream(*data())),
    "sweep: a grid that is none": lambda: sweep(lambda radius: None, grid=[0.1]),
    "sweep: a bad value": lambda: sweep(
        lambda radius: (start(), nj.constraints.regime(optax.sgd(0.1), radius)), grid={"radius": [0.1, -1.0]}
    ),
    "sweep: shapes": lambda: sweep(lambda radius: start()),
}

SPECTRA: dict[str, Callable[[], Any]] = {
    "no operator": lambda: nj.sigma_min(np.eye(3)),
    "method": lambda: nj.sigma_min(nj.jacobian.explicit(np.eye(3)), method="grma"),
    "dtype": lambda: nj.sigma_min(nj.jacobian.explicit(np.eye(3)), dtype="float16"),
    "budget": lambda: nj.sigma_min(nj.jacobian.explicit(np.eye(30)), memory_budget=100),
    "budget of all": lambda: nj.singular_values(nj.jacobian.explicit(np.eye(30)), memory_budget=100),
    "no operator of all": lambda: nj.condition_number(3),
    "a status that is traced": lambda: jax.jit(lambda a: nj.sigma_min(nj.jacobian.explicit(a)).status)(
        np.eye(2)
    ),
    "a bound that is differentiated": lambda: jax.grad(
        lambda a: nj.singular_values(nj.jacobian.explicit(a)).error.sum()
    )(jnp.eye(2)),
    "odd width": lambda: nj.jacobian.pairwise({"w": np.ones((4, 5)), "v": np.ones((2, 1))}, X),
    "rows of v": lambda: nj.jacobian.pairwise({"w": np.ones((4, 6)), "v": np.ones((6, 1))}, X),
    "rows of v, standard": lambda: nj.jacobian.standard(NET, X),
    "columns of x": lambda: nj.jacobian.pairwise(NET, X[:, :3]),
    "NaN": lambda: nj.jacobian.pairwise(NET, NAN),
    "integers": lambda: nj.jacobian.pairwise(NET, X.astype(int)),
    "no sample": lambda: nj.jacobian.pairwise(NET, X[:0]),
    "a mask": lambda: nj.jacobian.pairwise(NET, np.ma.masked_less(X, 1)),
    "no dict": lambda: nj.jacobian.pairwise([1, 2], X),
    "a vector": lambda: nj.jacobian.explicit(np.ones(3)),
    "wrt": lambda: nj.jacobian.autodiff(nj.models.pairwise_apply, NET, X, wrt="u"),
    "mode": lambda: nj.jacobian.autodiff(nj.models.pairwise_apply, NET, X, mode="backward"),
    "coupled samples": lambda: nj.jacobian.autodiff(lambda p, x: (x - x.mean(0)) @ p["w"], NET, X),
    "shape of outputs": lambda: nj.jacobian.autodiff(lambda p, x: jnp.sum(x @ p["w"]), NET, X),
    "autodiff budget": lambda: nj.jacobian.autodiff(nj.models.pairwise_apply, NET, X, memory_budget=10),
    "too narrow": lambda: nj.jacobian.check_width(numbers(0, 30, 4), 4, strict=True),
    "extremes of nothing": lambda: nj.spectra.extremes(np.ones((0, 3))),
    "figure": lambda: in_folder(lambda place: nj.plots.check(place / "a.doc")),
}

SOLVED: dict[str, Callable[[], Any]] = {
    "contradiction": lambda: nj.memorize(KEY, np.ones((2, 3)), np.array([0.0, 1.0])),
    "nothing": lambda: nj.memorize(KEY, np.zeros((2, 3)), np.zeros(2)),
    "odd width": lambda: nj.memorize(KEY, X, Y, 5),
    "narrow": lambda: nj.memorize(KEY, numbers(0, 12, 4), np.ones(12), 2),
    "radius": lambda: nj.memorize(KEY, X, Y, 8, 0.0),
    "method": lambda: nj.memorize(KEY, X, Y, 8, 0.1, method="newton"),
    "no ε₀": lambda: nj.memorize(KEY, numbers(0, 5, 4), Y, 12, activation="relu"),
    "NaN": lambda: nj.memorize(KEY, NAN, Y),
    "kkt: odd width": lambda: nj.solvers.solve_kkt(KEY, X, Y, 5, 0.1),
    "kkt: model": lambda: nj.solvers.solve_kkt(KEY, X, Y, 4, 0.1, model="deep"),
    "pyramidal_start: widths": lambda: nj.solvers.pyramidal_start(KEY, X, Y, (3,), "tanh"),
    "memorization: another center": lambda: nj.certificates.memorization(NET, start(width=4), X, Y),
    "nice_region: params": lambda: nj.certificates.nice_region({"w": X}, X),
    "kkt: radius": lambda: nj.certificates.kkt(NET, NET, X, Y, radius=-1.0),
    "pyramidal: y": lambda: nj.certificates.pyramidal(
        {"w1": np.ones((4, 6)), "w2": np.ones((6, 2))}, X, Y, "tanh"
    ),
    "pyramidal: params": lambda: nj.certificates.pyramidal({"a": np.ones((4, 6))}, X, Y, "tanh"),
    "lambda_star: method": lambda: nj.certificates.lambda_star(X, "relu", method="exat"),
    "lecun_width: rows": lambda: nj.certificates.lecun_width(X, Y, (1,), "tanh"),
    "width_requirements": lambda: nj.certificates.width_requirements(10, 1),
    "stationary_value: tanh": lambda: nj.certificates.stationary_value(
        {"w1": X.T, "w2": np.ones((5, 1))}, X, Y, "tanh"
    ),
    "stationary_value: cutoff": lambda: nj.certificates.stationary_value({"w1": X.T}, X, Y, cutoff="n"),
    "linear_units: layer": lambda: nj.certificates.linear_units({"w1": X.T, "w2": np.ones((5, 1))}, X, 4),
    "separated_params: units": lambda: nj.certificates.separated_params(KEY, X, (2, 2), 0, units=3),
    "white_noise_loss": lambda: nj.certificates.white_noise_loss(KEY, np.ones((4, 2)), 0),
    "assumptions: width": lambda: nj.certificates.assumptions(X, Y, 0),
    "hermite_coefficients": lambda: nj.certificates.hermite_coefficients("relu", 0),
}

SGD = optax.sgd(0.1)
PARTS: dict[str, Callable[[], Any]] = {
    "radius": lambda: nj.constraints.regime(SGD, radius=-1.0),
    "zeta": lambda: nj.constraints.project(zeta=0.0),
    "kappa": lambda: nj.constraints.project(zeta=0.1, kappa=0.5),
    "no leaf": lambda: nj.constraints.regime(SGD, 0.1).init({"a": jnp.ones(2)}),
    "unknown label": lambda: nj.constraints.regime(SGD, 0.1, labels={"w": "x", "v": "v"}).init(start()),
    "by_path": lambda: nj.constraints.by_path(w="conv")(start()),
    "by_path: both": lambda: nj.constraints.by_path(w="w", v="w")(start()),
    "eval_params": lambda: nj.constraints.eval_params(SGD.init(start()), start()),
    "ball": lambda: nj.projections.l2_ball(jnp.ones(2), jnp.zeros(2), np.nan),
    "cone": lambda: nj.projections.ratio_cone(jnp.ones(2), 0.1, 0.5),
    "initializer: odd width": lambda: nj.initializers.mirrored_lecun(KEY, inputs=3, width=5),
    "initializer: key": lambda: nj.initializers.lecun(42, inputs=3, width=5),  # type: ignore[arg-type]
    "initializer: float64": lambda: nj.initializers.lecun(KEY, inputs=3, width=5, dtype="float64"),
    "initializer: variant": lambda: nj.initializers.pyramidal(KEY, inputs=3, widths=(4, 1), variant="gauss"),
    "initializer: widths": lambda: nj.initializers.pyramidal(KEY, inputs=3, widths=(4,)),
    "activation": lambda: nj.activations.get("tahn"),
    "activation: slope": lambda: nj.activations.leaky_relu(2.0),
    "activation: refuted": lambda: nj.activations.check(
        nj.activations.Activation("wrong", jnp.tanh, lambda z: 1 - jnp.tanh(z) ** 2, 0.5, 0.0, 1.0)
    ),
    "activation: constants": lambda: nj.activations.Activation("none", jnp.tanh, jnp.tanh, np.nan, 0.0, 1.0),
    "accuracy": lambda: nj.losses.get("accuracy"),
    "targets": lambda: nj.losses.check_targets(nj.losses.squared, jnp.ones((3, 1)), np.ones(3)),
    "model: shapes": lambda: nj.models.pairwise_apply(NET, X[:, :2]),
    "model: leaves": lambda: nj.models.mlp_apply({"w1": X, "b1": X}, X),
    "model: mirror": lambda: nj.models.mirror({"a": jnp.ones(3)}, nj.constraints.by_path(w="a")),
    "model: head": lambda: nj.models.pairwise_head(jnp.ones((2, 1)), jnp.ones((3, 5))),
    "model: residual": lambda: nj.models.ResNet(channels=(3,), blocks=(1,)).init(KEY, jnp.ones((1, 4, 4, 3))),
}

DATA: dict[str, Callable[[], Any]] = {
    "name": lambda: nj.data.load("mnits"),
    "arrays": lambda: nj.data.load(X),  # type: ignore[arg-type]
    "samples": lambda: nj.data.load("digits", samples=2000),
    "inputs": lambda: nj.data.load("digits", inputs=3),
    "classes": lambda: nj.data.load("digits", classes=3),
    "fraction": lambda: nj.data.load("digits", test_fraction=1.0),
    "normalize": lambda: nj.data.load("digits", normalize="whitten"),
    "offline": lambda: in_folder(
        lambda place: nj.data.load("mnist", raw_dir=place / "raw", data_dir=place / "data", download=False)
    ),
    "subset offline": lambda: in_folder(lambda place: nj.data.load("cifar100_subset", raw_dir=place)),
    "equal rows": lambda: nj.data.whiten(np.ones((3, 2))),
    "columns": lambda: nj.data.scale(X).apply(X[:, :2]),
    "rows": lambda: nj.data.standardize(np.ones(3)),
    "from_arrays": lambda: nj.data.Normalizer.from_arrays({"mean": 0, "scale": 1}),
    "shrink": lambda: nj.data.shrink(nj.data.load("synthetic", samples=5), 3, 2),
    "stream": lambda: nj.data.Stream(iter([1]), [1]),
    "stream: rows": lambda: nj.data.Stream(X, np.ones(4)),
    "crop": lambda: nj.data.augment.random_crop(KEY, X),
    "superclass": lambda: nj.data.restricted_imagenet.superclass(np.array([1000])),
    "no folder": lambda: in_folder(lambda place: nj.data.restricted_imagenet.from_folder(place / "none")),
    "checkpoint": lambda: in_folder(lambda place: nj.checkpoints.restore(place, {}, {})),
    "checkpoint: step": lambda: in_folder(lambda place: nj.checkpoints.save(place, -1, {}, {})),
    "checkpoint: leaf": lambda: in_folder(lambda place: nj.checkpoints.save(place, 1, {"a": "word"}, {})),
    "checkpoint: config": lambda: nj.checkpoints.as_json({"f": print}),
    "run": lambda: in_folder(lambda place: runs.load(place)),
    "run: params": lambda: in_folder(lambda place: runs.save(place, {"a": [1]}, {})),
}

for _room, _table in {"fit": FIT, "spectra": SPECTRA, "solved": SOLVED, "parts": PARTS, "data": DATA}.items():
    enter_all(f"messages/{_room}/", _table)
