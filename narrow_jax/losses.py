"""Losses and accuracy as functions of predictions and targets."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from narrow_jax import _checks
from narrow_jax._typing import Abstract, Array, Float, HostArray, Scalar, Shaped, Tree

__all__ = [
    "Loss",
    "Weighted",
    "accuracy_for",
    "check_targets",
    "cross_entropy",
    "get",
    "mean_squared",
    "squared",
    "weighted",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


Loss = Callable[[Any, Any], Array]


def squared(outputs: Float[HostArray, "n k"], y: Float[HostArray, "n k"]) -> Scalar:
    """Return ½ Σ (y − f)², the sum of equation (2) over samples and outputs.

    Example:
        >>> float(squared(jnp.zeros((2, 1)), jnp.ones((2, 1))))
        1.0

    Reference:
        "When Expressivity Meets Trainability", (2); "Effect of Depth and Width on Local Minima", (2.1).
    """
    return jnp.sum((y - outputs) ** 2) / 2


def mean_squared(outputs: Float[HostArray, "n k"], y: Float[HostArray, "n k"]) -> Scalar:
    """Return the mean of (y − f)² over samples and outputs."""
    return jnp.mean((y - outputs) ** 2)


def cross_entropy(outputs: Float[HostArray, "n k"], y: Shaped[HostArray, " n"]) -> Scalar:
    """Return the mean softmax cross-entropy of logits against integer labels in 0 … k−1."""
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(outputs, y))


@dataclass(frozen=True)
class Weighted:
    """What ``weighted`` returns: a loss of outputs and a pair of targets and weights; equal for equal names."""

    name: str

    def __call__(self, outputs: HostArray, y: tuple[HostArray, HostArray]) -> Scalar:
        """Return the loss."""
        targets, weights = y
        if self.name == "cross_entropy":
            each = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)
            return jnp.sum(weights * each) / jnp.sum(weights)
        each = jnp.sum((targets - outputs) ** 2, axis=1)
        if self.name == "squared":
            return jnp.sum(weights * each) / 2
        return jnp.sum(weights * each) / (jnp.sum(weights) * outputs.shape[1])

    def check(self, outputs: Tree, y: Tree) -> None:
        """Require targets that the loss of that name takes, and weights ≥ 0, one a sample."""
        if not (isinstance(y, tuple) and len(y) == 2):
            raise TypeError(
                f"y is a {type(y).__name__}; a weighted loss expects a pair: pass data=(x, (targets, weights))"
            )
        targets, weights = y
        check_targets(get(self.name), outputs, targets)
        if jnp.shape(weights) != jnp.shape(targets)[:1] or not jnp.issubdtype(weights.dtype, jnp.floating):
            raise ValueError(
                f"weights are {weights.dtype}{list(weights.shape)}; expected one floating number a sample, "
                f"({len(targets)},)"
            )
        values = _checks.concrete(weights)
        if values is not None and not ((values >= 0).all() and values.any()):
            raise ValueError(
                f"weights go from {values.min()} to {values.max()}; expected numbers ≥ 0, not all 0 (0 leaves a "
                "sample out)"
            )


def weighted(loss: str) -> Weighted:
    """Return a stock loss with a weight a sample, for ``data=(x, (targets, weights))``; a weight 0 masks its sample.

    Of "squared" it is ½ Σ w (y − f)², of the two means Σ w·ℓ / Σ w over the samples of the batch.

    Raises:
        ValueError: unknown name. When trained: weights that are negative, all 0, or not one a sample.

    Example:
        >>> float(weighted("squared")(jnp.zeros((2, 1)), (jnp.ones((2, 1)), jnp.array([1.0, 3.0]))))
        2.0
    """
    return Weighted(_checks.choice("loss", loss, _STOCK))


_STOCK: dict[str, Loss] = {"squared": squared, "mean_squared": mean_squared, "cross_entropy": cross_entropy}


def get(loss: str | Loss) -> Loss:
    """Return the stock loss of that name, or the callable ``loss(outputs, y)`` itself.

    Raises:
        ValueError: unknown name; close matches are named.
    """
    return loss if callable(loss) else _STOCK[_checks.choice("loss", loss, _STOCK)]


def name_of(loss: str | Loss) -> str | None:
    """Return the name of a stock loss, None for one of the user's own."""
    return next((name for name, stock in _STOCK.items() if stock is get(loss)), None)


