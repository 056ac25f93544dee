"""The command line: ``narrow-jax train``.

Exit status: 0 done, 1 the answer is no (the run diverged), 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import optax

import narrow_jax as nj
from narrow_jax import _checks, runs

OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "sgd": optax.sgd,
    "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that makes a training run; ``config.json`` holds it."""

    dataset: str = "digits"
    labels: str = "true"
    classes: int = 2
    samples: int | None = None
    normalize: str | None = None
    model: str = "pairwise"
    width: int = 120
    activation: str = "tanh"
    radius: float = 0.1
    zeta: float = 1e-3
    kappa: float = math.inf
    loss: str = "squared"
    optimizer: str = "adam"
    learning_rate: float = 5e-3
    schedule: str = "cosine"
    steps: int = 5000
    batch_size: int | None = None
    seed: int = 0


HELP = {
    "dataset": f"data set: {', '.join(nj.data.NAMES)}",
    "labels": "true labels, or random ones to test memorisation",
    "classes": "number of classes of random labels; 2 are learned as ±1",
    "samples": "random subset of that many training samples (default: all)",
    "normalize": "map of the inputs, fitted on the training samples (default: pixels in [0, 1])",
    "model": "pairwise: mirrored start and pairwise output (the paper's); standard: the baseline",
    "width": "hidden units m, even for the pairwise net",
    "activation": f"one of {', '.join(nj.activations.names())}",
    "radius": "ε of the ball around the start that holds the hidden weights; inf for none",
    "zeta": "ζ, lower bound of the output weights of the pairwise net",
    "kappa": "κ ≥ 1, largest ratio of output weights; inf for none",
    "loss": "squared: ½ Σ (y − f)²",
    "optimizer": "optimizer, run in the coordinates of the ball",
    "learning_rate": "first step size",
    "schedule": "step size over the run",
    "steps": "number of updates",
    "batch_size": "samples an update (default: all)",
    "seed": "of the start, the random labels, the subset and the batches",
}
CHOICES: dict[str, Sequence[str]] = {
    "labels": ("true", "random"),
    "normalize": ("standardize", "whiten"),
    "model": ("pairwise", "standard"),
    "loss": ("squared", "mean_squared", "cross_entropy"),
    "optimizer": tuple(OPTIMIZERS),
    "schedule": ("cosine", "constant"),
}
PARSERS: dict[str, Callable[[str], Any]] = {"samples": int, "batch_size": int, "normalize": str}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, TypeError, FileNotFoundError, ImportError) as error:
        print(f"narrow-jax {args.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="narrow-jax", description="Train and understand narrow neural networks.", epilog=__doc__
    )
    parser.add_argument("--version", action="version", version=f"narrow-jax {metadata.version('narrow_jax')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a narrow net under the constraints",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description="Train a one-hidden-layer net: hidden weights in a ball around their start, output "
        "weights in a cone. Writes params.npz, config.json, history.jsonl and summary.json.",
        epilog="Example: narrow-jax train --dataset digits --labels random --normalize whiten --width 120 "
        "--radius 0.1",
    )
    train.set_defaults(run=_train)
    for field in fields(TrainConfig):
        flag = "--" + field.name.replace("_", "-")
        parse = PARSERS.get(field.name) or type(field.default)
        choices = CHOICES.get(field.name)
        train.add_argument(flag, type=parse, default=field.default, choices=choices, help=HELP[field.name])
    train.add_argument("--every", type=int, help="steps between records (default: a hundredth of --steps)")
    train.add_argument("--sigma-min", action="store_true", help="record σ_min of the Jacobian in the history")
    train.add_argument("--strict", action="store_true", help="refuse a width too small for the data")
    train.add_argument("--out", type=Path, help="folder of the run (default: runs/DATASET-MODEL-SEED)")
    train.add_argument(
        "--raw-dir", type=Path, help="folder with the data sets' original files, for offline use"
    )
    train.add_argument("--data-dir", type=Path, help="folder where prepared data sets are kept")
    train.add_argument("--json", action="store_true", help="print the summary as JSON and nothing else")


