"""Theorems as functions: each checks one on a net and its data, and returns every constant of its verdict.

``memorization``  an exact zero-loss net is near the given one (Newton–Kantorovich)
``nice_region``   the radius in which every stationary point is a global minimum (Theorem 1)
``kkt``           how far from a KKT point of problem (7), and whether KKT points have loss 0 (Theorem 2)
``assumptions``   what the theorems ask of data, width and activation
"""

from narrow_jax.certificates.assumptions import Assumptions, Check, assumptions
from narrow_jax.certificates.kkt import KKT, kkt, natural_residual
from narrow_jax.certificates.narrow import Memorization, NiceRegion, memorization, nice_region

__all__ = [
    "KKT",
    "Assumptions",
    "Check",
    "Memorization",
    "NiceRegion",
    "assumptions",
    "kkt",
    "memorization",
    "natural_residual",
    "nice_region",
]
