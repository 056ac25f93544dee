"""Optimizers of optax that others wrap: what they are, and what their updates take beside gradients and params."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import optax

from narrow_jax._typing import Params, Tree
from narrow_jax.labels import has_masked

Transformation = Any
"""An ``optax.GradientTransformation``."""


def transformation(tx: Transformation) -> Transformation:
    """Return an optax transformation."""
    if isinstance(tx, optax.MultiSteps):
        return optax.GradientTransformationExtraArgs(
            tx.init, tx.update
        )  # its own method leaves the arguments out
    if hasattr(tx, "init") and hasattr(tx, "update"):
        return tx
    if name := getattr(tx, "__name__", ""):
        raise TypeError(
            f"tx is {name} itself; expected a gradient transformation: call it, such as {name}(1e-2)"
        )
    raise TypeError(
        f"tx is a {type(tx).__name__}; expected a gradient transformation, such as optax.adam(1e-2)"
    )


def accepted(update: Callable[..., Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Return those of the extra arguments that an update takes: all, or the ones that it names."""
    parameters = inspect.signature(update).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return extra
    return {name: value for name, value in extra.items() if name in parameters}


def translated(
    extra: dict[str, Any], back: Callable[[Params], Params], gradient: Callable[[Params], Params]
) -> dict[str, Any]:
    """Return the extra arguments for an optimizer that works in other coordinates.

    Args:
        extra: the arguments by name.
        back: params of the other coordinates to the original ones.
        gradient: a gradient of the original ones to the other coordinates.
    """
    changed = {
        "grad": lambda value: gradient(value),
        "value_fn": lambda function: _at(function, back),
        "obj_fn": lambda function: _at(function, back),
        "grad_fn": lambda function: lambda hat, *args: gradient(_at(function, back)(hat, *args)),
    }
    return {name: changed[name](value) if name in changed else value for name, value in extra.items()}


def _at(function: Callable[..., Any], back: Callable[[Params], Params]) -> Callable[..., Any]:
    def at(hat: Params, *args: Any, **kwargs: Any) -> Tree:
        params = back(hat)
        try:
            return function(params, *args, **kwargs)
        except Exception as error:
            if not has_masked(params):
                raise
            raise ValueError(
                f"the optimizer inside optax.masked or optax.partition calls the objective with params of which some "
                f"are masked, and it failed: {error}. Let the objective fill them in, as nj.fit does, or choose the "
                "leaves by labels=nj.constraints.by_path(…) and leave the mask out"
            ) from error

    return at
