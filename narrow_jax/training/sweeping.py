"""``sweep``: one run for every point of a grid, all in one compiled call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar, Unpack

import jax
import numpy as np
import optax

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax._typing import Array, HostArray, Key, Params
from narrow_jax.constraints import transformation
from narrow_jax.data import Stream, arrays
from narrow_jax.models import Model
from narrow_jax.training import driving, loop, preparing
from narrow_jax.training.loop import Inputs, Optimizer, Problem
from narrow_jax.training.model import Start, kept_model, model, params_tree, taken_apart
from narrow_jax.training.preparing import Count, Data, Options, Settings
from narrow_jax.training.result import FitResult
from narrow_jax.training.state import History, Span, State, Values
from narrow_jax.training.telling import Progress, Run

Setup = Callable[..., tuple[Params, optax.GradientTransformation]]
AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)
Points = dict[str, HostArray]
"""The value of each axis of the grid at every run."""


@host_only
def sweep(
    apply_fn: Callable[..., Any],
    setup: Setup,
    data: Data,
    *,
    grid: Mapping[str, Any],
    steps: Count,
    progress: bool | None = None,
    **options: Unpack[Options],
) -> FitResult:
    """Train one run for every point of a grid, all in one call under ``vmap``, compiled once.

    Args:
        apply_fn: ``apply_fn(params, x) -> (n, k)``.
        setup: ``setup(**point) -> (params, tx)``, called under ``vmap`` with one scalar an axis of the
            grid; shapes may not depend on the point. Before that every value of an axis is tried once, so
            that bad ones are refused.
        data: ``(x, y)``, shared by all runs.
        grid: the values of each axis, such as ``{"radius": [0.1, 1.0], "seed": [0, 1, 2]}``.
        steps, loss, batch_size, key, augment, evaluation, every, monitors, metrics: as in ``fit``; every run draws
            batches of its own.
        progress: show a progress bar; None for where the standard error is a terminal.

    Returns:
        A ``FitResult`` whose arrays have the grid's axes in front: ``history["loss"][i, j]`` is the loss
        over the records of the run with the i-th value of the first axis and the j-th of the second, and
        ``result.at(i, j)`` is that run, with its model.

    Example:
        >>> import jax.numpy as jnp, narrow_jax as nj
        >>> x, y = jnp.eye(4), jnp.array([[1.0], [-1.0], [1.0], [-1.0]])
        >>> def setup(radius, seed):
        ...     params = nj.initializers.mirrored_lecun(jax.random.key(seed), inputs=4, width=4)
        ...     return params, nj.constraints.regime(optax.adam(0.1), radius=radius)
        >>> result = sweep(nj.models.pairwise_apply, setup, (x, y), steps=100,
        ...                grid={"radius": [0.1, 1.0], "seed": [0, 1, 2]})
        >>> result.history["loss"].shape
        (2, 3, 101)
    """
    if isinstance(data, Stream):
        raise TypeError("data is a Stream; expected (x, y): the runs of a sweep share data on the device")
    settings = Settings.of(options)
    given, data = data, taken_apart(data, settings.loss)
    steps, every = driving.counts(steps, settings.every)
    axes = _axes(grid)
    params, tx = _try_every_value(setup, axes)
    start = Start(params)
    problem, inputs = preparing.prepare(model(apply_fn, None), start, data, settings)
    runs = Runs(problem, setup, preparing.optimizer(tx, start).extra)

    shape = tuple(values.size for values in axes.values())
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    points = {name: values.ravel() for name, values in zip(axes, mesh, strict=True)}
    if inputs.key is not None:
        inputs = inputs._replace(key=jax.random.split(inputs.key, int(np.prod(shape))))
    run, state = partial(_run_chunk, runs, points, inputs=inputs), _init(runs, points, inputs)

    def unravel(leaf: AnyArray) -> AnyArray:
        return leaf.reshape(*shape, *leaf.shape[1:])

    def model_of(state: State) -> Model:
        params = jax.tree.map(unravel, state.params)
        return kept_model(apply_fn, (params, None), given, inputs.data[0], problem.loss)

    def finish(state: State, history: History) -> FitResult:
        opt_state = jax.tree.map(unravel, state.opt_state)
        taken, alive = unravel(np.asarray(state.steps_taken)), unravel(np.asarray(state.alive))
        records = {name: v if name == "step" else unravel(v.T) for name, v in history.items()}
        return FitResult(model_of(state), opt_state, records, taken, ~alive)

    begun = Run(state, {}, steps, every, chunk=0, resumes=False, depends_on=dict, model_of=model_of)
    return driving.watched([Progress(progress)], begun, run, finish)


class Runs(NamedTuple):
    """The static half of a sweep: ``setup`` makes start and optimizer of each run, whose updates take ``extra``."""

    problem: Problem
    setup: Setup
    extra: tuple[str, ...]


@partial(jax.jit, static_argnames=("runs",))
def _init(runs: Runs, points: Points, inputs: Inputs) -> State:
    """Return the states of all runs at step 0, stacked along the first axis."""

    def one(point: Points) -> State:
        params, tx = runs.setup(**point)
        return runs.problem.init(tx, Start(params), inputs.data[0])

    return jax.vmap(one)(points)


@partial(jax.jit, static_argnames=("runs",), donate_argnames=("state",))
def _run_chunk(runs: Runs, points: Points, state: State, span: Span, inputs: Inputs) -> tuple[State, Values]:
    """Run one chunk of every run; the values have the blocks first, then the runs."""

    def one(point: Points, state: State, key: Key[Array, ""] | None) -> tuple[State, Values]:
        tx = runs.setup(**point)[1]  # the params of this call are not used: they are compiled away
        return loop.chunk(runs.problem, Optimizer(tx, runs.extra), state, span, inputs._replace(key=key))

    return jax.vmap(one, out_axes=(0, 1))(points, state, inputs.key)


def _axes(grid: object) -> dict[str, np.ndarray]:
    if not isinstance(grid, Mapping):
        raise TypeError(
            f"grid is a {type(grid).__name__}; expected values by name, such as {{'radius': [0.1, 1.0]}}"
        )
    axes = {name: np.asarray(values) for name, values in grid.items()}
    for name, values in axes.items():
        if values.ndim != 1 or not values.size:
            raise ValueError(f"grid axis {name!r} has shape {values.shape}; expected a list of values")
        arrays.narrowed(f"grid axis {name!r}", _checks.array(f"grid axis {name!r}", values))
    return axes


def _try_every_value(
    setup: Setup, axes: Mapping[str, np.ndarray]
) -> tuple[Params, optax.GradientTransformation]:
    """Return params and optimizer of the first point, after each value was tried at its place."""
    first = {name: values[0] for name, values in axes.items()}
    for name, values in axes.items():
        for value in values:
            made = setup(**(first | {name: value}))
            if not (isinstance(made, tuple) and len(made) == 2):
                raise TypeError(f"setup returned a {type(made).__name__}; expected a pair (params, tx)")
            params, tx = made
            transformation(tx).init(params_tree(params))
    return setup(**first)
