"""The command that makes a record, from its settings and cells beside the experiment's own defaults."""

from __future__ import annotations

import importlib
import math
import shlex
from collections.abc import Mapping
from typing import Any

from redraw import experiment_of

from experiments.depth_width_theorem2 import NOISE
from measured.reading import Record, experiment, whole_record

FIELDS = {"depths": "depth", "widths": "width", "radii": "radius", "numbers": "samples", "datasets": "name"}
"""What an option with several values is called in the cells, where it is not the same."""
WITHOUT_FILES = ("gaussian", "synthetic", "digits")
"""Data sets that are computed or installed."""


def command(name: str) -> str:
    """Return the command of a record, with every option that is not what the experiment takes by itself.

    A size whose default depends on the data set is always named. An axis whose default does is not: its record has the
    usual values, which the tests check.
    """
    content, module = whole_record(name), experiment_of(name)
    defaults, settings = importlib.import_module(f"experiments.{module}").main.defaults, content["settings"]
    options = [f"--dataset {settings['dataset']}"] if "dataset" in defaults else []
    for option, default in defaults.items():
        found = values(option, default, content)
        if option != "dataset" and found and set(found) != set(words(default)):
            options.append(f"--{option.replace('_', '-')} {' '.join(found)}")
    options += files(defaults, settings)
    if name not in (module, f"{module}_{settings.get('dataset', '').replace('-', '_')}"):
        options.append(f"--out runs/{name}")
    return experiment(module, " ".join(options))


def values(option: str, default: Any, content: Record) -> list[str]:
    """Return the values that a record has of an option, none where it does not say."""
    if option == "seeds":  # an axis in some records, a setting in others
        seeds = {r.get("seed") for r in content["cells"]} - {None}
        return words(content["settings"].get(option, len(seeds) or None))
    if not isinstance(default, list | tuple):
        return words(content["settings"].get(option))
    cells = [r for r in content["cells"] if r.get("net") != NOISE]  # its widths are no option
    without = {None} if math.inf in default else {None, "inf"}  # no ball, where it is no value of the option
    return words(sorted({r.get(FIELDS.get(option, option)) for r in cells} - without, key=by_size))


def by_size(value: Any) -> float:
    """Return a number, infinity for names: they come last."""
    return value if isinstance(value, int | float) else float("inf")


def words(value: Any) -> list[str]:
    """Return a value of an option as the words of the command line."""
    several = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return [f"{v:g}" if isinstance(v, float) else shlex.quote(str(v)) for v in several]


def files(defaults: Mapping[str, Any], settings: Record) -> list[str]:
    """Return the option that says where the data are, if any are needed."""
    dataset = settings.get("dataset")
    if dataset == "restricted-imagenet":
        return ["--images DIR"]
    return ["--raw-dir DIR"] if "raw_dir" in defaults and dataset not in WITHOUT_FILES else []
