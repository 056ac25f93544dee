"""Records as they are read, and numbers as they are written in the tables."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from experiments._run import Record

ROOT = Path(__file__).resolve().parents[2]
RESULTS, FIGURES = ROOT / "benchmarks" / "results", ROOT / "docs" / "figures"


class Row(NamedTuple):
    """A row of the table: what, what came out, and the command that says so."""

    what: str
    measured: str
    command: str

    def __str__(self) -> str:
        """Return the row in Markdown."""
        return f"| {self.what} | {self.measured} | {self.command} |"


def result(name: str) -> list[Record]:
    """Return the records of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())["records"]


def whole_record(name: str) -> Record:
    """Return what is kept of an experiment: settings, machines, seconds and cells."""
    return json.loads((FIGURES / f"{name}.json").read_text())


def recorded(beginning: str = "") -> list[str]:
    """Return the names of the records that begin so."""
    return sorted(path.stem for path in FIGURES.glob(f"{beginning}*.json"))


def figure(name: str) -> list[Record]:
    """Return the cells behind a figure."""
    return whole_record(name)["cells"]


def the(records: list[Record], **wanted: Any) -> Record:
    """Return the one record with these fields."""
    (record,) = (r for r in records if all(r.get(name) == value for name, value in wanted.items()))
    return record


def bench(name: str, options: str = "") -> str:
    """Return the command of a benchmark, as code."""
    return f"`python -m benchmarks.{name}{options and ' ' + options}`"


def experiment(name: str, options: str = "") -> str:
    """Return the command of an experiment, as code."""
    return f"`python -m experiments.{name}{options and ' ' + options}`"


def percent(share: float, digits: int = 1) -> str:
    """Return a share in per cent."""
    return f"{100 * share:.{digits}f} %"


def short(number: float, digits: int = 2) -> str:
    """Return a number with few digits, in words of powers of ten where it is far from 1."""
    text = f"{number:.{digits}g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def whole(number: float) -> str:
    """Return a count with its thousands apart."""
    return f"{number:,.0f}"


def accuracy(cell: Record) -> str:
    """Return the mean test accuracy over seeds."""
    return percent(statistics.mean(cell["test_accuracy"]))


def mean_and_deviation(cells: list[Record]) -> str:
    """Return mean and standard deviation of the test accuracy over seeds, of one seed what it gave."""
    values = [100 * cell["test_accuracy"] for cell in cells]
    if len(values) == 1:
        return f"{values[0]:.1f} % (one seed)"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} %"


def table(part: list[Row]) -> str:
    """Return rows as a table in Markdown."""
    return "\n".join(("| what | measured | command |", "|---|---|---|", *map(str, part)))
