"""``fit`` and ``sweep``: what is trained, on what, and what is recorded."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import narrow_jax as nj
from benchmarks.digest_cases.given import case, data, enter_all, fit, numbers, start, working

SMOOTH = nj.activations.smooth_leaky_relu(gamma=0.5, beta=1.0)


def standard(width: int = 8, outputs: int = 1) -> dict[str, jax.Array]:
    """Return a start of the standard net."""
    return nj.initializers.lecun(jax.random.key(3), inputs=5, width=width, outputs=outputs, dtype=working())


def labelled(n: int = 20, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and integer labels."""
    return numbers(n, n, 5), np.random.default_rng(n).integers(classes, size=n).astype(np.int32)


def signs(n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and targets ±1."""
    x, y = data(n)
    return x, np.where(y > 0, 1, -1).astype(working())


@case("fit/full batch", x64=True)
def full_batch() -> Any:
    """Gradient descent on all samples, with a record every third step."""
    return fit(steps=20, every=3)


@case("fit/minibatches", x64=True)
def minibatches() -> Any:
    """Batches over some epochs, an evaluation, and metrics."""
    return fit(
        optax.adam(1e-2),
        data=signs(20),
        evaluation=signs(9),
        batch_size=6,
        key=jax.random.key(1),
        every=4,
        metrics={"largest": lambda outputs, y: jnp.max(jnp.abs(outputs - y))},
    )


@case("fit/augmented images")
def augmented() -> Any:
    """A crop and a flip in each step, by a key of the step."""
    images, labels = numbers(0, 10, 4, 4, 2), np.arange(10, dtype=np.int32) % 3

    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        crop, flip = jax.random.split(key)
        return nj.data.augment.horizontal_flip(flip, nj.data.augment.random_crop(crop, x, padding=1))

    def linear(params: Any, x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1) @ params["w"]

    return fit(
        apply_fn=linear,
        params={"w": numbers(1, 32, 3)},
        data=(images, labels),
        loss="cross_entropy",
        batch_size=4,
        key=jax.random.key(2),
        augment=augment,
    )


LOSSES: dict[str, dict[str, Any]] = {
    "mean_squared": {"loss": "mean_squared", "data": signs},
    "one-hot": {
        "params": lambda: start(outputs=3),
        "data": lambda: (labelled()[0], np.eye(3)[labelled()[1]]),
    },
    "cross_entropy": {"loss": "cross_entropy", "params": lambda: start(outputs=3), "data": labelled},
    "own": {"loss": lambda f, y: jnp.mean(jnp.log1p(jnp.exp(-f * y))), "data": signs},
}


def with_loss(name: str) -> Any:
    """Train under one of the losses."""
    options = {key: value() if key in ("params", "data") else value for key, value in LOSSES[name].items()}
    return fit(optax.sgd(0.05), **options)


enter_all("fit/loss/", {name: partial(with_loss, name) for name in LOSSES}, x64=("own",))


@case("fit/divergence", x64=True)
def divergence() -> Any:
    """A step that is too large, between two records: the step before the first non-finite one is returned."""
    return fit(optax.sgd(1e6), apply_fn=nj.models.standard_apply, params=standard(), steps=100, every=7)


@case("fit/divergence in batches, monitored")
def divergence_in_batches() -> Any:
    """The same with batches and a monitor."""
    return fit(
        optax.sgd(1e6),
        apply_fn=nj.models.standard_apply,
        params=standard(),
        batch_size=5,
        key=jax.random.key(0),
        steps=60,
        monitors=[LARGEST],
    )


LARGEST = nj.monitors.Monitor(
    "largest weight",
    lambda params, x: jnp.zeros((), jnp.int32),
    lambda count, params, x: (count + 1, jnp.max(jnp.abs(params["w"])) + count.astype(params["w"].dtype)),
)


@case("fit/monitors", x64=True)
def monitors() -> Any:
    """σ_min along training, and a monitor with a state of its own."""
    watched = [nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise), LARGEST]
    return fit(nj.constraints.regime(optax.adam(1e-2), 0.1), monitors=watched, every=2)


@case("fit/monitors of few weights")
def few_weights() -> Any:
    """σ_min is 0 where there are more rows than columns."""
    watched = [nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise, name="few")]
    return fit(params=start(width=2), monitors=watched, steps=4)


def invariants(factor: float) -> Any:
    """Train a pyramidal net with a multiple of the certified step."""
    x, y = jnp.eye(2, dtype=working()), jnp.full((2, 1), 0.1, working())
    params = {"w1": 8 * jnp.eye(2, dtype=working()), "w2": jnp.zeros((2, 1), working())}
    largest = nj.certificates.pyramidal(params, x, y, SMOOTH).max_learning_rate
    certificate = nj.certificates.pyramidal(params, x, y, SMOOTH, learning_rate=factor * largest)
    watch = nj.certificates.PyramidalInvariants(certificate, y, SMOOTH)
    found = fit(
        optax.sgd(certificate.learning_rate),
        apply_fn=lambda p, x: nj.models.mlp_apply(p, x, SMOOTH),
        params=params,
        data=(x, y),
        steps=30,
        every=1,
        monitors=[watch],
    )
    return found | {"certificate": certificate, "broken": watch.first_broken(found["result"].history)}


enter_all(
    "fit/pyramidal invariants/",
    {f"{factor:g} times the step": partial(invariants, factor) for factor in (1.0, 100.0)},
    x64=True,
)


@case("fit/stream", x64=True)
def stream() -> Any:
    """Samples that are read batch by batch."""
    x, y = data(20)
    samples = nj.data.Stream(x, y, sample=7, ahead=2)
    batches = samples.batches(jax.random.key(5), batch_size=6, first=2)
    read = [next(batches) for _ in range(3)]
    found = fit(data=samples, batch_size=6, key=jax.random.key(5), every=4)
    return found | {
        "batches": read,
        "sample": samples.sample(),
        "rows": samples.rows,
        "fingerprint": samples.fingerprint(),
    }


@case("fit/continued", x64=True)
def continued() -> Any:
    """Two runs by way of ``opt_state``, beside one of as many steps."""
    tx = nj.constraints.regime(optax.adam(1e-2), 0.1)
    first = fit(tx, steps=6)["result"]
    second = fit(tx, steps=6, params=first.params, opt_state=first.opt_state)
    return {"first": first, "second": second, "whole": fit(tx, steps=12)}


@case("fit/devices")
def devices() -> Any:
    """Batches that are shared among the devices that are named: one."""
    return fit(batch_size=6, key=jax.random.key(0), devices=jax.local_devices()[:1])


@case("fit/bfloat16")
def bfloat16() -> Any:
    """A model that computes in bfloat16."""
    return fit(apply_fn=nj.precision.bfloat16(nj.models.standard_apply), params=standard())


@case("fit/flax modules")
def flax_modules() -> Any:
    """The nets as Flax modules."""
    x, y = data()
    found = {}
    for net in (
        nj.models.PairwiseNet(width=6),
        nj.models.StandardNet(width=6),
        nj.models.MLP(widths=(6, 4, 1), activation="tanh"),
    ):
        params = net.init(jax.random.key(0), x)["params"]
        found[type(net).__name__] = fit(
            apply_fn=lambda p, x, net=net: net.apply({"params": p}, x), params=params, data=(x, y), steps=3
        )
    return found


def drawn(net: Any, x: np.ndarray) -> dict[str, Any]:
    """Return variables of a residual net, drawn by NumPy, the last stage mirrored: compiling its own draw is slow."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> jax.Array:
        one = path[-1].key in ("scale", "var")
        size = (
            np.ones(leaf.shape)
            if one
            else rng.normal(size=leaf.shape) / np.sqrt(1 + np.prod(leaf.shape[:-1]))
        )
        return jnp.asarray(size * (path[-1].key not in ("bias", "mean")), jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return {**variables, "params": nj.models.mirror(variables["params"], net.labels)}


def residual(net: Any, size: int, steps: int) -> Any:
    """Train a residual net in the regime, with its batch statistics where it has some."""
    x, y = numbers(0, 4, size, size, 3), np.array([0, 1, 2, 1], np.int32)
    state = drawn(net, x)
    params = state.pop("params")
    tx = nj.constraints.regime(optax.sgd(0.05, momentum=0.9), radius=1.0, labels=net.labels)
    options: dict[str, Any] = {"apply_fn": nj.models.Stateful(net), "model_state": state}
    if not state:
        options = {"apply_fn": lambda p, x: net.apply({"params": p}, x)}
    return fit(tx, params=params, data=(x, y), steps=steps, every=steps, loss="cross_entropy", **options)


@case("fit/residual net")
def residual_net() -> Any:
    """A small residual net with batch norms."""
    return residual(nj.models.ResNet(channels=(3, 6), blocks=(1, 1), outputs=3), size=6, steps=3)


@case("fit/residual net, group norms")
def group_norms() -> Any:
    """One with group norms, which has no state."""
    return residual(nj.models.ResNet(channels=(4,), blocks=(1,), outputs=3, norm="group"), size=5, steps=2)


@case("fit/ResNet-18")
def resnet18() -> Any:
    """A step of the narrow ResNet-18 on four tiny images."""
    return residual(nj.models.ResNet18(width=4, outputs=3), size=8, steps=1)


def setup(radius: Any, seed: Any) -> Any:
    """Return start and optimizer of a point of the grid."""
    params = nj.initializers.mirrored_lecun(jax.random.key(seed), inputs=5, width=8, dtype=working())
    return params, nj.constraints.regime(optax.adam(0.05), radius=radius)


GRID = {"radius": [0.1, 1.0], "seed": [0, 1, 2]}


def sweep(given: Any = setup, grid: Any = None, **options: Any) -> Any:
    """Sweep over the grid for a few steps."""
    chosen: dict[str, Any] = {"grid": grid or GRID, "steps": 10, "progress": False, "data": data()} | options
    result = nj.sweep(nj.models.pairwise_apply, given, **chosen)
    return {"result": result, "repr": repr(result)}


@case("sweep/grid", x64=True)
def grid() -> Any:
    """Radii and seeds in full batch."""
    return sweep(every=5)


@case("sweep/batches, monitors, evaluation")
def monitored() -> Any:
    """Everything that a sweep records."""
    return sweep(
        data=signs(12),
        evaluation=signs(6),
        batch_size=5,
        key=jax.random.key(4),
        every=5,
        monitors=[nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise)],
        metrics={"mean": lambda outputs, y: jnp.mean(outputs)},
    )


@case("sweep/divergence", x64=True)
def diverging() -> Any:
    """Two learning rates, one of which is too large."""
    return sweep(lambda rate: (start(), optax.sgd(rate)), {"rate": [1e-2, 1e12]}, steps=40)
