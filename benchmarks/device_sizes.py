"""How large n can be over devices: memory of every program by compilation, and a prediction of the time.

Command:  make aot, then
          JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 PYTHONPATH=build/aot .venv/bin/python -m benchmarks.device_sizes
Expected: 100,000 samples of CIFAR-10's size fit on 8 H100 in less than 25 GB each.
Writes:   benchmarks/results/device_sizes.json, and the table of docs/accelerators.md
"""

from __future__ import annotations

import sys
import time
from typing import Any, NamedTuple

import jax

from benchmarks import _timing
from benchmarks._lowering import spread
from benchmarks.aot import PAGE
from benchmarks.compiled import H100_8, Target, compiled, devices
from narrow_jax.linalg import on_devices

H100_64 = Target("64 H100", "cuda", "1x8x8", 80 * 10**9)
V5P_512 = Target("512 TPU v5p", "tpu", "v5p:8x8x8", 95 * 10**9)
INPUTS, UNITS = 3072, 66
PARTS = {
    "float64": ("formed", "factorised", "solution", "residual"),
    "float32": ("formed", "factorised", "solution"),
}
"""Without float64 nothing is proven: no defect is computed."""


class Speed(NamedTuple):
    """What data sheets say of a device, in 10¹² operations and 10⁹ bytes a second: products, memory, links."""

    products: float
    memory: float
    links: float


SPEEDS = {
    ("8 H100", "float64"): Speed(67, 3350, 450),
    ("64 H100", "float32"): Speed(67, 3350, 50),
    # products of float32 in six passes of bfloat16
    ("512 TPU v5p", "float32"): Speed(459 / 6, 2765, 600),
}
CASES = (
    (100_000, H100_8, "float64", None),
    (200_000, H100_8, "float64", None),
    (1_000_000, H100_64, "float32", 128),
    (1_000_000, V5P_512, "float32", None),
)
SOLUTIONS = 40
"""About as many as the vector takes."""


def predicted(rows: int, count: int, dtype: str, speed: Speed) -> float:
    """Return seconds of a σ_min at half of what data sheets say: the matrix formed, factorised, and used again.

    Proven: a factor of K̂ and one of the shifted matrix, its defect, three times formed. Not proven: one factor.
    """
    size, proven = {"float64": 8, "float32": 4}[dtype], dtype == "float64"
    operations = (3 if proven else 1) * (rows**3 / 3 + 2 * rows**2 * (INPUTS + UNITS))
    sent = (3 if proven else 1) * size * rows**2
    read = SOLUTIONS * 2 * size * rows**2 / count
    return 2 * (
        operations / count / speed.products / 1e12 + sent / speed.links / 1e9 + read / speed.memory / 1e9
    )


def record(rows: int, target: Target, dtype: str, block: int | None) -> dict[str, Any]:
    """Compile all programs of a size and return what they take."""
    found = {}
    for part in PARTS[dtype]:
        started = time.perf_counter()
        lowered = spread(part, (rows, INPUTS, UNITS), dtype, block)(devices(target))
        found[part] = compiled(lowered, started)
        print(f"{target.name}, n = {rows:,}, {part}: {found[part].bytes / 1e9:.1f} GB", flush=True)
    collectives = {name for one in found.values() for name in one.collectives}
    count = len(devices(target))
    return {
        "rows": rows,
        "target": target.name,
        "dtype": dtype,
        "bytes": {part: one.bytes for part, one in found.items()},
        "largest": max(one.bytes for one in found.values()),
        "planned": on_devices.plan(rows, rows * (INPUTS + UNITS), count, dtype, block),
        "fits": max(one.bytes for one in found.values()) <= target.memory,
        "collectives": sorted(collectives),
        "compile_seconds": sum(one.seconds for one in found.values()),
        "predicted_seconds": predicted(rows, count, dtype, SPEEDS[target.name, dtype]),
    }


def table(records: list[dict[str, Any]]) -> str:
    """Return the records as a table of Markdown."""
    rows = ["| n | devices | numbers | memory a device | seconds, predicted |", "|---|---|---|---|---|"]
    for one in records:
        seconds = f"{one['predicted_seconds']:.0f}"
        memory = f"{one['largest'] / 1e9:.1f} GB"
        rows.append(f"| {one['rows']:,} | {one['target']} | {one['dtype']} | {memory} | {seconds} |")
    return "\n".join(rows)


MARKS = "<!-- made by python -m benchmarks.device_sizes -->", "<!-- end of sizes -->"


def main() -> int:
    """Compile everything, write the record and the table of the page; 1 if something does not fit."""
    jax.config.update("jax_enable_compilation_cache", False)  # what is for other devices cannot be read back
    records = [record(*case) for case in CASES]
    _timing.table(
        records, ("rows", "target", "dtype", "largest", "planned", "collectives", "predicted_seconds")
    )
    print(_timing.write("device_sizes", "python -m benchmarks.device_sizes", records, "flax"))
    before, rest = PAGE.read_text().split(MARKS[0])
    PAGE.write_text(f"{before}{MARKS[0]}\n{table(records)}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")
    return 0 if all(one["fits"] for one in records) else 1


if __name__ == "__main__":
    sys.exit(main())
