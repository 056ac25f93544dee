"""Jacobian operators: what ``sigma_min`` and ``singular_values`` take.

``pairwise``, ``standard``  one-hidden-layer nets, from X and D; the matrix itself never exists
``autodiff``                any function, by forward or reverse mode, in chunks
"""

from narrow_jax.jacobian.one_hidden import OneHiddenJacobian, pairwise, standard

__all__ = ["OneHiddenJacobian", "pairwise", "standard"]
