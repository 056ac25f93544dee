"""Folders of runs: ``params.npz`` (plain arrays, never pickled) and ``config.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from narrow_jax._typing import Params

_PARAMS, _CONFIG = "params.npz", "config.json"


def save(folder: str | Path, params: Params, config: dict[str, Any]) -> Path:
    """Write params (a dictionary of arrays, nested or not) and the config that made them; return the folder.

    Example:
        >>> import tempfile
        >>> folder = save(tempfile.mkdtemp(), {"w": np.ones((2, 4))}, {"width": 4})
        >>> params, config = load(folder)
        >>> params["w"].shape, config
        ((2, 4), {'width': 4})
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    arrays: dict[str, Any] = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves
    }
    np.savez(folder / _PARAMS, **arrays)
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    return folder


def load(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the params and the config of a run.

    Raises:
        FileNotFoundError: the folder is not one that ``save`` wrote.
    """
    folder = Path(folder)
    missing = [name for name in (_PARAMS, _CONFIG) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(missing)}; expected one written by `narrow-jax train --out`"
        )
    params: dict[str, Any] = {}
    with np.load(folder / _PARAMS, allow_pickle=False) as arrays:
        for name in arrays.files:
            *parents, leaf = name.split("/")
            node = params
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = arrays[name]
    return params, json.loads((folder / _CONFIG).read_text())
