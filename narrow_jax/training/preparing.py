"""What a run is made of: the static problem and its data, from arguments that are checked before anything compiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from narrow_jax import _checks, labels, losses
from narrow_jax._typing import Array, HostArray, Key, Params
from narrow_jax.constraints import transformation
from narrow_jax.data import Stream, given
from narrow_jax.losses import Loss
from narrow_jax.models import Stateful
from narrow_jax.monitors import Monitor
from narrow_jax.training.given import model, on_one_device
from narrow_jax.training.loop import Augment, Forward, Metrics, Problem, Stated, Stateless, advance

Data = Any
"""``(x, y)``, looked at before it is used."""

_EXTRA = (("value", "grad", "value_fn"), ("grad_fn",), ("obj_fn",))
"""What optax hands to some updates: line searches and plateaus, SAM, Sophia; none of them takes all."""
_RECORDED = ("step", "distance", "relative_distance", "ball_active", "cone_active")


def prepare(
    apply_fn: Callable[..., Any],
    params: Params,
    tx: Any,
    data: Data | Stream,
    loss: str | Loss,
    batch_size: int | None,
    key: Key[Array, ""] | None,
    augment: Augment | None,
    model_state: Any,
    monitors: Sequence[Monitor],
    metrics: Mapping[str, Loss],
) -> tuple[Problem, tuple[Array, Array]]:
    """Check everything that can be wrong before anything is compiled; of a stream, return the sample."""
    _check_measures(monitors, metrics)
    x, y = taken(data.sample() if isinstance(data, Stream) else data)
    targets = given.targets("y", data.y) if isinstance(data, Stream) else y
    _check_rows("", x, y, params)
    if batch_size is not None:
        _checks.batch_size(batch_size, len(targets))
    elif isinstance(data, Stream):
        raise ValueError("a stream is read batch by batch: pass batch_size=")
    if key is None and batch_size is not None:
        raise ValueError("minibatches are drawn at random: pass key=jax.random.key(seed)")
    if augment is not None:
        _check_augment(augment, key, x)
    if model_state is None and isinstance(apply_fn, Stateful):
        raise TypeError(
            "apply_fn is an nj.models.Stateful and model_state is None; expected the module's variables beside its "
            "params: pass model_state=, what init gives without 'params'"
        )
    forward: Forward = (Stateless if model_state is None else Stated)(model(apply_fn))
    problem = Problem(forward, transformation(tx), losses.get(loss), (), tuple(monitors), batch_size, augment)
    outputs = _check_outputs(problem, params, model_state, x, targets)
    problem = problem._replace(metrics=_metrics(problem, outputs, targets, metrics))
    _check_names(problem)
    return problem, (jnp.asarray(x), jnp.asarray(y))


def taken(data: Data, what: str = "") -> tuple[HostArray, HostArray]:
    """Return x and y as arrays in the dtypes that JAX gives them, on one device."""
    x, y = given.pair(what.removesuffix(": ") or "data", data)
    return on_one_device((given.samples(f"{what}x", x), given.targets(f"{what}y", y)))


def _check_rows(what: str, x: HostArray, y: HostArray, params: Params) -> None:
    _checks.samples(x, y, what)
    _checks.finite(f"{what}x", x)
    _checks.finite(f"{what}y", y)
    _checks.same_dtype(f"{what}x", x, params)


def _check_augment(augment: Augment, key: Key[Array, ""] | None, x: HostArray) -> None:
    if key is None:
        raise ValueError("augmentation is drawn at random: pass key=jax.random.key(seed)")
    before = jax.eval_shape(lambda x: x, x)
    after = jax.eval_shape(augment, key, x)
    if (after.shape, after.dtype) != (before.shape, before.dtype):
        raise ValueError(
            f"augment makes {after.dtype}{list(after.shape)} of {before.dtype}{list(before.shape)}; expected a "
            "batch of the same shape and dtype"
        )


def _check_outputs(
    problem: Problem, params: Params, model_state: Any, x: HostArray, targets: HostArray
) -> Any:
    """Compare the targets with the model's outputs for as many samples as ``x`` has, or its stream; return these."""
    samples = jax.eval_shape(lambda x: jnp.broadcast_to(x[:1], (len(targets), *x.shape[1:])), x)
    if model_state is not None:  # the variables after a step are compared with those given
        jax.eval_shape(partial(problem.forward, train=True), params, model_state, samples)
    outputs, _ = jax.eval_shape(partial(problem.forward, train=False), params, model_state, samples)
    losses.check_targets(problem.loss, outputs, targets)
    losses.check_scalar("the loss", problem.loss, outputs, targets)
    return outputs


def _metrics(problem: Problem, outputs: Any, targets: HostArray, own: Mapping[str, Loss]) -> Metrics:
    """Return the accuracy, where there is one, and the user's metrics."""
    for name, metric in own.items():
        losses.check_scalar(f"the metric {name!r}", metric, outputs, targets)
    accuracy = losses.accuracy_for(targets, outputs, problem.loss)
    return (*(() if accuracy is None else (("accuracy", accuracy),)), *own.items())


