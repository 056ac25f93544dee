"""The host's side of a run: chunk after chunk, the history, and whoever is told what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks
from narrow_jax.training.loop import Span
from narrow_jax.training.problem import State, Values

History = dict[str, np.ndarray]
"""Records by name: "step" and what was measured, along the first axis."""
Run = Callable[[State, Span], tuple[State, Values]]


class Told(NamedTuple):
    """What observers are told after a chunk: the state, the records of this chunk, and all records so far."""

    state: State
    records: History
    history: History

    @property
    def step(self) -> int:
        """Return the number of steps done."""
        return int(self.records["step"][-1])


Observer = AbstractContextManager[Callable[[Told], None]]
"""What is entered for the time of a run, and gives the function to be called after each chunk."""


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
