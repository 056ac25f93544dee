"""Theorems as functions: each checks its assumptions on a net and its data and returns constants and a verdict.

``pyramidal``   Theorem 3.2 of "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology"
``PyramidalInvariants``   what its proof keeps along training, as a monitor for ``fit``
"""

from narrow_jax.certificates.guarantee import Guarantee
from narrow_jax.certificates.invariants import Broken, PyramidalInvariants
from narrow_jax.certificates.pyramidal import PyramidalCertificate, pyramidal

__all__ = ["Broken", "Guarantee", "PyramidalCertificate", "PyramidalInvariants", "pyramidal"]
