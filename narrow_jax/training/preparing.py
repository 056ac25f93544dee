"""What a run is made of: problem, inputs and optimizer, from arguments that are checked before anything compiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import optax

from narrow_jax import _checks, labels, losses
from narrow_jax._typing import Array, HostArray, Key, Params, Tree
from narrow_jax.constraints import Transformation, transformation
from narrow_jax.data import Stream, arrays
from narrow_jax.losses import Loss
from narrow_jax.monitors import Monitor
from narrow_jax.training.devices import on_one_device, shared_by
from narrow_jax.training.loop import Augment, Inputs, Optimizer, Problem
from narrow_jax.training.model import Model, Start

Count = Any
"""An integer, of Python, NumPy or JAX."""
Data = Any
"""``(x, y)``, looked at before it is used."""
RandomKey = Any
"""A key of ``jax.random``."""


class Options(TypedDict, total=False):
    """The options that ``fit`` and ``sweep`` have in common, by name; ``fit`` says what they are."""

    loss: str | Loss
    batch_size: Count | None
    key: RandomKey | None
    augment: Augment | None
    evaluation: Data | None
    every: Count | None
    monitors: Sequence[Monitor]
    metrics: Mapping[str, Loss] | None


class Settings(NamedTuple):
    """These options with their defaults."""

    loss: str | Loss = "squared"
    batch_size: Count | None = None
    key: RandomKey | None = None
    augment: Augment | None = None
    evaluation: Data | None = None
    every: Count | None = None
    monitors: Sequence[Monitor] = ()
    metrics: Mapping[str, Loss] | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """Return the settings of options by name.

        Raises:
            TypeError: an option that is none; close matches are named.
        """
        for name in options:
            try:
                _checks.choice("option", name, cls._fields)
            except ValueError as error:
                raise TypeError(str(error)) from None
        return cls(**options)


def prepare(
    model: Model,
    start: Start,
    data: Data | Stream,
    settings: Settings,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[Problem, Inputs]:
    """Check everything that can be wrong before anything is compiled; of a stream, the inputs are its sample."""
    metrics_given = {} if settings.metrics is None else settings.metrics
    _check_measures(settings.monitors, metrics_given)
    loss = losses.get(settings.loss)
    x, y = _taken("", data.sample() if isinstance(data, Stream) else data, start.params, loss)
    targets = _targets("y", data.y, loss) if isinstance(data, Stream) else y
    size, key = _batches(settings, x, samples_of(targets), isinstance(data, Stream))
    outputs = _outputs(model, loss, start, x, targets)
    for name, metric in metrics_given.items():
        losses.check_scalar(f"the metric {name!r}", metric, outputs, targets)
    accuracy = _accuracy(targets, outputs, loss)
    metrics = (*(() if accuracy is None else (("accuracy", accuracy),)), *metrics_given.items())
    _check_names([name for name, _ in metrics], settings.monitors)
    evaluation, kind = None, None
    if settings.evaluation is not None:
        x_test, y_test = _taken("evaluation: ", settings.evaluation, start.params, loss)
        if x_test.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"evaluation: x has shape {x_test.shape} and the data {x.shape}; expected samples of one shape"
            )
        kind = _accuracy(y_test, _outputs(model, loss, start, x_test, y_test), loss)
        evaluation = jnp.asarray(x_test), jax.tree.map(jnp.asarray, y_test)
    problem = Problem(
        model=model,
        loss=loss,
        metrics=metrics,
        test_metrics=tuple(
            (n, metric) for n, metric in metrics if not losses.is_stock(metric) or metric is kind
        ),
        monitors=tuple(settings.monitors),
        batch_size=size,
        augment=settings.augment,
        devices=shared_by(devices, size or len(x)),
    )
    return problem, Inputs((jnp.asarray(x), jax.tree.map(jnp.asarray, y)), evaluation, key)


def _taken(what: str, data: Data, params: Params, loss: Loss) -> tuple[HostArray, Tree]:
    """Return x and y as arrays in the dtypes that JAX gives them, on one device, fit to train these params.

    Where the loss is the user's, y may be any tree of arrays, such as targets and weights.
    """
    x, y = arrays.pair(what.removesuffix(": ") or "data", data)
    x = on_one_device(arrays.samples(f"{what}x", x))
    y = _targets(f"{what}y", y, loss)
    for leaf in jax.tree.leaves(y):
        _checks.samples(x, leaf, what)
    _checks.finite(f"{what}x", x)
    _checks.same_dtype(f"{what}x", x, params)
    return x, y


def _targets(what: str, y: Any, loss: Loss) -> Tree:
    """Return targets as finite arrays: of a stock loss as one."""

    def taken(name: str, leaf: Any) -> HostArray:
        array = on_one_device(arrays.targets(name, leaf))
        _checks.finite(name, array)
        return array

    return taken(what, y) if losses.name_of(loss) else arrays.each_target(taken, what, y)


def samples_of(targets: Tree) -> int:
    """Return the number of samples in a tree of targets."""
    return len(jax.tree.leaves(targets)[0])


def _accuracy(targets: Tree, outputs: Any, loss: Loss) -> Loss | None:
    """Return the accuracy of targets that are one array, if they have one."""
    return losses.accuracy_for(targets, outputs, loss) if hasattr(targets, "dtype") else None


def _batches(
    settings: Settings, x: HostArray, n: int, streamed: bool
) -> tuple[int | None, Key[Array, ""] | None]:
    """Return the batch size for n samples, and the key if something is drawn with it."""
    key, size = arrays.random_key(settings.key), settings.batch_size
    if size is not None:
        size = _checks.batch_size(size, n)
    elif streamed:
        raise ValueError("a stream is read batch by batch: pass batch_size=")
    if key is None and size is not None:
        raise ValueError("minibatches are drawn at random: pass key=jax.random.key(seed)")
    if settings.augment is None:
        return size, key if size else None
    if key is None:
        raise ValueError("augmentation is drawn at random: pass key=jax.random.key(seed)")
    before, after = jax.eval_shape(lambda x: x, x), jax.eval_shape(settings.augment, key, x)
    if (after.shape, after.dtype) != (before.shape, before.dtype):
        raise ValueError(
            f"augment makes {after.dtype}{list(after.shape)} of {before.dtype}{list(before.shape)}; expected a "
            "batch of the same shape and dtype"
        )
    return size, key


def _outputs(model: Model, loss: Loss, start: Start, x: HostArray, targets: Tree) -> Any:
    """Return the shapes of the outputs for as many samples like x as there are targets, which the loss can compare."""
    params, state, _ = start
    samples = jax.eval_shape(lambda x: jnp.broadcast_to(x[:1], (samples_of(targets), *x.shape[1:])), x)
    if state is not None:  # the variables after a step are compared with those given
        jax.eval_shape(partial(model, train=True), params, state, samples)
    outputs, _ = jax.eval_shape(partial(model, train=False), params, state, samples)
    losses.check_targets(loss, outputs, targets)
    losses.check_scalar("the loss", loss, outputs, targets)
    return outputs


def _check_measures(monitors: object, metrics: object) -> None:
    """Require a list of monitors and metrics by name, looked at before they are used."""
    if isinstance(monitors, Monitor) or not isinstance(monitors, Sequence):
        raise TypeError(
            f"monitors is a {type(monitors).__name__}; expected a list of monitors: pass [monitor]"
        )
    for monitor in monitors:
        if not isinstance(monitor, Monitor):
            noun = getattr(monitor, "__name__", f"a {type(monitor).__name__}")
            raise TypeError(
                f"monitors holds {noun}; expected nj.monitors.Monitor(name, init, update), or "
                "nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise), called with its Jacobian"
            )
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"metrics is a {type(metrics).__name__}; expected functions by name: pass {{'name': fn}}"
        )
    for name in (*(monitor.name for monitor in monitors), *metrics):
        if not isinstance(name, str):
            raise TypeError(
                f"the name {name!r} of a monitor or metric is a {type(name).__name__}; expected a word"
            )
    for name, metric in metrics.items():
        _checks.function(f"the metric {name!r}", metric, "(outputs, y) ↦ number", "nj.losses.squared")


def _check_names(metrics: Sequence[str], monitors: Sequence[Monitor]) -> None:
    """Require one entry of the history for each name."""
    scores = ["loss", *metrics]
    recorded = ["step", "distance", "relative_distance", "ball_active", "cone_active", "set_active"]
    recorded += [*scores, *(f"test_{name}" for name in scores)]
    recorded += sorted({"accuracy", "test_accuracy"} - set(recorded))
    names = Counter([*recorded, *(monitor.name for monitor in monitors)])
    if twice := [name for name, times in names.items() if times > 1]:
        raise ValueError(
            f"{', '.join(map(repr, twice))} would name more than one entry of the history; expected names of monitors "
            f"and metrics that differ from each other and from {', '.join(dict.fromkeys(recorded))}: give another, as "
            "in SigmaMinMonitor(jacobian, name='sigma_min of the head')"
        )


def optimizer(tx: Transformation, start: Start) -> Optimizer:
    """Return the optimizer with the arguments that it takes, after one update tried on shapes.

    Raises:
        TypeError: an optimizer that training cannot run.
        ValueError: an optimizer state of another optimizer or of other params.
    """
    tx, params = transformation(tx), start.params
    fresh = jax.eval_shape(tx.init, params)

    def is_lookahead(node: object) -> bool:
        return isinstance(node, optax.LookaheadState)

    if any(map(is_lookahead, jax.tree.leaves(fresh, is_leaf=is_lookahead))):
        raise TypeError(
            "tx holds optax.lookahead, whose params are pairs (fast, slow), and training moves one tree: pass its fast "
            "optimizer alone, or for an average of iterates optax.contrib.schedule_free, evaluated by "
            "nj.constraints.eval_params"
        )
    if start.opt_state is not None and (other := labels.difference(fresh, start.opt_state)):
        raise ValueError(
            f"opt_state does not fit tx and params: at {other}; expected what tx.init(params) makes: pass "
            "result.opt_state with result.params of a run with the same optimizer"
        )
    optimizer, after = _tried(tx, params, fresh)
    if other := labels.difference((params, fresh), after):
        raise TypeError(
            f"tx.update changes what tx.init made: at {other}; expected the same shapes and dtypes after every update. "
            "A wrapper that computes with the states of others, as optax.contrib.sam does, goes inside: "
            "nj.constraints.regime(wrapper, radius)"
        )
    return optimizer


def _tried(
    tx: optax.GradientTransformation, params: Params, opt_state: optax.OptState
) -> tuple[Optimizer, tuple[Params, optax.OptState]]:
    """Return the optimizer with the first arguments with which an update runs, and the shapes after it."""
    value, errors = jax.ShapeDtypeStruct((), jnp.result_type(float)), []
    # what optax hands to line searches and plateaus, to SAM, to Sophia: none of them takes all
    extras = (("value", "grad", "value_fn"), ("grad_fn",), ("obj_fn",))
    for optimizer in (Optimizer(tx, extra) for extra in extras):

        def update(
            value: Array, params: Params, opt_state: optax.OptState, own: Optimizer = optimizer
        ) -> Any:
            return own.update(lambda chosen: value, value, params, params, opt_state)

        try:
            return optimizer, jax.eval_shape(update, value, params, opt_state)
        except (TypeError, ValueError, AttributeError) as error:
            errors.append(error)
    raise TypeError(
        f"tx.update cannot be run by training: {errors[0]}. It gets gradients, state and params, and by name value, "
        "grad and value_fn, or grad_fn, or obj_fn"
    ) from errors[0]
