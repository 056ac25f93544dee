"""The config of a training run: its fields, which are options too. Nothing here loads JAX."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from narrow_jax.cli.command import Option

# what is chosen from elsewhere, where JAX would be loaded to be asked: a test compares
DATASETS = (
    *("digits", "synthetic", "teacher", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped"),
    *("cifar100_subset", "svhn_cropped_subset"),
)
NORMALIZERS = ("standardize", "scale", "whiten")
ACTIVATIONS = (
    *("tanh", "sigmoid", "softplus", "gelu", "sin", "erf", "swish", "mish", "gelu_tanh", "relu", "abs"),
    "silu",
)
OPTIMIZERS = ("adam", "sgd", "momentum")
TASKS = ("classification", "regression")


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


def _file(text: str) -> str:
    """Return the whole path of a file, so that a run finds it from any folder."""
    return str(Path(text).expanduser().absolute())


@dataclass(frozen=True)
class TrainConfig:
    """Everything that makes a training run; ``config.json`` holds it."""

    dataset: str = _field("digits", f"data set: {', '.join(DATASETS)}")
    data: str | None = _field(
        None,
        "in place of --dataset a file of your own: a table (.csv, .tsv, .parquet, .npy), or .npz with x and y",
        parse=_file,
    )
    target: str | None = _field(None, "column of --data that is learned (of .npz the array y)", parse=str)
    test: str | None = _field(None, "file of the same kind with the test split of --data", parse=_file)
    task: str | None = _field(
        None, "what the targets of --data are (default: words and integers are classes)", TASKS, parse=str
    )
    test_fraction: float = _field(0.0, "fraction of the rows put aside as test split, where there is none")
    labels: str = _field("true", "true labels, or random ones to test memorisation", ("true", "random"))
    classes: int = _field(2, "number of classes of random labels; 2 are learned as ±1")
    samples: int | None = _field(
        None, "random subset of that many training samples (default: all)", parse=int
    )
    normalize: str | None = _field(
        None,
        "map of the inputs, fitted on the training samples: standardize each column (constant ones are "
        "dropped), scale all by one mean and deviation, or whiten (default: standardize for --data, else none: "
        "pixels in [0, 1])",
        (*NORMALIZERS, "none"),
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
    activation: str = _field("tanh", f"one of {', '.join(ACTIVATIONS)}")
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
    every: int | None = _field(None, "steps between records (default: a hundredth of --steps)", parse=int)
    sigma_min: bool = field(
        default=False,
        metadata={"help": "record σ_min of the Jacobian in the history", "action": "store_true"},
    )
    batch_size: int | None = _field(None, "samples an update (default: all)", parse=int)
    seed: int = _field(0, "of the start, the batches, random labels, the subset and the test split")

    @property
    def name(self) -> str:
        """What the folder of the run is called after: the data set, or the file of the data."""
        return self.dataset if self.data is None else Path(self.data).stem

    @classmethod
    def of(
        cls, args: argparse.Namespace, names: Iterable[str], defaults: TrainConfig | None = None
    ) -> TrainConfig:
        """Return the config of these options; the other fields, and options that are None, have their defaults.

        Of options that may have several values, those of a sweep, it has the first.

        Raises:
            ValueError: both --width and --widths, or both --data and --dataset.
        """
        given = {name: value for name in names if (value := getattr(args, name)) is not None}
        given |= {name: given[name][0] for name in SWEPT if isinstance(given.get(name), list)}
        if "data" in given and "dataset" in given:
            raise ValueError(
                f"--data is {given['data']} and --dataset {given['dataset']}; expected one of the two"
            )
        defaults = cls() if defaults is None else defaults
        if "widths" not in given:
            return replace(defaults, **given | ({"widths": None} if "width" in given else {}))
        if "width" in given:
            raise ValueError(
                f"--width is {given['width']} and --widths {given['widths']}; expected one of the two: --width of one "
                "hidden layer, --widths of several"
            )
        return replace(defaults, **given | {"widths": tuple(given["widths"])})

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> TrainConfig:
        """Return the config that ``to_json`` wrote; the scales that `memorize` found are results and left out.

        Raises:
            ValueError: a field that no config has, or a word that its option does not take.
        """
        from narrow_jax import _checks

        values: dict[str, Any] = {
            name: math.inf if value == "inf" else value for name, value in saved.items() if name not in FOUND
        }
        if unknown := sorted(set(values) - set(FIELDS)):
            raise ValueError(
                f"the config has the unknown fields {', '.join(unknown)}; expected only {', '.join(FIELDS)}: "
                "remove them, or use the version that wrote it"
            )
        for name, value in values.items():
            _check_kind(name, value)
        for name, words in FIELDS.items():
            if words.get("choices") and values.get(name) is not None:
                _checks.choice(name, values[name], words["choices"])
        if values.get("widths") is not None:
            values["widths"] = tuple(values["widths"])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON can hold it: an infinite bound is the word "inf"; either width or widths."""
        from narrow_jax.checkpoints import strict_json

        return strict_json.plain({name: getattr(self, name) for name in self.names(self.widths, self.data)})

    @staticmethod
    def names(widths: object, data: object) -> list[str]:
        """Return the fields that a config has: width or widths, those of a data set or of a file of one's own."""
        others = {"widths" if widths is None else "width", *(OWN if data is None else STOCK)}
        return [name for name in FIELDS if name not in others]


