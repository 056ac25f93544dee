"""The moving half of a run: its state, its records, and the steps of a chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import optax

from narrow_jax._typing import Array, HostArray, Int, Params

Number = np.integer | HostArray
"""A number of steps: traced, or NumPy's on the host."""
Values = dict[str, Array]
"""What is measured at a record, by its name in the history."""
History = dict[str, np.ndarray]
"""Records by name: "step" and what was measured, along the first axis."""


class Watch(Protocol):
    """What the loop needs of a monitor: an ``nj.monitors.Monitor``."""

    @property
    def name(self) -> str:
        """The entry of the history."""

    @property
    def init(self) -> Callable[[Params, Array], Any]:
        """Makes its state."""

    @property
    def update(self) -> Callable[[Any, Params, Array], tuple[Any, Array]]:
        """Moves its state on, and measures."""


class State(NamedTuple):
    """The moving half: everything that a step or a block changes."""

    params: Params
    model_state: Params
    opt_state: optax.OptState
    monitors: tuple[Any, ...]
    order: Array | None
    steps_taken: Array
    alive: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Span:
    """The steps of a chunk: ``records`` blocks of ``every`` steps from step ``begin``, clipped to 0 … ``steps``."""

    begin: Number
    steps: Number
    every: Number
    records: int = field(metadata={"static": True})

    def block(self, index: int | Array) -> tuple[Number, Number]:
        """Return the first step of a block and the one after its last."""
        first, last = ((self.begin + (index + i) * self.every).clip(0, self.steps) for i in (0, 1))
        return first, last

    def recorded(self) -> Int[np.ndarray, " records"]:
        """Return the step of each record; blocks past the last step have none."""
        first = self.begin + np.arange(self.records) * self.every
        return np.minimum(first[first < self.steps] + self.every, self.steps)
