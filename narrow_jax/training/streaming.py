"""A chunk of training on batches that the host brings: ``run_chunk`` of ``loop`` for a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Array, Key
from narrow_jax.data import Batch, Stream
from narrow_jax.training import loop
from narrow_jax.training.loop import Problem, State

_IN_FLIGHT = 2


class Streamed:
    """Chunks of one run over a stream, in the form of ``run_chunk``; keeps the reader between chunks.

    While the device works on a step the next batches are read and copied to it, ``_IN_FLIGHT`` steps at most.
    """

    def __init__(self, problem: Problem, stream: Stream) -> None:
        """Nothing is read before the first chunk."""
        self._problem, self._stream = problem, stream
        self._reader: Iterator[Batch] = iter(())
        self._next: int | None = None

    def __call__(
        self,
        state: State,
        begin: Any,
        steps: Any,
        every: Any,
        *,
        records: int,
        data: loop.Batch,
        evaluation: loop.Batch | None,
        key: Key[Array, ""],
    ) -> tuple[State, dict[str, Array]]:
        """Run blocks of ``every`` steps from step ``begin``, clipped to 0 … steps; measure on ``data`` after each."""
        values = []
        for index in range(records):
            first, last = (int(np.clip(begin + (index + i) * every, 0, steps)) for i in (0, 1))
            before = jax.tree.map(jnp.copy, state)
            after = self._steps(state, first, last, key)
            state, value = loop.close_block(self._problem, data, evaluation, before, after, np.int32(last))
            values.append(value)
        return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *values)

    def _steps(self, state: State, first: int, last: int, key: Key[Array, ""]) -> State:
        running: deque[Array] = deque()
        for step in range(first, last):
            batch = self._batch(step, key)
            if len(running) == _IN_FLIGHT:
                jax.block_until_ready(running.popleft())
            state, done = loop.run_step(self._problem, state, np.int32(step), batch, key)
            running.append(done)
        return state

    def _batch(self, step: int, key: Key[Array, ""]) -> Any:
        if step != self._next:
            assert self._problem.batch_size is not None
            self._reader = self._stream.batches(key, self._problem.batch_size, first=step)
        self._next = step + 1
        return jax.device_put(next(self._reader), self._problem.devices)
