"""Training: ``fit`` for one run, ``sweep`` for many in one compiled call.

The loop is a ``lax.scan`` over blocks of ``every`` steps, each ending in a record, run in chunks: between
chunks the host logs, shows progress and stops what has diverged. Model, optimizer, loss and monitors are
passed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from narrow_jax import _checks, _progress
from narrow_jax._typing import Array, Params
from narrow_jax.constraints import Transformation, transformation
from narrow_jax.data import Stream, given
from narrow_jax.losses import Loss
from narrow_jax.monitors import Monitor
from narrow_jax.training import loop, preparing, resuming
from narrow_jax.training.given import Count, RandomKey, on_one_device, params_tree
from narrow_jax.training.loop import Augment, Setup, State
from narrow_jax.training.preparing import Data
from narrow_jax.training.resuming import History, Saver
from narrow_jax.training.streaming import Streamed

Run = Callable[..., tuple[State, dict[str, Array]]]


class FitResult(NamedTuple):
    """What a run leaves. For a ``sweep`` every array has the grid's axes in front.

    Fields:
        params: the weights after the last step whose loss and weights were finite.
        model_state: the model's other variables (BatchNorm statistics), None if it has none.
        opt_state: the optimizer's state; ``nj.constraints.report`` reads the constraints from it.
        history: "step", "loss", "accuracy" where targets, outputs and loss have one (``nj.losses.accuracy_for``), the
            ``metrics``, the same of the data of ``evaluation`` as "test_loss" and so on, "distance" and
            "relative_distance" of the params, "ball_active", "cone_active" where the optimizer projects, and one entry
            a monitor: arrays over the records, the first at step 0, the last at the end. A relative distance above 1:
            a transformation after the projection moved the params out of the ball.
        steps_taken: finite steps; fewer than asked for if the run diverged (in a sweep: up to the last
            finite record, after which the history is NaN).
        diverged: whether it did.
    """

    params: Params
    model_state: Any
    opt_state: optax.OptState
    history: dict[str, np.ndarray]
    steps_taken: int | np.ndarray
    diverged: bool | np.ndarray

    def __repr__(self) -> str:
        """Return the steps and the last record, of a sweep their ranges."""
        parts: dict[str, Any] = {"steps": self.steps_taken}
        parts |= {name: self.history[name][..., -1] for name in ("loss", "accuracy") if name in self.history}
        parts |= {"diverged": self.diverged} if np.any(self.diverged) else {}
        runs = [f"runs={np.shape(self.steps_taken)}"] if np.ndim(self.steps_taken) else []
        return (
            f"FitResult({', '.join([*runs, *(f'{name}={_short(value)}' for name, value in parts.items())])})"
        )


def _short(value: Any) -> str:
    """Return a number in three digits, of an array how many are set or its range."""
    if np.asarray(value).dtype == bool:
        return str(bool(value)) if np.ndim(value) == 0 else f"{np.sum(value)} of {np.size(value)}"
    low, high = (
        format(of(value), ".3g" if np.asarray(value).dtype.kind == "f" else "d") for of in (np.min, np.max)
    )
    return low if low == high else f"{low}…{high}"


def fit(
    apply_fn: Callable[..., Any],
    params: Params,
    tx: Transformation,
    data: Data | Stream,
    *,
    steps: Count,
    loss: str | Loss = "squared",
    batch_size: Count | None = None,
    key: RandomKey | None = None,
    augment: Augment | None = None,
    evaluation: Data | None = None,
    devices: Sequence[jax.Device] | None = None,
    every: Count | None = None,
    model_state: Any = None,
    opt_state: optax.OptState = None,
    monitors: Sequence[Monitor] = (),
    metrics: Mapping[str, Loss] | None = None,
    progress: bool | None = None,
    record: str | Path | None = None,
    checkpoint: str | Path | None = None,
    save_every: Count | None = None,
    resume: bool | Count = False,
    config: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train a model with an optax optimizer.

    Args:
        apply_fn: ``apply_fn(params, x) -> (n, k)``; with ``model_state``
            ``apply_fn(params, state, x, train) -> ((n, k), state)``. Pass the same function object again to
            reuse the compiled loop.
        params: the start, a pytree; copied, never donated.
        tx: any optax transformation, such as ``nj.constraints.regime(optax.adam(1e-2), radius=0.1)``.
        data: ``(x, y)`` with n rows each, or a ``nj.data.Stream`` of samples that do not fit on the device. Without
            x64 float64 becomes float32, as everywhere in JAX. Samples that lie on several devices are shared among
            these, as with ``devices``.
        steps: number of updates.
        loss: "squared" (½ Σ (y − f)², equation (2)), "mean_squared", "cross_entropy" (integer labels), or
            ``loss(outputs, y) -> scalar``.
        batch_size: samples an update, drawn without replacement, a new order every epoch (the n mod
            batch_size last of an order wait for another epoch); None for the full batch.
        key: random key of the batches and of ``augment``; needed with either.
        augment: ``augment(key, x) -> x``, applied to every batch inside the compiled step, with a key that is a
            function of ``key`` and the step; see ``nj.data.augment``.
        evaluation: ``(x, y)`` on which loss, accuracy and metrics are recorded too, as "test_loss", "test_accuracy", ….
        devices: share every batch evenly among these, such as ``jax.local_devices()``; weights and data lie on
            each. A stream brings each device its part of a batch only.
        every: steps between records of the history, by default a hundredth of ``steps``. Loss, accuracy
            and monitors are evaluated there on all data, of a stream on its ``sample``.
        model_state: other variables of the model, such as BatchNorm statistics.
        opt_state: ``result.opt_state`` of an earlier run, to go on from its ``result.params`` with the same ball,
            schedule and moments; in full batch the two runs are one, bit for bit. Batches, augmentation and monitors
            begin anew: pass another key. None for ``tx.init(params)``, whose ball is around ``params``.
        monitors: quantities to record, such as ``nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise)``.
        metrics: ``{"name": fn(outputs, y) -> number}``, recorded as "name" and "test_name".
        progress: show a progress bar; by default where the standard error is a terminal.
        record: a file that gets one JSON line a record; one that holds some already is replaced on resuming only.
        checkpoint: a folder for checkpoints of this run (they need the extra ``checkpoints``); the newest three
            are kept. Ctrl-C then finishes the chunk of steps that is running, saves, and raises
            KeyboardInterrupt.
        save_every: steps between checkpoints, rounded up to records and at least two of them; by default and
            at most a 25th of the run. The numbers do not depend on it.
        resume: True goes on from the newest checkpoint in the folder, or begins where there is none yet, and says so;
            a number goes on from the checkpoint of that step. Params and history end bit for bit as those of a run
            that was never stopped, on the same kind of machine.
        config: whatever else made the run, such as the learning rate, as JSON can hold it. It is saved, and compared
            on resuming. So are the start with ``opt_state``, the data (``nj.data.Stream.fingerprint``), the number of
            devices, key, steps, every, batch_size, and the names of loss, augmentation, monitors and metrics. What
            ``apply_fn``, ``tx`` and other functions hold inside is not seen: it belongs in here.

    Raises:
        ValueError, TypeError: data, loss, optimizer or batch size that do not fit, names that are taken twice; each
            message says what would do.
        FileExistsError: ``record`` holds the records of another run.
        CheckpointError: (a ValueError) a checkpoint that is damaged, of another run, or cannot be written.
        KeyboardInterrupt: Ctrl-C, with the step that was saved in the message.

    Returns:
        A ``FitResult``. A step with a non-finite loss or weight ends the run: the state before it is
        returned, ``diverged`` is set and ``steps_taken`` is its number.

    Example:
        >>> import narrow_jax as nj
        >>> x, y = jnp.eye(4), jnp.array([[1.0], [-1.0], [1.0], [-1.0]])
        >>> params = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=4)
        >>> tx = nj.constraints.regime(optax.adam(0.1), radius=0.1)
        >>> result = fit(nj.models.pairwise_apply, params, tx, (x, y), steps=200)
        >>> float(result.history["loss"][0]), float(result.history["accuracy"][-1])
        (2.0, 1.0)
    """
    steps, every = _counts(steps, every)
    saver = resuming.saver(checkpoint, save_every, resume, config or {})
    record = resuming.record_file(record, resume)
    key, batch_size = given.random_key(key), batch_size and _checks.count("batch_size", batch_size)
    stream = data if isinstance(data, Stream) else None
    if stream is None and devices is None:
        devices = given.devices_of(given.pair("data", data)[0])
    params, model_state, opt_state = on_one_device((params_tree(params), model_state, opt_state))
    problem, rows = preparing.prepare(
        apply_fn, params, tx, data, loss, batch_size, key, augment, model_state, monitors, metrics or {}
    )
    problem, opt_state = preparing.begin(problem, params, opt_state)
    problem, evaluation = preparing.evaluation_for(problem, params, model_state, rows[0], evaluation)
    problem = problem._replace(devices=preparing.shared_by(devices, batch_size or len(rows[0])))
    state = loop.init_one(problem, params, model_state, rows, opt_state)
    inputs: dict[str, Any] = {
        "data": rows,
        "evaluation": evaluation,
        "key": key if batch_size or augment else None,
    }
    if problem.devices is not None:
        everywhere = NamedSharding(problem.devices.mesh, PartitionSpec())
        state, inputs = jax.device_put((state, inputs), everywhere)
    run = partial(Streamed(problem, stream) if stream else partial(loop.run_chunk, problem), **inputs)
    if saver is not None:
        depends_on = resuming.describe(
            problem,
            loss,
            inputs["key"],
            (params, model_state, opt_state),
            rows,
            stream,
            evaluation,
            steps=steps,
            every=every,
            batch_size=batch_size,
            devices=None if devices is None else len(devices),
        )
        saver = saver._replace(config=saver.config | depends_on)
    state, history = (state, {}) if saver is None else saver.restore(state)
    with open(record, "w") if record else nullcontext() as file:
        state, history = _drive(run, state, steps, every, progress, file, history, saver)
    diverged = not state.alive
    if diverged:
        state = _locate(run, state, every, steps)
    taken = int(state.steps_taken)
    kept = history["step"] <= taken
    return FitResult(
        state.params,
        state.model_state,
        state.opt_state,
        {name: values[kept] for name, values in history.items()},
        taken,
        diverged,
    )


