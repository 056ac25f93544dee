"""Solvers: nets that are found rather than trained.

``memorize``         an exact interpolating pairwise net in a ball, by Newton (Theorem 1)
``interpolate``      an interpolating pair of copies of any model in a ball, by Newton
``solve_kkt``        a KKT point of the constrained problem (7)
``pyramidal_start``  a start from which the theorem of pyramidal nets proves convergence on the given data
"""

from narrow_jax.solvers.interpolating import Interpolated, interpolate
from narrow_jax.solvers.kkt import KKTSolution, solve_kkt
from narrow_jax.solvers.memorizing import Memorized, memorize
from narrow_jax.solvers.pyramidal_search import PyramidalStart, pyramidal_start

__all__ = [
    "Interpolated",
    "KKTSolution",
    "Memorized",
    "PyramidalStart",
    "interpolate",
    "memorize",
    "pyramidal_start",
    "solve_kkt",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
