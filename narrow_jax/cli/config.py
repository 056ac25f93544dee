"""What the commands share: the config of a run, its options, and the data, model and start that it names."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax

import narrow_jax as nj
from narrow_jax import _checks
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.data import NORMALIZERS

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
    width: int = 600
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
    "normalize": "map of the inputs, fitted on the training samples: standardize each column (constant ones are "
    "dropped), scale all by one mean and deviation, or whiten (default: pixels in [0, 1])",
    "model": "pairwise: mirrored start and pairwise output (the paper's); standard: the baseline",
    "width": "hidden units m, even for the pairwise net",
    "activation": f"one of {', '.join(nj.activations.names())}",
    "radius": "ε of the ball around the start that holds the hidden weights; inf for none",
    "zeta": "ζ, lower bound of the output weights of the pairwise net",
    "kappa": "κ ≥ 1, largest ratio of output weights; inf for none",
    "loss": "squared: ½ Σ (y − f)²; mean_squared: the mean of (y − f)²; cross_entropy: the mean over the samples, "
    "with an output for each class",
    "optimizer": "optimizer, run in the coordinates of the ball",
    "learning_rate": "first step size",
    "schedule": "step size over the run",
    "steps": "number of updates",
    "batch_size": "samples an update (default: all)",
    "seed": "of the start, the random labels, the subset and the batches",
}
CHOICES: dict[str, Sequence[str]] = {
    "labels": ("true", "random"),
    "normalize": tuple(NORMALIZERS),
    "model": ("pairwise", "standard"),
    "loss": ("squared", "mean_squared", "cross_entropy"),
    "optimizer": tuple(OPTIMIZERS),
    "schedule": ("cosine", "constant"),
}
PARSERS: dict[str, Callable[[str], Any]] = {"samples": int, "batch_size": int, "normalize": str}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of an option, unless there is none or the text names it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        named = action.default is None or action.default is False or "(default" in (action.help or "")
        return action.help if named else super()._get_help_string(action)


def path(text: str) -> Path:
    """Return the path of an option; ``~`` is the home folder."""
    return Path(text).expanduser()


def to_json(config: TrainConfig) -> dict[str, Any]:
    """Return the config as JSON can hold it: an infinite bound is the word "inf"."""
    return strict_json.plain(asdict(config))


def from_json(saved: dict[str, Any]) -> TrainConfig:
    """Return the config that ``to_json`` wrote; the ``scale`` that `memorize` found is a result and left out.

    Raises:
        ValueError: a field that no config has, or a word that its option does not take.
    """
    values: dict[str, Any] = {
        name: math.inf if value == "inf" else value for name, value in saved.items() if name != "scale"
    }
    names = [field.name for field in fields(TrainConfig)]
    if unknown := sorted(set(values) - set(names)):
        raise ValueError(
            f"the config has the unknown fields {', '.join(unknown)}; expected only {', '.join(names)}: "
            "remove them, or use the version that wrote it"
        )
    for name, options in CHOICES.items():
        if values.get(name) is not None:
            _checks.choice(name, values[name], options)
    return TrainConfig(**values)


def check(config: TrainConfig) -> None:
    """Require what can be judged before any data are loaded.

    Raises:
        ValueError: an unknown word, or a number out of range.
    """
    _checks.choice("data set", config.dataset, nj.data.NAMES)
    nj.activations.get(config.activation)
    _checks.radius(config.radius)
    _checks.positive("learning rate", config.learning_rate)
    _checks.count("steps", config.steps)
    _checks.count("seed", config.seed, minimum=0)
    for name in ("samples", "batch_size"):
        if (value := getattr(config, name)) is not None:
            _checks.count(name, value)
    if config.model == "standard":
        _checks.count("width", config.width)
    else:
        _checks.even_width(config.width)
    _checks.zeta(config.zeta)
    _checks.kappa(config.kappa)


def claim(folder: Path, overwrite: bool) -> None:
    """Require a folder that a run may be written to.

    Raises:
        FileExistsError: it holds a run, and that may not be replaced, or has checkpoints.
    """
    if not overwrite:
        runs.vacant(folder, "replace it with --overwrite")
    elif nj.checkpoints.steps(folder / "checkpoints"):
        raise FileExistsError(
            f"{folder / 'checkpoints'} holds checkpoints of another run, which --overwrite does not delete: remove "
            "them, or choose another folder"
        )


def write_run(
    folder: Path,
    params: Any,
    config: dict[str, Any],
    data: nj.data.Dataset,
    more: dict[str, Callable[[Path], Any]] | None = None,
) -> None:
    """Write params, config and normalizer of a run, and what else it has, in place of what was there."""
    assert data.normalizer is not None
    arrays = data.normalizer.to_arrays()
    normalizer = {"normalizer.npz": lambda path: runs.write_npz(path, arrays)}
    runs.replace(folder, runs.files(params, config) | normalizer | (more or {}))


def read_run(folder: Path) -> tuple[TrainConfig, dict[str, Any], Any]:
    """Return the config and the params of a run of `train` or `memorize`, and its start: None where none is saved.

    Of a run that has not ended yet the params are those of its newest checkpoint.

    Raises:
        FileNotFoundError, ValueError: as ``runs.load``, ``nj.checkpoints.load_params`` and ``from_json``.
    """
    places = [place for place in (folder, folder / "checkpoints") if nj.checkpoints.steps(place)]
    if places and not (folder / "params.npz").is_file():
        weights = nj.checkpoints.load_params(places[0])
        return _config_of(places[0], weights.config), weights.params, None
    params, saved = runs.load(folder)
    start = params.pop("center", None)
    config = from_json(saved)
    if config.normalize == "standardize" and not (folder / "normalizer.npz").is_file():
        raise ValueError(
            f"{folder} is of version 0.1, in which 'standardize' was one mean and deviation for all columns: write "
            "'scale' in its config.json"
        )
    return config, params, start


def _config_of(folder: Path, saved: dict[str, Any]) -> TrainConfig:
    own = saved.get("config", {})
    if missing := [field.name for field in fields(TrainConfig) if field.name not in own]:
        raise ValueError(
            f"the checkpoints in {folder} are not of `narrow-jax train` (their config has no {', '.join(missing)}): "
            "nj.checkpoints.load_params gives their weights"
        )
    return from_json(own)


def add_options(parser: argparse.ArgumentParser, names: Iterable[str], defaults: TrainConfig) -> None:
    """Add the options of these fields of the config."""
    for name in names:
        default = getattr(defaults, name)
        text = HELP[name] if default is None else HELP[name].removesuffix(" (default: all)")
        parse = PARSERS.get(name) or type(default)
        flag, choices = "--" + name.replace("_", "-"), CHOICES.get(name)
        parser.add_argument(flag, type=parse, default=default, choices=choices, help=text)


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where data sets are."""
    parser.add_argument(
        "--raw-dir", type=path, help="folder with the data sets' original files, for offline use"
    )
    parser.add_argument("--data-dir", type=path, help="folder where prepared data sets are kept")