def check_targets(loss: Loss, outputs: Tree, y: Tree) -> None:
    """Require targets that the stock loss can compare with outputs of that shape and dtype, and one number as loss.

    Raises:
        TypeError: integer targets for a squared loss, or real ones for cross-entropy; outputs that are no array of
            real numbers, or a loss that is none.
        ValueError: shapes that do not match, labels out of range, or a loss of more numbers than one.
    """
    if isinstance(loss, Weighted):
        loss.check(outputs, y)
    elif loss in _STOCK.values():
        if not (hasattr(outputs, "dtype") and jnp.issubdtype(outputs.dtype, jnp.floating)):
            found = (
                f"of dtype {outputs.dtype}" if hasattr(outputs, "dtype") else f"a {type(outputs).__name__}"
            )
            raise TypeError(
                f"the model's output is {found}; the stock losses expect an array (n, k) of real floating numbers: "
                "let apply_fn return that, or pass a loss(outputs, y) of your own"
            )
        (_check_labels if loss is cross_entropy else _check_regression)(outputs, y)


def check_scalar(what: str, function: Loss, outputs: Tree, y: Tree) -> None:
    """Require a loss or metric that returns one real number, a loss a floating one.

    Raises:
        ValueError: more numbers than one.
        TypeError: no real number, or a function that JAX cannot trace.
    """
    try:
        value = jax.eval_shape(function, outputs, y)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise TypeError(
            f"{what} cannot be compiled: it asks for the values of arrays, as NumPy, scikit-learn and `if` do; "
            "expected a function of jax.numpy: write it with jnp, and jnp.where for `if`"
        ) from error
    if not hasattr(value, "shape") or jnp.issubdtype(value.dtype, jnp.complexfloating):
        found = f"of dtype {value.dtype}" if hasattr(value, "dtype") else f"a {type(value).__name__}"
        raise TypeError(f"{what} is {found}; expected one real number")
    if value.shape:
        raise ValueError(
            f"{what} has shape {value.shape}; expected one number for all samples: take its mean, such as jnp.mean(…)"
        )
    if what == "the loss" and not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"{what} has dtype {value.dtype}; expected a real floating number, which has a gradient"
        )


def _check_regression(outputs: Abstract, y: HostArray) -> None:
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


def _check_labels(outputs: Abstract, y: HostArray) -> None:
    shape = outputs.shape
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(
            f"y has dtype {y.dtype}; cross_entropy expects integer labels, one a sample: "
            "pass y.astype(int) if it holds labels"
        )
    if len(shape) != 2 or shape[1] < 2 or y.shape != shape[:1]:
        column = ": pass y[:, 0]" if y.shape == (*shape[:1], 1) else ""
        raise ValueError(
            f"y has shape {y.shape} and the model's output {shape}; cross_entropy expects labels (n,) and "
            f"at least two logits (n, k){column}"
        )
    labels = _checks.concrete(y)
    if labels is not None and not ((labels >= 0) & (labels < shape[1])).all():
        raise ValueError(
            f"labels go from {labels.min()} to {labels.max()}; expected 0 to {shape[1] - 1}, one a logit"
        )


def accuracy_for(
    y: HostArray, outputs: Abstract | None = None, loss: str | Loss | None = None
) -> Loss | None:
    """Return the accuracy ``(outputs, y) -> fraction`` that has a meaning here, or None if there is none.

    Integer labels and one-hot rows compare the largest output, a column of ±1 compares signs. Real-valued targets have
    no accuracy. Under a loss of one's own outputs may mean anything, so there the loss has to agree: at equal outputs
    it falls when the label's own rises and never when another's does; for ±1 it is the same for (f, y) and (−f, −y)
    and falls as f·y rises.

    Args:
        y: targets.
        outputs: the model's outputs for them, or their shape and dtype; None: such as the targets ask for.
        loss: name or function; None for a stock loss.

    Example:
        >>> labels, logit = np.array([0, 1, 1]), jnp.zeros((3, 1))
        >>> accuracy_for(labels, logit, lambda f, y: jnp.mean(jnp.exp(f[:, 0]) - y * f[:, 0])) is None
        True
    """
    kind = _Accuracy.of(np.asarray(y))
    if kind is None or outputs is None:
        return kind
    if not kind.fits(outputs, y):
        return None
    if loss is None or get(loss) in _STOCK.values():
        return kind
    return kind if kind.agrees(get(loss), outputs, y) else None


