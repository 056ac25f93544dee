"""An upper bound of the norm of a matrix without negative entries."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from narrow_jax._typing import Array, Float
from narrow_jax.linalg import rounding as fl


def collatz_wielandt(
    apply: Callable[[Array], Array], diagonal: Float[Array, " r"], terms: int
) -> Float[Array, ""]:
    """Return an upper bound of ‖M‖₂ for M = |Ĵ||Ĵ|ᵀ: max_i (My)_i/y_i with y = √diag(M), about tr M at most.

    Theorem (Collatz, Wielandt): the Perron root of M ≥ 0 is at most that ratio for any y > 0.

    Args:
        apply: y ↦ My, computed with relative error at most γ_terms.
        diagonal: of M, about; of size one or below.
        terms: as above.
    """
    y = jnp.sqrt(diagonal) + 2.0**-20  # a floor keeps y positive where a row of M vanishes
    return fl.up(jnp.max(apply(y) / y) * (1 + fl.gamma(terms)))
