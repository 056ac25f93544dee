"""What a run and its callbacks tell each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from narrow_jax import _printing
from narrow_jax.checkpoints import strict_json
from narrow_jax.models import Model
from narrow_jax.training.result import FitResult
from narrow_jax.training.state import History, State


class Run(NamedTuple):
    """A run before its first step, as ``start`` gets it and may change it.

    Fields:
        state: what a step changes: params, model_state, opt_state and what the run keeps beside.
        history: the records so far, of a run that goes on.
        steps: the number of updates of the whole run.
        every: steps between records.
        chunk: records between two calls of ``record``, at most; 0 for a 25th of the run.
        resumes: whether the run was asked to go on from an earlier one.
        depends_on: returns what the run depends on, as JSON can hold it.
        model_of: returns the model with the weights of a state.
    """

    state: State
    history: History
    steps: int
    every: int
    chunk: int
    resumes: bool
    depends_on: Callable[[], dict[str, Any]]
    model_of: Callable[[State], Model]

    def looked_at(self, records: int) -> Run:
        """Return the run with chunks of so many records at most, two at least."""
        wanted = max(2, records)
        return self._replace(chunk=min(self.chunk, wanted) if self.chunk else wanted)


class Told(NamedTuple):
    """What ``record`` is told after a chunk.

    Fields:
        state: the state now; its arrays are gone after the next chunk: copy what is to be kept (``jax.device_get``).
        records: the records of this chunk, arrays by name.
        history: all records so far.
    """

    state: State
    records: History
    history: History

    @property
    def step(self) -> int:
        """The number of steps done."""
        return int(self.records["step"][-1])

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield each record of this chunk as numbers by name, "step" first; what is not finite is None."""
        return strict_json.lines_of(self.records)


class Callback:
    """One that does nothing: the base of all others.

    Example:
        >>> class Losses(Callback):
        ...     def record(self, told):
        ...         print(told.step, float(told.records["loss"][-1]) < 2)
    """

    def start(self, run: Run) -> Run | None:
        """Return the run as it goes on, None for as it is."""

    def record(self, told: Told) -> bool | None:
        """Return whether the run shall stop here."""

    def end(self, result: FitResult | None) -> None:
        """Finish; the result is None if the run ended in an error."""


class Progress(Callback):
    """A progress bar on the standard error.

    Args:
        show: True, False, or None for "where the standard error is a terminal".
    """

    def __init__(self, show: bool | None = None) -> None:
        """Keep the option."""
        self.show = show

    def start(self, run: Run) -> None:
        """Draw the bar."""
        self._stack = ExitStack()
        self._advance = self._stack.enter_context(_printing.bar(run.steps, self.show))

    def record(self, told: Told) -> None:
        """Move it on; of many runs it has the mean loss."""
        self._advance(told.step, float(np.mean(told.records["loss"][-1])))

    def end(self, result: FitResult | None) -> None:
        """Leave it."""
        self._stack.close()


class CallbackError(RuntimeError):
    """A callback raised an error; ``result`` is the ``FitResult`` of the run so far, and nothing else was lost."""

    def __init__(self, message: str, result: FitResult) -> None:
        """Keep the result beside the message."""
        super().__init__(message)
        self.result = result
