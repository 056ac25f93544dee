"""What a run is made of: the static problem and its data, from arguments that are checked before anything compiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from narrow_jax import _checks, losses
from narrow_jax._loop import Augment, Forward, Problem, Stateless
from narrow_jax._typing import Array, HostArray, Key, Params
from narrow_jax.data.stream import Stream
from narrow_jax.losses import Loss
from narrow_jax.monitors import Monitor

Data = tuple[HostArray, HostArray]


def prepare(
    apply_fn: Callable[..., Any],
    params: Params,
    tx: optax.GradientTransformation,
    data: Data | Stream,
    loss: str | Loss,
    batch_size: int | None,
    key: Key[Array, ""] | None,
    augment: Augment | None,
    model_state: Any,
    monitors: Sequence[Monitor],
) -> tuple[Problem, tuple[Array, Array], Key[Array, ""] | None]:
    """Check everything that can be wrong before anything is compiled; of a stream, return the sample."""
    x, y = data.sample() if isinstance(data, Stream) else data
    targets = data.y if isinstance(data, Stream) else y
    _check_rows("", x, y, params)
    _checks.fits("y", targets)
    if batch_size is not None:
        _checks.batch_size(batch_size, len(targets))
    elif isinstance(data, Stream):
        raise ValueError("a stream is read batch by batch: pass batch_size=")
    if key is None and batch_size is not None:
        raise ValueError("minibatches are drawn at random: pass key=jax.random.key(seed)")
    if augment is not None:
        _check_augment(augment, key, x)
    forward: Forward = Stateless(apply_fn) if model_state is None else apply_fn
    accuracy = losses.accuracy_for(targets)
    problem = Problem(forward, tx, losses.get(loss), accuracy, tuple(monitors), batch_size, augment)
    _check_outputs(problem, params, model_state, x, targets)
    return problem, (jnp.asarray(x), jnp.asarray(y)), key if batch_size or augment else None


def _check_rows(what: str, x: HostArray, y: HostArray, params: Params) -> None:
    _checks.samples(x, y, what)
    _checks.finite(f"{what}x", x)
    _checks.finite(f"{what}y", y)
    _checks.fits(f"{what}x", x)
    _checks.fits(f"{what}y", y)
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
) -> None:
    """Compare the targets with the model's outputs for as many samples as ``x`` has, or its stream."""
    samples = jax.eval_shape(lambda x: jnp.broadcast_to(x[:1], (len(targets), *x.shape[1:])), x)
    outputs, _ = jax.eval_shape(partial(problem.forward, train=False), params, model_state, samples)
    losses.check_targets(problem.loss, outputs, targets)


def evaluation_for(
    problem: Problem, params: Params, model_state: Any, x: Array, evaluation: Data | None
) -> tuple[Array, Array] | None:
    """Return the data of ``evaluation`` after the checks that the training data ``x`` went through."""
    if evaluation is None:
        return None
    x_test, y_test = evaluation
    _check_rows("evaluation: ", x_test, y_test, params)
    if x_test.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"evaluation: x has shape {x_test.shape} and the data {x.shape}; expected samples of one shape"
        )
    _check_outputs(problem, params, model_state, x_test, y_test)
    return jnp.asarray(x_test), jnp.asarray(y_test)


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
