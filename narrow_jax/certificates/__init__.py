"""Theorems as functions: each checks its assumptions on a net and its data and returns constants and a verdict.

``pyramidal``   Theorem 3.2 of "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology"
"""

from narrow_jax.certificates.guarantee import Guarantee
from narrow_jax.certificates.pyramidal import PyramidalCertificate, pyramidal

__all__ = ["Guarantee", "PyramidalCertificate", "pyramidal"]
