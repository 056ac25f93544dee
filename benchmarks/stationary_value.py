"""The stationary value J(θ): by shifted CholeskyQR against the naive SVD of D.

Command:  python -m benchmarks.stationary_value [--large]
Expected: at 20,000 rows × 2,970 weights ≥ 2 times faster and a third of the memory, the same value to 1e-8;
          ``--large`` instead: 100,000 rows × 3,000 weights (10,000 samples of 64 inputs, 10 outputs, as MNIST 8×8)
          under 150 s and 4 GB on two cores, where the SVD of D does not fit.
Measured: 20,000 × 2,970: SVD 29.8 s and 1.82 GB, CholeskyQR 4.2 s (7.1 times faster) and 0.30 GB (0.17 of the
          memory), values equal to 2e-16; 100,000 × 3,092: 16.2 s, 0.61 GB for the whole process.
Each run has a process of its own, whose peak resident memory is read; seconds are wall-clock time, and
processor seconds beside them show how busy the machine was.
Writes:   benchmarks/results/stationary_value.json or stationary_value_large.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np

import narrow_jax as nj
from benchmarks import _timing


class Size(NamedTuple):
    """A problem: samples, inputs, widths with the outputs last."""

    samples: int
    inputs: int
    widths: tuple[int, ...]

    def __str__(self) -> str:
        """Return the shape of D."""
        sizes = (self.inputs, *self.widths)
        columns = sum(a * b for a, b in itertools.pairwise(sizes))
        return f"{self.samples * self.widths[-1]:,} × {columns:,}"


SIZES = {
    "small": Size(1000, 10, (20, 20, 1)),
    "medium": Size(20_000, 20, (45, 45, 1)),
    "large": Size(10_000, 64, (30, 22, 16, 10)),
}


def one(size: Size, method: str) -> dict[str, Any]:
    """Return value, seconds and peak memory of this process for one call."""
    rng = np.random.default_rng(0)
    sizes = (size.inputs, *size.widths)
    params = {
        f"w{layer}": rng.normal(size=sizes[layer - 1 : layer + 1]) / np.sqrt(sizes[layer - 1])
        for layer in range(1, len(sizes))
    }
    x, y = rng.normal(size=(size.samples, size.inputs)), rng.normal(size=(size.samples, sizes[-1]))
    nj.certificates.stationary_value(params, x[:5], y[:5])  # the imports and BLAS's buffers
    base, base_gb = resource.getrusage(resource.RUSAGE_SELF), _timing.peak_gb()
    started = time.perf_counter()
    s = nj.certificates.stationary_value(params, x, y, method=method, contributions=False)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "size": str(size),
        "method": method,
        "value_over_baseline": s.value / s.baseline,
        "rank": s.ranks and s.ranks["nr"],
        "condition": s.sigma_max / s.sigma_r if s.sigma_r and s.sigma_max else None,
        "seconds": round(seconds, 2),
        "processor_seconds": round(peak.ru_utime + peak.ru_stime - base.ru_utime - base.ru_stime, 2),
        "gigabytes": round(_timing.peak_gb() - base_gb, 3),
        "gigabytes_of_the_process": round(_timing.peak_gb(), 3),
    }


def apart(size: str, method: str) -> dict[str, Any]:
    """Run ``one`` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stationary_value", "--one", size, method]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def compared(size: str) -> list[dict[str, Any]]:
    """Return the SVD's and our record, with the ratios."""
    naive, ours = (apart(size, method) for method in ("dense", "cholesky"))
    ours |= {
        "times_faster": round(naive["seconds"] / ours["seconds"], 2),
        "part_of_memory": round(ours["gigabytes"] / naive["gigabytes"], 3),
        "difference": abs(ours["value_over_baseline"] - naive["value_over_baseline"]),
    }
    return [naive, ours]


def main() -> None:
    """Run the sizes and write the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true", help="100,000 rows instead")
    parser.add_argument("--one", nargs=2, metavar=("SIZE", "METHOD"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(SIZES[args.one[0]], args.one[1])))
        return
    if args.large:
        name, records = "stationary_value_large", [apart("large", "cholesky")]
    else:
        name, records = "stationary_value", [*compared("small"), *compared("medium")]
    for record in records:
        print(record)
    command = "python -m benchmarks.stationary_value" + " --large" * args.large
    print(f"Written: {_timing.write(name, command, records, 'scipy')}")


if __name__ == "__main__":
    main()
