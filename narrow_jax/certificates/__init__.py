"""Theorems as functions: each checks its assumptions on a net and its data and returns constants and a verdict.

``pyramidal``             Theorem 3.2 of "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal
                          Topology": whether, and how fast, gradient descent reaches a global minimum
``PyramidalInvariants``   what its proof keeps along training, as a monitor for ``fit``
``lambda_star``           λ_* of its section 3.2, with ``hermite_coefficients`` and ``khatri_rao_sigma_min``
``width_requirements``    Table 1 for given N and L, and ``lecun_width``, the scaling (12)
"""

from narrow_jax.certificates.guarantee import Guarantee
from narrow_jax.certificates.hermite import hermite_coefficients, hermite_tail, khatri_rao_sigma_min
from narrow_jax.certificates.invariants import Broken, PyramidalInvariants
from narrow_jax.certificates.lambda_star import LambdaStar, lambda_star
from narrow_jax.certificates.pyramidal import PyramidalCertificate, pyramidal
from narrow_jax.certificates.widths import LecunWidth, WidthRequirement, lecun_width, width_requirements

__all__ = [
    "Broken",
    "Guarantee",
    "LambdaStar",
    "LecunWidth",
    "PyramidalCertificate",
    "PyramidalInvariants",
    "WidthRequirement",
    "hermite_coefficients",
    "hermite_tail",
    "khatri_rao_sigma_min",
    "lambda_star",
    "lecun_width",
    "pyramidal",
    "width_requirements",
]
