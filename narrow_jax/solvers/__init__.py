"""Searches for weights with a proven property.

``pyramidal_start``   a start from which the theorem of pyramidal nets proves convergence on the given data
"""

from narrow_jax.solvers.pyramidal_start import PyramidalStart, pyramidal_start

__all__ = ["PyramidalStart", "pyramidal_start"]
