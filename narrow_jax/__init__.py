"""narrow_jax: train and understand narrow neural networks, on JAX."""

from narrow_jax import (
    activations,
    constraints,
    data,
    initializers,
    jacobian,
    losses,
    models,
    monitors,
    projections,
    spectra,
)
from narrow_jax._memory import MemoryBudgetError
from narrow_jax.spectra import SigmaMin, sigma_min
from narrow_jax.training import FitResult, fit, sweep

__all__ = [
    "FitResult",
    "MemoryBudgetError",
    "SigmaMin",
    "activations",
    "constraints",
    "data",
    "fit",
    "initializers",
    "jacobian",
    "losses",
    "models",
    "monitors",
    "projections",
    "sigma_min",
    "spectra",
    "sweep",
]
