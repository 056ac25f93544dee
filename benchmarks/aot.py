"""Every kind of program of the library, compiled for TPU v5e and H100 on a machine that has neither.

Command:  make aot, then JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 PYTHONPATH=build/aot .venv/bin/python -m benchmarks.aot
Expected: all compile, none in more than 30 seconds; the training step on several devices exchanges nothing but sums;
          nothing that is lowered for a TPU is float64.
Writes:   benchmarks/results/aot.json, and the table of docs/accelerators.md
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

import narrow_jax as nj
from benchmarks import _timing
from benchmarks.compiled import H100_1, H100_8, V5E, Compiled, Target, compiled, devices
from narrow_jax.certificates import constrained
from narrow_jax.solvers.descent import Descent
from narrow_jax.solvers.newton import Factor, minimum_norm
from narrow_jax.spectra import smallest_value
from narrow_jax.training import driving, loop, preparing, sweeping
from narrow_jax.training.model import Start, model

PAGE = Path(__file__).parents[1] / "docs" / "accelerators.md"

N, D, M = 200, 40, 30
"""Samples, inputs, neurons of the nets whose Jacobians are measured: 200 × 1,200."""

FACTORISATIONS = (
    r"cusolver_\w+|cu_lu\w+|lapack\w*|Cholesky|Eigh\w*|Qr\w*|\w*[Ss]vd\w*|LuDecomposition\w*|\w*callback\w*"
)
"""Custom calls that factorise a matrix, or leave the device: those that a program is expected to have are named."""


class Program(NamedTuple):
    """A program: how to lower it for some devices, and what it is expected to be made of.

    Args:
        what: its name.
        lower: gives what is lowered for the devices, all of which it uses.
        devices: how many.
        float64: whether it is for hardware with float64 only.
        sums: how often devices add something up: for the step, and for the record.
        calls: factorisations by custom calls, by platform.
        plan: bytes beside the arguments that the library says it needs; None where it says nothing.
        options: of the compiler, by platform.
    """

    what: str
    lower: Callable[[Sequence[Any]], Any]
    devices: int = 1
    float64: bool = False
    sums: int = 0
    calls: Mapping[str, set[str]] = MappingProxyType({})
    plan: int | None = None
    options: Mapping[str, dict[str, Any]] = MappingProxyType({})


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


def of_jacobian(f: Callable[[Any], Any], wide: bool = True) -> Callable[[Sequence[Any]], Any]:
    """Return how f(J) is lowered, for the Jacobian of a pairwise net, with fewer columns than rows if not ``wide``."""

    def lower(found: Sequence[Any]) -> Any:
        params, x = data()
        if not wide:
            params = {"w": params["w"][:, :2], "v": params["v"][:1]}
        args = on_first((params, x), found)
        return jax.jit(lambda params, x: f(nj.jacobian.pairwise(params, x))).lower(*args)

    return lower


def training(batches: bool, count: int) -> Callable[[Sequence[Any]], Any]:
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
    state = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, leaf.dtype), jax.eval_shape(net.init, jax.random.key(0), x[:1])
    )
    params = state.pop("params")
    sgd = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
    tx = nj.constraints.regime(sgd, 100.0, labels=net.labels)
    run = prepared(
        nj.precision.bfloat16(nj.models.Stateful(net)), Start(params, state), tx, (x, y), 128, found
    )
    args = on_first((run.state, (x, y), jax.random.key(0), np.int32(0)), found)
    return loop.run_step.lower(run.problem, run.optimizer, *args)


class Run(NamedTuple):
    """What ``nj.fit`` runs, the shapes of its state, its inputs, and where they lie."""

    problem: loop.Problem
    optimizer: loop.Optimizer
    state: Any
    inputs: loop.Inputs
    placement: Any


def prepared(apply_fn: Any, start: Start, tx: Any, xy: Any, batch: int | None, found: Sequence[Any]) -> Run:
    """Return what ``nj.fit`` makes of its arguments, for devices that are not here."""
    key = jax.random.key(0) if batch else None
    settings = preparing.Settings("cross_entropy", batch, key, None, None, (), {})
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
    settings = preparing.Settings("squared", None, None, None, None, (), {})
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


def newton(dtype: str, part: str) -> Callable[[Sequence[Any]], Any]:
    """Return how a part of ``memorize`` is lowered: the factor of JJᵀ, or the conjugate gradients of a step."""

    def lower(found: Sequence[Any]) -> Any:
        x64 = dtype == "float64"
        with jax.enable_x64(x64):
            params, x = jax.tree.map(jnp.asarray, data(dtype))
            J = nj.jacobian.pairwise(params, x)
            j = jax.eval_shape(lambda J: J.evaluate(dtype), J)
            factor = jax.eval_shape(lambda j: Factor.of(j, dtype), j)
            if part == "factor":
                return Factor.of.lower(on_first(j, found), dtype)
            return minimum_norm.lower(*on_first((j, factor, jnp.zeros(N, dtype)), found))

    return lower


def kkt(dtype: str, part: str) -> Callable[[Sequence[Any]], Any]:
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


def autodiff(mode: str) -> Callable[[Sequence[Any]], Any]:
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


PLANS = smallest_value.plan(N, D * M)
GRAM = {
    "tpu": {"Cholesky", "EighTpu"},
    "cuda": {"cusolver_potrf_ffi", "cusolver_syevd_ffi"},
}
QR = {
    "tpu": {"EighTpu", "QrDecompositionBlock"},
    "cuda": {*GRAM["cuda"], "cusolver_geqrf_ffi", "cusolver_gesvd_ffi"},
}
LU = {"tpu": {"LuDecompositionBlock"}, "cuda": {"cusolver_getrf_ffi", "cu_lu_pivots_to_permutation"}}


def with_calls(calls: dict[str, set[str]], *others: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the union, platform by platform."""
    return {platform: set.union(calls[platform], *(more[platform] for more in others)) for platform in calls}


