"""What callbacks cost: steps per second of ``fit`` without any, with each of them, and of a bare loop of optax.

Command:  python -m benchmarks.callbacks   (about two minutes on two cores)
Expected: without callbacks ≥ 0.9 × the bare loop, which records nothing; with any but checkpoints ≥ 0.8 × without.
Writes:   benchmarks/results/callbacks.json

A rate is that of the steps beyond the first ones, (t(3N) − t(N))/2N in calls that compile nothing, so that what a call
does once, such as making folders, is not in it. There are a hundred records a run; ``Checkpoint`` and ``Best`` look at
every second one, so that 50 checkpoints are written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

import narrow_jax as nj
from benchmarks import _timing
from benchmarks.training import RADIUS, RATE, SIZES, ZETA, problem, scan_loop

STEPS = 10_000
RECORDS = 100
WITHOUT = "no callbacks"
BARE = "bare loop of optax"

CALLBACKS: dict[str, Callable[[Path], Sequence[nj.callbacks.Callback]]] = {
    WITHOUT: lambda folder: [],
    "Record": lambda folder: [nj.callbacks.Record(folder / "history.jsonl")],
    "EarlyStopping": lambda folder: [nj.callbacks.EarlyStopping("loss", patience=RECORDS + 1)],
    "Best": lambda folder: [nj.callbacks.Best("loss")],
    "TensorBoard": lambda folder: [nj.callbacks.TensorBoard(folder)],
    "Checkpoint": lambda folder: [nj.callbacks.Checkpoint(folder, every=1)],
}


def runs(steps: int) -> dict[str, Callable[[], Any]]:
    """Return a run of so many steps for each kind of callback, and the bare loop."""
    params, data = problem(SIZES[1])
    tx = nj.constraints.regime(optax.adam(RATE), RADIUS, ZETA)

    def fit(made: Callable[[Path], Sequence[nj.callbacks.Callback]]) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            result = nj.fit(
                nj.models.pairwise_apply,
                params,
                tx,
                data,
                steps=steps,
                every=steps // RECORDS,
                callbacks=made(Path(folder)),
            )
            return jax.block_until_ready(result.params)

    bare = {BARE: scan_loop(tx, params, data, steps)}
    return bare | {name: lambda made=made: fit(made) for name, made in CALLBACKS.items()}


def main() -> None:
    """Time all in turns, print the table and write the record."""
    few, many = (_timing.best_seconds(runs(steps), repeats=5) for steps in (STEPS, 3 * STEPS))
    rates = {name: 2 * STEPS / (many[name] - few[name]) for name in many}
    records = []
    for name, rate in rates.items():
        against, bar = (BARE, 0.9) if name == WITHOUT else (WITHOUT, 0.8)
        held = name not in (BARE, "Checkpoint")
        records.append(
            {
                "what": name,
                "steps_per_second": round(rate),
                "against": against if name != BARE else None,
                "ratio": round(rate / rates[against], 3) if name != BARE else None,
                "bar": bar if held else None,
                "holds": rate >= bar * rates[against] if held else None,
            }
        )
    _timing.table(records, ("what", "steps_per_second", "against", "ratio", "bar", "holds"))
    print(_timing.write("callbacks", "python -m benchmarks.callbacks", records))


if __name__ == "__main__":
    main()
