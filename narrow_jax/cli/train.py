"""``narrow-jax train``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from narrow_jax import _checks, checkpoints, losses, monitors, training
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli import sweeping
from narrow_jax.cli.command import Answer
from narrow_jax.cli.config import Built, build, check, claim, load_data, read_config, write_run
from narrow_jax.cli.train_config import FIELDS, SWEPT, TrainConfig
from narrow_jax.data import Dataset
from narrow_jax.training import callbacks

_ROSE = 10  # a loss that ends so many times above its first value was not learned


def run(args: argparse.Namespace) -> Answer:
    """Train and write the run; no if it diverged."""
    config = TrainConfig.of(args, FIELDS, None if args.config is None else read_config(args.config))
    check(config)
    if args.save_every is not None:
        _checks.count("save_every", args.save_every)
    if grid := {name: values for name in SWEPT if len(values := getattr(args, name) or ()) > 1}:
        return sweeping.run(args, config, grid)
    folder = args.out or Path("runs") / f"{config.name}-{config.model}-{config.seed}"
    _claim(args, config, folder)
    data = load_data(config, args.raw_dir, args.data_dir)
    if config.loss == "cross_entropy" and data.labels is None:
        raise ValueError(f"{config.name} has real targets and no classes: use --loss squared")
    built = build(config, data, strict=args.strict)
    if config.batch_size is not None:
        _checks.batch_size(config.batch_size, len(data.x))
    started = time.perf_counter()
    with runs.made(folder):
        (folder / runs.LIVE).unlink(missing_ok=True)  # of a run that was killed
        result = _fit(args, config, built, data, folder)
    summary = _summary(config, result, time.perf_counter() - started)
    summary |= _test_score(built, result, data, config)
    failure = _failure(result)
    kept = bool(failure and set(runs.occupied(folder)) - {"checkpoints"})
    if kept:  # one that failed does not replace another
        (folder / runs.LIVE).unlink()
    else:
        text = strict_json.dumps(summary, indent=2) + "\n"
        more = {
            "summary.json": lambda path: path.write_text(text),
            "history.jsonl": (folder / runs.LIVE).replace,
        }
        write_run(folder, config.to_json(), result.model, more)
    place = {"failure": failure or None, "folder": None if kept else str(folder)}
    record = {"config": config.to_json(), "summary": summary, **place}
    where = "not written: the run that was in the folder stays" if kept else f"written to {folder}"
    return Answer(not failure, record, [*([failure] if failure else []), *_lines(summary), where])


def _checkpoints(args: argparse.Namespace, folder: Path) -> Path | None:
    """Return the folder of the checkpoints: the one given, ``checkpoints`` in that of the run, or None."""
    if isinstance(args.checkpoint, Path):
        return args.checkpoint
    wanted = args.checkpoint or args.resume is not False or args.save_every is not None
    return folder / "checkpoints" if wanted else None


def _claim(args: argparse.Namespace, config: TrainConfig, folder: Path) -> None:
    """Require a folder for the run, a new one or that of the run to go on with; ``nj.fit`` compares the latter."""
    saved = _checkpoints(args, folder)
    there = saved is not None and checkpoints.steps(saved)
    own = saved == folder / "checkpoints" or (
        (folder / runs.CONFIG).is_file() and strict_json.read(folder / runs.CONFIG) == config.to_json()
    )
    if not (there and own):
        claim(folder, args.overwrite)


def _fit(
    args: argparse.Namespace,
    config: TrainConfig,
    built: Built,
    data: Dataset,
    folder: Path,
) -> training.FitResult:
    return training.fit(
        built.apply_fn,
        built.params,
        built.tx,
        data,
        steps=config.steps,
        loss=config.loss,
        batch_size=config.batch_size,
        key=jax.random.key(config.seed) if config.batch_size else None,
        every=config.every,
        monitors=(monitors.SigmaMinMonitor(built.jacobian),) if config.sigma_min else (),
        callbacks=_callbacks(args, config, folder),
    )


def _callbacks(args: argparse.Namespace, config: TrainConfig, folder: Path) -> list[callbacks.Callback]:
    watchers = [callbacks.Record(folder / runs.LIVE), callbacks.Progress(False if args.json else None)]
    if (saved := _checkpoints(args, folder)) is None:
        return watchers
    keeping = callbacks.Checkpoint(saved, args.save_every, resume=args.resume, config=config.to_json())
    return [keeping, *watchers]


def _failure(result: training.FitResult) -> str:
    """Say why nothing was learned; nothing where the run went well."""
    if result.diverged:
        return (
            f"DIVERGED at step {int(result.steps_taken) + 1}: a loss or weight became non-finite.\n"
            f"The params of step {result.steps_taken} are kept; try a smaller --learning-rate."
        )
    first, last = (float(result.history["loss"][i]) for i in (0, -1))
    if 0 < _ROSE * first < last:
        return f"DIVERGED: the loss rose from {first:.3g} to {last:.3g}; try a smaller --learning-rate."
    return ""


def _summary(config: TrainConfig, result: training.FitResult, seconds: float) -> dict[str, Any]:
    last = {name: values[-1].item() for name, values in result.history.items() if len(values)}
    return {
        "diverged": result.diverged,
        "steps_taken": result.steps_taken,
        "radius": config.to_json()["radius"],
        **last,
        "seconds": round(seconds, 2),
    }


def _test_score(
    built: Built, result: training.FitResult, data: Dataset, config: TrainConfig
) -> dict[str, float]:
    targets = data.labels_test if config.loss == "cross_entropy" else data.y_test
    if config.labels == "random" or targets is None:
        return {}
    outputs = built.apply_fn(result.params, data.x_test)
    accuracy = losses.accuracy_for(targets, outputs, config.loss)
    if accuracy is not None:
        return {"test_accuracy": float(accuracy(outputs, targets))}
    spread = float(np.sum((targets - targets.mean(axis=0)) ** 2))
    return {"test_r2": 1 - float(np.sum((targets - outputs) ** 2)) / spread} if spread else {}


def _lines(summary: dict[str, Any]) -> list[str]:
    return [
        f"  {name:18} {value:.6g}" if isinstance(value, float) else f"  {name:18} {value}"
        for name, value in summary.items()
    ]
