"""Spectra of Jacobian operators.

``sigma_min``          the smallest singular value with a proven enclosure
``SigmaMin``           its result: value, bounds, vector and status
``singular_values``    all of them, each with an error bound
``extremes``           proven bounds of σ_min and σ_max of a small matrix, nothing compiled
``condition_number``, ``effective_rank``  numbers that follow
"""

from narrow_jax.linalg import Extremes, extremes
from narrow_jax.spectra import tracking as tracking
from narrow_jax.spectra.all_values import SingularValues, condition_number, effective_rank, singular_values
from narrow_jax.spectra.result import SigmaMin
from narrow_jax.spectra.smallest_value import METHODS as METHODS
from narrow_jax.spectra.smallest_value import sigma_min

__all__ = [
    "Extremes",
    "SigmaMin",
    "SingularValues",
    "condition_number",
    "effective_rank",
    "extremes",
    "sigma_min",
    "singular_values",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
