"""How programs of the library are lowered for devices that are not here: what ``benchmarks.aot`` compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

import narrow_jax as nj
from experiments import narrow_fig5
from experiments._image_sets import RESTRICTED, crop_and_flip
from narrow_jax.certificates import constrained
from narrow_jax.linalg import Layout, block_cyclic
from narrow_jax.solvers.descent import Descent
from narrow_jax.solvers.newton import Factor, minimum_norm
from narrow_jax.training import driving, loop, preparing, sweeping
from narrow_jax.training.model import Start, model

N, D, M = 200, 40, 30
"""Samples, inputs, neurons of the nets whose Jacobians are measured: 200 × 1,200."""

Lower = Callable[[Sequence[Any]], Any]
"""Gives what is lowered for some devices, all of which it uses."""


def on(placement: Any, tree: Any) -> Any:
    """Return the shapes of a tree's arrays, to lie there."""

    def shape(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), sharding=placement)

    return jax.tree.map(shape, tree)


def on_first(tree: Any, found: Sequence[Any]) -> Any:
    """Return the shapes of a tree's arrays, to lie on the first device."""
    return on(SingleDeviceSharding(found[0]), tree)


def data(dtype: Any = np.float32) -> tuple[Any, Any]:
    """Return params of a pairwise net and its samples."""
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(D, M)).astype(dtype), "v": rng.normal(size=(M // 2, 1)).astype(dtype)}
    return params, rng.normal(size=(N, D)).astype(dtype)


def of_jacobian(f: Callable[[Any], Any], wide: bool = True) -> Lower:
    """Return how f(J) is lowered, for the Jacobian of a pairwise net, with fewer columns than rows if not ``wide``."""

    def lower(found: Sequence[Any]) -> Any:
        params, x = data()
        if not wide:
            params = {"w": params["w"][:, :2], "v": params["v"][:1]}
        args = on_first((params, x), found)
        return jax.jit(lambda params, x: f(nj.jacobian.pairwise(params, x))).lower(*args)

    return lower


def pairwise(w: jax.Array, v: jax.Array, x: jax.Array) -> Any:
    """Return the Jacobian of a pairwise net."""
    return nj.jacobian.pairwise({"w": w, "v": v}, x)


def shapes(sizes: tuple[int, int, int], place: Any = None, dtype: str = "float64") -> list[Any]:
    """Return the shapes of w, v and x, for so many samples, inputs and neurons."""
    n, d, m = sizes
    return [jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape in ((d, m), (m // 2, 1), (n, d))]


def large(sizes: tuple[int, int, int], method: str = "gram", certify: bool = True) -> Lower:
    """Return how σ_min is lowered for the pairwise net of so many samples, inputs and neurons, in float64."""

    def bounds(w: jax.Array, v: jax.Array, x: jax.Array) -> Any:
        return nj.sigma_min(pairwise(w, v, x), method, certify)

    def lower(found: Sequence[Any]) -> Any:
        with jax.enable_x64(True):
            return jax.jit(bounds).lower(*shapes(sizes, SingleDeviceSharding(found[0])))

    return lower


def values(sizes: tuple[int, int, int]) -> Lower:
    """Return how all singular values and their bounds are lowered, for such a net."""

    def spectrum(w: jax.Array, v: jax.Array, x: jax.Array) -> Any:
        s = nj.singular_values(pairwise(w, v, x))
        return s.values, s.bounds

    def lower(found: Sequence[Any]) -> Any:
        with jax.enable_x64(True):
            return jax.jit(spectrum).lower(*shapes(sizes, SingleDeviceSharding(found[0])))

    return lower


def training(batches: bool, count: int) -> Lower:
    """Return how a chunk of ``nj.fit`` is lowered: the pairwise net under the regime with momentum."""

    def lower(found: Sequence[Any]) -> Any:
        params = nj.initializers.mirrored_lecun(
            jax.random.key(0), inputs=64, width=128, outputs=10, kappa=4.0
        )
        tx = nj.constraints.regime(optax.sgd(0.1, momentum=0.9), radius=1.0, kappa=4.0)
        x, y = np.zeros((1024, 64), np.float32), np.zeros(1024, np.int32)
        batch = 256 if batches else None
        run = prepared(nj.models.pairwise_apply, Start(params), tx, (x, y), batch, found[:count])
        state, span, inputs = on(run.placement, (run.state, next(driving.spans(100, 10)), run.inputs))
        return loop.run_chunk.lower(run.problem, run.optimizer, state, span, inputs=inputs)

    return lower


def resnet(found: Sequence[Any]) -> Any:
    """Lower a step of training ResNet-18 in bfloat16, 64 channels in its last stage, 32 × 32 images."""
    net = nj.models.ResNet18(width=64, outputs=10, stem="small")
    x, y = np.zeros((128, 32, 32, 3), np.float32), np.zeros(128, np.int32)
    sgd = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
    tx = nj.constraints.regime(sgd, 100.0, labels=net.labels)
    run = prepared(
        nj.precision.bfloat16(nj.models.Stateful(net)), started(net, x[:1]), tx, (x, y), 128, found
    )
    args = on_first((run.state, (x, y), jax.random.key(0), np.int32(0)), found)
    return loop.run_step.lower(run.problem, run.optimizer, *args)


def figure5(dataset: str, radius: float | None) -> Lower:
    """Return how ``experiments.narrow_fig5 --size gpu`` trains, 64 channels in the last stage; no radius: plain SGD.

    On ``cifar10`` a chunk of two epochs over all images, which lie on the device; on Restricted ImageNet a step on a
    batch that the host brings.
    """

    def lower(found: Sequence[Any]) -> Any:
        recipe = narrow_fig5.RECIPES["gpu"]
        batch, stream = recipe.batch_size, dataset == RESTRICTED
        n, pixels, outputs = (batch, recipe.pixels, 9) if stream else (50_000, 32, 10)
        x = np.broadcast_to(np.array(0, np.uint8 if stream else np.float32), (n, pixels, pixels, 3))
        xy, epoch = (x, np.zeros(n, np.int32)), n // batch
        net = narrow_fig5.net_of(recipe, dataset, outputs, 64, radius)
        run = prepared(
            narrow_fig5.forward_of(recipe, net, in_bytes=stream),
            started(net, x[:1].astype(np.float32)),
            narrow_fig5.optimizer(recipe, radius, 30 * epoch, net),
            xy,
            batch,
            found,
            crop_and_flip,
        )
        if stream:
            args = on_first((run.state, xy, jax.random.key(0), np.int32(0)), found)
            return loop.run_step.lower(run.problem, run.optimizer, *args)
        span = next(driving.spans(30 * epoch, epoch, chunk=2))
        state, span, inputs = on_first((run.state, span, run.inputs), found)
        return loop.run_chunk.lower(run.problem, run.optimizer, state, span, inputs=inputs)

    return lower


def started(net: nj.models.ResNet, x: np.ndarray) -> Start:
    """Return a start of the net's shapes, without the drawing."""
    state = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, leaf.dtype), jax.eval_shape(net.init, jax.random.key(0), x)
    )
    return Start(state.pop("params"), state)


class Run(NamedTuple):
    """What ``nj.fit`` runs, the shapes of its state, its inputs, and where they lie."""

    problem: loop.Problem
    optimizer: loop.Optimizer
    state: Any
    inputs: loop.Inputs
    placement: Any


def prepared(
    apply_fn: Any,
    start: Start,
    tx: Any,
    xy: Any,
    batch: int | None,
    found: Sequence[Any],
    augment: Any = None,
) -> Run:
    """Return what ``nj.fit`` makes of its arguments, for devices that are not here."""
    key = jax.random.key(0) if batch else None
    settings = preparing.Settings("cross_entropy", batch, key, augment)
    shared = found if len(found) > 1 else None
    problem, inputs = preparing.prepare(model(apply_fn, start.model_state), start, xy, settings, shared)
    optimizer = preparing.optimizer(tx, start)
    state = jax.eval_shape(lambda x: problem.init(optimizer.tx, start, x), inputs.data[0])
    placement = (
        SingleDeviceSharding(found[0])
        if problem.devices is None
        else NamedSharding(problem.devices.mesh, PartitionSpec())
    )
    return Run(problem, optimizer, state, inputs, placement)


def sweep(found: Sequence[Any]) -> Any:
    """Lower a chunk of a sweep over radii and seeds."""

    def setup(radius: Any, seed: Any) -> Any:
        params = nj.initializers.mirrored_lecun(jax.random.key(seed), inputs=16, width=32)
        return params, nj.constraints.regime(optax.adam(0.1), radius=radius)

    points = {
        "radius": np.repeat(np.array([0.1, 1.0, 10.0], np.float32), 4),
        "seed": np.tile(np.arange(4, dtype=np.int32), 3),
    }
    params, tx = setup(1.0, 0)
    start = Start(params)
    settings = preparing.Settings()
    xy = np.zeros((256, 16), np.float32), np.zeros((256, 1), np.float32)
    problem, inputs = preparing.prepare(model(nj.models.pairwise_apply, None), start, xy, settings)
    runs = sweeping.Runs(problem, setup, preparing.optimizer(tx, start).extra)
    state = jax.eval_shape(functools.partial(sweeping._init, runs), points, inputs)
    span = next(driving.spans(100, 10))
    return sweeping._run_chunk.lower(runs, *on_first((points, state, span, inputs), found))


def monitor(found: Sequence[Any]) -> Any:
    """Lower a look of the monitor at σ_min."""
    look = nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise)
    params, x = data()
    state = jax.eval_shape(look.init, params, x)
    return jax.jit(look.update).lower(*on_first((state, params, x), found))


def newton(dtype: str, part: str, sizes: tuple[int, int, int] = (N, D, M)) -> Lower:
    """Return how a part of ``memorize`` is lowered: the factor of JJᵀ, or the conjugate gradients of a step."""

    def lower(found: Sequence[Any]) -> Any:
        with jax.enable_x64(dtype == "float64"):
            j = jax.eval_shape(lambda *args: pairwise(*args).evaluate(dtype), *shapes(sizes, dtype=dtype))
            factor = jax.eval_shape(lambda j: Factor.of(j, dtype), j)
            if part == "factor":
                return Factor.of.lower(on_first(j, found), dtype)
            return minimum_norm.lower(*on_first((j, factor, jnp.zeros(sizes[0], dtype)), found))

    return lower


def spread(part: str, sizes: tuple[int, int, int], dtype: str = "float64", block: int | None = None) -> Lower:
    """Return how a part of the Gram route over devices is lowered: "formed", "factorised", "solution", "residual"."""

    def lower(found: Sequence[Any]) -> Any:
        rows = sizes[0]
        with jax.enable_x64(dtype == "float64"):
            layout = Layout.of(rows, list(found), block)
            everywhere, dealt = (layout.sharding(spec) for spec in (block_cyclic.WHOLE, block_cyclic.DEALT))
            j = jax.eval_shape(lambda *args: pairwise(*args).evaluate(dtype), *shapes(sizes, dtype=dtype))
            number, vector = (
                jax.eval_shape(functools.partial(jnp.zeros, shape, dtype)) for shape in ((), (rows,))
            )
            matrix = on(everywhere, block_cyclic.Shifted(j, number, vector, number))
            blocks = on(dealt, jax.ShapeDtypeStruct(layout.shape, dtype))
            step = on(everywhere, jax.ShapeDtypeStruct((), np.int32))
            arguments = {
                "formed": (matrix,),
                "factorised": (blocks, step, step),
                "solution": (blocks, on(everywhere, vector)),
                "residual": (blocks, matrix),
            }
            return getattr(block_cyclic, part).lower(*arguments[part], layout=layout)

    return lower


def kkt(dtype: str, part: str) -> Lower:
    """Return how a part of a step of ``solve_kkt`` is lowered."""

    def lower(found: Sequence[Any]) -> Any:
        with jax.enable_x64(True):
            center = nj.initializers.mirrored_lecun(
                jax.random.key(0), inputs=8, width=10, dtype=jnp.float64, kappa=4.0
            )
            problem = constrained(center, np.zeros((30, 8)), np.zeros((30, 1)), 1.0, 1e-3, 4.0, "tanh")
            problem, point = jax.tree.map(
                lambda leaf: jnp.asarray(leaf, dtype), (problem, problem.point(center))
            )
        with jax.enable_x64(dtype == "float64"):
            if part == "at":
                return Descent.at.lower(*on_first((problem, point), found))
            descent = jax.eval_shape(Descent.at, problem, point)
            if part == "damped":
                return Descent.damped.lower(*on_first((descent, jnp.ones((), dtype), jnp.array(True)), found))
            return Descent.newton.lower(*on_first((descent, jnp.ones((), dtype)), found))

    return lower


def autodiff(mode: str) -> Lower:
    """Return how σ_min of any model is lowered: blocks of its Jacobian by automatic differentiation, and a route."""

    def net(params: Any, x: Any) -> Any:
        return jnp.tanh(jnp.tanh(x @ params["w1"]) @ params["w2"]) @ params["w3"]

    def lower(found: Sequence[Any]) -> Any:
        rng = np.random.default_rng(0)
        params = {
            name: rng.normal(size=shape).astype(np.float32)
            for name, shape in (("w1", (16, 32)), ("w2", (32, 32)), ("w3", (32, 1)))
        }
        x = rng.normal(size=(64, 16)).astype(np.float32)

        def value(params: Any, x: Any) -> Any:
            return nj.sigma_min(nj.jacobian.autodiff(net, params, x, mode=mode), "gram").value

        return jax.jit(value).lower(*on_first((params, x), found))

    return lower


def value(method: str, certify: bool = True) -> Callable[[Any], Any]:
    """Return J ↦ σ_min with everything that comes along."""
    return lambda J: nj.sigma_min(J, method, certify)


def gradient(J: Any) -> Any:
    """Return the gradient of σ_min in the operator's arrays."""
    return jax.grad(lambda J: nj.sigma_min(J).value)(J)


def hessian(J: Any) -> Any:
    """Return the gradient of the squared length of the gradient."""
    return jax.grad(lambda J: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient(J))))(J)
