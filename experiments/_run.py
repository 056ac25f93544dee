"""What every experiment does: its sizes, a record that no other settings replace, its pictures, what it prints.

An experiment is a docstring (command, cost, expected figure), a function of its cell, one function a picture, and a
``main`` under ``experiment`` that asks ``cells`` for the records and returns what is printed. Every cell is written
when it is done, and a run that was stopped goes on after the last one; the pictures are drawn from the file alone.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import UnionType
from typing import Any, Protocol

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console, RenderableType
from rich.table import Table

import narrow_jax as nj
from narrow_jax.checkpoints import strict_json

Record = dict[str, Any]
Drawing = Callable[[Record], Figure]
"""A picture of the content of a record's file; its name is that of the picture."""


class Experiment(Protocol):
    """A command, with its pictures and the defaults of its options."""

    drawings: tuple[Drawing, ...]
    defaults: dict[str, Any]

    def __call__(self) -> None:
        """Run it with the options of the command line."""


def path(text: str) -> Path:
    """Return the path of an option; ``~`` is the home folder."""
    return Path(text).expanduser()


def directory(text: str) -> Path:
    """Return the path of a folder that is there."""
    found = path(text)
    if not found.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no folder")
    return found


def positive(text: str) -> int:
    """Return a count of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count: it must be a whole number, 1 or more")
    return int(text)


def even(text: str) -> int:
    """Return the width of a net of pairs of an option."""
    if positive(text) % 2:
        raise argparse.ArgumentTypeError(f"{text!r} is odd: hidden units come in pairs, so it must be even")
    return int(text)


def radius(text: str) -> float:
    """Return a number of an option that is positive or inf."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: it must be a positive number, or inf")
    return value


def ratio(text: str) -> float:
    """Return a number of an option that is 1 or more, or inf."""
    if radius(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no ratio of largest to smallest: it must be 1 or more, or inf"
        )
    return float(text)


OPTIONS: dict[str, dict[str, Any]] = {
    "n": {"type": positive, "help": "samples"},
    "d": {"type": positive, "help": "inputs"},
    "samples": {"type": positive, "help": "samples of a data set"},
    "depths": {"type": positive, "nargs": "+", "help": "numbers of hidden layers"},
    "widths": {"type": positive, "nargs": "+", "help": "numbers of hidden units"},
    "radii": {"type": radius, "nargs": "+", "help": "radii ε of the ball, inf for none"},
    "activation": {"choices": nj.activations.names(), "help": "activation of the hidden units"},
    "kappa": {"type": ratio, "help": "largest ratio κ of output weights; the paper's is 1"},
    "seeds": {"type": positive, "help": "seeds of each cell"},
    "steps": {"type": positive, "help": "steps of training"},
    "epochs": {"type": positive, "help": "passes over the samples"},
    "raw_dir": {"type": directory, "help": "folder with the original files of the data sets"},
}
"""The options that several experiments have; ``None`` as default of one says that it may be left out."""

EVEN_WIDTHS = {"widths": {"type": even, "nargs": "+", "help": "even numbers of hidden units"}}
"""Instead, where a net is mirrored."""