def _train(args: argparse.Namespace) -> int:
    config = TrainConfig(**{field.name: getattr(args, field.name) for field in fields(TrainConfig)})
    folder = args.out or Path("runs") / f"{config.dataset}-{config.model}-{config.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    data = load_data(config, args.raw_dir, args.data_dir)
    targets = data.labels if config.loss == "cross_entropy" else data.y
    if targets is None:
        raise ValueError(f"{config.dataset} has real targets and no classes: use --loss squared")
    apply_fn, jacobian, params, tx = build(config, data, strict=args.strict)
    started = time.perf_counter()
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
        monitors=(nj.monitors.sigma_min(jacobian),) if args.sigma_min else (),
        progress=False if args.json else None,
        record=folder / "history.jsonl",
    )
    summary = summarize(config, result, time.perf_counter() - started)
    summary |= _test_accuracy(apply_fn, result.params, data, config)
    runs.save(folder, result.params, asdict(config))
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _print_summary(config, summary, folder, as_json=args.json)
    return 1 if result.diverged else 0


def load_data(
    config: TrainConfig, raw_dir: Path | None = None, data_dir: Path | None = None
) -> nj.data.Dataset:
    """Return the data set of a run."""
    return nj.data.load(
        config.dataset,
        labels=config.labels,
        classes=config.classes,
        samples=config.samples,
        normalize=config.normalize,
        seed=config.seed,
        raw_dir=raw_dir,
        data_dir=data_dir,
    )


def build(
    config: TrainConfig, data: nj.data.Dataset, strict: bool = False
) -> tuple[Callable[..., Any], Callable[..., Any], Any, optax.GradientTransformation]:
    """Return the model, its Jacobian operator, the start and the optimizer of a run."""
    _checks.positive("learning rate", config.learning_rate)
    _checks.count("steps", config.steps)
    outputs = data.classes if config.loss == "cross_entropy" else data.y.shape[1]
    sizes = {"inputs": data.x.shape[1], "width": config.width, "outputs": outputs}
    key = jax.random.key(config.seed)
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    optimizer = OPTIMIZERS[config.optimizer](rate)
    if config.model == "standard":
        params = nj.initializers.lecun(key, **sizes)
        tx = nj.constraints.regime(optimizer, config.radius, zeta=None)
        model, jacobian = nj.models.standard_apply, nj.jacobian.standard
    else:
        params = nj.initializers.mirrored_lecun(key, **sizes, zeta=config.zeta, kappa=config.kappa)
        tx = nj.constraints.regime(optimizer, config.radius, config.zeta, config.kappa)
        model, jacobian = nj.models.pairwise_apply, nj.jacobian.pairwise
        nj.jacobian.check_width(data.x, config.width, outputs, strict=strict)
    activation = nj.activations.get(config.activation)
    return partial(model, activation=activation), partial(jacobian, activation=activation), params, tx


def summarize(config: TrainConfig, result: nj.FitResult, seconds: float) -> dict[str, Any]:
    """Return the last record of a run as plain numbers."""
    last = {name: values[-1].item() for name, values in result.history.items() if len(values)}
    return {
        "diverged": result.diverged,
        "steps_taken": result.steps_taken,
        "radius": config.radius,
        **last,
        "seconds": round(seconds, 2),
    }


def _test_accuracy(
    apply_fn: Any, params: Any, data: nj.data.Dataset, config: TrainConfig
) -> dict[str, float]:
    targets = data.labels_test if config.loss == "cross_entropy" else data.y_test
    if config.labels == "random" or targets is None:
        return {}
    accuracy = nj.losses.accuracy_for(targets)
    return (
        {} if accuracy is None else {"test_accuracy": float(accuracy(apply_fn(params, data.x_test), targets))}
    )


def _print_summary(config: TrainConfig, summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"config": asdict(config), "summary": summary, "folder": str(folder)}))
        return
    if summary["diverged"]:
        print(
            f"DIVERGED at step {summary['steps_taken'] + 1}: a loss or weight became non-finite.\n"
            f"The params of step {summary['steps_taken']} are kept; try a smaller --learning-rate."
        )
    for name, value in summary.items():
        print(f"  {name:18} {value:.6g}" if isinstance(value, float) else f"  {name:18} {value}")
    print(f"written to {folder}")


if __name__ == "__main__":
    sys.exit(main())
