"""The config of a run: its fields, which are options too, and the data, model and start that they name."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax

from narrow_jax import _checks, activations, checkpoints, constraints, initializers, jacobian, models
from narrow_jax import data as datasets
from narrow_jax._typing import ApplyFn, Params
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli.command import Option

OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "sgd": optax.sgd,
    "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
}


def _field(
    default: Any,
    text: str,
    choices: Iterable[str] | None = None,
    parse: Callable[[str], Any] | None = None,
    several: bool = False,
) -> Any:
    """Return a field with the words of its option; ``parse`` where the type of the default does not do."""
    words = {"help": text, "type": parse or type(default), "choices": choices and tuple(choices)}
    return field(default=default, metadata=words | ({"nargs": "+"} if several else {}))


@dataclass(frozen=True)
class TrainConfig:
    """Everything that makes a training run; ``config.json`` holds it."""

    dataset: str = _field("digits", f"data set: {', '.join(datasets.NAMES)}")
    labels: str = _field("true", "true labels, or random ones to test memorisation", ("true", "random"))
    classes: int = _field(2, "number of classes of random labels; 2 are learned as ±1")
    samples: int | None = _field(
        None, "random subset of that many training samples (default: all)", parse=int
    )
    normalize: str | None = _field(
        None,
        "map of the inputs, fitted on the training samples: standardize each column (constant ones are "
        "dropped), scale all by one mean and deviation, or whiten (default: pixels in [0, 1])",
        datasets.NORMALIZERS,
        parse=str,
    )
    model: str = _field(
        "pairwise",
        "pairwise: mirrored start and pairwise output (the paper's); standard: the baseline",
        ("pairwise", "standard"),
    )
    width: int = _field(600, "hidden units m, even for the pairwise net")
    widths: tuple[int, ...] | None = _field(
        None,
        "in place of --width, the hidden layers of each half of a deep pairwise net",
        parse=int,
        several=True,
    )
    activation: str = _field("tanh", f"one of {', '.join(activations.names())}")
    radius: float = _field(0.1, "ε of the ball around the start that holds the hidden weights; inf for none")
    zeta: float = _field(1e-3, "ζ, lower bound of the output weights of the pairwise net")
    kappa: float = _field(math.inf, "κ ≥ 1, largest ratio of output weights; inf for none")
    v_scale: float = _field(
        1.0, "factor of the output weights at the start, such as `certify descent` names, ahead of ζ and κ"
    )
    loss: str = _field(
        "squared",
        "squared: ½ Σ (y − f)²; mean_squared: the mean of (y − f)²; cross_entropy: the mean over the samples, "
        "with an output for each class",
        ("squared", "mean_squared", "cross_entropy"),
    )
    optimizer: str = _field("adam", "optimizer, run in the coordinates of the ball", OPTIMIZERS)
    learning_rate: float = _field(5e-3, "first step size")
    schedule: str = _field("cosine", "step size over the run", ("cosine", "constant"))
    steps: int = _field(5000, "number of updates")
    batch_size: int | None = _field(None, "samples an update (default: all)", parse=int)
    seed: int = _field(0, "of the start, the random labels, the subset and the batches")

    @classmethod
    def of(cls, args: argparse.Namespace, names: Iterable[str]) -> TrainConfig:
        """Return the config of these options; the other fields, and options that are None, have their defaults.

        Raises:
            ValueError: both --width and --widths.
        """
        given = {name: value for name in names if (value := getattr(args, name)) is not None}
        if "widths" not in given:
            return cls(**given)
        if "width" in given:
            raise ValueError(
                f"--width is {given['width']} and --widths {given['widths']}; expected one of the two: --width of one "
                "hidden layer, --widths of several"
            )
        return cls(**given | {"widths": tuple(given["widths"])})

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> TrainConfig:
        """Return the config that ``to_json`` wrote; the scales that `memorize` found are results and left out.

        Raises:
            ValueError: a field that no config has, or a word that its option does not take.
        """
        values: dict[str, Any] = {
            name: math.inf if value == "inf" else value for name, value in saved.items() if name not in FOUND
        }
        if unknown := sorted(set(values) - set(FIELDS)):
            raise ValueError(
                f"the config has the unknown fields {', '.join(unknown)}; expected only {', '.join(FIELDS)}: "
                "remove them, or use the version that wrote it"
            )
        for name, words in FIELDS.items():
            if words["choices"] and values.get(name) is not None:
                _checks.choice(name, values[name], words["choices"])
        if values.get("widths") is not None:
            values["widths"] = tuple(values["widths"])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON can hold it: an infinite bound is the word "inf"; either width or widths."""
        return strict_json.plain({name: getattr(self, name) for name in self.names(self.widths)})

    @staticmethod
    def names(widths: object) -> list[str]:
        """Return the fields that the config of a net has: that of a deep one has widths, others width."""
        return [name for name in FIELDS if name != ("widths" if widths is None else "width")]

    def check(self) -> None:
        """Require what can be judged before any data are loaded.

        Raises:
            ValueError: an unknown word, or a number out of range.
        """
        _checks.choice("data set", self.dataset, datasets.NAMES)
        activations.get(self.activation)
        _checks.radius(self.radius)
        _checks.positive("learning rate", self.learning_rate)
        _checks.count("steps", self.steps)
        _checks.count("seed", self.seed, minimum=0)
        for name in ("samples", "batch_size"):
            if (value := getattr(self, name)) is not None:
                _checks.count(name, value)
        if self.widths is not None:
            self._check_widths()
        elif self.model == "standard":
            _checks.count("width", self.width)
        else:
            _checks.even_width(self.width)
        _checks.zeta(self.zeta)
        _checks.kappa(self.kappa)
        _checks.positive("v_scale", self.v_scale)

    def _check_widths(self) -> None:
        if self.model == "standard":
            raise ValueError("widths are those of a deep pairwise net; expected --model pairwise, or --width")
        for layer, width in enumerate(self.widths or (), start=1):
            _checks.count(f"the width of layer {layer}", width)


