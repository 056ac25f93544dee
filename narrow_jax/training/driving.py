"""The host's side of a run: chunk after chunk, the history, and who is told: a file of records, a progress bar."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _printing
from narrow_jax.training.loop import History, Observer, Span, State, Told, Values

Run = Callable[[State, Span], tuple[State, Values]]


def counts(steps: object, every: object) -> tuple[int, int]:
    """Return the number of steps and those between records, a hundredth by default."""
    steps = _checks.count("steps", steps)
    return steps, max(1, steps // 100) if every is None else _checks.count("every", every)


def spans(steps: int, every: int, done: int = 0, save_every: int = 0) -> Iterator[Span]:
    """Yield the chunks of a run of which so many records are done: a 25th each, or what is saved at once."""
    total = -(-steps // every) + 1  # the first record, at step 0, ends a block of no steps
    records = min(total, max(2, -(-total // 25)))
    if save_every:
        records = min(records, max(2, -(-save_every // every)))
    for first in range(done, total, records):
        yield Span(np.int32((first - 1) * every), np.int32(steps), np.int32(every), records)


def drive(
    run: Run, state: State, history: History, chunks: Iterator[Span], observers: Sequence[Observer]
) -> tuple[State, History]:
    """Run chunk after chunk until all steps are done or nothing is alive, and gather the history."""
    with ExitStack() as watching:
        tell = [watching.enter_context(observer) for observer in observers]
        for span in chunks:
            if not np.any(state.alive):
                break
            state, values = run(state, span)
            steps = span.recorded()
            records = {name: np.asarray(value)[: len(steps)] for name, value in values.items()}
            records["step"] = steps
            history = {name: np.concatenate([history.get(name, v[:0]), v]) for name, v in records.items()}
            for observer in tell:
                observer(Told(state, records, history))
    return state, history


def last_finite(run: Run, state: State, steps: int, every: int) -> State:
    """Repeat the block that ended in non-finite numbers step by step, up to the last finite state."""
    start = int(state.steps_taken)
    end = np.int32(min(start + every, steps))
    state = state._replace(alive=jnp.ones((), bool))
    records = min(every, 32)
    for first in range(start, int(end), records):
        state, _ = run(state, Span(np.int32(first), end, np.int32(1), records))
        if not state.alive:
            break
    return state


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
    with _printing.bar(steps, show) as advance:
        yield lambda told: advance(told.step, float(np.mean(told.records["loss"][-1])))
