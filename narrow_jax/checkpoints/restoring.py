"""``restore``: a state as it was saved; ``load_params``: the weights in it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from narrow_jax import _host, labels
from narrow_jax._printing import brief
from narrow_jax._typing import Params, Tree
from narrow_jax.checkpoints import leaves, strict_json
from narrow_jax.checkpoints.checkpoint import Checkpoint, CheckpointError, Step, offer
from narrow_jax.checkpoints.manifest import differences, machine


class Restored(NamedTuple):
    """What ``restore`` returns.

    Fields:
        step: the step of the checkpoint.
        state: the saved tree.
        history: the saved records, arrays by name.
    """

    step: int
    state: Tree
    history: dict[str, np.ndarray]

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())


class Weights(NamedTuple):
    """What ``load_params`` returns.

    Fields:
        step: the step of the checkpoint.
        params: the weights, NumPy arrays in dictionaries.
        model_state: the model's other variables in the same form, None if it has none.
        config: what made the run, as it was saved; of ``nj.fit`` the ``config`` of the caller is under that name.
    """

    step: int
    params: Params
    model_state: Tree
    config: dict[str, Any]

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())


def restore(
    folder: str | Path, like: Tree, config: Mapping[str, object], step: Step | None = None
) -> Restored:
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
    checkpoint = Checkpoint.chosen(_host.path("folder", folder), step)
    manifest = checkpoint.verified()
    saved = strict_json.plain(manifest.config)
    if differ := differences(saved, strict_json.as_json(config)):
        raise _other(checkpoint, "was saved with another config or data set", differ, "what was")
    have = {leaf.name: f"{leaf.shape} {leaf.dtype}" for leaf in manifest.state}
    want = {name: f"{list(leaf.shape)} {leaf.dtype}" for name, leaf in leaves.named(like)}
    if differ := differences(have, want):
        raise _other(checkpoint, "is of another model or optimizer", differ, "those that were")
    if differ := differences(manifest.machine, machine(), where="here"):
        warnings.warn(
            f"the checkpoint is of another machine or version ({differ}): the run goes on, but may not repeat "
            "the uninterrupted one bit for bit",
            stacklevel=2,
        )
    arrays = checkpoint.read(manifest.leaves)
    wanted, structure = jax.tree.flatten(like)
    state = jax.tree.unflatten(structure, map(leaves.placed, arrays[: len(wanted)], wanted))
    names = [column.name for column in manifest.history]
    return Restored(checkpoint.step, state, dict(zip(names, arrays[len(wanted) :], strict=True)))


def _other(checkpoint: Checkpoint, what: str, differ: str, give: str) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint} {what}: {differ}. Give {give} saved, or use another folder; {offer(checkpoint.folder)}"
    )


def load_params(folder: str | Path, step: Step | None = None) -> Weights:
    """Read the weights out of a checkpoint of ``nj.fit``, after every byte of it has been verified.

    Neither data nor config nor optimizer are needed. The arrays lie in dictionaries by the names of the leaves, which
    are split at each slash: a list comes as a dictionary with the names "0", "1", …. A random key comes as the
    numbers behind it.

    Args:
        folder: the folder given to ``nj.callbacks.Checkpoint``.
        step: which checkpoint; the newest by default.

    Raises:
        CheckpointError: there is none, it is damaged or half-written, or it holds no params.
        ImportError: Orbax is not installed.

    Example:
        >>> import tempfile
        >>> from narrow_jax.checkpoints import save
        >>> folder = tempfile.mkdtemp()
        >>> _ = save(folder, 40, {"params": {"w": jax.numpy.arange(3.0)}, "opt_state": ()}, {"width": 4})
        >>> load_params(folder).params["w"].tolist(), load_params(folder).config
        ([0.0, 1.0, 2.0], {'width': 4})
    """
    checkpoint = Checkpoint.chosen(_host.path("folder", folder), step)
    manifest = checkpoint.verified()
    wanted = {
        leaf.name: array
        for leaf, array in zip(
            manifest.state, checkpoint.read(manifest.leaves), strict=False
        )  # the history follows
        if leaf.name.partition("/")[0] in ("params", "model_state")
    }
    try:
        tree = labels.nested(wanted)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint}: {error}; use restore") from error
    if "params" not in tree:
        raise CheckpointError(
            f"{checkpoint} holds no params but {', '.join(leaf.name for leaf in manifest.state[:3])}, …; expected "
            "a checkpoint of nj.fit: use restore"
        )
    return Weights(checkpoint.step, tree["params"], tree.get("model_state"), manifest.config)
