"""Folders of runs: ``params.npz`` (plain arrays, never pickled) and ``config.json``."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import numpy as np
from numpy.lib.npyio import NpzFile

from narrow_jax._typing import Params

_PARAMS, _CONFIG = "params.npz", "config.json"
_DAMAGE = (BadZipFile, EOFError, KeyError, OSError, RuntimeError, ValueError, zlib.error)
"""What zipfile, zlib and NumPy raise for bytes that are no npz file of plain arrays."""
_EXPECTED = "expected an npz file of plain arrays: write it again with numpy.savez"


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
        ValueError: a file in it is damaged.
    """
    folder = Path(folder)
    missing = [name for name in (_PARAMS, _CONFIG) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(missing)}; expected one written by `narrow-jax train --out`"
        )
    params: dict[str, Any] = {}
    for name, array in read_npz(folder / _PARAMS).items():
        *parents, leaf = name.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return params, _read_config(folder / _CONFIG)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by their names; nothing is unpickled.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, or no npz file of plain arrays.
    """
    with open(path, "rb") as file:
        try:
            with NpzFile(file) as stored:
                found = {name: stored[name] for name in stored.files}
        except _DAMAGE as error:
            raise ValueError(f"{path} cannot be read ({error}); {_EXPECTED}") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{path} holds {name}, which is no array; {_EXPECTED}")
    return found


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); expected JSON: make the run again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__}; expected the fields of a config by name")
    return config
