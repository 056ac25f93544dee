"""The two halves of a pairwise net: their tree, and differences that are exactly 0 where the halves are equal.

Compiled into one loop with what it is made of, ca − cb may be one fused multiply-add, which is not 0 for a = b:
a product such as zΦ(z) of gelu, or a mean over an image. Where two values are known to be equal their difference is
taken off once more, as a constant: the value is 0 and the derivative is not changed.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax._typing import Array, Bool, Float, HostArray, Params, Shaped
from narrow_jax.activations import Activation
from narrow_jax.labels import difference, listed


def zero_where(equal: Bool[Array, "*axes"], gap: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Return the difference of two values, exactly 0 where they are equal whatever rounding made of it."""
    return gap - jax.lax.stop_gradient(jnp.where(equal, gap, jnp.zeros_like(gap)))


def activated(
    sigma: Activation, z: Float[Array, "*axes"], gap: Float[Array, "*axes"]
) -> tuple[Float[Array, "*axes"], Float[Array, "*axes"]]:
    """Return σ(z) and σ(z) − σ(z − gap), exactly 0 where the gap is."""
    a = sigma(z)
    return a, zero_where(gap == 0, a - sigma(z - gap))


def halves(params: Params) -> tuple[Params, Params, Shaped[HostArray, "*shape"]]:
    """Return plus, minus and v of ``{"plus": w, "minus": w, "v": (h, k)}``, two copies of one tree and one array.

    Raises:
        ValueError: other keys, an empty half, or halves that differ in names, shapes or dtypes.
        TypeError: params that are no dict, or a v that is no array.
    """
    expected = 'expected {"plus": w, "minus": w, "v": (h, k)}, two copies of one tree and the output weights'
    if not isinstance(params, Mapping):
        raise TypeError(f"params is a {type(params).__name__}; {expected}")
    if set(params) - {"center"} != {"plus", "minus", "v"}:  # runs may keep their start beside
        raise ValueError(f"params have the keys {', '.join(map(str, params)) or 'none'}; {expected}")
    plus, minus = params["plus"], params["minus"]
    if not jax.tree.leaves(plus):
        raise ValueError("plus has no leaf; expected the weights of the features")
    if misfit := difference(plus, minus):
        raise ValueError(
            f"minus is not like plus at {misfit}; expected two copies of one tree, {listed(plus)}"
        )
    return plus, minus, _checks.array("v", params["v"])
