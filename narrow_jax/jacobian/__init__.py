"""Jacobian operators: what ``sigma_min`` and ``singular_values`` take.

``pairwise``, ``standard``  one-hidden-layer nets, from X and D; the matrix itself never exists
``mlp``, ``pairwise_mlp``   deep nets, from what enters each layer and how the outputs depend on it
``autodiff``                any function, by forward or reverse mode, in chunks
``explicit``                a matrix as it is
``admissible_width``, ``check_width``  how wide a pairwise net has to be for its Jacobian to have full rank
``admissible_widths``, ``check_widths``  the same of deep pairs
"""

from narrow_jax._checks import weights as weights
from narrow_jax.jacobian import layers as layers
from narrow_jax.jacobian.automatic import AutodiffJacobian, autodiff
from narrow_jax.jacobian.deep import MLPJacobian, mlp, pairwise_mlp
from narrow_jax.jacobian.khatri_rao import Factors as Factors
from narrow_jax.jacobian.khatri_rao import KhatriRao as KhatriRao
from narrow_jax.jacobian.matrix import ExplicitJacobian, explicit
from narrow_jax.jacobian.nets import Half as Half
from narrow_jax.jacobian.nets import Net as Net
from narrow_jax.jacobian.nets import plain as plain
from narrow_jax.jacobian.nets import vanishes as vanishes
from narrow_jax.jacobian.one_hidden import OneHiddenJacobian, pairwise, standard
from narrow_jax.jacobian.widths import admissible_width, admissible_widths, check_width, check_widths
from narrow_jax.jacobian.widths import require_widths as require_widths
from narrow_jax.jacobian.widths import width_for_rank as width_for_rank
from narrow_jax.jacobian.widths import widths_for_rank as widths_for_rank

__all__ = [
    "AutodiffJacobian",
    "ExplicitJacobian",
    "MLPJacobian",
    "OneHiddenJacobian",
    "admissible_width",
    "admissible_widths",
    "autodiff",
    "check_width",
    "check_widths",
    "explicit",
    "mlp",
    "pairwise",
    "pairwise_mlp",
    "standard",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