def experiment(
    doc: str | None,
    folder: str,
    *drawings: Drawing,
    sizes: Mapping[str, Any],
    quick: Mapping[str, Any],
    paper: Mapping[str, Any] | None = None,
    options: Mapping[str, dict[str, Any]] | None = None,
) -> Callable[[Callable[[argparse.Namespace], Iterable[RenderableType]]], Experiment]:
    """Return a decorator that makes a function of the options, which returns what is printed, a command.

    Args:
        doc: the docstring of the experiment, its help.
        folder: where the results go unless ``--out`` is given; with an option ``--dataset`` a folder in it, one a data
            set, and with ``--quick`` the folder ``quick`` in it.
        drawings: its pictures.
        sizes: defaults of those of ``OPTIONS`` that it has.
        quick: what ``--quick`` takes instead.
        paper: what ``--paper`` takes instead; it excludes ``--quick``.
        options: keywords of ``add_argument`` of options of its own, by name; ``default`` as above. Those of one
            ``dest`` exclude one another.

    What is wrong before the first cell begins (options, files, data) is said in one sentence; what goes wrong from then
    on is a fault, which keeps its traceback.
    """
    own = {**{name: OPTIONS[name] for name in sizes}, **(options or {})}
    defaults = {**{name: words.get("default") for name, words in own.items() if "dest" not in words}, **sizes}
    presets = {"quick": quick} | ({} if paper is None else {"paper": paper})
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group()
    for flag, preset in presets.items():
        group.add_argument(f"--{flag}", action="store_true", help=f"instead: {_words(preset)}")
    dests = dict.fromkeys(words.get("dest", name) for name, words in own.items())
    alone = {dest: parser.add_mutually_exclusive_group() for dest in dests}
    for name, words in own.items():
        unless = "" if defaults.get(name) is None else f" (default: {_word(defaults[name])})"
        words = {**words, "default": None, "help": words["help"] + unless}
        alone[words.get("dest", name)].add_argument(f"--{name.replace('_', '-')}", **words)
    parser.add_argument("--out", type=path, help=f"folder of the results (default: below {folder})")

    def decorate(run: Callable[[argparse.Namespace], Iterable[RenderableType]]) -> Experiment:
        @functools.wraps(run)
        def main() -> None:
            args = parser.parse_args()
            preset = next((values for flag, values in presets.items() if getattr(args, flag)), {})
            for name, value in {**defaults, **preset}.items():
                if getattr(args, name) is None:
                    setattr(args, name, value)
            below = [args.dataset] if "dataset" in own else []
            args.out = args.out or Path(folder, *below, *(["quick"] if args.quick else []))
            args.begun = False
            try:
                text = list(run(args))
            except KeyboardInterrupt:
                parser.exit(130, f"{parser.prog}: stopped; the same command goes on after the last cell\n")
            except (argparse.ArgumentError, ImportError, OSError, ValueError) as error:
                if args.begun:
                    raise
                parser.exit(2, f"{parser.prog}: {error}\n")
            _publish(args.out, drawings, text)

        main.drawings = drawings  # type: ignore[attr-defined]
        main.defaults = defaults  # type: ignore[attr-defined]
        return main  # type: ignore[return-value]

    return decorate


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', '-')} {_word(value)}" for name, value in values.items())


