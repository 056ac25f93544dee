"""The compiled loop: what a run is, its steps, and a chunk of blocks of steps, each block ending in a record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from narrow_jax import _checks, constraints
from narrow_jax._typing import Array, Key, Params, Tree
from narrow_jax.constraints import accepted
from narrow_jax.data import epoch_order
from narrow_jax.labels import completed
from narrow_jax.losses import Loss
from narrow_jax.training.model import Model, Start
from narrow_jax.training.state import Number, Span, State, Values, Watch

Batch = tuple[Array, Tree]
"""Samples, and targets: an array, or any tree of arrays where the loss is the user's."""
Augment = Callable[[Key[Array, ""], Array], Array]
_AUGMENT_STREAM = 2**32 - 1  # a number that no epoch reaches: augmentation and order draw apart
# at once: unlike a gradient, a measurement does not keep the activations of every layer
_BATCHES_MEASURED = 4


class Inputs(NamedTuple):
    """The arrays that a run reads: its data, of a stream the sample, those of ``evaluation``, and the random key."""

    data: Batch
    evaluation: Batch | None
    key: Key[Array, "*runs"] | None


class Optimizer(NamedTuple):
    """An optax transformation, and the names of what its update gets beside gradients, state and params."""

    tx: optax.GradientTransformation
    extra: tuple[str, ...]

    def update(
        self,
        objective: Callable[[Params], Array],
        value: Array,
        grads: Params,
        params: Params,
        opt_state: optax.OptState,
    ) -> tuple[Params, optax.OptState]:
        """Return params and optimizer state after one update."""

        def value_fn(chosen: Params) -> Array:
            return objective(completed(chosen, params))  # what optax masked keeps its value

        extra = {
            "value": value,
            "grad": grads,
            "value_fn": value_fn,
            "obj_fn": value_fn,
            "grad_fn": lambda chosen, _: jax.grad(value_fn)(chosen),
        }
        tx = optax.with_extra_args_support(self.tx)
        given = accepted(tx.update, {name: extra[name] for name in self.extra})
        updates, opt_state = tx.update(grads, opt_state, params, **given)
        return optax.apply_updates(params, updates), opt_state


