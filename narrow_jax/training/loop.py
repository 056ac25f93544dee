"""The compiled loop: a chunk of blocks of steps, each block ending in a record."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Array, Int, Key
from narrow_jax.training.problem import Batch, Inputs, Number, Optimizer, Problem, State, Values


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


def chunk(
    problem: Problem, optimizer: Optimizer, state: State, span: Span, inputs: Inputs
) -> tuple[State, Values]:
    """Run the blocks of a chunk; measure after each.

    What is finite is checked once a block, since a guard in every step would cost as much as the step.
    """

    def step(number: Array, state: State) -> State:
        order, batch = problem.draw(inputs, number, state.order)
        return problem.step(optimizer, state._replace(order=order), batch, inputs.key, number)

    def block(state: State, index: Array) -> tuple[State, Values]:
        first, last = span.block(index)
        return _close(problem, inputs, state, jax.lax.fori_loop(first, last, step, state), last)

    return jax.lax.scan(block, state, jnp.arange(span.records, dtype=jnp.int32))


def _close(
    problem: Problem, inputs: Inputs, before: State, after: State, last: Number
) -> tuple[State, Values]:
    """End a block: measure; if the loss or a weight is not finite, the state before the block stays, dead."""
    after, values = problem.measure(inputs, after)
    leaves = [values["loss"], *jax.tree.leaves(after.params)]
    alive = before.alive & jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))

    def or_nan(value: Array) -> Array:
        return jnp.where(alive, value, jnp.nan) if jnp.issubdtype(value.dtype, jnp.floating) else value

    after = after._replace(steps_taken=jnp.asarray(last), alive=alive)
    state = jax.tree.map(lambda a, b: jnp.where(alive, a, b), after, before._replace(alive=alive))
    return state, {name: or_nan(value) for name, value in values.items()}


run_chunk = jax.jit(chunk, static_argnames=("problem", "optimizer"), donate_argnames=("state",))


@partial(jax.jit, static_argnames=("problem", "optimizer"), donate_argnames=("state",))
def run_step(
    problem: Problem, optimizer: Optimizer, state: State, batch: Batch, key: Key[Array, ""], step: Number
) -> tuple[State, Number]:
    """Run one step on a batch that the host brings; return the number of steps done too, to wait for."""
    return problem.step(optimizer, state, batch, key, step), step + 1


close_block = jax.jit(_close, static_argnames=("problem",), donate_argnames=("after",))
