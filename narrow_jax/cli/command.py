"""A command of the command line: its words, its options, and the answer that it gives."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


class Answer(NamedTuple):
    """What a command found out.

    Fields:
        yes: exit status 0; else it is 1.
        record: what ``--json`` prints.
        lines: what a person reads.
    """

    yes: bool
    record: Mapping[str, object]
    lines: Sequence[str]


class Option(NamedTuple):
    """An option: its flag, the keywords of ``add_argument``, and its group in the help."""

    flag: str
    keywords: Mapping[str, Any]
    group: str = "this command"


class Command(NamedTuple):
    """A command, or a kind of one: its name, its words in the help, its options and what it does.

    ``run`` is the function that takes the options and returns an ``Answer``, as module:function below
    ``narrow_jax.cli``: what it needs is loaded once the options are known.
    """

    name: str
    help: str
    description: str
    example: str
    options: Sequence[Option]
    run: str
    prints: str = "result"

    def add(self, commands: Commands) -> None:
        """Add the command to the parser, with the options that every command has."""
        parser = commands.add_parser(
            self.name,
            help=self.help,
            formatter_class=HelpFormatter,
            description=self.description,
            epilog=f"Example: narrow-jax {self.example}",
        )
        parser.set_defaults(run=self.run)
        as_json = switch("--json", f"print the {self.prints} as JSON and nothing else")
        groups: dict[str, argparse._ArgumentGroup] = {}
        for flag, keywords, group in (*self.options, *FOLDERS, as_json):
            if group not in groups:
                groups[group] = parser.add_argument_group(group)
            groups[group].add_argument(flag, **keywords)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of an option, unless there is none or the text names it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        named = action.default is None or action.default is False or "(default" in (action.help or "")
        return action.help if named else super()._get_help_string(action)


def option(flag: str, text: str, **keywords: Any) -> Option:
    """Return an option with its text in the help."""
    return Option(flag, {"help": text} | keywords)


def switch(flag: str, text: str) -> Option:
    """Return an option without a value."""
    return option(flag, text, action="store_true")


def overwrite(what: str = "run in the folder") -> Option:
    """Return the option that lets a run, or what it writes, replace an earlier one."""
    return switch("--overwrite", f"replace an earlier {what}")


def path(text: str) -> Path:
    """Return the path of an option; ``~`` is the home folder."""
    return Path(text).expanduser()


FOLDERS = (
    option("--raw-dir", "folder with the data sets' original files, for offline use", type=path),
    option("--data-dir", "folder where prepared data sets are kept", type=path),
)
"""Where data sets are."""

MEMORY_BUDGET = option("--memory-budget", "GiB that may be used (default: no limit)", type=float)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows as lines of a table, with the names of the columns above."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def memory_budget(gib: float | None) -> int | None:
    """Return the bytes of an option in GiB.

    Raises:
        ValueError: not a finite number > 0.
    """
    from narrow_jax import _checks

    if gib is None:
        return None
    _checks.positive("memory budget", gib)
    return int(gib * 2**30)