AUTO = with_calls(GRAM, QR)
VALUES = {"tpu": {"QrDecompositionBlock"}, "cuda": {"cusolver_geqrf_ffi", "cusolver_gesvd_ffi"}}
FACTOR = {"tpu": {"Cholesky"}, "cuda": {"cusolver_potrf_ffi"}}
TOP = {"tpu": {"EighTpu"}, "cuda": {"cusolver_syevd_ffi"}}
BASIS = {"tpu": {"QrDecompositionBlock"}, "cuda": {"cusolver_geqrf_ffi", "cusolver_orgqr_ffi"}}
DENSE = {"tpu": {"EighTpu"}, "cuda": QR["cuda"]}

TRAINING = (
    Program("training, full batch", training(False, 1)),
    Program("training, minibatches", training(True, 1)),
    Program("training, full batch, 4 devices", training(False, 4), devices=4, sums=2),
    Program("training, minibatches, 4 devices", training(True, 4), devices=4, sums=2),
    Program("training, minibatches, 8 devices", training(True, 8), devices=8, sums=2),
    # XLA for TPUs tries out convolutions for minutes unless it is told not to
    Program(
        "training, ResNet-18, bfloat16", resnet, options={"tpu": {"exec_time_optimization_effort": -1.0}}
    ),
    Program("sweep of 12 runs", sweep),
)
SPECTRA = (
    Program("SigmaMinMonitor", monitor, calls=GRAM),
    Program("sigma_min, auto", of_jacobian(value("auto")), calls=AUTO, plan=PLANS["auto"]),
    Program("sigma_min, gram", of_jacobian(value("gram")), calls=GRAM),
    Program(
        "sigma_min, gram, uncertified",
        of_jacobian(value("gram", False)),
        float64=True,  # on a TPU nothing is certified anyway
        calls=GRAM,
        plan=PLANS["gram"],
    ),
    Program("sigma_min, qr", of_jacobian(value("qr")), calls=QR, plan=PLANS["qr"]),
    Program("sigma_min, dense", of_jacobian(value("dense")), calls=DENSE, plan=PLANS["dense"]),
    Program("sigma_min, gradient", of_jacobian(gradient), calls=AUTO, plan=PLANS["auto"]),
    Program("sigma_min, second derivatives", of_jacobian(hessian), calls=AUTO),
    Program(
        "sigma_min, more rows than columns", of_jacobian(value("auto"), False), calls=with_calls(TOP, BASIS)
    ),
    Program("singular_values", of_jacobian(nj.singular_values), calls=VALUES, plan=PLANS["qr"]),
    Program("sigma_min of autodiff, reverse mode", autodiff("reverse"), calls=GRAM),
    Program("sigma_min of autodiff, forward mode", autodiff("forward"), calls=GRAM),
)
SOLVERS = tuple(
    Program(f"{what}, {dtype}", lower(dtype, part), float64=dtype == "float64", calls=calls)
    for dtype in ("float32", "float64")
    for what, lower, part, calls in (
        ("memorize, factor", newton, "factor", FACTOR),
        ("memorize, conjugate gradients", newton, "cg", {"tpu": set(), "cuda": set()}),
        ("KKT step, models", kkt, "at", TOP),
        ("KKT step, damped", kkt, "damped", with_calls(FACTOR, LU)),
        ("KKT step, Newton", kkt, "newton", LU),
    )
)


