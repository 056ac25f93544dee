"""A progress bar for loops on the host."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def say(message: str) -> None:
    """Write a line to the standard error."""
    print(message, file=sys.stderr)


@contextmanager
def bar(total: int, show: bool | None) -> Iterator[Callable[[int, float], None]]:
    """Give a function ``advance(done, loss)`` that draws a bar, or does nothing if none is wanted.

    Args:
        total: number of steps.
        show: True, False, or None for "where the standard error is a terminal".
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda done, loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3g}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total, loss=float("nan"))
        yield lambda done, loss: progress.update(task, completed=done, loss=loss)
