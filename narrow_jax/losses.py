"""Losses and accuracy as functions of predictions and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from narrow_jax import _checks
from narrow_jax._typing import Array, Float, HostArray, Shaped

__all__ = ["Loss", "accuracy_for", "check_targets", "cross_entropy", "get", "mean_squared", "squared"]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


Loss = Callable[[Any, Any], Array]


def squared(outputs: Float[HostArray, "n k"], y: Float[HostArray, "n k"]) -> Float[Array, ""]:
    """Return ½ Σ (y − f)², the sum of equation (2) over samples and outputs.

    Example:
        >>> float(squared(jnp.zeros((2, 1)), jnp.ones((2, 1))))
        1.0
    """
    return jnp.sum((y - outputs) ** 2) / 2


def mean_squared(outputs: Float[HostArray, "n k"], y: Float[HostArray, "n k"]) -> Float[Array, ""]:
    """Return the mean of (y − f)² over samples and outputs."""
    return jnp.mean((y - outputs) ** 2)


def cross_entropy(outputs: Float[HostArray, "n k"], y: Shaped[HostArray, " n"]) -> Float[Array, ""]:
    """Return the mean softmax cross-entropy of logits against integer labels in 0 … k−1."""
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(outputs, y))


_STOCK: dict[str, Loss] = {"squared": squared, "mean_squared": mean_squared, "cross_entropy": cross_entropy}


def get(loss: str | Loss) -> Loss:
    """Return the stock loss of that name, or the callable ``loss(outputs, y)`` itself.

    Raises:
        ValueError: unknown name; close matches are named.
    """
    return loss if callable(loss) else _STOCK[_checks.choice("loss", loss, _STOCK)]


def check_targets(loss: Loss, outputs: Any, y: HostArray) -> None:
    """Require targets that the stock loss can compare with outputs of that shape and dtype.

    Raises:
        TypeError: integer targets for a squared loss, or real ones for cross-entropy.
        ValueError: shapes that do not match, or labels out of range.
    """
    if loss is cross_entropy:
        _check_labels(outputs.shape, y)
    elif loss in (squared, mean_squared):
        _check_regression(outputs, y)


def _check_regression(outputs: Any, y: HostArray) -> None:
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(
            f"y has dtype {y.dtype} and the loss is squared; expected real targets: ±1 or one-hot rows as "
            "floats (the y of nj.data.load), or loss='cross_entropy' for integer labels"
        )
    if y.shape != outputs.shape:
        column = ": pass y[:, None] for one column a sample" if y.ndim == 1 else ""
        raise ValueError(f"y has shape {y.shape} and the model's output {outputs.shape}{column}")
    if y.dtype != outputs.dtype:
        raise TypeError(
            f"y is {y.dtype} and the model's output {outputs.dtype}; nothing is cast silently: "
            f"pass y.astype({str(outputs.dtype)!r})"
        )


def _check_labels(shape: tuple[int, ...], y: HostArray) -> None:
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"y has dtype {y.dtype}; cross_entropy expects integer labels, one a sample")
    if len(shape) != 2 or shape[1] < 2 or y.shape != shape[:1]:
        raise ValueError(
            f"y has shape {y.shape} and the model's output {shape}; cross_entropy expects labels (n,) and "
            "at least two logits (n, k)"
        )
    labels = _checks.concrete(y)
    if labels is not None and not ((labels >= 0) & (labels < shape[1])).all():
        raise ValueError(
            f"labels go from {labels.min()} to {labels.max()}; expected 0 to {shape[1] - 1}, one a logit"
        )


def accuracy_for(y: HostArray) -> Loss | None:
    """Return the accuracy ``(outputs, y) -> fraction`` that fits these targets, or None if there is none.

    Integer labels and one-hot rows compare the largest output, a column of ±1 compares signs. Real-valued
    targets have no accuracy.
    """
    values = np.asarray(y)
    if jnp.issubdtype(values.dtype, jnp.integer):
        return _label_accuracy if values.ndim == 1 else None
    if values.ndim == 2 and values.shape[1] == 1 and (abs(values) == 1).all():
        return _sign_accuracy
    if values.ndim == 2 and values.shape[1] > 1 and _one_hot(values):
        return _one_hot_accuracy
    return None


def _one_hot(values: np.ndarray) -> bool:
    return bool((((values == 0) | (values == 1)).all(axis=1) & (values.sum(axis=1) == 1)).all())


def _fraction(hits: Array) -> Array:
    return jnp.mean(hits, dtype=float)


def _label_accuracy(outputs: Array, y: Array) -> Array:
    return _fraction(jnp.argmax(outputs, axis=1).astype(y.dtype) == y)


def _sign_accuracy(outputs: Array, y: Array) -> Array:
    return _fraction(outputs * y > 0)


def _one_hot_accuracy(outputs: Array, y: Array) -> Array:
    return _fraction(jnp.argmax(outputs, axis=1) == jnp.argmax(y, axis=1))
