"""The constants of ``solve_kkt``: each smaller and larger than it is, over the same problems.

Command:  python -m benchmarks.kkt_constants [NAME …]
Cost:     20 minutes on two cores: constants of ``descent`` are compiled anew.
Expected: as it is, 1,288 steps and no failure; no other value is better by more than 13 %; what changes is said at
          each constant.
Problems: n = 20, d = 4, m = 4, three draws: pairwise nets with 6 samples (the others 0), ε = 0.001, 0.1 and 1, and with
          20 samples, ε = 0.1, 1 and 1000; standard nets with 20 samples, ε = 0.1, 0.5 and 1000. Then n = 40, d = 8,
          κ = 2, m = 8, as experiments.narrow_theorem2 has them, ε = 0.1, 0.3 and 1.
Writes:   benchmarks/results/kkt_constants.json: steps in all, and how many of the 30 problems did not converge in 300.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np

from benchmarks import _timing
from narrow_jax.solvers import descent, kkt, solve_kkt

VARIANTS: dict[str, tuple[Any, ...]] = {  # 4 times smaller and larger where nothing else is given
    "SLOW": (0.6, 0.975),  # 1 − SLOW 4 times larger and smaller
    "NEAR": (25, 400),
    "ENOUGH": (0.025, 0.4),
    "HALF": (0.125, 0.9),
    "FIRST_MU": (2.5e-4, 4e-3, 1e-6, 1.0),
    "LEAST_MU": (1e-18, 1e-12, 1e-6),
    "GOOD": (0.125, 0.9),
    "SHRINK": (2, 16),
    "GROW": (2, 24),
    "TRIALS": (3, 48),
    "SHIFTS": ((1e-14,), (1e-4,), (1e-14, 1e-11, 1e-8), (1e-11, 1e-8, 1e-4), (4e-14, 4e-11, 4e-8, 4e-4)),
    "LARGEST_SHIFT": (2.5e-3, 4e-2, 1.0),
    "LEVEL": (0.0, 1e-12, 1e-6),
    "FLOOR": (0.0, 1e-22),
    "RESOLVED": (1e-15, 1e-9),
    "LONGEST_PAUSE": (2, 32),
    "INNER": (15, 240),
    "CORRECTIONS": (3, 48),
    "STALE": (1, 12),
    "SOLVED": (1e-15, 1e-10, 1e-6),
    "ON_SPHERE": (1e-15, 1e-9),
    "DEFINITE": (2, 32),
    "LARGEST_MU": (0.01, 100),
}
"""What is tried instead of each constant."""


def problems() -> Iterator[dict[str, Any]]:
    """Yield the arguments of ``solve_kkt``."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(20, 4)), rng.normal(size=20)
        few = (np.arange(20) < 6).astype(float)
        for radius in (0.001, 0.1, 1.0):
            yield {"x": few[:, None] * x, "y": few * y, "width": 4, "radius": radius}
        for radius in (0.1, 1.0, 1000.0):
            yield {"x": x, "y": y, "width": 4, "radius": radius}
        for radius in (0.1, 0.5, 1000.0):
            yield {"x": x, "y": y, "width": 4, "radius": radius, "model": "standard"}
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 8)), rng.normal(size=40)
    for radius in (0.1, 0.3, 1.0):
        yield {"x": x, "y": y, "width": 8, "radius": radius, "kappa": 2.0}


def measured(name: str, value: Any) -> dict[str, Any]:
    """Return the record of all problems with one constant changed."""
    owners = [module for module in (descent, kkt) if hasattr(module, name)]
    with contextlib.ExitStack() as stack:
        for module in owners:
            stack.enter_context(mock.patch.object(module, name, value))
        if descent in owners:
            jax.clear_caches()
        started = time.perf_counter()
        found = [solve_kkt(jax.random.key(0), **problem, progress=False) for problem in problems()]
        seconds = time.perf_counter() - started
    if descent in owners:
        jax.clear_caches()
    return {
        "constant": name,
        "value": value,
        "steps": sum(len(s.history["loss"]) - 1 for s in found),
        "failures": sum(not s.converged for s in found),
        "loss": float(sum(s.loss for s in found)),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Measure the solver as it is, then each change, and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="constants; by default all")
    names = parser.parse_args().names or list(VARIANTS)
    cases = [("DENSE", kkt.DENSE)] * 2  # the solver as it is; the first compiles
    cases += [(name, value) for name in names for value in VARIANTS[name]]
    records = []
    for case in cases:
        records.append(measured(*case))
        print(records[-1], flush=True)
    if names == list(VARIANTS):
        print(f"Written: {_timing.write('kkt_constants', 'python -m benchmarks.kkt_constants', records)}")


if __name__ == "__main__":
    main()
