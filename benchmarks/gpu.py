"""Spectra on an accelerator: correctness against stored references, then σ_min at growing sizes; and training.

Command:  python -m benchmarks.gpu [--train] [--quick]   (needs narrow_jax and a GPU build of JAX; no data, no network)
Expected: every problem of the reference table inside its interval; certified σ_min at d=3072, m=66 for n as large as
          the memory allows, near the float64 limit of two products and a Cholesky factorisation; under 9 minutes.
          ``--train`` instead: images per second of ResNet-18 with 64 channels in its last stage, 50,000 images of
          32 × 32, with the regime and without, bfloat16 and float32. Accuracies:
          ``python -m experiments.narrow_fig5 --dataset cifar10 --size gpu``.
Measured: on no accelerator yet.
Writes:   benchmarks/results/gpu.json, gpu_training.json; ``--quick`` runs small sizes on any device and writes nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import narrow_jax as nj
from benchmarks import _gpu_training, _timing
from benchmarks.spectra import Size, problem

SIZES = (Size(2_000, 3072, 66), Size(10_000, 3072, 66), Size(50_000, 3072, 66))
QUICK = (Size(200, 64, 20),)
MINUTES = 8
"""No size is begun later than this."""


def reference_table() -> Any:
    """Return the module with the problems of the test suite and their references of 50 digits."""
    path = Path(__file__).parents[1] / "tests" / "tools" / "problems.py"
    spec = importlib.util.spec_from_file_location("problems", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["problems"] = module
    spec.loader.exec_module(module)
    return module


def correctness(limit: int | None) -> dict[str, Any]:
    """Check the interval of every problem on the device in use."""
    table = reference_table()
    references = table.references()
    outside, certified, names = [], 0, list(table.PROBLEMS)[:limit]
    started = time.perf_counter()
    for name in names:
        p = table.PROBLEMS[name]
        make = nj.jacobian.standard if p.standard else nj.jacobian.pairwise
        params, x = jax.device_put((p.params, p.x))  # NumPy's arrays would stay with the host
        s = nj.sigma_min(make(params, x, p.activation))
        certified += bool(s.certified)
        if not s.lower <= float(references[name]["sigma_min"]) <= s.upper:
            outside.append(name)
    return {
        "what": "reference table",
        "size": f"{len(names)} problems",
        "seconds": round(time.perf_counter() - started, 2),
        "result": f"{certified} certified, {len(outside)} outside {' '.join(outside)}".strip(),
        "holds": not outside,
    }


@jax.jit
def limit(x: Any, d: Any) -> Any:
    """Return a number that depends on the least work: two symmetric products and one Cholesky factorisation."""
    highest = jax.lax.Precision.HIGHEST
    k = jnp.matmul(x, x.T, precision=highest) * jnp.matmul(d, d.T, precision=highest)
    return jax.lax.linalg.cholesky(k + jnp.eye(len(k)), symmetrize_input=False)[-1, -1]


def peak_bytes() -> int | None:
    """Return the peak memory of the device, where it says so."""
    stats = jax.devices()[0].memory_stats()
    return None if stats is None else stats.get("peak_bytes_in_use")


def measure(size: Size, certify: bool) -> dict[str, Any]:
    """Time σ_min of one size, first call apart, beside the limit; a size that does not fit is a record too."""
    record: dict[str, Any] = {"what": "certified" if certify else "uncertified", "size": str(size)}
    try:
        params, x = jax.device_put(problem(size))
        J = nj.jacobian.pairwise(params, x)
        started = time.perf_counter()
        s = nj.sigma_min(J, "gram", certify=certify)
        first = time.perf_counter() - started
        started = time.perf_counter()
        nj.sigma_min(J, "gram", certify=certify)
        seconds = time.perf_counter() - started
        d = jnp.concatenate([params["v"], -params["v"]])[:, 0] / jnp.cosh(x @ params["w"]) ** 2
        least = _timing.best_seconds({"limit": lambda: limit(x, d).block_until_ready()}, 2)["limit"]
    except (RuntimeError, MemoryError) as error:  # JAX's out of memory is a RuntimeError
        return record | {"result": str(error).splitlines()[0][:160], "holds": False}
    peak = peak_bytes()
    return record | {
        "seconds": round(seconds, 4),
        "first_call": round(first, 2),
        "of_limit": round(least / seconds, 3),
        "relative_width": float(f"{(s.upper - s.lower) / s.value:.1e}") if certify else None,
        "peak_gb": None if peak is None else round(peak / 1e9, 2),
        "result": s.status,
        "holds": bool(s.certified) or not certify,
    }


def spectra(quick: bool) -> list[dict[str, Any]]:
    """Check the reference table, then measure the sizes until the time is over."""
    jax.config.update("jax_enable_x64", True)
    started = time.perf_counter()
    records = [correctness(4 if quick else None)]
    for size in QUICK if quick else SIZES:
        for certify in (False, True):
            if time.perf_counter() - started < 60 * MINUTES:
                print(f"{size}, {'certified' if certify else 'uncertified'} …", file=sys.stderr)
                records.append(measure(size, certify))
    return records


def main() -> None:
    """Run the checks and the sizes, print the table, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="throughput of training instead of spectra")
    parser.add_argument("--quick", action="store_true", help="small sizes on any device; nothing is written")
    args = parser.parse_args()
    quick, name = args.quick, "gpu_training" if args.train else "gpu"
    device = jax.devices()[0]
    if device.platform == "cpu" and not quick:
        sys.exit(f"benchmarks.gpu: JAX sees {device} only; install a GPU build of JAX, or pass --quick")
    records = (
        _gpu_training.throughputs(_gpu_training.QUICK if quick else _gpu_training.FULL)
        if args.train
        else spectra(quick)
    )
    columns = (
        "what",
        "size",
        "seconds",
        "first_call",
        "of_limit",
        "relative_width",
        "peak_gb",
        "result",
        "holds",
    )
    _timing.table(records, columns)
    if not quick:
        records.append({"what": "device", "result": device.device_kind, "numpy": np.__version__})
        print(_timing.write(name, "python -m benchmarks.gpu" + " --train" * args.train, records, "flax"))


if __name__ == "__main__":
    main()
