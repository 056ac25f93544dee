"""Checkpoints: ``save`` and ``restore``, two functions around Orbax that notice every damaged byte.

A checkpoint is a folder ``step-00000040`` with ``arrays/`` (Orbax), ``manifest.json`` (config, versions, and the
SHA-256 of every leaf and of every file) and ``manifest.sha256``. It is written under another name, flushed to
the disk and renamed: one that has its name is whole.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from narrow_jax import _checks, labels
from narrow_jax._typing import HostArray
from narrow_jax.checkpoints import leaves, manifest, strict_json
from narrow_jax.checkpoints.leaves import Leaf

KEEP = 3
"""So many checkpoints of a run are kept: the newest ones."""

Step = int | np.integer
_STEP, _DRAFT = "step-", "draft-"
_PACKAGES = ("narrow_jax", "jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or not be trusted; the message names the newest good step."""


class Restored(NamedTuple):
    """What ``restore`` returns.

    Fields:
        step: the step of the checkpoint.
        state: the saved tree.
        history: the saved records, arrays by name.
    """

    step: int
    state: Any
    history: dict[str, np.ndarray]


class Weights(NamedTuple):
    """What ``load_params`` returns.

    Fields:
        step: the step of the checkpoint.
        params: the weights, NumPy arrays in dictionaries.
        model_state: the model's other variables in the same form, None if it has none.
        config: what made the run, as it was saved; of ``nj.fit`` the ``config`` of the caller is under that name.
    """

    step: int
    params: Any
    model_state: Any
    config: dict[str, Any]


