"""``narrow-jax train`` with several values of an option: all runs in one compiled call, and a table; no nets are kept.

Each row is the run that its options alone would be: where the seed draws data too, such as random labels, the program
that is compiled once is called for each seed.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from narrow_jax import training
from narrow_jax._typing import ApplyFn
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli.command import Answer, table
from narrow_jax.cli.config import Start, apply_fn_of, build, check, claim, load_data
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
    started = time.perf_counter()
    drawn = ["the start", *_drawn_by_seed(config)]
    calls = _by_seed(config, grid) if len(drawn) > 1 and "seed" in grid else [(config, grid)]
    apply_fn = apply_fn_of(config)
    found = [row for at, points in calls for row in _trained(args, apply_fn, at, points)]
    order = {point: place for place, point in enumerate(itertools.product(*grid.values()))}
    rows = sorted(found, key=lambda row: order[tuple(row[name] for name in grid)])
    record = {
        "config": config.to_json(),
        "grid": grid,
        "drawn_by_seed": drawn,
        "runs": rows,
        "seconds": time.perf_counter() - started,
    }
    text = strict_json.dumps(record, indent=2) + "\n"
    runs.replace(folder, {"sweep.json": lambda path: path.write_text(text)})
    done = not all(row["diverged"] for row in rows)
    seeds = [f"each seed draws {', '.join(drawn)}"] if "seed" in grid else []
    kept = "a sweep keeps its table and no nets: train with the options of one row to keep that net"
    return Answer(
        done, record | {"folder": str(folder)}, [*table(rows), *seeds, f"written to {folder}; {kept}"]
    )


def _drawn_by_seed(config: TrainConfig) -> list[str]:
    """Return what of the data the seed draws."""
    return [
        what
        for what, is_drawn in (
            ("the labels", config.labels == "random"),
            ("the subset of the samples", config.samples is not None),
            ("the test split", config.test_fraction > 0),
            ("the samples", config.data is None and config.dataset in ("synthetic", "teacher")),
        )
        if is_drawn
    ]


def _by_seed(config: TrainConfig, grid: Grid) -> list[tuple[TrainConfig, Grid]]:
    """Return the config and the points of each seed: a compiled call trains on one data set."""
    return [(replace(config, seed=int(seed)), {**grid, "seed": [seed]}) for seed in grid["seed"]]


def _trained(
    args: argparse.Namespace, apply_fn: ApplyFn, config: TrainConfig, grid: Grid
) -> list[dict[str, Any]]:
    """Train at every point of the grid in one call; of equal sizes it was compiled before."""
    data = load_data(config, args.raw_dir, args.data_dir)
    build(config, data, strict=args.strict)  # what does not fit is said before anything compiles
    result = training.sweep(
        apply_fn,
        Start.of(replace(config, seed=0) if "seed" in grid else config, data),
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
    return _rows(grid, result)


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
