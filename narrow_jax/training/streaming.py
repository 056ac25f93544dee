"""A chunk of training on batches that the host brings: ``run_chunk`` of ``loop`` for a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Array
from narrow_jax.data import Batch, Stream
from narrow_jax.training import loop
from narrow_jax.training.loop import Inputs, Optimizer, Problem
from narrow_jax.training.state import Number, Span, State, Values

_IN_FLIGHT = 2


@dataclass
class Streamed:
    """Chunks of one run over a stream, in the form of ``run_chunk``; keeps the reader between chunks.

    While the device works on a step the next batches are read and copied to it, ``_IN_FLIGHT`` steps at most.
    """

    problem: Problem
    optimizer: Optimizer
    stream: Stream
    _reader: Iterator[Batch] = field(default_factory=lambda: iter(()))
    _next: int | None = None

    def __call__(self, state: State, span: Span, inputs: Inputs) -> tuple[State, Values]:
        """Run the blocks of a chunk; measure on ``inputs`` after each."""
        values = []
        for index in range(span.records):
            first, last = span.block(index)
            before = jax.tree.map(jnp.copy, state)
            after = self._steps(state, inputs, first, last)
            state, value = loop.close_block(self.problem, inputs, before, after, last)
            values.append(value)
        return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *values)

    def _steps(self, state: State, inputs: Inputs, first: Number, last: Number) -> State:
        running: deque[Array] = deque()
        for step in range(first, last):
            batch = self._batch(inputs, step)
            if len(running) == _IN_FLIGHT:
                jax.block_until_ready(running.popleft())
            state, done = loop.run_step(
                self.problem, self.optimizer, state, batch, inputs.key, np.int32(step)
            )
            running.append(done)
        return state

    def _batch(self, inputs: Inputs, step: int) -> loop.Batch:
        if step != self._next:
            self._reader = self.stream.batches(inputs.key, self.problem.batch_size, first=step)
        self._next = step + 1
        return jax.device_put(next(self._reader), self.problem.devices)