FIELDS: dict[str, Mapping[str, Any]] = {entry.name: entry.metadata for entry in fields(TrainConfig)}
"""The help, type and choices of each field."""

OWN = ("data", "target", "test", "task")
"""The fields of data of one's own."""

STOCK = ("dataset", "labels", "classes")
"""Those of a stock data set."""

SWEPT = ("radius", "learning_rate", "seed")
"""The options of `train` that may have several values."""

FOUND = ("scale", "weight_scale")
"""What the config of a run of `memorize` has beside them: results."""


def options_of(
    names: Iterable[str], defaults: TrainConfig = TrainConfig(), swept: Iterable[str] = ()
) -> list[Option]:
    """Return the options of these fields of the config; None tells which were not given."""
    options = []
    for name in names:
        words, default = dict(FIELDS[name]), getattr(defaults, name)
        if default is not None and default is not False:
            words["help"] = f"{words['help'].removesuffix(' (default: all)')} (default: {default})"
        if name in swept:
            words |= {"nargs": "+", "help": f"{words['help']}; several values make a sweep"}
        options.append(Option("--" + name.replace("_", "-"), {**words, "default": None}, _GROUPS[name]))
    return options


def _check_kind(name: str, value: object) -> None:
    """Require of a field of JSON a value of its kind; numbers are looked at where they are used."""
    words = FIELDS[name]
    if value is None and getattr(TrainConfig, name) is None:
        return
    if words.get("nargs"):
        kind, fits = "a list of integers", isinstance(value, list | tuple)
    elif "action" in words:
        kind, fits = "true or false", isinstance(value, bool)
    elif words["type"] in (int, float):
        kind, fits = "a number", isinstance(value, int | float) and not isinstance(value, bool)
    else:
        kind, fits = "a word", isinstance(value, str)
    if not fits:
        raise ValueError(f"{name} is {value!r:.60} in the config; expected {kind}")


def refused(args: argparse.Namespace) -> str:
    """Return what is wrong with the words of a command, as far as JAX is not needed to tell; empty if nothing is."""
    for name, what, words in (("dataset", "data set", DATASETS), ("activation", "activation", ACTIVATIONS)):
        given = getattr(args, name, None)
        if given is not None and given not in words:
            close = difflib.get_close_matches(given.lower(), words, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
            return f"unknown {what} {given!r}: {hint}Expected one of {', '.join(words)}."
    for name in ("data", "test", "config"):
        given = getattr(args, name, None)
        if given is not None and not Path(given).is_file():
            return f"there is no file {given}; expected the file of --{name}: check the name and the folder"
    return ""


_DATA = ("dataset", *OWN, "test_fraction", "labels", "classes", "samples", "normalize")
_NET = ("model", "width", "widths", "activation", "radius", "zeta", "kappa", "v_scale")
_GROUPS = {name: "data" if name in _DATA else "net" if name in _NET else "training" for name in FIELDS}
