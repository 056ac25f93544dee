"""A trained net as a value: the function, its weights, and what its numbers mean to whoever has the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import jax
import numpy as np

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax._printing import brief
from narrow_jax._typing import HostArray, Params, Samples, Tree
from narrow_jax.data import Columns, Normalizer, Transformer, arrays, labels_of

_BLOCK = 4096
"""So many samples go through the net at once."""


_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False, eq=False)
class Model:
    """A net that predicts from what the user has: ``result.model`` of ``nj.fit``, kept by ``nj.save``.

    Attributes:
        apply_fn: the net, ``apply_fn(params, x)``; with ``model_state`` ``apply_fn(params, state, x, train)``.
        params: its weights.
        model_state: its other variables, None if it has none.
        normalizer: the map from stored rows to the inputs of the net; None where these are the rows as they are.
        target_map: the map from the user's targets to the outputs of the net; None where these are the targets.
        classes: what the classes are called, in the order of the outputs; None where outputs are real numbers.
        columns: the rule from the columns of a table to stored rows, None without a table.
        loss: the name of the loss, which says what outputs are to ``predict_proba``; None for one of the user's own.
        inputs: shape and dtype of one sample as the net sees it; None where any will do.

    Example:
        >>> import jax.numpy as jnp, narrow_jax as nj
        >>> params = {"w": jnp.eye(2), "v": jnp.array([[1.0], [-1.0]])}
        >>> model = Model(nj.models.standard_apply, params, classes=("no", "yes"))
        >>> model.predict([[3.0, 0.0], [0.0, 3.0]]).tolist()
        ['yes', 'no']
    """

    apply_fn: Callable[..., Any] = field(metadata=_STATIC)
    params: Params
    model_state: Tree = None
    normalizer: Normalizer | Transformer | None = None
    target_map: Normalizer | None = None
    classes: tuple[Any, ...] | None = field(default=None, metadata=_STATIC)
    columns: Columns | None = field(default=None, metadata=_STATIC)
    loss: str | None = field(default="squared", metadata=_STATIC)
    inputs: jax.ShapeDtypeStruct | None = field(default=None, metadata=_STATIC)

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        shown = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "apply_fn"}
        return brief("Model", {name: value for name, value in shown.items() if value is not None})

    @host_only
    def encode(self, x: Samples) -> HostArray:
        """Return samples as the net sees them.

        Args:
            x: Rows or images as they were stored, or a ``pandas.DataFrame`` with the columns of the training table.

        Raises:
            ValueError: another number of columns, other names, or entries that are not finite.
            TypeError: no numbers, or a dtype that is not that of training.
        """
        if self.columns is not None and hasattr(x, "columns"):
            x = self.columns.encode(x)
        rows = arrays.stored("x", x)
        _checks.finite("x", rows)
        rows = (
            arrays.narrowed("x", rows) if self.normalizer is None else self.normalizer.apply(np.asarray(rows))
        )
        if self.inputs is None:
            return rows
        shape, dtype = self.inputs.shape, self.inputs.dtype
        if rows.size != len(rows) * int(np.prod(shape)):
            raise ValueError(
                f"x has shape {rows.shape}; expected (n, {', '.join(map(str, shape))}), as in training"
            )
        if not np.can_cast(rows.dtype, dtype, "same_kind"):
            raise TypeError(f"x has dtype {rows.dtype}; expected {dtype}, as in training: convert it first")
        return rows.reshape(len(rows), *shape).astype(dtype)

    @host_only
    def outputs(self, x: Samples) -> np.ndarray:
        """Return the outputs of the net (n, k) for samples as in ``encode``.

        Raises:
            ValueError, TypeError: as ``encode``; ``apply_fn`` is no function.
        """
        _checks.function("apply_fn", self.apply_fn, "(params, x) ↦ outputs", "module.apply")
        double = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(self.params))
        with jax.enable_x64(
            double or jax.dtypes.canonicalize_dtype(float) == np.float64
        ):  # else JAX would make float32 of its weights
            seen = self.encode(x)
            blocks = [seen[start : start + _BLOCK] for start in range(0, max(len(seen), 1), _BLOCK)]
            run = partial(_forward, self.apply_fn, self.params, self.model_state)
            return np.concatenate([np.asarray(run(block)) for block in blocks])

    def predict(self, x: Samples) -> np.ndarray:
        """Return the class of each sample (n,), or its real targets: (n,) of one output, (n, k) of more.

        Args:
            x: as in ``encode``.
        """
        outputs = self.outputs(x)
        if (classes := self._classes(outputs)) is not None:
            return np.asarray(classes)[_chosen(outputs)]
        values = outputs if self.target_map is None else self.target_map.invert(outputs)
        return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values

    def _classes(self, outputs: np.ndarray) -> tuple[Any, ...] | None:
        """Return the classes; those of cross-entropy are 0, 1, … where nothing else is said."""
        if self.classes is None and self.loss == "cross_entropy":
            return tuple(range(outputs.shape[1]))
        many = 2 if outputs.shape[1] == 1 else outputs.shape[1]
        if self.classes is not None and len(self.classes) != many:
            raise ValueError(
                f"the net has {outputs.shape[1]} outputs and the model {len(self.classes)} classes; expected an output "
                "for each class, or one for two: pass the classes of this net"
            )
        return self.classes

    def predict_proba(self, x: Samples) -> np.ndarray:
        """Return the probability of each class (n, classes), in the order of ``classes``.

        Of a net trained on cross-entropy the softmax of its outputs; of one trained on squares, whose outputs estimate
        the mean of ±1 or of 0 and 1, these means, cut to [0, 1] and scaled to sum 1: an estimate, not calibrated.

        Raises:
            ValueError: no classes, or a loss of the user's own, whose outputs may mean anything.
        """
        outputs = self.outputs(x).astype(np.float64)
        if (classes := self._classes(outputs)) is None or self.loss is None:
            what = "no classes" if classes is None else "a loss of its own"
            raise ValueError(
                f"the model has {what}, so its outputs are no probabilities; expected classes and a stock loss: use "
                "outputs(x) (shell: leave --probabilities out)"
            )
        if self.loss == "cross_entropy":
            return _softmax(outputs)
        if outputs.shape[1] == 1:
            return np.concatenate([1 - outputs, 1 + outputs], axis=1).clip(0, 2) / 2
        cut = outputs.clip(0, 1)
        totals = cut.sum(axis=1, keepdims=True)
        return np.where(totals > 0, cut / np.where(totals > 0, totals, 1), 1 / cut.shape[1])

    def score(self, x: Samples, y: Samples) -> float:
        """Return the share of samples whose class is right, or R² = 1 − Σ(y − f)²/Σ(y − ȳ)² of real targets.

        Args:
            x: as in ``encode``.
            y: classes as they are called, or real targets, as the user has them.

        Raises:
            ValueError: as ``encode``, another number of targets, or a class that the model does not have.
        """
        found = self.predict(x)
        given = np.asarray(y)
        if given.ndim == 0 or len(given) != len(found):
            what = f"is {y!r:.40}" if given.ndim == 0 else str(len(given))
            raise ValueError(f"x has {len(found)} samples and y {what}; expected one target a sample")
        if self.classes is not None:
            if given.size != len(given):
                raise ValueError(f"y has shape {given.shape}; expected one class a sample, ({len(found)},)")
            given = given.reshape(len(given))
            labels_of(given, self.classes)  # a class that the model does not have is no mere mistake
            return float(np.mean(found == given))
        if self.loss == "cross_entropy":
            return float(np.mean(found == given))
        if given.dtype.kind not in "biuf" or given.size != found.size:
            raise ValueError(
                f"y holds {given.dtype}{list(given.shape)}, such as {given.ravel()[:1].tolist()}; expected real "
                f"targets {list(found.shape)}, as in training"
            )
        given = given.reshape(found.shape).astype(float)
        spread = np.sum((given - given.mean(axis=0)) ** 2)
        if not spread:
            raise ValueError(
                f"all {len(given)} targets are equal, and R² has no meaning; expected targets that vary: pass more rows"
            )
        return float(1 - np.sum((given - found) ** 2) / spread)


def _chosen(outputs: np.ndarray) -> np.ndarray:
    """Return the number of the class of each row: of one output by its sign."""
    return (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def _softmax(outputs: np.ndarray) -> np.ndarray:
    scaled = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


@partial(jax.jit, static_argnums=0)
def _forward(apply_fn: Callable[..., Any], params: Params, state: Tree, x: HostArray) -> Any:
    if state is None:
        return apply_fn(params, x)
    return apply_fn(params, state, x, train=False)[0]