def _word(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _publish(folder: Path, drawings: Iterable[Drawing], text: Iterable[RenderableType]) -> None:
    summary = folder / "summary.json"
    written = [summary]
    for drawing in drawings:
        written.append(folder / f"{drawing.__name__}.png")
        with nj.plots.style():
            drawing(_read(summary)).savefig(written[-1])
    for part in text:
        say(part)
    say(f"Written: {', '.join(map(str, written))}")


def say(text: RenderableType) -> None:
    """Print for people."""
    Console().print(text, markup=False)


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table for the terminal; a first column of names is on the left."""
    view = Table(title=title)
    for heading in headings:
        view.add_column(heading, justify="left" if heading in ("net", "case") else "right", no_wrap=True)
    for row in rows:
        view.add_row(*row)
    return view


def canvas(width: float, height: float, dpi: int = 120) -> Figure:
    """Return an empty figure; its size is in inches."""
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def require_memory(needed: float, what: str) -> None:
    """Require that this machine has so many bytes.

    Raises:
        SystemExit: it does not; nothing has started.
    """
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise SystemExit(
            f"{what} needs about {needed / 1e9:.1f} GB, and this machine has {there / 1e9:.1f} GB: take smaller sizes"
        )


def digest(*arrays: Any) -> str:
    """Return what tells data apart: the first digits of the SHA-256 of their bytes."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()[:16]


PLURALS = {"radius": "radii"}
"""Options that give an axis its values and are not its name with an s."""


def cells(
    args: argparse.Namespace,
    axes: Mapping[str, Iterable[object]],
    cell: Callable[..., Sequence[Record]],
    told: Callable[[Record], str],
    **depends: object,
) -> list[Record]:
    """Return the records of the cells that are asked for: those of earlier runs, and those that were missing.

    The settings that may not differ from an earlier run's are the options that have one value and give no axis its
    values (as ``seeds`` does with an axis ``seed``), and what ``depends`` has. Of digests of data by name, ``data``,
    those of one name may not differ; names may be added.

    Args:
        args: the options; ``begun`` is set when the first cell begins.
        axes: the values of the fields that tell the cells apart.
        cell: the records of a cell, from its fields.
        told: what is said of the last record of a cell.
        depends: what every cell depends on beside the options.
    """
    apart = {"out", "raw_dir", "images", "quick", "paper", "begun", *axes}
    apart |= {PLURALS.get(name, f"{name}s") for name in axes}
    settings = {
        name: value
        for name, value in vars(args).items()
        if name not in apart and not isinstance(value, list | tuple)
    } | depends
    require_folder(args.out)
    summary = args.out / "summary.json"
    content = resumed(summary, settings, axes)
    here = machine()
    points = list(itertools.product(*axes.values()))
    done = {_point(record, axes) for record in content["cells"]}
    missing = {_plain(point): point for point in points if _plain(point) not in done}.values()
    if missing and here not in content["machines"]:
        content["machines"].append(here)
    args.begun = True
    for index, point in enumerate(missing, start=1):
        started = time.perf_counter()
        content["cells"] += cell(*point)
        content["seconds"] = round(content["seconds"] + time.perf_counter() - started, 1)
        replace(summary, content)
        say(f"{index}/{len(missing)}, {content['seconds']:.0f} s: {told(content['cells'][-1])}")
    wanted = set(map(_plain, points))
    return [record for record in _read(summary)["cells"] if _point(record, axes) in wanted]


def _point(record: Record, axes: Iterable[str]) -> str:
    return _plain([record[name] for name in axes])


def _plain(values: Any) -> str:
    return strict_json.dumps(list(values))


def require_folder(folder: Path) -> None:
    """Make the folder, and require that files can be written there.

    Raises:
        SystemExit: it is a file, or not ours to write to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SystemExit(
            f"{folder} is no folder that can be written to ({error.strerror}): choose another one with --out"
        ) from error


KINDS: dict[str, type | UnionType]
KINDS = {"settings": dict, "machines": list, "seconds": int | float, "cells": list}
"""What the file of a record has."""


def earlier_run(path: Path, fields: Iterable[str]) -> Record | None:
    """Return the content of an earlier run's file, whose cells have these fields; None if there is none.

    Raises:
        SystemExit: it cannot be read or lacks something; it stays as it is.
    """
    try:
        content = strict_json.read(path)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise SystemExit(f"{error}; or choose another folder with --out") from error
    lacking = [name for name, kind in KINDS.items() if not isinstance(content.get(name), kind)]
    names = set(fields)
    if not lacking and not all(
        isinstance(record, dict) and names <= record.keys() for record in content["cells"]
    ):
        lacking = [f"cells with {', '.join(sorted(names))}"]
    if lacking:
        raise SystemExit(
            f"{path} is no record of this experiment (without {' and '.join(lacking)}): restore the file, or choose "
            "another folder with --out"
        )
    return content


def resumed(path: Path, settings: Record, fields: Iterable[str]) -> Record:
    """Return the content of an earlier run's file, or that of a new one.

    Raises:
        SystemExit: it had other settings or cannot be read; it stays as it is.
    """
    settings = strict_json.plain(settings)
    content = earlier_run(path, fields)
    if content is None:
        return {"settings": settings, "machines": [], "seconds": 0.0, "cells": []}
    earlier = content["settings"]
    if all(isinstance(there.get("data"), dict) for there in (earlier, settings)):
        settings["data"] = earlier["data"] | settings["data"]
        earlier["data"] = settings["data"] | earlier["data"]
    differences = [
        f"{name}: {earlier.get(name)} there, {settings.get(name)} here"
        for name in {**earlier, **settings}
        if earlier.get(name) != settings.get(name)
    ]
    if differences:
        raise SystemExit(
            f"{path} is of other settings ({'; '.join(differences)}): choose another folder with --out"
        )
    return content


def replace(path: Path, record: object) -> None:
    """Replace the file by one with this record; one that is read is whole."""
    part = path.with_suffix(".part")
    part.write_text(strict_json.dumps(record, indent=1) + "\n")
    part.replace(path)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def machine() -> Record:
    """Return what a reader needs to judge the times."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "versions": {
            name: metadata.version(name) for name in ("narrow_jax", "jax", "numpy", "scipy", "optax")
        },
    }
