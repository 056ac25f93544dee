"""Activations with the constants that the theory asks of them.

An ``Activation`` is a function together with its derivative and the bounds that enter Lipschitz constants,
enclosures and theorems. ``get("tanh")`` returns a stock one; a user's own is made with the class and may be
passed wherever a name is accepted.
"""

from narrow_jax.activations.activation import Activation, Elementwise
from narrow_jax.activations.checking import check
from narrow_jax.activations.stock import get, leaky_relu, names, per_unit, smooth_leaky_relu
from narrow_jax.activations.stock import is_stock as is_stock
from narrow_jax.activations.stock import shared as shared

__all__ = [
    "Activation",
    "Elementwise",
    "check",
    "get",
    "leaky_relu",
    "names",
    "per_unit",
    "smooth_leaky_relu",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
