"""Monitors: quantities that ``fit`` carries along a run and records beside the loss.

A monitor is a pair of pure functions: ``init(params, x) -> state`` and ``update(state, params, x) ->
(state, value)`` with a scalar value. They run inside the compiled training loop, at every record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from narrow_jax._typing import Array, Params
from narrow_jax.spectra import sigma_min as _sigma_min


class Monitor(NamedTuple):
    """A named pair of pure functions; ``name`` is the key of its values in the history."""

    name: str
    init: Callable[[Params, Array], Any]
    update: Callable[[Any, Params, Array], tuple[Any, Array]]


def sigma_min(jacobian: Callable[[Params, Array], Any]) -> Monitor:
    """Monitor the smallest singular value of ``jacobian(params, x)``, computed afresh at every record.

    Args:
        jacobian: an operator's constructor, such as ``nj.jacobian.pairwise``.

    Example:
        >>> from narrow_jax import jacobian
        >>> sigma_min(jacobian.pairwise).name
        'sigma_min'
    """

    def update(state: tuple[()], params: Params, x: Array) -> tuple[tuple[()], Array]:
        return state, _sigma_min(jacobian(params, x), certify=False).value

    return Monitor("sigma_min", lambda params, x: (), update)
