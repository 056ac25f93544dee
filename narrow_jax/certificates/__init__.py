"""Theorems as functions: each checks its assumptions on a net and its data and returns constants and a verdict.

``pyramidal``             Theorem 3.2 of "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal
                          Topology": whether, and how fast, gradient descent reaches a global minimum
``PyramidalInvariants``   what its proof keeps along training, as a monitor for ``fit``
``lambda_star``           λ_* of its section 3.2, with ``hermite_coefficients`` and ``khatri_rao_sigma_min``
``width_requirements``    Table 1 for given N and L, and ``lecun_width``, the scaling (12)
``stationary_value``      the loss that a deep net must have at every differentiable stationary point
``basis_function_bound``  local minima against regression on the net's own features
``regression_value``, ``linear_units``, ``separated_params``  what that bound speaks of
``white_noise_loss``      the loss of local minima on Gaussian data, predicted and simulated
"""

from narrow_jax.certificates.depth_width import StationaryValue, stationary_value
from narrow_jax.certificates.guarantee import Guarantee
from narrow_jax.certificates.hermite import hermite_coefficients, hermite_tail, khatri_rao_sigma_min
from narrow_jax.certificates.invariants import Broken, PyramidalInvariants
from narrow_jax.certificates.lambda_star import LambdaStar, lambda_star
from narrow_jax.certificates.linear_units import (
    BasisFunctionBound,
    LinearUnits,
    basis_function_bound,
    linear_units,
    regression_value,
    separated_params,
)
from narrow_jax.certificates.pyramidal import PyramidalCertificate, pyramidal
from narrow_jax.certificates.white_noise import WhiteNoiseLoss, white_noise_loss
from narrow_jax.certificates.widths import LecunWidth, WidthRequirement, lecun_width, width_requirements

__all__ = [
    "BasisFunctionBound",
    "Broken",
    "Guarantee",
    "LambdaStar",
    "LecunWidth",
    "LinearUnits",
    "PyramidalCertificate",
    "PyramidalInvariants",
    "StationaryValue",
    "WhiteNoiseLoss",
    "WidthRequirement",
    "basis_function_bound",
    "hermite_coefficients",
    "hermite_tail",
    "khatri_rao_sigma_min",
    "lambda_star",
    "lecun_width",
    "linear_units",
    "pyramidal",
    "regression_value",
    "separated_params",
    "stationary_value",
    "white_noise_loss",
    "width_requirements",
]
