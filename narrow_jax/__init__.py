"""narrow_jax: train and understand narrow neural networks, on JAX."""

from narrow_jax import activations, jacobian, spectra
from narrow_jax._memory import MemoryBudgetError
from narrow_jax.spectra import SigmaMin, sigma_min

__all__ = ["MemoryBudgetError", "SigmaMin", "activations", "jacobian", "sigma_min", "spectra"]
