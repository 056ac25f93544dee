"""``fit``: one run.

The loop is a ``lax.scan`` over blocks of ``every`` steps, each ending in a record, run in chunks: between
chunks the host logs, shows progress and stops what has diverged. Model, optimizer, loss and monitors are
passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from narrow_jax._host import host_only
from narrow_jax._typing import Params, Tree
from narrow_jax.constraints import Transformation
from narrow_jax.data import Stream
from narrow_jax.losses import Loss
from narrow_jax.models import Model
from narrow_jax.monitors import Monitor
from narrow_jax.training import devices as placing
from narrow_jax.training import driving, loop, preparing, resuming
from narrow_jax.training.loop import Augment, History, Observer
from narrow_jax.training.model import Start, kept_model, model, params_tree, taken_apart
from narrow_jax.training.preparing import Count, Data, RandomKey, Settings
from narrow_jax.training.streaming import Streamed


class FitResult(NamedTuple):
    """What a run leaves. For a ``sweep`` every array has the grid's axes in front.

    Fields:
        model: the net as a value that predicts (``model.predict(x)``) and is kept (``nj.save(folder, model)``): its
            weights after the last step whose loss and weights were finite, and of a ``Dataset`` its maps and classes.
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

    model: Model
    opt_state: optax.OptState
    history: dict[str, np.ndarray]
    steps_taken: int | np.ndarray
    diverged: bool | np.ndarray

    @property
    def params(self) -> Params:
        """The weights of the model."""
        return self.model.params

    @property
    def model_state(self) -> Tree:
        """The model's other variables (BatchNorm statistics), None if it has none."""
        return self.model.model_state

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


@host_only
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
        data: a ``nj.data.Dataset``, whose labels are the targets of cross-entropy, else its y; or ``(x, y)`` with n
            rows
            each; or a ``nj.data.Stream`` of samples that do not fit on the device. Without
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
    given, data = data, taken_apart(data, loss)
    steps, every = driving.counts(steps, every)
    saver = resuming.saver(checkpoint, save_every, resume, config or {})
    file = None if record is None else driving.record_file(record, resume)
    devices = placing.holding(data) if devices is None else devices
    start = placing.on_one_device(Start(params_tree(params), model_state, opt_state))
    settings = Settings(loss, batch_size, key, augment, evaluation, monitors, metrics or {})
    problem, inputs = preparing.prepare(model(apply_fn, model_state), start, data, settings, devices)
    optimizer = preparing.optimizer(tx, start)

    state = jax.tree.map(jnp.copy, problem.init(optimizer.tx, start, inputs.data[0]))  # chunks donate it
    state, inputs = placing.on_each(problem.devices, (state, inputs))
    stream = data if isinstance(data, Stream) else None
    chunk = Streamed(problem, optimizer, stream) if stream else partial(loop.run_chunk, problem, optimizer)
    run = partial(chunk, inputs=inputs)

    history: History = {}
    watching: list[Observer] = [driving.bar(steps, progress)]
    if saver is not None:
        depends_on = resuming.describe(problem, start, inputs, stream, steps=steps, every=every)
        state, history, saving = saver.begin(state, depends_on, steps)
        watching = [*watching, saving]
    if file is not None:
        watching = [driving.written(file, history), *watching]
    done = len(history.get("step", ()))
    chunks = driving.spans(steps, every, done, saver.every if saver else 0)
    state, history = driving.drive(run, state, history, chunks, watching)

    diverged = not state.alive
    if diverged:
        state = driving.last_finite(run, state, steps, every)
    taken = int(state.steps_taken)
    kept = history["step"] <= taken
    history = {name: values[kept] for name, values in history.items()}
    trained = kept_model(apply_fn, (state.params, state.model_state), given, inputs.data[0], problem.loss)
    return FitResult(trained, state.opt_state, history, taken, diverged)