def programs(platform: str) -> list[tuple[Target, Program]]:
    """Return what is compiled for a platform, and for which target."""
    found = []
    for program in (*TRAINING, *SPECTRA, *SOLVERS):
        if platform == "tpu" and program.devices <= 4 and not program.float64:
            found.append((V5E, program))
        elif platform == "cuda":
            found.append((H100_1 if program.devices == 1 else H100_8, program))
    return found


def run(target: Target, program: Program) -> Compiled:
    """Compile a program for a target."""
    started = time.perf_counter()
    lowered = program.lower(devices(target)[: program.devices])
    return compiled(lowered, started, program.options.get(target.platform))


def wrong(target: Target, program: Program, found: Compiled) -> list[str]:
    """Return what is not as it has to be."""
    faults = []
    if target.platform == "tpu" and found.float64:
        faults.append("float64 is lowered for a TPU")
    if not set(found.collectives) <= {"all-reduce"} or sum(found.collectives.values()) > program.sums:
        faults.append(f"exchanges {found.collectives}; expected sums only, at most {program.sums}")
    calls = {call for call in found.custom_calls if re.fullmatch(FACTORISATIONS, call)}
    expected = program.calls.get(target.platform, set())
    if calls != expected:
        faults.append(f"factorises by {sorted(calls)}; expected {sorted(expected)}")
    # plans count float64
    if program.plan is not None and target.platform != "tpu" and found.temporary > program.plan:
        faults.append(f"takes {found.temporary:,} bytes beside its arguments; planned are {program.plan:,}")
    if found.bytes > target.memory:
        faults.append(f"takes {found.bytes:,} bytes; the device has {target.memory:,}")
    return faults


def record(target: Target, program: Program) -> dict[str, Any]:
    """Compile a program and return its record."""
    found = run(target, program)
    return {
        "target": target.name,
        "program": program.what,
        "devices": program.devices,
        "compile_seconds": found.seconds,
        "bytes": found.bytes,
        "collectives": found.collectives,
        "custom_calls": found.custom_calls,
        "options": program.options.get(target.platform, {}),
        "holds": not wrong(target, program, found),
    }


def table(records: list[dict[str, Any]]) -> str:
    """Return the records as a table of Markdown.

    Example:
        >>> one = {"target": "H100", "program": "sweep", "compile_seconds": 1.5, "bytes": 2e6, "collectives": {}}
        >>> print(table([one | {"custom_calls": ["f"]}]))
        | target | program | compiled in | memory | collectives | library calls |
        |---|---|---|---|---|---|
        | H100 | sweep | 1.5 s | 2.0 MB | none | `f` |
    """
    rows = [
        "| target | program | compiled in | memory | collectives | library calls |",
        "|---|---|---|---|---|---|",
    ]
    for one in records:
        sums = ", ".join(f"{count} {name}" for name, count in one["collectives"].items()) or "none"
        calls = ", ".join(f"`{call}`" for call in one["custom_calls"]) or "none"
        time_and_size = f"{one['compile_seconds']:.1f} s | {one['bytes'] / 1e6:.1f} MB"
        rows.append(f"| {one['target']} | {one['program']} | {time_and_size} | {sums} | {calls} |")
    return "\n".join(rows)


MARKS = "<!-- made by python -m benchmarks.aot -->", "<!-- end -->"


def page(text: str, records: list[dict[str, Any]]) -> str:
    """Return the page with its table made anew."""
    before, rest = text.split(MARKS[0])
    return f"{before}{MARKS[0]}\n{table(records)}\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


def main() -> int:
    """Compile everything, write the record and the table of the page; 1 if something is not as it has to be."""
    jax.config.update("jax_enable_compilation_cache", False)  # what is for other devices cannot be read back
    records = [record(*both) for platform in ("cuda", "tpu") for both in programs(platform)]
    _timing.table(records, ("target", "program", "compile_seconds", "bytes", "collectives", "holds"))
    print(_timing.write("aot", "python -m benchmarks.aot", records, "flax"))
    PAGE.write_text(page(PAGE.read_text(), records))
    return 0 if all(one["holds"] for one in records) else 1


if __name__ == "__main__":
    sys.exit(main())
