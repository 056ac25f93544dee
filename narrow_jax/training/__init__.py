"""Training: ``fit`` for one run, ``sweep`` for many in one compiled call, and the callbacks of a run."""

from narrow_jax.training import callbacks as callbacks
from narrow_jax.training.fitting import fit
from narrow_jax.training.result import FitResult
from narrow_jax.training.sweeping import sweep

__all__ = ["FitResult", "callbacks", "fit", "sweep"]