class Problem(NamedTuple):
    """The static half of a run: pure functions, the batch size, the devices that share a batch.

    ``metrics`` are measured beside the loss, ``test_metrics`` on the data of ``evaluation``.
    """

    model: Model
    loss: Loss
    metrics: tuple[tuple[str, Loss], ...]
    test_metrics: tuple[tuple[str, Loss], ...]
    monitors: tuple[Watch, ...]
    batch_size: int | None
    augment: Augment | None
    devices: NamedSharding | None

    def init(self, tx: optax.GradientTransformation, start: Start, x: Array) -> State:
        """Return the state at step 0."""
        params, model_state, opt_state = start
        if opt_state is None:
            opt_state = tx.init(params)
        else:  # one from elsewhere, in the structure that ``init`` gives
            structure = jax.tree.structure(jax.eval_shape(tx.init, params))
            opt_state = jax.tree.unflatten(structure, jax.tree.leaves(opt_state))
        return State(
            params,
            model_state,
            opt_state,
            tuple(monitor.init(params, x) for monitor in self.monitors),
            None if self.batch_size is None else jnp.arange(x.shape[0]),
            jnp.zeros((), jnp.int32),
            jnp.ones((), bool),
        )

    def draw(self, inputs: Inputs, step: Array, order: Array | None) -> tuple[Array | None, Batch]:
        """Return the order of this epoch and this step's samples, a function of key and step alone."""
        (x, y), key, size = inputs.data, inputs.key, self.batch_size
        if size is None or key is None:
            return order, (x, y)
        n = x.shape[0]
        epoch, position = jnp.divmod(step, n // size)
        order = jax.lax.cond(
            position == 0,
            lambda order: epoch_order(key, epoch, n).astype(order.dtype),
            lambda order: order,
            order,
        )
        chosen = jax.lax.dynamic_slice_in_dim(order, position * size, size)
        return order, (x[chosen], jax.tree.map(lambda leaf: leaf[chosen], y))

    def step(
        self, optimizer: Optimizer, state: State, batch: Batch, key: Key[Array, ""] | None, step: Number
    ) -> State:
        """Return the state after one update on a batch."""
        x, y = self._shared(batch)
        if self.augment is not None and key is not None:
            x = self.augment(jax.random.fold_in(jax.random.fold_in(key, _AUGMENT_STREAM), step), x)

        def objective(params: Params) -> tuple[Array, Params]:
            outputs, model_state = self.model(params, state.model_state, x, train=True)
            return self.loss(outputs, y), model_state

        (value, model_state), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        params, opt_state = optimizer.update(
            lambda params: objective(params)[0], value, grads, state.params, state.opt_state
        )
        return state._replace(params=params, model_state=model_state, opt_state=opt_state)

    def measure(self, inputs: Inputs, state: State) -> tuple[State, Values]:
        """Return what the history records of a state, and the state with its monitors moved on."""
        values = self._scores(self.metrics, inputs.data, state)
        if inputs.evaluation is not None:
            scores = self._scores(self.test_metrics, inputs.evaluation, state)
            values |= {f"test_{name}": value for name, value in scores.items()}
        told = constraints.report(state.opt_state, state.params)
        names = [*values, *(monitor.name for monitor in self.monitors), "step"]
        if twice := sorted(set(told) & set(names)):
            raise ValueError(
                f"a set reports {twice[0]!r}, which the history has already; expected another name than "
                f"{', '.join(names)}: give another in nj.constraints.Set"
            )
        values, states = values | told, []
        for monitor, monitor_state in zip(self.monitors, state.monitors, strict=True):
            monitor_state, value = monitor.update(monitor_state, state.params, inputs.data[0])
            values[monitor.name] = _one_number(f"the monitor {monitor.name!r}", value)
            states.append(monitor_state)
        return state._replace(monitors=tuple(states)), values

    def _scores(self, metrics: tuple[tuple[str, Loss], ...], data: Batch, state: State) -> Values:
        x, y = self._whole(data)
        outputs = self._predict(state, x)
        return {name: jnp.asarray(score(outputs, y)) for name, score in (("loss", self.loss), *metrics)}

    def _predict(self, state: State, x: Array) -> Any:
        """Return the outputs for all samples, some batches at a time where training goes by batches."""

        def outputs(block: Array) -> Any:
            return self.model(state.params, state.model_state, self._shared(block), train=False)[0]

        n, size = x.shape[0], self.batch_size and _BATCHES_MEASURED * self.batch_size
        if size is None or size >= n:
            return outputs(x)
        starts = jnp.arange(n // size) * size  # sliced one by one: x as blocks would be a copy of x
        blocks = jax.lax.map(lambda start: outputs(jax.lax.dynamic_slice_in_dim(x, start, size)), starts)
        joined = jax.tree.map(lambda block: block.reshape(-1, *block.shape[2:]), blocks)
        if n % size == 0:
            return joined
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), joined, outputs(x[-(n % size) :]))

    def _whole(self, data: Batch) -> Batch:
        """Keep the data on each device as they are: XLA would split them, and send every batch around."""
        if self.devices is None:
            return data
        return jax.lax.with_sharding_constraint(data, NamedSharding(self.devices.mesh, PartitionSpec()))

    def _shared(self, batch: Any) -> Any:
        """Give each device its part of the samples, where there are several devices and the samples divide."""
        if self.devices is None or len(jax.tree.leaves(batch)[0]) % self.devices.mesh.size:
            return batch
        return jax.lax.with_sharding_constraint(batch, self.devices)


def _one_number(what: str, value: Any) -> Array:
    value = jnp.asarray(_checks.array(what, value) if not isinstance(value, bool | int | float) else value)
    if value.ndim or jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise ValueError(
            f"{what} is {value.dtype}{list(value.shape)}; expected one real number a record: take its norm or mean, or "
            "return each entry by a monitor of its own"
        )
    return value


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
