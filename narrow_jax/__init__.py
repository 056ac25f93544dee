"""narrow_jax: train and understand narrow neural networks, on JAX.

Importing it loads nothing: each public name is loaded when it is first asked for.
"""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the names for whoever reads them without running anything
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
        projections,
        sklearn,
        solvers,
        spectra,
    )
    from narrow_jax._checks import MemoryBudgetError
    from narrow_jax.checkpoints import runs
    from narrow_jax.models import Model, load, precision, save
    from narrow_jax.solvers import Memorized, memorize
    from narrow_jax.spectra import SigmaMin, condition_number, effective_rank, sigma_min, singular_values
    from narrow_jax.training import FitResult, callbacks, fit, sweep

__all__ = [
    "FitResult",
    "Memorized",
    "MemoryBudgetError",
    "Model",
    "SigmaMin",
    "activations",
    "callbacks",
    "certificates",
    "checkpoints",
    "condition_number",
    "constraints",
    "data",
    "effective_rank",
    "fit",
    "initializers",
    "jacobian",
    "load",
    "losses",
    "memorize",
    "models",
    "monitors",
    "plots",
    "precision",
    "projections",
    "runs",
    "save",
    "sigma_min",
    "singular_values",
    "sklearn",
    "solvers",
    "spectra",
    "sweep",
]

_HOMES = {
    "MemoryBudgetError": "_checks",
    "runs": "checkpoints",
    **dict.fromkeys(("Model", "load", "precision", "save"), "models"),
    **dict.fromkeys(("Memorized", "memorize"), "solvers"),
    **dict.fromkeys(
        ("SigmaMin", "condition_number", "effective_rank", "sigma_min", "singular_values"), "spectra"
    ),
    **dict.fromkeys(("FitResult", "callbacks", "fit", "sweep"), "training"),
}
"""The modules of the public names that are no module right below."""

_SHARED = ("labels", "linalg", "training")
"""Modules below that ``dir`` does not show."""

if not TYPE_CHECKING:  # a type checker would take any name for one that is there

    def __getattr__(name: str) -> object:
        """Return what is called so, its module loaded, and keep it."""
        if name in _HOMES:
            module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
            return globals().setdefault(name, getattr(module, name))
        if name in __all__ or name in _SHARED:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__]
        )


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
