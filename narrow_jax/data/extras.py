"""Imports of packages that only the extra ``data`` brings."""

from __future__ import annotations

import importlib
from typing import Any


def extra(module: str, purpose: str) -> Any:
    """Return the module; where it, or a package that it needs, is not installed, say what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs packages that are not installed ({error}): pip install 'narrow_jax[data]'"
        ) from error
