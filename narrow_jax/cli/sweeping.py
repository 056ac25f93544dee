"""``narrow-jax train`` with several values of an option: all runs in one compiled call, and a table."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from narrow_jax import training
from narrow_jax._typing import Params
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli.command import Answer, table
from narrow_jax.cli.config import build, check, claim, load_data
from narrow_jax.cli.train_config import TrainConfig

Grid = Mapping[str, Sequence[float]]
_SHOWN = ("loss", "accuracy", "test_loss", "test_accuracy", "relative_distance")


def run(args: argparse.Namespace, config: TrainConfig, grid: Grid) -> Answer:
    """Train at every point of the grid and write the table; no if all runs diverged."""
    for name, values in grid.items():
        for value in values:
            check(TrainConfig.from_json(config.to_json() | {name: value}))
    if refused := [flag for flag, value in _single(args, config).items() if value]:
        raise ValueError(f"{refused[0]} goes with one run; expected one value of each option: leave it out")
    folder = args.out or Path("runs") / f"{config.name}-{config.model}-sweep"
    claim(folder, args.overwrite)
    data = load_data(config, args.raw_dir, args.data_dir)
    started = time.perf_counter()
    first = build(config, data, strict=args.strict)

    def setup(**point: Any) -> tuple[Params, Any]:
        built = build(config, data, point=point)
        return built.params, built.tx

    result = training.sweep(
        first.apply_fn,
        setup,
        data,
        grid={name: np.asarray(values) for name, values in grid.items()},
        steps=config.steps,
        every=config.every,
        loss=config.loss,
        batch_size=config.batch_size,
        key=jax.random.key(config.seed) if config.batch_size else None,
        evaluation=_evaluation(data, config),
        progress=False if args.json else None,
    )
    rows = _rows(grid, result)
    record = {
        "config": config.to_json(),
        "grid": grid,
        "runs": rows,
        "seconds": time.perf_counter() - started,
    }
    text = strict_json.dumps(record, indent=2) + "\n"
    runs.replace(folder, {"sweep.json": lambda path: path.write_text(text)})
    done = not all(row["diverged"] for row in rows)
    return Answer(done, record | {"folder": str(folder)}, [*table(rows), f"written to {folder}"])


def _single(args: argparse.Namespace, config: TrainConfig) -> dict[str, object]:
    """Return the options that only a single run can have."""
    return {
        "--checkpoint": args.checkpoint,
        "--resume": args.resume is not False,
        "--save-every": args.save_every,
        "--sigma-min": config.sigma_min,
    }


def _evaluation(data: Any, config: TrainConfig) -> tuple[np.ndarray, np.ndarray] | None:
    if data.x_test is None or config.labels == "random":
        return None
    return data.x_test, data.labels_test if config.loss == "cross_entropy" else data.y_test


def _rows(grid: Grid, result: training.FitResult) -> list[dict[str, Any]]:
    """Return one row a run: its point, and the last record."""
    points = itertools.product(*grid.values())
    shape = tuple(len(values) for values in grid.values())
    rows = []
    for index, point in zip(np.ndindex(shape), points, strict=True):
        last = {name: float(result.history[name][index][-1]) for name in _SHOWN if name in result.history}
        diverged = bool(np.asarray(result.diverged)[index])
        rows.append(dict(zip(grid, point, strict=True)) | last | {"diverged": diverged})
    return rows
