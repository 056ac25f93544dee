"""``fit``: one run.

The loop is a ``lax.scan`` over blocks of ``every`` steps, each ending in a record, run in chunks: between
chunks the host logs, shows progress and stops what has diverged. Model, optimizer, loss and monitors are
passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import optax

from narrow_jax._host import host_only
from narrow_jax._typing import Params
from narrow_jax.constraints import Transformation
from narrow_jax.data import Stream
from narrow_jax.models import Model
from narrow_jax.training import devices as placing
from narrow_jax.training import driving, loop, preparing
from narrow_jax.training.callbacks import checked as callback_list
from narrow_jax.training.describing import describe
from narrow_jax.training.model import Start, kept_model, model, params_tree, taken_apart
from narrow_jax.training.preparing import Count, Data, Options, Settings
from narrow_jax.training.result import FitResult
from narrow_jax.training.state import History, State
from narrow_jax.training.streaming import Streamed
from narrow_jax.training.telling import Callback, Run


@host_only
def fit(
    apply_fn: Callable[..., Any],
    params: Params,
    tx: Transformation,
    data: Data | Stream,
    *,
    steps: Count,
    model_state: Any = None,
    opt_state: optax.OptState = None,
    devices: Sequence[jax.Device] | None = None,
    callbacks: Sequence[Callback] | None = None,
    **options: Unpack[Options],
) -> FitResult:
    """Train a model with an optax optimizer.

    Args:
        apply_fn: ``apply_fn(params, x) -> (n, k)``; with ``model_state``
            ``apply_fn(params, state, x, train) -> ((n, k), state)``. Pass the same function object again to
            reuse the compiled loop.
        params: the start, a pytree; copied, never donated.
        tx: any optax transformation, such as ``nj.constraints.regime(optax.adam(1e-2), radius=0.1)``.
        data: a ``nj.data.Dataset``, whose labels are the targets of cross-entropy, else its y; or ``(x, y)`` with n
            rows each; or a ``nj.data.Stream`` of samples that do not fit on the device. Without x64 float64 becomes
            float32, as everywhere in JAX. Samples that lie on several devices are shared among
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
        model_state: other variables of the model, such as BatchNorm statistics, or the random key of dropout, which
            ``apply_fn`` splits in every training step.
        opt_state: ``result.opt_state`` of an earlier run, to go on from its ``result.params`` with the same ball,
            schedule and moments; in full batch the two runs are one, bit for bit. Batches, augmentation and monitors
            begin anew: pass another key. None for ``tx.init(params)``, whose ball is around ``params``.
        monitors: quantities to record, such as ``nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise)``.
        metrics: ``{"name": fn(outputs, y) -> number}``, recorded as "name" and "test_name".
        callbacks: what is told between chunks of steps, such as ``nj.callbacks.Checkpoint(folder)``; None for a
            progress bar where the standard error is a terminal, ``[]`` for nothing.

    Raises:
        ValueError, TypeError: data, loss, optimizer or batch size that do not fit, names that are taken twice; each
            message says what would do.
        CallbackError: a callback raised an error after the first step; ``error.result`` is the result so far.
        KeyboardInterrupt: Ctrl-C; with a ``Checkpoint``, the step that was saved is in the message.

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
    settings = Settings.of(options)
    steps, every = driving.counts(steps, settings.every)
    watchers = callback_list(callbacks)
    given, data = data, taken_apart(data, settings.loss)
    devices = placing.holding(data) if devices is None else devices
    start = placing.on_one_device(Start(params_tree(params), model_state, opt_state))
    problem, inputs = preparing.prepare(model(apply_fn, model_state), start, data, settings, devices)
    optimizer = preparing.optimizer(tx, start)

    state = jax.tree.map(jnp.copy, problem.init(optimizer.tx, start, inputs.data[0]))  # chunks donate it
    state, inputs = placing.on_each(problem.devices, (state, inputs))
    stream = data if isinstance(data, Stream) else None
    chunk = Streamed(problem, optimizer, stream) if stream else partial(loop.run_chunk, problem, optimizer)
    run = partial(chunk, inputs=inputs)

    def model_of(state: State) -> Model:
        return kept_model(apply_fn, (state.params, state.model_state), given, inputs.data[0], problem.loss)

    def finish(state: State, history: History) -> FitResult:
        diverged = not state.alive
        if diverged:
            state = driving.last_finite(run, state, steps, every)
        taken = int(state.steps_taken)
        kept = history["step"] <= taken
        records = {name: values[kept] for name, values in history.items()}
        return FitResult(model_of(state), state.opt_state, records, taken, diverged)

    depends_on = partial(describe, problem, start, inputs, stream, steps=steps, every=every)
    begun = Run(state, {}, steps, every, chunk=0, resumes=False, depends_on=depends_on, model_of=model_of)
    return driving.watched(watchers, begun, run, finish)