def _check_measures(monitors: Any, metrics: Any) -> None:
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


def _check_names(problem: Problem) -> None:
    """Require one entry of the history for each name."""
    scores = ["loss", *(name for name, _ in problem.metrics)]
    recorded = [*_RECORDED, *scores, *(f"test_{name}" for name in scores)]
    recorded += sorted({"accuracy", "test_accuracy"} - set(recorded))
    names = Counter([*recorded, *(monitor.name for monitor in problem.monitors)])
    if twice := [name for name, times in names.items() if times > 1]:
        raise ValueError(
            f"{', '.join(map(repr, twice))} would name more than one entry of the history; expected names of monitors "
            f"and metrics that differ from each other and from {', '.join(dict.fromkeys(recorded))}: give another, as "
            "in SigmaMinMonitor(jacobian, name='sigma_min of the head')"
        )


def begin(problem: Problem, params: Params, opt_state: Any) -> tuple[Problem, Any]:
    """Try one update on shapes; return the problem with the arguments that the optimizer takes, and its state.

    Args:
        problem: what to run.
        params: the start.
        opt_state: the state to go on from; it comes back in the structure that ``init`` gives. None for a new one.

    Raises:
        TypeError: an optimizer that training cannot run.
        ValueError: an optimizer state of another optimizer or of other params.
    """
    fresh = jax.eval_shape(problem.tx.init, params)
    _refuse_lookahead(fresh)
    if opt_state is not None:
        if other := labels.difference(fresh, opt_state):
            raise ValueError(
                f"opt_state does not fit tx and params: at {other}; expected what tx.init(params) makes: pass "
                "result.opt_state with result.params of a run with the same optimizer"
            )
        opt_state = jax.tree.unflatten(jax.tree.structure(fresh), jax.tree.leaves(opt_state))
    problem, after = _updated(problem, params, fresh)
    if other := labels.difference((params, fresh), after):
        raise TypeError(
            f"tx.update changes what tx.init made: at {other}; expected the same shapes and dtypes after every update. "
            "A wrapper that computes with the states of others, as optax.contrib.sam does, goes inside: "
            "nj.constraints.regime(wrapper, radius)"
        )
    return problem, opt_state


def _refuse_lookahead(opt_state: Any) -> None:
    def is_lookahead(node: Any) -> bool:
        return isinstance(node, optax.LookaheadState)

    if any(map(is_lookahead, jax.tree.leaves(opt_state, is_leaf=is_lookahead))):
        raise TypeError(
            "tx holds optax.lookahead, whose params are pairs (fast, slow), and training moves one tree: pass its fast "
            "optimizer alone, or for an average of iterates optax.contrib.schedule_free, evaluated by "
            "nj.constraints.eval_params"
        )


def _updated(problem: Problem, params: Params, opt_state: Any) -> tuple[Problem, Any]:
    """Return the problem with the first arguments with which an update runs, and the shapes after it."""
    value, errors = jax.ShapeDtypeStruct((), jnp.result_type(float)), []
    for extra in _EXTRA:
        tried = problem._replace(extra=extra)

        def update(value: Array, params: Params, opt_state: Any, tried: Problem = tried) -> Any:
            return advance(tried, lambda chosen: value, value, params, params, opt_state)

        try:
            return tried, jax.eval_shape(update, value, params, opt_state)
        except (TypeError, ValueError, AttributeError) as error:
            errors.append(error)
    raise TypeError(
        f"tx.update cannot be run by training: {errors[0]}. It gets gradients, state and params, and by name value, "
        "grad and value_fn, or grad_fn, or obj_fn"
    ) from errors[0]


def evaluation_for(
    problem: Problem, params: Params, model_state: Any, x: Array, evaluation: Data | None
) -> tuple[Problem, tuple[Array, Array] | None]:
    """Return the data of ``evaluation`` after the checks that the training data ``x`` went through.

    The problem comes back with what is measured on them: an accuracy where it is of the kind of the training data.
    """
    if evaluation is None:
        return problem, None
    x_test, y_test = taken(evaluation, "evaluation: ")
    _check_rows("evaluation: ", x_test, y_test, params)
    if x_test.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"evaluation: x has shape {x_test.shape} and the data {x.shape}; expected samples of one shape"
        )
    outputs = _check_outputs(problem, params, model_state, x_test, y_test)
    kind = losses.accuracy_for(y_test, outputs, problem.loss)
    kept = tuple(
        (name, metric) for name, metric in problem.metrics if not losses.is_stock(metric) or metric is kind
    )
    return problem._replace(test_metrics=kept), (jnp.asarray(x_test), jnp.asarray(y_test))


def shared_by(devices: Sequence[jax.Device] | None, batch: int) -> NamedSharding | None:
    """Return how a batch lies on several devices: its samples in equal parts."""
    if devices is None:
        return None
    if not len(devices) or batch % len(devices):
        raise ValueError(
            f"a batch of {batch} samples does not divide over {len(devices)} devices; expected a multiple of the "
            "number of devices: change batch_size or pass fewer devices"
        )
    mesh = Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("batch"))