def sweep(
    apply_fn: Callable[..., Any],
    setup: Setup,
    data: Data,
    *,
    grid: Mapping[str, Any],
    steps: Count,
    loss: str | Loss = "squared",
    batch_size: Count | None = None,
    key: RandomKey | None = None,
    augment: Augment | None = None,
    evaluation: Data | None = None,
    every: Count | None = None,
    monitors: Sequence[Monitor] = (),
    metrics: Mapping[str, Loss] | None = None,
    progress: bool | None = None,
) -> FitResult:
    """Train one run for every point of a grid, all in one ``vmap``ped, once compiled call.

    Args:
        apply_fn: ``apply_fn(params, x) -> (n, k)``.
        setup: ``setup(**point) -> (params, tx)``, called under ``vmap`` with one scalar an axis of the
            grid; shapes may not depend on the point. Before that every value of an axis is tried once, so
            that bad ones are refused.
        data: ``(x, y)``, shared by all runs.
        grid: the values of each axis, such as ``{"radius": [0.1, 1.0], "seed": [0, 1, 2]}``.
        steps, loss, batch_size, key, augment, evaluation, every, monitors, metrics, progress: as in ``fit``; every
            run draws batches of its own.

    Returns:
        A ``FitResult`` whose arrays have the grid's axes in front: ``history["loss"][i, j]`` is the loss
        over the records of the run with the i-th value of the first axis and the j-th of the second.

    Example:
        >>> import narrow_jax as nj
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
    steps, every = _counts(steps, every)
    key, batch_size = given.random_key(key), batch_size and _checks.count("batch_size", batch_size)
    if not isinstance(grid, Mapping):
        raise TypeError(
            f"grid is a {type(grid).__name__}; expected values by name, such as {{'radius': [0.1, 1.0]}}"
        )
    axes = {name: np.asarray(values) for name, values in grid.items()}
    params, tx = _try_every_value(setup, axes)
    problem, data = preparing.prepare(
        apply_fn, params, tx, data, loss, batch_size, key, augment, None, monitors, metrics or {}
    )
    problem, _ = preparing.begin(problem, params, None)
    problem, evaluation = preparing.evaluation_for(problem, params, None, data[0], evaluation)
    key = key if batch_size or augment else None
    shape = tuple(values.size for values in axes.values())
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    points = {name: values.ravel() for name, values in zip(axes, mesh, strict=True)}
    keys = None if key is None else jax.random.split(key, int(np.prod(shape)))
    problem = problem._replace(tx=None)
    state = loop.init_sweep(problem, setup, points, data)
    run = partial(
        loop.sweep_chunk, problem, setup, points=points, data=data, evaluation=evaluation, keys=keys
    )
    state, history = _drive(run, state, steps, every, progress, None, {}, None)

    def unravel(leaf: Any) -> Any:
        return leaf.reshape(*shape, *leaf.shape[1:])

    params, _, opt_state = jax.tree.map(unravel, state[:3])
    taken = np.asarray(state.steps_taken).reshape(shape)
    history = {name: v if name == "step" else unravel(v.T) for name, v in history.items()}
    return FitResult(params, None, opt_state, history, taken, ~np.asarray(state.alive).reshape(shape))


def _counts(steps: Count, every: Count | None) -> tuple[int, int]:
    """Return the number of steps and those between records, a hundredth by default."""
    steps = _checks.count("steps", steps)
    return steps, max(1, steps // 100) if every is None else _checks.count("every", every)


def _try_every_value(
    setup: Setup, axes: Mapping[str, np.ndarray]
) -> tuple[Params, optax.GradientTransformation]:
    for name, values in axes.items():
        if values.ndim != 1 or not values.size:
            raise ValueError(f"grid axis {name!r} has shape {values.shape}; expected a list of values")
        given.narrowed(f"grid axis {name!r}", _checks.array(f"grid axis {name!r}", values))
    first = {name: values[0] for name, values in axes.items()}
    for name, values in axes.items():
        for value in values:
            made = setup(**(first | {name: value}))
            if not (isinstance(made, tuple) and len(made) == 2):
                raise TypeError(f"setup returned a {type(made).__name__}; expected a pair (params, tx)")
            params, tx = made
            transformation(tx).init(params_tree(params))
    return setup(**first)


def _drive(
    run: Run,
    state: State,
    steps: int,
    every: int,
    progress: bool | None,
    file: IO[str] | None,
    history: History,
    saver: Saver | None,
) -> tuple[State, History]:
    """Run chunk after chunk until all steps are done or nothing is alive, and gather the history."""
    total = -(-steps // every) + 1  # the first record, at step 0, ends a block of no steps
    records = min(total, max(2, -(-total // 25)))
    if saver is not None and saver.every:
        records = min(records, max(2, -(-saver.every // every)))
    _write(file, history)
    with (
        _progress.bar(steps, progress) as advance,
        resuming.ctrl_c_held_back(saver is not None) as interrupted,
    ):
        for first in range(len(history.get("step", ())), total, records):
            if not np.any(state.alive):
                break
            begin = np.int32((first - 1) * every)
            state, values = run(state, begin, np.int32(steps), np.int32(every), records=records)
            done = min(records, total - first)
            part = {name: np.asarray(value)[:done] for name, value in values.items()}
            part["step"] = np.minimum((first + np.arange(done)) * every, steps)
            history = {name: np.concatenate([history.get(name, v[:0]), v]) for name, v in part.items()}
            _write(file, part)
            step = int(part["step"][-1])
            advance(step, float(np.mean(part["loss"][-1])))
            if saver is not None:
                saver.save(step, state, history)
                if interrupted.is_set():
                    raise KeyboardInterrupt(saver.farewell(step, steps))
    return state, history


def _locate(run: Run, state: State, every: int, steps: int) -> State:
    """Repeat the block that ended in non-finite numbers step by step, up to the last finite state."""
    start = int(state.steps_taken)
    end = np.int32(min(start + every, steps))
    state = state._replace(alive=jnp.ones((), bool))
    records = min(every, 32)
    for first in range(start, int(end), records):
        state, _ = run(state, np.int32(first), end, np.int32(1), records=records)
        if not state.alive:
            break
    return state


def _write(file: IO[str] | None, part: dict[str, np.ndarray]) -> None:
    if file is not None:
        names = sorted(part, key=lambda name: name != "step")
        for values in zip(*(part[name].tolist() for name in names), strict=True):
            plain = (value if np.isfinite(value) else None for value in values)  # JSON has no NaN
            file.write(json.dumps(dict(zip(names, plain, strict=True))) + "\n")
        file.flush()
