"""``save``: a run that goes on, or is loaded, from here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from narrow_jax import _checks, _host
from narrow_jax._typing import Tree
from narrow_jax.checkpoints import leaves, strict_json
from narrow_jax.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointError,
    Step,
    offer,
    orbax,
    remove_drafts,
    steps,
)
from narrow_jax.checkpoints.manifest import Manifest, machine

KEEP = 3
"""So many checkpoints of a run are kept by default: the newest ones."""


def save(
    folder: str | Path,
    step: Step,
    state: Tree,
    config: Mapping[str, object],
    history: Mapping[str, np.ndarray] | None = None,
    *,
    keep: int = KEEP,
) -> Path:
    """Write a checkpoint, then delete all but the newest ones up to this step; return its folder.

    Args:
        folder: where the checkpoints of one run are.
        step: the number of steps done; a checkpoint of the same step is replaced.
        state: any tree of arrays; random keys too.
        config: what made the run, as JSON can hold it; ``restore`` compares it.
        history: records of the run so far, arrays by name.
        keep: how many checkpoints stay.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written. What was there before stays.
        TypeError, ValueError: JSON cannot hold the config; a leaf is no array of numbers; the step is negative; two
            leaves have one name.
        ImportError: Orbax is not installed.

    Example:
        >>> import jax
        >>> from narrow_jax.checkpoints import restore
        >>> folder = tempfile.mkdtemp()
        >>> state = {"w": jax.numpy.arange(3.0), "key": jax.random.key(0)}
        >>> save(folder, 40, state, {"width": 4}).name
        'step-00000040'
        >>> restore(folder, state, {"width": 4}).state["w"].tolist()
        [0.0, 1.0, 2.0]
    """
    _checks.count("step", step, minimum=0)
    step, folder = int(step), _host.path("folder", folder)
    draft, config = Checkpoint(folder, step, name="draft"), strict_json.as_json(config)
    leaves.check_numbers([*leaves.named(state), *(history or {}).items()])
    arrays, entries = leaves.on_host(leaves.named(state))
    leaves.check_names(entries)
    records, columns = leaves.on_host((history or {}).items())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_drafts(folder)
        draft.write([*arrays, *records], Manifest(step, config, entries, columns, machine(), files={}))
        target = draft.publish()
    except (OSError, ValueError) as error:  # Orbax passes the errors of the disk on as ValueError
        remove_drafts(folder)
        raise CheckpointError(
            f"step {step} could not be saved in {folder}: {error}; {offer(folder)}"
        ) from error
    for old in [saved for saved in steps(folder) if saved <= step][:-keep]:
        shutil.rmtree(Checkpoint(folder, old).path, ignore_errors=True)
    return target


def prepare(folder: str | Path) -> None:
    """Make the folder, so that a run knows before its first step that it can be saved.

    Raises:
        CheckpointError: the folder cannot be written.
        ImportError: Orbax is not installed.
    """
    orbax()
    folder = _host.path("folder", folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CheckpointError(
            f"checkpoints cannot be written to {folder}: {error}; choose a folder that is writable"
        ) from error
