"""Checkpoints: ``save`` and ``restore``, two functions around Orbax that notice every damaged byte.

A checkpoint is a folder ``step-00000040`` with ``arrays/`` (Orbax), ``manifest.json`` (config, versions, and the
SHA-256 of every leaf and of every file) and ``manifest.sha256``. It is written under another name, flushed to
the disk and renamed: one that has its name is whole.
"""

from narrow_jax.checkpoints import runs as runs
from narrow_jax.checkpoints import safetensors as safetensors
from narrow_jax.checkpoints import strict_json as strict_json
from narrow_jax.checkpoints.checkpoint import CheckpointError, steps
from narrow_jax.checkpoints.leaves import Leaf, described, fingerprint
from narrow_jax.checkpoints.restoring import Restored, Weights, load_params, restore
from narrow_jax.checkpoints.saving import KEEP, prepare, save
from narrow_jax.checkpoints.strict_json import as_json

__all__ = [
    "KEEP",
    "CheckpointError",
    "Leaf",
    "Restored",
    "Weights",
    "as_json",
    "described",
    "fingerprint",
    "load_params",
    "prepare",
    "restore",
    "save",
    "steps",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
