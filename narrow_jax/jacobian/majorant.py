"""An upper bound of the norm of a matrix without negative entries."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from narrow_jax import _rounding as fl
from narrow_jax._typing import Array, Float


def collatz_wielandt(apply: Callable[[Array], Array], rows: int, terms: int) -> Float[Array, ""]:
    """Return an upper bound of ‖M‖₂ for symmetric M ≥ 0 entry-wise: max_i (My)_i/y_i, any y > 0.

    Theorem (Collatz, Wielandt): the Perron root of M is at most that ratio.

    Args:
        apply: y ↦ My, computed with relative error at most γ_terms.
        rows: the length of y.
        terms: as above.
    """

    def step(_: Array, y: Array) -> Array:
        my = apply(y)
        # a floor keeps y positive where a row of M vanishes
        return my / jnp.maximum(jnp.max(my), fl.TINY) + 2.0**-20

    y = jax.lax.fori_loop(0, 3, step, jnp.ones(rows))
    return fl.up(jnp.max(apply(y) / y) * (1 + fl.gamma(terms)))
