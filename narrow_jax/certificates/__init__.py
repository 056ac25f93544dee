"""Certificates: one function per theorem, each checked on a net and its data.

``stationary_value``  the loss that a deep net must have at every differentiable stationary point
"""

from narrow_jax.certificates.depth_width import StationaryValue, stationary_value

__all__ = ["StationaryValue", "stationary_value"]
