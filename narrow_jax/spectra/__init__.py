"""Spectra of Jacobian operators.

``sigma_min``  the smallest singular value with a proven enclosure
``SigmaMin``   the result: value, bounds, vector and status
"""

from narrow_jax.spectra.result import SigmaMin
from narrow_jax.spectra.smallest import sigma_min

__all__ = ["SigmaMin", "sigma_min"]
