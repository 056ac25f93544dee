"""The compiled training loop: one step, one block, one chunk, for one run or many.

``Problem`` is static, ``State`` moves. Everything here is traced; the host's side is in ``training``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from narrow_jax import _checks, constraints
from narrow_jax._typing import ApplyFn, Array, HostArray, Key, Params
from narrow_jax.constraints import accepted
from narrow_jax.data import epochs
from narrow_jax.labels import completed, difference
from narrow_jax.losses import Loss
from narrow_jax.monitors import Monitor

Batch = tuple[Array, Array]
Setup = Callable[..., tuple[Params, optax.GradientTransformation]]
Augment = Callable[[Any, Any], Any]
Metrics = tuple[tuple[str, Loss], ...]
_AUGMENT_STREAM = 2**32 - 1  # a number that no epoch reaches: augmentation and order draw apart
# at once: unlike a gradient, a measurement does not keep the activations of every layer
_BATCHES_MEASURED = 4


class Forward(Protocol):
    """A model in the loop's form: outputs and new variables from params, variables, samples, mode."""

    def __call__(self, params: Params, state: Any, x: Array, train: bool) -> tuple[Any, Any]:
        """Return ``(outputs, state)``."""


class Problem(NamedTuple):
    """The static half of a run: pure functions, the batch size, the devices that share a batch.

    ``metrics`` are measured beside the loss, ``test_metrics`` on the data of ``evaluation``; ``extra`` names what
    ``tx.update`` gets beside gradients, state and params.
    """

    forward: Forward
    tx: optax.GradientTransformation
    loss: Loss
    metrics: Metrics
    monitors: tuple[Monitor, ...]
    batch_size: int | None
    augment: Augment | None = None
    test_metrics: Metrics = ()
    extra: tuple[str, ...] = ()
    devices: jax.sharding.NamedSharding | None = None


class State(NamedTuple):
    """The moving half: everything that a step or a block changes."""

    params: Params
    model_state: Any
    opt_state: optax.OptState
    monitors: tuple[Any, ...]
    order: Array | None
    steps_taken: Array
    alive: Array


@dataclass(frozen=True)
class Stateless:
    """A model without variables in the form of one with them; equal for equal functions, for jit's cache."""

    apply_fn: ApplyFn

    def __call__(self, params: Params, state: Any, x: Array, train: bool) -> tuple[Any, Any]:
        """Return the outputs and the state as it came."""
        return self.apply_fn(params, x), state


@dataclass(frozen=True)
class Stated:
    """A model with variables, which come back in the structure in which they were given: dict or FrozenDict."""

    apply_fn: Callable[..., Any]

    def __call__(self, params: Params, state: Any, x: Array, train: bool) -> tuple[Any, Any]:
        """Return the outputs and the state after them, in evaluation the one given."""
        result = self.apply_fn(params, state, x, train=train)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(
                f"apply_fn returned a {type(result).__name__}; with model_state expected a pair (outputs, state)"
            )
        outputs, after = result
        if not train:
            return outputs, state
        if other := difference(state, after):
            raise ValueError(
                f"apply_fn returns another model_state than it was given: at {other}; expected the same variables "
                "before and after a step: pass all that it updates, and no others"
            )
        return outputs, jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(after))


def _init(problem: Problem, params: Params, model_state: Any, data: Batch, opt_state: Any = None) -> State:
    x, _ = data
    return State(
        params,
        model_state,
        problem.tx.init(params) if opt_state is None else opt_state,
        tuple(monitor.init(params, x) for monitor in problem.monitors),
        None if problem.batch_size is None else jnp.arange(x.shape[0]),
        jnp.zeros((), jnp.int32),
        jnp.ones((), bool),
    )


def init_one(problem: Problem, params: Params, model_state: Any, data: Batch, opt_state: Any) -> State:
    """Return the state at step 0, a copy: chunks donate their state. Eager, so that init sees values."""
    return jax.tree.map(jnp.copy, _init(problem, params, model_state, data, opt_state))


@partial(jax.jit, static_argnames=("problem", "setup"))
def init_sweep(problem: Problem, setup: Setup, points: dict[str, HostArray], data: Batch) -> State:
    """Return the states of all runs at step 0, stacked along the first axis."""

    def one(point: dict[str, HostArray]) -> State:
        params, tx = setup(**point)
        return _init(problem._replace(tx=tx), params, None, data)

    return jax.vmap(one)(points)


