"""Every kind of program of the library, compiled for TPU v5e and H100 on a machine that has neither.

Command:  make aot, then JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 PYTHONPATH=build/aot .venv/bin/python -m benchmarks.aot
Expected: all compile, none in more than 30 seconds; the training step on several devices exchanges nothing but sums;
          nothing that is lowered for a TPU is float64.
Writes:   benchmarks/results/aot.json, and the table of docs/accelerators.md
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

import narrow_jax as nj
from benchmarks import _timing
from benchmarks._lowering import (
    D,
    Lower,
    M,
    N,
    autodiff,
    figure5,
    gradient,
    hessian,
    kkt,
    large,
    monitor,
    newton,
    of_jacobian,
    pairwise,
    resnet,
    shapes,
    sweep,
    training,
    value,
)
from benchmarks.compiled import H100_1, H100_8, V5E, Compiled, Target, compiled, devices
from experiments._image_sets import RESTRICTED
from narrow_jax.spectra import plans

PAGE = Path(__file__).parents[1] / "docs" / "accelerators.md"

FACTORISATIONS = (
    r"cusolver_\w+|cu_lu\w+|lapack\w*|Cholesky|Eigh\w*|Qr\w*|\w*[Ss]vd\w*|LuDecomposition\w*|\w*callback\w*"
)
"""Custom calls that factorise a matrix, or leave the device: those that a program is expected to have are named."""


class Program(NamedTuple):
    """A program: how to lower it for some devices, and what it is expected to be made of.

    Args:
        what: its name.
        lower: how it is lowered.
        devices: how many.
        gpu: whether it is for GPUs only, which have float64.
        sums: how often devices add something up: for the step, and for the record.
        calls: factorisations by custom calls, by platform.
        plan: bytes beside the arguments that the library says it needs; None where it says nothing.
        options: of the compiler, by platform.
    """

    what: str
    lower: Lower
    devices: int = 1
    gpu: bool = False
    sums: int = 0
    calls: Mapping[str, set[str]] = MappingProxyType({})
    plan: int | None = None
    options: Mapping[str, dict[str, Any]] = MappingProxyType({})


LARGE = (50_000, 3072, 66)
"""Samples, inputs and neurons of CIFAR-10, for which one matrix of n² numbers is 20 GB."""


def planned(sizes: tuple[int, int, int], certify: bool) -> dict[str, int]:
    """Return the bytes that ``sigma_min`` says its methods need on a GPU, for so many samples, inputs and neurons."""
    return plans.of_sigma_min(of(sizes), "gpu", certify)


def of(sizes: tuple[int, int, int]) -> plans.Sizes:
    """Return what plans depend on, for the pairwise net of so many samples, inputs and neurons."""
    return plans.Sizes.of(jax.eval_shape(pairwise, *shapes(sizes)))


VALUES_PLAN = plans.of_singular_values(of((N, D, M)), "gpu")
PLANS = planned((N, D, M), certify=True)
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
    *(
        Program(f"Figure 5, {what}, {method}", figure5(dataset, radius), gpu=True)
        for dataset, what in (("cifar10", "50,000 images of 32 × 32"), (RESTRICTED, "a step on 224 × 224"))
        for method, radius in (("regime", 100.0), ("plain SGD", None))
    ),
)
SPECTRA = (
    Program("SigmaMinMonitor", monitor, calls=GRAM),
    Program("sigma_min, auto", of_jacobian(value("auto")), calls=AUTO, plan=PLANS["auto"]),
    Program("sigma_min, gram", of_jacobian(value("gram")), calls=GRAM, plan=PLANS["gram"]),
    Program(
        "sigma_min, gram, uncertified",
        of_jacobian(value("gram", False)),
        gpu=True,  # on a TPU nothing is certified anyway
        calls=GRAM,
        plan=planned((N, D, M), certify=False)["gram"],
    ),
    Program(
        "sigma_min, gram, uncertified, 50,000 × 202,752",
        large(LARGE, certify=False),
        gpu=True,
        calls=GRAM,
        plan=planned(LARGE, certify=False)["gram"],
    ),
    Program(
        "sigma_min, gram, 50,000 × 202,752",
        large(LARGE),
        gpu=True,
        calls=GRAM,
        plan=planned(LARGE, certify=True)["gram"],
    ),
    Program("sigma_min, qr", of_jacobian(value("qr")), calls=QR, plan=PLANS["qr"]),
    Program("sigma_min, dense", of_jacobian(value("dense")), calls=DENSE, plan=PLANS["dense"]),
    Program("sigma_min, gradient", of_jacobian(gradient), calls=AUTO, plan=PLANS["auto"]),
    Program("sigma_min, second derivatives", of_jacobian(hessian), calls=AUTO),
    Program(
        "sigma_min, more rows than columns", of_jacobian(value("auto"), False), calls=with_calls(TOP, BASIS)
    ),
    Program("singular_values", of_jacobian(nj.singular_values), calls=VALUES, plan=VALUES_PLAN),
    Program("sigma_min of autodiff, reverse mode", autodiff("reverse"), calls=GRAM),
    Program("sigma_min of autodiff, forward mode", autodiff("forward"), calls=GRAM),
)
SOLVERS = tuple(
    Program(f"{what}, {dtype}", lower(dtype, part), gpu=dtype == "float64", calls=calls)
    for dtype in ("float32", "float64")
    for what, lower, part, calls in (
        ("memorize, factor", newton, "factor", FACTOR),
        ("memorize, conjugate gradients", newton, "cg", {"tpu": set(), "cuda": set()}),
        ("KKT step, models", kkt, "at", TOP),
        ("KKT step, damped", kkt, "damped", with_calls(FACTOR, LU)),
        ("KKT step, Newton", kkt, "newton", LU),
    )
) + tuple(
    Program(f"memorize, {what}, {dtype}, 50,000 × 202,752", newton(dtype, part, LARGE), gpu=True, calls=calls)
    for dtype in ("float32", "float64")
    for what, part, calls in (
        ("factor", "factor", FACTOR),
        ("conjugate gradients", "cg", {"tpu": set(), "cuda": set()}),
    )
)


def programs(platform: str) -> list[tuple[Target, Program]]:
    """Return what is compiled for a platform, and for which target."""
    found = []
    for program in (*TRAINING, *SPECTRA, *SOLVERS):
        if platform == "tpu" and program.devices <= 4 and not program.gpu:
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
