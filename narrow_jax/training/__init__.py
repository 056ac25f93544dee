"""Training: ``fit`` for one run, ``sweep`` for many in one compiled call."""

from narrow_jax.training.fitting import FitResult, fit
from narrow_jax.training.sweeping import sweep

__all__ = ["FitResult", "fit", "sweep"]
