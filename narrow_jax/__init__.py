"""narrow_jax: train and understand narrow neural networks, on JAX."""

from narrow_jax import activations, constraints, data, initializers, losses, models, projections
from narrow_jax.training import FitResult, fit, sweep

__all__ = [
    "FitResult",
    "activations",
    "constraints",
    "data",
    "fit",
    "initializers",
    "losses",
    "models",
    "projections",
    "sweep",
]