def memory_budget(gib: float | None) -> int | None:
    """Return the bytes of an option in GiB.

    Raises:
        ValueError: not a finite number > 0.
    """
    if gib is None:
        return None
    _checks.positive("memory budget", gib)
    return int(gib * 2**30)


def add_overwrite(parser: argparse.ArgumentParser, what: str = "run in the folder") -> None:
    """Add the option that lets a run, or what it writes, replace an earlier one."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace an earlier {what}")


def load_data(
    config: TrainConfig, raw_dir: Path | None = None, data_dir: Path | None = None
) -> nj.data.Dataset:
    """Return the data set of a run, once its config is checked; say which columns were dropped."""
    check(config)
    data = nj.data.load(
        config.dataset,
        labels=config.labels,
        classes=config.classes,
        samples=config.samples,
        normalize=config.normalize,
        seed=config.seed,
        raw_dir=raw_dir,
        data_dir=data_dir,
    )
    if data.normalizer is not None and data.normalizer.kept is not None:
        columns, kept = len(data.normalizer.mean), len(data.normalizer.kept)
        warnings.warn(
            f"{columns - kept} of {columns} columns are constant in the training rows and were dropped",
            stacklevel=2,
        )
    return data


def build(
    config: TrainConfig, data: nj.data.Dataset, strict: bool = False
) -> tuple[Callable[..., Any], Callable[..., Any], Any, optax.GradientTransformation]:
    """Return the model, its Jacobian operator, the start and the optimizer of a run."""
    outputs: Any = data.classes if config.loss == "cross_entropy" else data.y.shape[1]
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
