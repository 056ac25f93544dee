"""narrow_jax: train and understand narrow neural networks, on JAX."""

from narrow_jax import activations

__all__ = ["activations"]
