"""Those who are told what a chunk of steps has done: a file of records, a progress bar."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from narrow_jax import _progress
from narrow_jax.training.driving import History, Told


def record_file(path: str | Path, resume: object) -> Path:
    """Return the file of the records, a new one unless the run goes on with its checkpoints.

    Raises:
        FileExistsError: it holds records, which would be lost.
    """
    path = Path(path).expanduser()
    if not resume and path.is_file() and path.stat().st_size:
        raise FileExistsError(
            f"record {path} holds another run's records already: choose another file, or remove it"
        )
    return path


@contextmanager
def written(path: Path, history: History) -> Iterator[Callable[[Told], None]]:
    """Write one JSON line a record into a file, those of the history first."""
    with path.open("w") as file:

        def write(records: History) -> None:
            names = sorted(records, key=lambda name: name != "step")
            for values in zip(*(records[name].tolist() for name in names), strict=True):
                plain = (value if np.isfinite(value) else None for value in values)  # JSON has no NaN
                file.write(json.dumps(dict(zip(names, plain, strict=True))) + "\n")
            file.flush()

        write(history)
        yield lambda told: write(told.records)


@contextmanager
def bar(steps: int, show: bool | None) -> Iterator[Callable[[Told], None]]:
    """Show the steps done and the loss, of many runs its mean."""
    with _progress.bar(steps, show) as advance:
        yield lambda told: advance(told.step, float(np.mean(told.records["loss"][-1])))
