"""``narrow-jax train``."""

from __future__ import annotations

import argparse
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax

import narrow_jax as nj
from narrow_jax import _checks
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli.config import (
    HelpFormatter,
    TrainConfig,
    add_folders,
    add_options,
    add_overwrite,
    build,
    check,
    claim,
    load_data,
    path,
    to_json,
    write_run,
)

_LIVE = "history.part.jsonl"
_ROSE = 10  # a loss that ends so many times above its first value was not learned


def add(commands: Any) -> None:
    """Add the command to the parser."""
    train = commands.add_parser(
        "train",
        help="train a narrow net under the constraints",
        formatter_class=HelpFormatter,
        description="Train a one-hidden-layer net: hidden weights in a ball around their start, output "
        "weights in a cone. Writes params.npz, config.json, normalizer.npz (from the stored inputs to those of "
        "the net), history.jsonl (history.part.jsonl while it runs) and summary.json. Exit status 1 if it diverged.",
        epilog="Example: narrow-jax train --dataset digits --labels random --normalize whiten --width 120 "
        "--radius 0.1",
    )
    train.set_defaults(run=run)
    add_options(train, (field.name for field in fields(TrainConfig)), TrainConfig())
    train.add_argument("--every", type=int, help="steps between records (default: a hundredth of --steps)")
    train.add_argument("--sigma-min", action="store_true", help="record σ_min of the Jacobian in the history")
    train.add_argument("--strict", action="store_true", help="refuse a width too small for the data")
    train.add_argument("--out", type=path, help="folder of the run (default: runs/DATASET-MODEL-SEED)")
    add_overwrite(train)
    _add_checkpoints(train)
    add_folders(train)
    train.add_argument("--json", action="store_true", help="print the summary as JSON and nothing else")


def _add_checkpoints(train: argparse.ArgumentParser) -> None:
    train.add_argument(
        "--checkpoint",
        type=path,
        nargs="?",
        const=True,
        metavar="DIR",
        help="save checkpoints there (without DIR: in the folder of the run); Ctrl-C then saves and leaves",
    )
    train.add_argument(
        "--save-every", type=int, help="steps between checkpoints (default: a 25th of --steps)"
    )
    train.add_argument(
        "--resume",
        type=int,
        nargs="?",
        const=True,
        default=False,
        metavar="STEP",
        help="go on from the newest checkpoint, or from that of STEP; needs the options of the first call",
    )


def _checkpoints(args: argparse.Namespace, folder: Path) -> Path | None:
    """Return the folder of the checkpoints: the one given, ``checkpoints`` in that of the run, or None."""
    if isinstance(args.checkpoint, Path):
        return args.checkpoint
    wanted = args.checkpoint or args.resume is not False or args.save_every is not None
    return folder / "checkpoints" if wanted else None


def _claim(args: argparse.Namespace, config: TrainConfig, folder: Path) -> None:
    """Require a folder for the run, a new one or that of the run to go on with; ``nj.fit`` compares the latter."""
    saved = _checkpoints(args, folder)
    there = saved is not None and nj.checkpoints.steps(saved)
    own = saved == folder / "checkpoints" or (
        (folder / "params.npz").is_file() and runs.load(folder)[1] == to_json(config)
    )
    if not (there and own):
        claim(folder, args.overwrite)


def run(args: argparse.Namespace) -> int:
    """Train, write the run, print its summary; 1 if it diverged."""
    config = TrainConfig(**{field.name: getattr(args, field.name) for field in fields(TrainConfig)})
    check(config)
    for name in ("every", "save_every"):
        if (value := getattr(args, name)) is not None:
            _checks.count(name, value)
    folder = args.out or Path("runs") / f"{config.dataset}-{config.model}-{config.seed}"
    _claim(args, config, folder)
    data = load_data(config, args.raw_dir, args.data_dir)
    targets = _targets(config, data)
    apply_fn, jacobian, params, tx = build(config, data, strict=args.strict)
    if config.batch_size is not None:
        _checks.batch_size(config.batch_size, len(data.x))
    started = time.perf_counter()
    with runs.made(folder):
        (folder / _LIVE).unlink(missing_ok=True)  # of a run that was killed
        result = nj.fit(
            apply_fn,
            params,
            tx,
            (data.x, targets),
            steps=config.steps,
            loss=config.loss,
            batch_size=config.batch_size,
            key=jax.random.key(config.seed) if config.batch_size else None,
            every=args.every,
            monitors=(nj.monitors.SigmaMinMonitor(jacobian),) if args.sigma_min else (),
            progress=False if args.json else None,
            record=folder / _LIVE,
            checkpoint=_checkpoints(args, folder),
            save_every=args.save_every,
            resume=args.resume,
            config=to_json(config),
        )
    summary = summarize(config, result, time.perf_counter() - started)
    summary |= _test_accuracy(apply_fn, result.params, data, config)
    failure = _failure(result)
    written = _write(folder, result.params, config, data, summary, failure)
    _print_summary(config, summary, failure, folder if written else None, as_json=args.json)
    return 1 if failure else 0


def _targets(config: TrainConfig, data: nj.data.Dataset) -> Any:
    targets = data.labels if config.loss == "cross_entropy" else data.y
    if targets is None:
        raise ValueError(f"{config.dataset} has real targets and no classes: use --loss squared")
    return targets


def _failure(result: nj.FitResult) -> str:
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


def _write(
    folder: Path,
    params: Any,
    config: TrainConfig,
    data: nj.data.Dataset,
    summary: dict[str, Any],
    failure: str,
) -> bool:
    """Write the run and return True; one that failed does not replace another."""
    live = folder / _LIVE
    if failure and set(runs.occupied(folder)) - {"checkpoints"}:
        live.unlink()
        return False
    text = strict_json.dumps(summary, indent=2) + "\n"
    more = {"summary.json": lambda path: path.write_text(text), "history.jsonl": live.replace}
    write_run(folder, params, to_json(config), data, more)
    return True


def summarize(config: TrainConfig, result: nj.FitResult, seconds: float) -> dict[str, Any]:
    """Return the last record of a run as plain numbers."""
    last = {name: values[-1].item() for name, values in result.history.items() if len(values)}
    return {
        "diverged": result.diverged,
        "steps_taken": result.steps_taken,
        "radius": to_json(config)["radius"],
        **last,
        "seconds": round(seconds, 2),
    }


def _test_accuracy(
    apply_fn: Any, params: Any, data: nj.data.Dataset, config: TrainConfig
) -> dict[str, float]:
    targets = data.labels_test if config.loss == "cross_entropy" else data.y_test
    if config.labels == "random" or targets is None:
        return {}
    outputs = apply_fn(params, data.x_test)
    accuracy = nj.losses.accuracy_for(targets, outputs, config.loss)
    return {} if accuracy is None else {"test_accuracy": float(accuracy(outputs, targets))}


def _print_summary(
    config: TrainConfig, summary: dict[str, Any], failure: str, folder: Path | None, as_json: bool
) -> None:
    if as_json:
        place = {"failure": failure or None, "folder": None if folder is None else str(folder)}
        print(strict_json.dumps({"config": to_json(config), "summary": summary, **place}))
        return
    if failure:
        print(failure)
    for name, value in summary.items():
        print(f"  {name:18} {value:.6g}" if isinstance(value, float) else f"  {name:18} {value}")
    print(f"written to {folder}" if folder else "not written: the run that was in the folder stays")
