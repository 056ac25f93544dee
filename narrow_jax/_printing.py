"""What is printed: progress of loops on the host, and results in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._host import traced

_LETTERS = 60
"""A text longer than that is cut: the attribute has all of it."""


def say(message: str) -> None:
    """Write a line to the standard error."""
    print(message, file=sys.stderr)


@contextmanager
def countdown(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function ``advance(done)`` that draws what is done and the time left, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


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


def brief(name: str, fields: Mapping[str, Any]) -> str:
    """Return the record as it is printed.

    Example:
        >>> brief("Found", {"params": {"w": np.ones((2, 3)), "v": np.float64(2)}, "loss": 1 / 3, "why": None})
        'Found(params={w: float64[2, 3], v: 2}, loss=0.333333, why=None)'
    """
    return f"{name}({', '.join(f'{key}={_brief(value)}' for key, value in fields.items())})"


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_brief(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"{type(value).__name__}(holds={value.holds})" if hasattr(value, "holds") else repr(value)
    if isinstance(value, list | tuple):
        plain = all(isinstance(part, int | float | str | None) for part in value)
        return repr(value) if plain else f"[{', '.join(map(_brief, value))}]"
    if isinstance(value, str):
        return repr(value if len(value) <= _LETTERS else value[: _LETTERS - 1] + "…")
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    if not hasattr(value, "shape"):
        return repr(value)
    number = isinstance(value, np.ndarray | np.generic | jax.Array) and not (value.shape or traced(value))
    if not number or jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return f"{value.dtype}{list(value.shape)}"
    return _brief(float(value)) if jnp.issubdtype(value.dtype, jnp.floating) else repr(value.item())
