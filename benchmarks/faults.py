"""Faults that other people's problems found, one small input each: what it does now, and what it should.

    python -m benchmarks.faults [NAME ...]

prints a table; exit status 1 if an outcome is not what it should be. Run on an older checkout it shows what that did.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import _faults_loud, _faults_silent  # noqa: F401  they register their cases
from benchmarks._fault_cases import CASES


def outcome(run: Callable[[], Any]) -> str:
    """Return what comes of an input, an error by its name and message."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return str(run())
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())}"


def main(names: list[str]) -> int:
    """Print the table; 1 if an outcome is not what it should be."""
    table = Table("input", "outcome", "should be", "")
    chosen = [name for name in CASES if not names or any(name.startswith(start) for start in names)]
    bad = 0
    for name in track(chosen, console=Console(stderr=True), description="faults"):
        run, good, should = CASES[name]
        found = outcome(run)
        right = good(found)
        bad += not right
        table.add_row(name, found[:160], should, "" if right else "✗")
    Console(width=200).print(table)
    print(f"{len(chosen) - bad} of {len(chosen)} as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
