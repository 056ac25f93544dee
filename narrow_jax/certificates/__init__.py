"""Certificates: one function per theorem, each checked on a net and its data.

``stationary_value``      the loss that a deep net must have at every differentiable stationary point
``basis_function_bound``  local minima against regression on the net's own features
``regression_value``, ``linear_units``, ``separated_params``  what that bound speaks of
``white_noise_loss``      the loss of local minima on Gaussian data, predicted and simulated
"""

from narrow_jax.certificates.depth_width import StationaryValue, stationary_value
from narrow_jax.certificates.linear_units import (
    BasisFunctionBound,
    LinearUnits,
    basis_function_bound,
    linear_units,
    regression_value,
    separated_params,
)
from narrow_jax.certificates.white_noise import WhiteNoiseLoss, white_noise_loss

__all__ = [
    "BasisFunctionBound",
    "LinearUnits",
    "StationaryValue",
    "WhiteNoiseLoss",
    "basis_function_bound",
    "linear_units",
    "regression_value",
    "separated_params",
    "stationary_value",
    "white_noise_loss",
]