def save(
    folder: str | Path,
    step: Step,
    state: Any,
    config: Mapping[str, Any],
    history: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a checkpoint, then delete all but the newest ``KEEP`` up to this step; return its folder.

    Args:
        folder: where the checkpoints of one run are.
        step: the number of steps done; a checkpoint of the same step is replaced.
        state: any tree of arrays; random keys too.
        config: what made the run, as JSON can hold it; ``restore`` compares it.
        history: records of the run so far, arrays by name.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written. What was there before stays.
        TypeError, ValueError: JSON cannot hold the config; a leaf is no array of numbers; the step is negative; two
            leaves have one name.
        ImportError: Orbax is not installed.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> state = {"w": jax.numpy.arange(3.0), "key": jax.random.key(0)}
        >>> save(folder, 40, state, {"width": 4}).name
        'step-00000040'
        >>> restore(folder, state, {"width": 4}).state["w"].tolist()
        [0.0, 1.0, 2.0]
    """
    _checks.count("step", step, minimum=0)
    step, folder = int(step), Path(folder).expanduser()
    target, draft = _path(folder, step), folder / f"{_DRAFT}{step:08d}"
    config = as_json(config)
    leaves.check_numbers([*leaves.named(state), *(history or {}).items()])
    arrays, entries = leaves.on_host(leaves.named(state))
    leaves.check_names([leaf.name for leaf in entries])
    records, columns = leaves.on_host((history or {}).items())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_drafts(folder)
        draft.mkdir()
        _write_arrays(draft, arrays + records)
        content = {
            "step": step,
            "config": config,
            "state": entries,
            "history": columns,
            "machine": _machine(),
        }
        manifest.write(draft, content)
        manifest.flush(draft)
        _rename(draft, target)
    except (OSError, ValueError) as error:  # Orbax passes the errors of the disk on as ValueError
        _remove_drafts(folder)
        raise CheckpointError(
            f"step {step} could not be saved in {folder}: {error}; {_offer(folder)}"
        ) from error
    for old in [saved for saved in steps(folder) if saved <= step][:-KEEP]:
        shutil.rmtree(_path(folder, old), ignore_errors=True)
    return target


def restore(folder: str | Path, like: Any, config: Mapping[str, Any], step: Step | None = None) -> Restored:
    """Read a checkpoint, after every byte of it has been verified.

    Args:
        folder: the folder given to ``save``.
        like: a tree with the structure, shapes and dtypes of the state. Leaves come back as JAX arrays, placed
            as they are here, or as NumPy arrays where they are such here.
        config: what makes this run; every field must be as saved.
        step: which checkpoint; the newest by default.

    Raises:
        CheckpointError: there is none, it is damaged or half-written, or config or state do not fit. The
            message names the newest good step.
        ImportError: Orbax is not installed.

    Warns:
        UserWarning: the versions or the machine are others than those that saved, so that a run that goes on
            may not repeat the uninterrupted one bit for bit.
    """
    folder = Path(folder).expanduser()
    step = _chosen(folder, step)
    content = _verified(folder, step)
    _compare_config(folder, step, content["config"], config)
    entries, columns = _saved(content)
    _compare_state(folder, step, entries, like)
    _warn_of_another_machine(content["machine"])
    arrays = _read_arrays(folder, step, entries + columns)
    wanted, structure = jax.tree.flatten(like)
    state = jax.tree.unflatten(structure, map(leaves.placed, arrays[: len(wanted)], wanted))
    names = [column.name for column in columns]
    return Restored(step, state, dict(zip(names, arrays[len(wanted) :], strict=True)))


def load_params(folder: str | Path, step: Step | None = None) -> Weights:
    """Read the weights out of a checkpoint of ``nj.fit``, after every byte of it has been verified.

    Neither data nor config nor optimizer are needed. The arrays lie in dictionaries by the names of the leaves, which
    are split at each slash: a list comes as a dictionary with the names "0", "1", …. A random key comes as the
    numbers behind it.

    Args:
        folder: the folder given to ``nj.fit(checkpoint=…)``.
        step: which checkpoint; the newest by default.

    Raises:
        CheckpointError: there is none, it is damaged or half-written, or it holds no params.
        ImportError: Orbax is not installed.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> _ = save(folder, 40, {"params": {"w": jax.numpy.arange(3.0)}, "opt_state": ()}, {"width": 4})
        >>> load_params(folder).params["w"].tolist(), load_params(folder).config
        ([0.0, 1.0, 2.0], {'width': 4})
    """
    folder = Path(folder).expanduser()
    step = _chosen(folder, step)
    content = _verified(folder, step)
    entries, columns = _saved(content)
    arrays = _read_arrays(folder, step, entries + columns)[: len(entries)]
    wanted = {
        leaf.name: array
        for leaf, array in zip(entries, arrays, strict=True)
        if leaf.name.partition("/")[0] in ("params", "model_state")
    }
    try:
        tree = labels.nested(wanted)
    except ValueError as error:
        raise CheckpointError(f"step {step} in {folder}: {error}; use restore") from error
    if "params" not in tree:
        raise CheckpointError(
            f"step {step} in {folder} holds no params but {', '.join(leaf.name for leaf in entries[:3])}, …; expected "
            "a checkpoint of nj.fit: use restore"
        )
    return Weights(step, tree["params"], tree.get("model_state"), content["config"])


def steps(folder: str | Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, damaged ones included, in ascending order."""
    names = (path.name.removeprefix(_STEP) for path in Path(folder).expanduser().glob(f"{_STEP}*"))
    return sorted(int(name) for name in names if name.isdecimal())


def fingerprint(tree: Any) -> str:
    """Return the SHA-256 of all leaves of a tree, their names, shapes and dtypes.

    Example:
        >>> fingerprint({"w": np.zeros(2)}) == fingerprint({"w": np.zeros(2)})
        True
        >>> fingerprint({"w": np.zeros(2)}) == fingerprint({"w": np.zeros(2, np.float32)})
        False
    """
    return hashlib.sha256(json.dumps(leaves.on_host(leaves.named(tree))[1]).encode()).hexdigest()


def described(array: HostArray) -> str:
    """Return shape, dtype and fingerprint of an array, for people.

    Example:
        >>> described(np.zeros((2, 3)))[:22]
        '(2, 3) float64 SHA-256'
    """
    return f"{array.shape} {array.dtype} SHA-256 {fingerprint(array)}"


def as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config as it will be read back: tuples as lists, scalars of NumPy as numbers, infinity as a word.

    Raises:
        TypeError: JSON cannot hold it.

    Example:
        >>> as_json({"steps": np.int64(30), "radius": np.inf})
        {'steps': 30, 'radius': 'inf'}
    """
    try:
        return json.loads(strict_json.dumps(dict(config)))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"config is to be saved as JSON: {error}; use numbers, words, lists, dictionaries"
        ) from error


def prepare(folder: str | Path) -> None:
    """Make the folder, so that a run knows before its first step that it can be saved.

    Raises:
        CheckpointError: the folder cannot be written.
        ImportError: Orbax is not installed.
    """
    _orbax()
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CheckpointError(
            f"checkpoints cannot be written to {folder}: {error}; choose a folder that is writable"
        ) from error


def _orbax() -> Any:
    try:
        return importlib.import_module("orbax.checkpoint")
    except ImportError as error:
        raise ImportError(
            f"checkpoints need Orbax, which is not installed ({error}): pip install 'narrow_jax[checkpoints]'"
        ) from error


def _path(folder: str | Path, step: int) -> Path:
    return Path(folder) / f"{_STEP}{step:08d}"


def _remove_drafts(folder: Path) -> None:
    for draft in folder.glob(f"{_DRAFT}*"):
        shutil.rmtree(draft, ignore_errors=True)


def _chosen(folder: Path, step: Step | None) -> int:
    found = steps(folder)
    if step is None and not found:
        raise CheckpointError(f"{folder} holds no checkpoint")
    step = found[-1] if step is None else step
    if step not in found:
        raise CheckpointError(f"{folder} holds no checkpoint of step {step}; {_offer(folder)}")
    return int(step)


def _saved(content: Mapping[str, Any]) -> tuple[list[Leaf], list[Leaf]]:
    state, history = ([Leaf(*entry) for entry in content[part]] for part in ("state", "history"))
    return state, history


def _write_arrays(draft: Path, arrays: list[np.ndarray]) -> None:
    orbax = _orbax()
    # Orbax refuses empty arrays, and trees of nothing else
    if tree := {str(i): leaves.as_bits(array) for i, array in enumerate(arrays) if array.size}:
        orbax.Checkpointer(orbax.PyTreeCheckpointHandler()).save((draft / manifest.ARRAYS).absolute(), tree)


def _read_arrays(folder: Path, step: int, entries: list[Leaf]) -> list[np.ndarray]:
    orbax = _orbax()
    stored = {str(i): leaf for i, leaf in enumerate(entries) if 0 not in leaf.shape}
    as_numpy = orbax.args.PyTreeRestore(
        restore_args={name: orbax.RestoreArgs(restore_type=np.ndarray) for name in stored}
    )
    handler = orbax.Checkpointer(orbax.PyTreeCheckpointHandler())
    place = (_path(folder, step) / manifest.ARRAYS).absolute()
    read = handler.restore(place, args=as_numpy) if stored else {}
    for name, leaf in stored.items():
        if manifest.digest(read[name]) != leaf.sha256:
            raise CheckpointError(
                f"step {step} in {folder} is damaged: Orbax returned other numbers for {leaf.name} than were saved; "
                f"{_offer(folder, but=step)}"
            )
    return [
        leaves.from_bits(read[str(i)], leaf.dtype) if str(i) in read else np.zeros(leaf.shape, leaf.dtype)
        for i, leaf in enumerate(entries)
    ]


@cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES}


def _machine() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        **_versions(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": device.device_kind,
        "devices": jax.device_count(),
    }


def _rename(draft: Path, target: Path) -> None:
    replaced = draft.with_name(f"{draft.name}-replaced")
    if target.exists():
        target.rename(replaced)
    try:
        draft.rename(target)
    except OSError:
        if replaced.exists():
            replaced.rename(target)
        raise
    manifest.sync(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _offer(folder: Path, but: int | None = None) -> str:
    """Say which step of the folder is the newest good one."""
    for step in reversed(steps(folder)):
        if step != but and manifest.damage(_path(folder, step)) is None:
            return f"the newest good step is {step} (restore: step={step}, fit: resume={step}, shell: --resume {step})"
    return "no good checkpoint is there"


def _verified(folder: Path, step: int) -> dict[str, Any]:
    if damage := manifest.damage(_path(folder, step)):
        raise CheckpointError(f"step {step} in {folder} {damage}; {_offer(folder, but=step)}")
    return json.loads((_path(folder, step) / manifest.MANIFEST).read_text())


def _compare_config(folder: Path, step: int, saved: Any, given: Mapping[str, Any]) -> None:
    if differences := manifest.differences(
        manifest.flat(strict_json.plain(saved)), manifest.flat(as_json(given))
    ):
        raise CheckpointError(
            f"step {step} in {folder} was saved with another config or data set: {differences}. "
            f"Give what was saved, or use another folder; {_offer(folder)}"
        )


def _compare_state(folder: Path, step: int, saved: list[Leaf], like: Any) -> None:
    have = {leaf.name: f"{leaf.shape} {leaf.dtype}" for leaf in saved}
    want = {name: f"{list(leaf.shape)} {leaf.dtype}" for name, leaf in leaves.named(like)}
    if differences := manifest.differences(have, want):
        raise CheckpointError(
            f"step {step} in {folder} is of another model or optimizer: {differences}. "
            f"Give those that were saved, or use another folder; {_offer(folder)}"
        )


def _warn_of_another_machine(saved: Mapping[str, Any]) -> None:
    if differences := manifest.differences(saved, _machine(), where="here"):
        warnings.warn(
            f"the checkpoint is of another machine or version ({differences}): the run goes on, but may not repeat "
            "the uninterrupted one bit for bit",
            stacklevel=3,
        )
