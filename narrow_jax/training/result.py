"""What a run leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from narrow_jax._typing import Params, Tree
from narrow_jax.models import Model


class FitResult(NamedTuple):
    """What a run leaves. For a ``sweep`` every array has the grid's axes in front, and ``at`` takes one run out.

    Fields:
        model: the net as a value that predicts (``model.predict(x)``) and is kept (``nj.save(folder, model)``): its
            weights after the last step whose loss and weights were finite, and of a ``Dataset`` its maps and classes.
        opt_state: the optimizer's state; ``nj.constraints.report`` reads the constraints from it.
        history: "step", "loss", "accuracy" where targets, outputs and loss have one (``nj.losses.accuracy_for``), the
            ``metrics``, the same of the data of ``evaluation`` as "test_loss" and so on, "distance" and
            "relative_distance" of the params, "ball_active", "cone_active" where the optimizer projects, "set_active"
            and what the sets of ``nj.constraints.within`` report, and one entry a monitor: arrays over the records, the
            first at step 0, the last at the end. A relative distance above 1: a transformation after the projection
            moved the params out of the ball.
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

    def at(self, *index: int) -> FitResult:
        """Return the run of a ``sweep`` at that point of the grid, as ``fit`` would have returned it.

        Raises:
            IndexError: another number of axes than the grid has, or no such point.
        """
        shape = np.shape(self.steps_taken)
        if len(index) != len(shape) or not all(
            -size <= i < size for i, size in zip(index, shape, strict=True)
        ):
            raise IndexError(
                f"index is {index} and the grid has the shape {shape}; expected one number for each of its axes"
            )
        model, opt_state = jax.tree.map(lambda leaf: leaf[index], (self.model.params, self.opt_state))
        taken, diverged = int(np.asarray(self.steps_taken)[index]), bool(np.asarray(self.diverged)[index])
        kept = self.history["step"] <= taken
        history = {
            name: (values if name == "step" else values[index])[kept] for name, values in self.history.items()
        }
        return FitResult(replace(self.model, params=model), opt_state, history, taken, diverged)

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
