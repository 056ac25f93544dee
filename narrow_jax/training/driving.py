"""The host's side of a run: chunk after chunk, the history, and the callbacks that are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks
from narrow_jax.training.result import FitResult
from narrow_jax.training.state import History, Span, State, Values
from narrow_jax.training.telling import Callback, CallbackError, Run, Told

Chunk = Callable[[State, Span], tuple[State, Values]]
_MOST = np.iinfo(np.int32).max  # a step is counted in int32
Failures = list[tuple[str, BaseException]]
"""What callbacks raised, and who."""


def counts(steps: object, every: object) -> tuple[int, int]:
    """Return the number of steps and those between records, a hundredth by default."""
    steps = _checks.count("steps", steps, maximum=_MOST)
    if every is None:
        return steps, max(1, steps // 100)
    return steps, _checks.count("every", every, maximum=_MOST)


def spans(steps: int, every: int, done: int = 0, chunk: int = 0) -> Iterator[Span]:
    """Yield the chunks of a run of which so many records are done: a 25th each, or ``chunk`` records at most."""
    total = -(-steps // every) + 1  # the first record, at step 0, ends a block of no steps
    records = min(total, max(2, -(-total // 25)))
    records = min(records, max(2, chunk)) if chunk else records
    for first in range(done, total, records):
        yield Span(np.int32((first - 1) * every), np.int32(steps), np.int32(every), records)


def watched(
    callbacks: Sequence[Callback], begun: Run, run: Chunk, finish: Callable[[State, History], FitResult]
) -> FitResult:
    """Return the result of a run that callbacks start, are told of and end.

    Whatever one of them raises, the others are told, and all are ended.

    Raises:
        CallbackError: an error of a callback after the first step, with the result so far.
        KeyboardInterrupt: of a callback.
    """
    started: list[Callback] = []
    failures: Failures = []
    result: FitResult | None = None
    try:
        for callback in callbacks:
            found = callback.start(begun)
            started.append(callback)
            begun = _begun(callback, found) or begun
        result = finish(*drive(run, begun, partial(_tell, callbacks, failures)))
    finally:
        for callback in reversed(started):
            _attempt(failures, callback, "end", result)
    for who, error in failures:
        if not isinstance(error, Exception):
            raise error
        raise CallbackError(
            f"{who} raised {type(error).__name__}: {str(error).rstrip('.')}. The run was ended at step "
            f"{result.steps_taken}; what it reached is the attribute result of this error",
            result,
        ) from error
    return result


def _begun(callback: Callback, found: object) -> Run | None:
    """Return what the start of a callback returned: a run or nothing."""
    if isinstance(found, Run | None):
        return found
    raise TypeError(
        f"{type(callback).__name__}.start returned a {type(found).__name__}; expected the run, changed by _replace, "
        "or None"
    )


def drive(run: Chunk, begun: Run, tell: Callable[[Told], bool]) -> tuple[State, History]:
    """Run chunk after chunk until all steps are done, nothing is alive or it is told to stop; gather the history."""
    state, history = begun.state, begun.history
    done = len(history.get("step", ()))
    for span in spans(begun.steps, begun.every, done, begun.chunk):
        if not np.any(state.alive):
            break
        state, values = run(state, span)
        steps = span.recorded()
        records = {name: np.asarray(value)[: len(steps)] for name, value in values.items()}
        records["step"] = steps
        history = {name: np.concatenate([history.get(name, v[:0]), v]) for name, v in records.items()}
        if tell(Told(state, records, history)):
            break
    return state, history


def _tell(callbacks: Sequence[Callback], failures: Failures, told: Told) -> bool:
    """Return whether one of them wants the run to stop, or could not go on."""
    stops = [_attempt(failures, callback, "record", told) for callback in callbacks]
    for callback, stop in zip(callbacks, stops, strict=True):
        if not isinstance(stop, bool | np.bool_ | None):
            error = TypeError(
                f"it returned a {type(stop).__name__}; expected whether the run shall stop, or None"
            )
            failures.append((f"{type(callback).__name__}.record", error))
    return bool(failures) or any(stops)


def _attempt(failures: Failures, callback: Callback, method: str, argument: object) -> Any:
    try:
        return getattr(callback, method)(argument)
    except BaseException as error:
        failures.append((f"{type(callback).__name__}.{method}", error))
        return None


def last_finite(run: Chunk, state: State, steps: int, every: int) -> State:
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
