"""Memorize: time to an exact net, with and without the certificate.

Command:  python -m benchmarks.memorize                    Gaussian data and digits
          python -m benchmarks.memorize --raw-dir DIR      MNIST and CIFAR-10, from their original files
          python -m benchmarks.memorize --gpu              50,000 samples of 3,072 inputs
Expected: n=1000, d=50, m=44 within 0.6 s without and 1.2 s with the certificate on two cores; MNIST 3,000 images and
          16 neurons in 10 s, 6,000 and 48 in 40 s; CIFAR-10 10,000 images, m = 24, in 3 minutes and 6 GB. Compilation
          apart.
Measured: Gaussian, ε = 0.1 / 1: 0.13 / 0.18 s, 0.20 / 0.27 s with the certificate; MNIST 2.8 s and 12 s; CIFAR-10
          47 s and 2.9 GB for the whole process.
Writes:   benchmarks/results/memorize.json, memorize_images.json or memorize_gpu.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import narrow_jax as nj
from benchmarks import _timing


class Case(NamedTuple):
    """A problem: a data set with random labels, or Gaussian data of n × d."""

    name: str
    samples: int
    width: int
    radius: float
    inputs: int = 0


SMALL: tuple[Case, ...] = (
    Case("gaussian", 1000, 44, 0.1, 50),
    Case("gaussian", 1000, 44, 1.0, 50),
    Case("digits", 1797, 80, 0.1),
)
IMAGES = (Case("mnist", 3000, 16, 1.0), Case("mnist", 6000, 48, 1.0), Case("cifar10", 10_000, 24, 1.0))
LARGE = (Case("random labels", 50_000, 66, 1.0, 3072),)


def data(case: Case, raw_dir: Path | None) -> tuple[Any, Any]:
    """Return x and y."""
    if case.inputs:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(case.samples, case.inputs)), rng.normal(size=case.samples)
        return x, np.sign(y) if case.name == "random labels" else y
    found = nj.data.load(case.name, labels="random", samples=case.samples, normalize="scale", raw_dir=raw_dir)
    return found.x, found.y


def measure(case: Case, raw_dir: Path | None) -> dict[str, Any]:
    """Return the record of one case: the second of two calls, so that compilation is apart."""
    x, y = data(case, raw_dir)
    record: dict[str, Any] = case._asdict()
    for certify in (False, True):
        for _ in range(2):
            started = time.perf_counter()
            m = nj.memorize(jax.random.key(0), x, y, case.width, case.radius, certify=certify, progress=False)
            seconds = time.perf_counter() - started
        record["seconds_certified" if certify else "seconds"] = round(seconds, 3)
    return record | {
        "status": m.status,
        "loss": m.loss,
        "steps": len(m.history["loss"]) - 1,
        "holds": m.certificate is not None and m.certificate.holds,
        "peak_gb": round(_timing.peak_gb(), 2),
    }


def seeds(count: int) -> dict[str, Any]:
    """Return how many seeds of n=1000, d=50, m=44 are solved in at most 5 steps, certified, for ε = 0.1 and 1."""
    solved, most = 0, 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(1000, 50)), rng.normal(size=1000)
        for radius in (0.1, 1.0):
            m = nj.memorize(jax.random.key(seed), x, y, 44, radius, progress=False)
            steps = len(m.history["loss"]) - 1
            most = max(most, steps)
            solved += m.certificate is not None and m.certificate.holds and m.loss <= 1e-16 and steps <= 5
    return {
        "name": "seeds",
        "runs": 2 * count,
        "solved_in_5_steps_and_certified": int(solved),
        "most_steps": most,
    }


def main() -> None:
    """Measure every case, print and write the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw-dir", type=_timing.path, help="original files: the images instead")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of the Gaussian problem")
    parser.add_argument("--gpu", action="store_true", help="the large problem instead")
    args = parser.parse_args()
    name, flags, cases = "memorize", "", SMALL
    if args.gpu:
        name, flags, cases = "memorize_gpu", " --gpu", LARGE
    elif args.raw_dir:
        name, flags, cases = "memorize_images", " --raw-dir DIR", IMAGES
    records = [] if flags else [seeds(args.seeds)]
    for case in cases:
        records.append(measure(case, args.raw_dir))
        print(records[-1], flush=True)
        _timing.write(name, f"python -m benchmarks.memorize{flags}", records)  # a long case may be cut off


if __name__ == "__main__":
    main()