FIELDS: dict[str, Mapping[str, Any]] = {entry.name: entry.metadata for entry in fields(TrainConfig)}
"""The help, type and choices of each field."""

FOUND = ("scale", "weight_scale")
"""What the config of a run of `memorize` has beside them: results."""


def options_of(names: Iterable[str], defaults: TrainConfig = TrainConfig()) -> list[Option]:
    """Return the options of these fields of the config."""
    options = []
    for name in names:
        words, default = FIELDS[name], getattr(defaults, name)
        text = words["help"] if default is None else words["help"].removesuffix(" (default: all)")
        if name == "width":  # None tells whether it was given, where widths may be
            text, default = f"{text} (default: {default})", None
        options.append(Option("--" + name.replace("_", "-"), {**words, "help": text, "default": default}))
    return options


def load_data(
    config: TrainConfig, raw_dir: Path | None = None, data_dir: Path | None = None
) -> datasets.Dataset:
    """Return the data set of a run, once its config is checked; say which columns were dropped."""
    config.check()
    data = datasets.load(
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


class Built(NamedTuple):
    """What a config makes of its data: the model, its Jacobian operator, the start and the optimizer."""

    apply_fn: ApplyFn
    jacobian: Callable[..., Any]
    params: Params
    tx: optax.GradientTransformation


def build(config: TrainConfig, data: datasets.Dataset, strict: bool = False) -> Built:
    """Return the model, its Jacobian operator, the start and the optimizer of a run."""
    outputs: Any = data.classes if config.loss == "cross_entropy" else data.y.shape[1]
    sizes = {"inputs": data.x.shape[1], "outputs": outputs}
    cone: dict[str, Any] = {"zeta": config.zeta, "kappa": config.kappa}
    key = jax.random.key(config.seed)
    model: Any
    operator: Any
    if config.widths is not None:
        jacobian.check_widths(data.x, config.widths, outputs, strict=strict)
        params: Params = initializers.mirrored_mlp(key, **sizes, widths=config.widths, **cone)
        model, operator = models.pairwise_mlp_apply, jacobian.pairwise_mlp
    elif config.model == "standard":
        params = initializers.lecun(key, **sizes, width=config.width)
        model, operator, cone = models.standard_apply, jacobian.standard, {"zeta": None}
    else:
        jacobian.check_width(data.x, config.width, outputs, strict=strict)
        params = initializers.mirrored_lecun(key, **sizes, width=config.width, **cone)
        model, operator = models.pairwise_apply, jacobian.pairwise
    params["v"] = config.v_scale * params["v"]
    tx = constraints.regime(_optimizer(config), config.radius, **cone)
    activation = activations.get(config.activation)
    return Built(partial(model, activation=activation), partial(operator, activation=activation), params, tx)


def _optimizer(config: TrainConfig) -> optax.GradientTransformation:
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return OPTIMIZERS[config.optimizer](rate)


def claim(folder: Path, replace: bool) -> None:
    """Require a folder that a run may be written to.

    Raises:
        FileExistsError: it holds a run, and that may not be replaced, or has checkpoints.
    """
    if not replace:
        runs.vacant(folder, "replace it with --overwrite")
    elif checkpoints.steps(folder / "checkpoints"):
        raise FileExistsError(
            f"{folder / 'checkpoints'} holds checkpoints of another run, which --overwrite does not delete: remove "
            "them, or choose another folder"
        )


def write_run(
    folder: Path,
    params: Params,
    config: Mapping[str, Any],
    data: datasets.Dataset,
    more: Mapping[str, Callable[[Path], object]] | None = None,
) -> None:
    """Write params, config and normalizer of a run, and what else it has, in place of what was there."""
    assert data.normalizer is not None
    arrays = data.normalizer.to_arrays()
    normalizer = {"normalizer.npz": lambda path: runs.write_npz(path, arrays)}
    runs.replace(folder, runs.files(params, config) | normalizer | dict(more or {}))


def read_run(folder: Path) -> tuple[TrainConfig, dict[str, Any], Params | None]:
    """Return the config and the params of a run of `train` or `memorize`, and its start: None where none is saved.

    Of a run that has not ended yet the params are those of its newest checkpoint.

    Raises:
        FileNotFoundError, ValueError: as ``runs.load``, ``checkpoints.load_params`` and ``TrainConfig.from_json``.
    """
    places = [place for place in (folder, folder / "checkpoints") if checkpoints.steps(place)]
    if places and not (folder / "params.npz").is_file():
        weights = checkpoints.load_params(places[0])
        return _config_of(places[0], weights.config), weights.params, None
    params, saved = runs.load(folder)
    start = params.pop("center", None)
    config = TrainConfig.from_json(saved)
    if config.normalize == "standardize" and not (folder / "normalizer.npz").is_file():
        raise ValueError(
            f"{folder} is of version 0.1, in which 'standardize' was one mean and deviation for all columns: write "
            "'scale' in its config.json"
        )
    return config, params, start


def _config_of(folder: Path, saved: Mapping[str, Any]) -> TrainConfig:
    own = saved.get("config", {})
    if missing := [name for name in TrainConfig.names(own.get("widths")) if name not in own]:
        raise ValueError(
            f"the checkpoints in {folder} are not of `narrow-jax train` (their config has no {', '.join(missing)}): "
            "nj.checkpoints.load_params gives their weights"
        )
    return TrainConfig.from_json(own)