def is_stock(metric: Loss) -> bool:
    """Return whether a metric is one that ``accuracy_for`` may return."""
    return isinstance(metric, _Accuracy)


class _Accuracy(enum.Enum):
    """The fraction of samples whose class, or sign, the outputs get right: by the form of the targets."""

    LABELS = "integer labels (n,)"
    SIGNS = "±1, one column"
    ONE_HOT = "one-hot rows (n, k)"

    @classmethod
    def of(cls, y: np.ndarray) -> _Accuracy | None:
        """Return the accuracy that targets have by themselves, None for real-valued ones."""
        if jnp.issubdtype(y.dtype, jnp.integer):
            return cls.LABELS if y.ndim == 1 else None
        if y.ndim != 2 or y.shape[1] == 0:
            return None
        if y.shape[1] == 1:
            return cls.SIGNS if (abs(y) == 1).all() else None
        is_one_hot = ((y == 0) | (y == 1)).all(axis=1) & (y.sum(axis=1) == 1)
        return cls.ONE_HOT if is_one_hot.all() else None

    def __call__(self, outputs: HostArray, y: HostArray) -> Scalar:
        """Return the fraction of hits."""
        if self is _Accuracy.SIGNS:
            hits = outputs * y > 0
        elif self is _Accuracy.LABELS:
            hits = jnp.argmax(outputs, axis=1).astype(y.dtype) == y
        else:
            hits = jnp.argmax(outputs, axis=1) == jnp.argmax(y, axis=1)
        return jnp.mean(hits, dtype=float)

    def fits(self, outputs: object, y: HostArray) -> bool:
        """Return whether outputs can be compared with these targets: a number for each class or sign."""
        shape: tuple[int, ...] = getattr(outputs, "shape", ())
        if self is not _Accuracy.LABELS:
            return shape == y.shape
        is_matrix = len(shape) == 2 and shape[0] == len(y) and shape[1] > 1
        return is_matrix and set(np.unique(y)) <= set(range(shape[1]))

    def agrees(self, loss: Loss, outputs: Abstract, y: HostArray) -> bool:
        """Return whether the loss wants what is counted here."""
        return (self._signs if self is _Accuracy.SIGNS else self._classes)(loss, outputs, jnp.asarray(y))

    @staticmethod
    def _classes(loss: Loss, outputs: Abstract, y: Array) -> bool:
        """Return whether the loss falls as the label's output rises, and never as another's does."""
        n, k = outputs.shape
        slope = np.asarray(jax.grad(loss)(jnp.full((n, k), 1 / k, outputs.dtype), y))
        own = np.asarray(y) == 1 if np.ndim(y) == 2 else np.arange(k) == np.asarray(y)[:, None]
        return bool((slope[own] < 0).all() and (slope[~own] >= 0).all())

    @staticmethod
    def _signs(loss: Loss, outputs: Abstract, y: Array) -> bool:
        """Return whether the loss is the same for (f, y) and (−f, −y), and falls as f·y rises."""
        f = jnp.linspace(-2, 2, y.size, dtype=outputs.dtype).reshape(y.shape)
        slope = np.asarray(jax.grad(loss)(jnp.zeros_like(f), y)) * np.asarray(y)
        # slopes and not the losses: sums over the samples may agree where no sample does
        there, opposite = (np.asarray(jax.grad(loss)(s * f, s * y)) for s in (1, -1))
        same = np.allclose(there, -opposite, rtol=1e-3, atol=1e-3 * np.max(np.abs(there)))
        return bool((slope < 0).all() and same)
