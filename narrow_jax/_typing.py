"""Array aliases. Shapes are jaxtyping strings over the project's letters.

n samples, d inputs, m hidden units, h = m/2 pairs, k outputs, p = m·d weights in the Jacobian's columns.
jaxtyping is a development dependency: where it is installed the shapes are real annotations (the tests
check them), elsewhere they fade to plain arrays.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING or importlib.util.find_spec("jaxtyping"):
    from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, Shaped, UInt8
else:

    class _AnyShape:
        def __class_getitem__(cls, item: tuple[type, str]) -> type:
            return item[0]

    Bool = Float = Int = Key = Shaped = UInt8 = _AnyShape
    Array = jax.Array
    ArrayLike = jax.typing.ArrayLike

Params = Any
"""A pytree of arrays."""

Leaf = Any
"""An array in a pytree, or what JAX puts in its place while it handles the tree's structure."""

ApplyFn = Callable[[Params, Any], Any]
"""``apply_fn(params, x) -> predictions``: x holds a batch of samples along its first axis."""

HostArray = np.ndarray | jax.Array
"""Data as users hold them: NumPy or JAX arrays."""

__all__ = [
    "ApplyFn",
    "Array",
    "ArrayLike",
    "Bool",
    "Float",
    "HostArray",
    "Int",
    "Key",
    "Leaf",
    "Params",
    "Shaped",
    "UInt8",
]
