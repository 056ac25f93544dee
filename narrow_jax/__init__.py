"""narrow_jax: train and understand narrow neural networks, on JAX."""

from narrow_jax import (
    activations,
    certificates,
    checkpoints,
    constraints,
    data,
    initializers,
    jacobian,
    losses,
    models,
    monitors,
    plots,
    precision,
    projections,
    solvers,
    spectra,
)
from narrow_jax._checks import MemoryBudgetError
from narrow_jax.checkpoints import runs
from narrow_jax.solvers import Memorized, memorize
from narrow_jax.spectra import SigmaMin, condition_number, effective_rank, sigma_min, singular_values
from narrow_jax.training import FitResult, fit, sweep

__all__ = [
    "FitResult",
    "Memorized",
    "MemoryBudgetError",
    "SigmaMin",
    "activations",
    "certificates",
    "checkpoints",
    "condition_number",
    "constraints",
    "data",
    "effective_rank",
    "fit",
    "initializers",
    "jacobian",
    "losses",
    "memorize",
    "models",
    "monitors",
    "plots",
    "precision",
    "projections",
    "runs",
    "sigma_min",
    "singular_values",
    "solvers",
    "spectra",
    "sweep",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
