"""What every experiment does: its options, a record that no other settings replace, its picture, what it prints.

An experiment is a docstring (command, cost, expected figure), a function that returns one record, a figure of all of
them, and a ``main`` under ``experiment`` that returns ``Findings``. One that takes hours goes on, cell by cell, where
an earlier run stopped.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from matplotlib.figure import Figure
from rich.console import Console, RenderableType
from rich.table import Table

import narrow_jax as nj
from narrow_jax.checkpoints import strict_json

Record = dict[str, Any]


class Findings(NamedTuple):
    """What an experiment found.

    Fields:
        record: content of ``summary.json``; None if ``cells`` has written it.
        figure: draws the picture, once the record is written.
        text: lines and tables for the terminal.
    """

    record: object
    figure: Callable[[], Figure]
    text: Iterable[RenderableType]


def experiment(
    doc: str | None,
    folder: str,
    quick: str,
    options: Mapping[str, dict[str, Any]] | None = None,
    paper: str | None = None,
    resumable: bool = False,
) -> Callable[[Callable[[argparse.Namespace], Findings]], Callable[[], None]]:
    """Return a decorator that makes a function of the options, which returns ``Findings``, a command.

    One with an option ``--dataset`` writes to a folder below, one a data set, and keeps its own record by ``cells``.

    Args:
        doc: the docstring of the experiment, its help.
        folder: where the results go unless ``--out`` is given.
        quick: help of ``--quick``.
        options: the keywords of ``add_argument``, one a flag.
        paper: help of ``--paper``, which excludes ``--quick``.
        resumable: it keeps its own record by ``cells``, which compares what a cell depends on: not how many there are.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=raw)
    sizes = parser.add_mutually_exclusive_group()
    for flag, text in (("--quick", quick), ("--paper", paper)):
        if text is not None:
            sizes.add_argument(flag, action="store_true", help=text)
    for flag, keywords in (options or {}).items():
        parser.add_argument(flag, **keywords)
    by_dataset = "--dataset" in (options or {})
    place = f" (default: {folder}/DATASET)" if by_dataset else ""
    default = None if by_dataset else Path(folder)
    parser.add_argument("--out", type=path, default=default, help=f"folder of the results{place}")

    def decorate(run: Callable[[argparse.Namespace], Findings]) -> Callable[[], None]:
        @functools.wraps(run)
        def main() -> None:
            args = parser.parse_args()
            if not (by_dataset or resumable):
                claim(args)
            try:
                found = run(args)
            except argparse.ArgumentError as error:
                parser.error(str(error))
            _publish(args.out, found)

        return main

    return decorate


def _publish(folder: Path, found: Findings) -> None:
    summary, picture = folder / "summary.json", folder / "figure.png"
    if found.record is not None:
        replace(summary, found.record)
    with nj.plots.style():
        found.figure().savefig(picture)
    for part in found.text:
        say(part)
    say(f"Written: {summary}, {picture}")


def say(text: RenderableType) -> None:
    """Print for people."""
    Console().print(text)


def path(text: str) -> Path:
    """Return the path of an option; ``~`` is the home folder."""
    return Path(text).expanduser()


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


def claim(args: argparse.Namespace) -> None:
    """Require that the folder of the results holds none of other options; make it, and note the options there.

    Raises:
        SystemExit: it does; its record stays.
    """
    options = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name != "out"
    }
    noted = args.out / "options.json"
    if (args.out / "summary.json").is_file():
        _refuse_others(
            args.out / "summary.json", _read(noted) if noted.is_file() else {}, strict_json.plain(options)
        )
    args.out.mkdir(parents=True, exist_ok=True)
    replace(noted, options)


def cells(
    folder: Path,
    settings: Record,
    axes: Mapping[str, Iterable[object]],
    cell: Callable[..., Sequence[Record]],
    told: Callable[[Record], str],
    **more: object,
) -> list[Record]:
    """Return the records of all cells, those of an earlier run and those that were missing, each written at once.

    Args:
        folder: where the record is kept.
        settings: what every cell depends on.
        axes: the values of the fields that tell the cells apart.
        cell: the records of a cell, from its fields.
        told: what is said of the last record of a cell.
        more: what else the file says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "summary.json"
    records = resumed(path, settings)
    done = {tuple(record[name] for name in axes) for record in records}
    missing = [point for point in itertools.product(*axes.values()) if point not in done]
    for index, point in enumerate(missing, start=1):
        records += cell(*point)
        replace(path, content(settings, records, **more))
        say(f"{index}/{len(missing)}: {told(records[-1])}")
    return records


def content(settings: Record, records: Sequence[Record], **more: object) -> Record:
    """Return what the file of an experiment in cells holds."""
    return {"settings": settings, **more, "cells": records}


def resumed(path: Path, settings: Record) -> list[Record]:
    """Return the records of an earlier run.

    Raises:
        SystemExit: it had other settings; its records stay.
    """
    if not path.is_file():
        return []
    earlier = _read(path)
    _refuse_others(path, earlier["settings"], strict_json.plain(settings))
    return earlier["cells"]


def replace(path: Path, record: object) -> None:
    """Replace the file by one with this record; one that is read is whole."""
    part = path.with_suffix(".part")
    part.write_text(strict_json.dumps(record, indent=1) + "\n")
    part.replace(path)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _refuse_others(path: Path, earlier: Record, given: Record) -> None:
    differences = [
        f"{name}: {earlier.get(name)} there, {given.get(name)} here"
        for name in {**earlier, **given}
        if earlier.get(name) != given.get(name)
    ]
    if differences or not earlier:
        raise SystemExit(
            f"{path} is of other settings ({'; '.join(differences) or 'unknown'}): choose another folder with --out"
        )


def machine() -> Record:
    """Return what a reader needs to judge the times."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "jax": jax.__version__,
    }
