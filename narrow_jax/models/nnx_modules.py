"""Modules of Flax NNX as a pure function and its params."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from narrow_jax import _checks
from narrow_jax._typing import ApplyFn, Params


@dataclass(frozen=True)
class Merged:
    """A function of a module as one of its params, ``{"params": …, "other": …}``; equal for equal modules."""

    apply_fn: ApplyFn
    graph: Any

    def __call__(self, params: Params, x: Any) -> Any:
        """Return the function of the module with these params."""
        from flax import nnx

        return self.apply_fn(nnx.merge(self.graph, params["params"], params["other"]), x)


def split(apply_fn: ApplyFn, params: Params) -> tuple[ApplyFn, Params]:
    """Return a function and its params, of a module its weights and beside them what is not trained.

    Example:
        >>> import numpy as np
        >>> from flax import nnx
        >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        >>> apply_fn, params = split(lambda model, x: model(x), model)
        >>> sorted(params), apply_fn(params, np.ones((4, 2))).shape
        (['other', 'params'], (4, 3))
    """
    if not _checks.is_nnx(params):
        return apply_fn, params
    from flax import nnx

    graph, state = nnx.split(params)
    weights, other = nnx.split_state(state, nnx.Param, ...)
    return Merged(apply_fn, graph), {"params": weights, "other": other}
