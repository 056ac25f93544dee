"""Solvers: nets that are found rather than trained.

``memorize``   an exact interpolating pairwise net in a ball, by Newton (Theorem 1)
``solve_kkt``  a KKT point of the constrained problem (7)
"""

from narrow_jax.solvers.kkt import KKTSolution, solve_kkt
from narrow_jax.solvers.memorize import Memorized, memorize

__all__ = ["KKTSolution", "Memorized", "memorize", "solve_kkt"]