def _batch(
    state: State, step: Array, data: Batch, key: Key[Array, ""] | None, size: int | None
) -> tuple[Array | None, Batch]:
    """Return the order of this epoch and this step's samples, a function of key and step alone."""
    if size is None or key is None:
        return state.order, data
    n = data[0].shape[0]
    epoch, position = jnp.divmod(step, n // size)
    order = jax.lax.cond(
        position == 0,
        lambda order: epochs.order(key, epoch, n).astype(order.dtype),
        lambda order: order,
        state.order,
    )
    chosen = jax.lax.dynamic_slice_in_dim(order, position * size, size)
    return order, (data[0][chosen], data[1][chosen])


def _step(problem: Problem, data: Batch, key: Key[Array, ""] | None, step: Array, state: State) -> State:
    order, batch = _batch(state, step, data, key, problem.batch_size)
    return _update(problem, batch, key, step, state._replace(order=order))


def _update(problem: Problem, batch: Batch, key: Key[Array, ""] | None, step: Array, state: State) -> State:
    x, y = _share(problem, batch)
    if problem.augment is not None and key is not None:
        x = problem.augment(jax.random.fold_in(jax.random.fold_in(key, _AUGMENT_STREAM), step), x)

    def objective(params: Params) -> tuple[Array, Any]:
        outputs, model_state = problem.forward(params, state.model_state, x, train=True)
        return problem.loss(outputs, y), model_state

    (value, model_state), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    params, opt_state = advance(
        problem, lambda params: objective(params)[0], value, grads, state.params, state.opt_state
    )
    return state._replace(params=params, model_state=model_state, opt_state=opt_state)


def advance(
    problem: Problem,
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
    tx = optax.with_extra_args_support(problem.tx)
    given = accepted(tx.update, {name: extra[name] for name in problem.extra})
    updates, opt_state = tx.update(grads, opt_state, params, **given)
    return optax.apply_updates(params, updates), opt_state


def _share(problem: Problem, arrays: Any) -> Any:
    """Give each device its part of the samples, where there are several devices and the samples divide."""
    if problem.devices is None or len(jax.tree.leaves(arrays)[0]) % problem.devices.mesh.size:
        return arrays
    return jax.lax.with_sharding_constraint(arrays, problem.devices)


def _predict(problem: Problem, state: State, x: Array) -> Any:
    """Return the outputs for all samples, some batches at a time where training goes by batches."""

    def outputs(block: Array) -> Any:
        return problem.forward(state.params, state.model_state, _share(problem, block), train=False)[0]

    n, size = x.shape[0], problem.batch_size and _BATCHES_MEASURED * problem.batch_size
    if size is None or size >= n:
        return outputs(x)
    starts = jnp.arange(n // size) * size  # sliced one by one: x as blocks would be a copy of x
    blocks = jax.lax.map(lambda start: outputs(jax.lax.dynamic_slice_in_dim(x, start, size)), starts)
    joined = jax.tree.map(lambda block: block.reshape(-1, *block.shape[2:]), blocks)
    if n % size == 0:
        return joined
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), joined, outputs(x[-(n % size) :]))


def _measure(
    problem: Problem, data: Batch, evaluation: Batch | None, state: State
) -> tuple[State, dict[str, Array]]:
    values = _score(problem, problem.metrics, state, data)
    if evaluation is not None:
        scores = _score(problem, problem.test_metrics, state, evaluation)
        values |= {f"test_{name}": value for name, value in scores.items()}
    values |= constraints.report(state.opt_state, state.params)
    states = []
    for monitor, monitor_state in zip(problem.monitors, state.monitors, strict=True):
        monitor_state, value = monitor.update(monitor_state, state.params, data[0])
        values[monitor.name] = _one_number(f"the monitor {monitor.name!r}", value)
        states.append(monitor_state)
    return state._replace(monitors=tuple(states)), values


def _one_number(what: str, value: Any) -> Array:
    value = jnp.asarray(_checks.array(what, value) if not isinstance(value, bool | int | float) else value)
    if value.ndim or jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise ValueError(
            f"{what} is {value.dtype}{list(value.shape)}; expected one real number a record: take its norm or mean, or "
            "return each entry by a monitor of its own"
        )
    return value


def _score(problem: Problem, metrics: Metrics, state: State, data: Batch) -> dict[str, Array]:
    x, y = data
    outputs = _predict(problem, state, x)
    return {name: jnp.asarray(score(outputs, y)) for name, score in (("loss", problem.loss), *metrics)}


def _finite(params: Params, values: dict[str, Array]) -> Array:
    leaves = [values["loss"], *jax.tree.leaves(params)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _close(
    problem: Problem, data: Batch, evaluation: Batch | None, before: State, after: State, last: Array
) -> tuple[State, dict[str, Array]]:
    """End a block: measure; if the loss or a weight is not finite, the state before the block stays, dead."""
    after, values = _measure(problem, data, evaluation, after)
    alive = before.alive & _finite(after.params, values)
    after = after._replace(steps_taken=last, alive=alive)
    state = jax.tree.map(lambda a, b: jnp.where(alive, a, b), after, before._replace(alive=alive))
    return state, {name: _or_nan(alive, value) for name, value in values.items()}


def _chunk(
    problem: Problem,
    state: State,
    data: Batch,
    evaluation: Batch | None,
    key: Key[Array, ""] | None,
    begin: Array,
    steps: Array,
    every: Array,
    records: int,
) -> tuple[State, dict[str, Array]]:
    """Run blocks of ``every`` steps from step ``begin``, clipped to 0 … steps; measure after each.

    What is finite is checked once a block, since a guard in every step would cost as much as the step.
    """

    def one_block(state: State, index: Array) -> tuple[State, dict[str, Array]]:
        first, last = (jnp.clip(begin + (index + i) * every, 0, steps) for i in (0, 1))
        after = jax.lax.fori_loop(first, last, partial(_step, problem, data, key), state)
        return _close(problem, data, evaluation, state, after, last)

    return jax.lax.scan(one_block, state, jnp.arange(records, dtype=jnp.int32))


def _or_nan(alive: Array, value: Array) -> Array:
    return jnp.where(alive, value, jnp.nan) if jnp.issubdtype(value.dtype, jnp.floating) else value


@partial(jax.jit, static_argnames=("problem", "records"), donate_argnames=("state",))
def run_chunk(
    problem: Problem,
    state: State,
    begin: Array,
    steps: Array,
    every: Array,
    *,
    records: int,
    data: Batch,
    evaluation: Batch | None,
    key: Key[Array, ""] | None,
) -> tuple[State, dict[str, Array]]:
    """Run one chunk of one run."""
    return _chunk(problem, state, data, evaluation, key, begin, steps, every, records)


@partial(jax.jit, static_argnames=("problem",), donate_argnames=("state",))
def run_step(
    problem: Problem, state: State, step: Array, batch: Batch, key: Key[Array, ""] | None
) -> tuple[State, Array]:
    """Run one step on a batch that the host brings; return the number of steps done too, to wait for."""
    return _update(problem, batch, key, step, state), step + 1


@partial(jax.jit, static_argnames=("problem",), donate_argnames=("after",))
def close_block(
    problem: Problem, data: Batch, evaluation: Batch | None, before: State, after: State, last: Array
) -> tuple[State, dict[str, Array]]:
    """End a block of such steps."""
    return _close(problem, data, evaluation, before, after, last)


@partial(jax.jit, static_argnames=("problem", "setup", "records"), donate_argnames=("state",))
def sweep_chunk(
    problem: Problem,
    setup: Setup,
    state: State,
    begin: Array,
    steps: Array,
    every: Array,
    *,
    records: int,
    points: dict[str, HostArray],
    data: Batch,
    evaluation: Batch | None,
    keys: Key[Array, " runs"] | None,
) -> tuple[State, dict[str, Array]]:
    """Run one chunk of every run; the values have the blocks first, then the runs."""

    def one(point: dict[str, HostArray], state: State, key: Any) -> tuple[State, dict[str, Array]]:
        tx = setup(**point)[1]  # the params of this call are not used: they are compiled away
        own = problem._replace(tx=tx)
        return _chunk(own, state, data, evaluation, key, begin, steps, every, records)

    return jax.vmap(one, out_axes=(0, 1))(points, state, keys)
