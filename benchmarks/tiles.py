"""Cholesky by tiles against a product of BLAS, LAPACK's whole and packed factors; certified σ_min over n.

Command:  python -m benchmarks.tiles                  the factors, n = 16,000
          python -m benchmarks.tiles --rows 2000 5000 10000 20000 [50000]      σ_min, each in a process of its own
Expected: tiles at 0.85 and more of the speed of a product, in half of the memory of a whole matrix; σ_min of
          50,000 × 202,752 in half an hour and 14 GB, on two cores.
Writes:   benchmarks/results/tiles.json or sigma_min_sizes.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
from scipy.linalg import blas, lapack

import narrow_jax as nj
from benchmarks import _timing
from narrow_jax.linalg import tiles

ROWS, INPUTS, UNITS = 16_000, 3072, 66


def positive(rows: slice, columns: slice, dtype: np.dtype) -> np.ndarray:
    """Return a tile of a matrix that is positive: n on the diagonal, less than 1 beside it."""
    i, j = np.arange(rows.start, rows.stop)[:, None], np.arange(columns.start, columns.stop)[None, :]
    return np.asfortranarray(np.where(i == j, float(ROWS), np.cos(i * j % 97)), dtype)


def seconds(run: Any) -> float:
    """Return how long it takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def by_tiles() -> tuple[float, int]:
    """Return seconds and bytes of the factor by tiles."""
    triangle = tiles.Triangle(ROWS, tiles.TILE, tiles.memory(tiles.elements(ROWS, tiles.TILE), "float64"))
    triangle.fill(positive)
    return seconds(triangle.factorise), triangle.numbers.nbytes


def whole() -> np.ndarray:
    """Return the whole matrix, lower triangle."""
    a = np.zeros((ROWS, ROWS), order="F")
    triangle = tiles.Triangle(ROWS, tiles.TILE, np.empty(0))
    for i, j in triangle.places():
        rows, columns = triangle.span(i), triangle.span(j)
        a[rows, columns] = positive(rows, columns, a.dtype)
    return a


def by_lapack() -> tuple[float, int]:
    """Return those of ``dpotrf`` of a whole matrix."""
    a = whole()
    return seconds(lambda: lapack.dpotrf(a, lower=1, clean=0, overwrite_a=1)), a.nbytes


def packed() -> tuple[float, int]:
    """Return those of ``dpftrf``, rectangular full packed."""
    a = lapack.dtrttf(whole(), uplo="L")[0]
    return seconds(lambda: lapack.dpftrf(ROWS, a, uplo="L", overwrite_a=1)), a.nbytes


def product() -> float:
    """Return the seconds of a product of two matrices of 4,000 × 4,000."""
    a, c = np.ones((4000, 4000), order="F"), np.zeros((4000, 4000), order="F")
    return seconds(lambda: blas.dgemm(1.0, a, a, c=c, overwrite_c=1))


FACTORS = {"tiles": by_tiles, "dpotrf": by_lapack, "dpftrf": packed}


def factor(name: str) -> dict[str, Any]:
    """Return the record of a factor, in this process: the fastest of three, in turns with products."""
    rounds = [(product(), *FACTORS[name]()) for _ in range(3)]
    multiplied, took = (min(one[index] for one in rounds) for index in (0, 1))
    share = (ROWS**3 / 3 / took) / (2 * 4000**3 / multiplied)
    record = {"factor": name, "rows": ROWS, "seconds": took, "bytes": rounds[0][2]}
    return {**record, "product_gflops": 2 * 4000**3 / multiplied / 1e9, "share_of_product": share}


def alone(what: str) -> dict[str, Any]:
    """Return the record of a factor or a size from a process of its own, which may crash."""
    command = [sys.executable, "-m", "benchmarks.tiles", "--alone", what]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout) if done.returncode == 0 else {"what": what, "crashed": done.returncode}
    print(found, flush=True)
    return found


def smallest(rows: int) -> dict[str, Any]:
    """Return the record of σ_min of so many samples, in this process."""
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(INPUTS, UNITS)) / np.sqrt(INPUTS), "v": rng.normal(size=(UNITS // 2, 1))}
    J = nj.jacobian.pairwise(params, rng.normal(size=(rows, INPUTS)))
    started = time.perf_counter()
    s = nj.sigma_min(J)
    took = time.perf_counter() - started
    width = float((s.upper - s.lower) / s.value)
    return {
        "rows": rows,
        "seconds": took,
        "peak_gb": _timing.peak_gb(),
        "status": s.status,
        "relative_width": width,
    }


def sizes(rows: list[int]) -> list[dict[str, Any]]:
    """Return the records of all sizes, and print the power of n that fits them."""
    found = [alone(str(count)) for count in rows]
    if len(found) > 1:
        n, took = np.log([(one["rows"], one["seconds"]) for one in found]).T
        print(f"seconds grow as n to the {np.polyfit(n, took, 1)[0]:.2f}")
    return found


def main() -> None:
    """Measure what is asked for and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", help="certified σ_min of so many samples instead")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(factor(args.alone) if args.alone in FACTORS else smallest(int(args.alone))))
    elif args.rows:
        command = f"python -m benchmarks.tiles --rows {' '.join(map(str, args.rows))}"
        print(_timing.write("sigma_min_sizes", command, sizes(args.rows), "scipy"))
    else:
        print(_timing.write("tiles", "python -m benchmarks.tiles", list(map(alone, FACTORS)), "scipy"))


if __name__ == "__main__":
    main()
