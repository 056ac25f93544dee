"""Array aliases. Shapes are jaxtyping strings over the project's letters.

n samples, d inputs, m hidden units, h = m/2 pairs, k outputs, p = m·d weights in the Jacobian's columns.
jaxtyping is a development dependency: where it is installed the shapes are real annotations (the tests
check them), elsewhere they fade to plain arrays.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.tree_util import KeyPath
from jax.typing import DTypeLike

if TYPE_CHECKING or importlib.util.find_spec("jaxtyping"):
    from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, Shaped, UInt8
else:

    class _AnyShape:
        def __class_getitem__(cls, item: tuple[type, str]) -> type:
            return item[0]

    Bool = Float = Int = Key = Shaped = UInt8 = _AnyShape
    Array = jax.Array
    ArrayLike = jax.typing.ArrayLike

Tree = Any
"""A pytree of whatever leaves: labels, shapes, masked nodes, the state of an optimizer or a model, its outputs."""

Params = Tree
"""A pytree of arrays."""

Leaf = Any
"""An array in a pytree, or what JAX puts in its place while it handles the tree's structure."""

ApplyFn = Callable[[Params, Any], Any]
"""``apply_fn(params, x) -> predictions``: x holds a batch of samples along its first axis."""

HostArray = np.ndarray | jax.Array
"""Data as users hold them: NumPy or JAX arrays."""

if TYPE_CHECKING:  # a union would have none of the operators that all of them have
    Computed = Any
else:
    Computed = np.ndarray | np.generic | jax.Array
"""What a formula over NumPy and JAX is of, scalars too."""

Samples = Any
"""Samples or targets as users hand them over: arrays, or what ``numpy.asarray`` makes one of."""

Scalar = Float[Array, ""]
"""One floating number as JAX computes it: a norm, a loss, a bound of the last update."""


@runtime_checkable
class Abstract(Protocol):
    """What shape and dtype are known of: an array, traced or not, or a ``jax.ShapeDtypeStruct``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""

    @property
    def dtype(self) -> np.dtype:
        """The kind of number."""


__all__ = [
    "Abstract",
    "ApplyFn",
    "Array",
    "ArrayLike",
    "Bool",
    "Computed",
    "DTypeLike",
    "Float",
    "HostArray",
    "Int",
    "Key",
    "KeyPath",
    "Leaf",
    "Params",
    "Samples",
    "Scalar",
    "Shaped",
    "Tree",
    "UInt8",
]
