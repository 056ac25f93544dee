"""Folders of runs: ``model.safetensors``, arrays by their names, and ``config.json``; and npz files of plain arrays."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib.npyio import NpzFile

from narrow_jax import _host, labels
from narrow_jax._typing import HostArray, Params
from narrow_jax.checkpoints import safetensors, strict_json
from narrow_jax.checkpoints.checkpoint import steps

__all__ = [
    "ARRAYS",
    "CONFIG",
    "FILES",
    "LIVE",
    "config_file",
    "load",
    "made",
    "occupied",
    "read",
    "read_npz",
    "replace",
    "replace_file",
    "save",
    "vacant",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


ARRAYS, CONFIG = "model.safetensors", "config.json"
FILES = (ARRAYS, "model.json", CONFIG, "history.jsonl", "summary.json", "sweep.json")
"""What ``save``, ``nj.save`` and the command line write into the folder of a run."""
LIVE = "history.part.jsonl"
"""The history of a run of the command line that has not ended."""
_DAMAGE = (zipfile.BadZipFile, EOFError, KeyError, OSError, RuntimeError, ValueError, zlib.error)
"""What zipfile, zlib and NumPy raise for bytes that are no npz file of plain arrays."""
_EXPECTED = "expected an npz file of plain arrays: write it again with numpy.savez"


def save(folder: str | Path, params: Params, config: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Write params (a dictionary of arrays, nested or not) and the config that made them; return the folder.

    All is written under other names first: what was there before is replaced by whole files or not at all.

    Args:
        folder: made if it is not there; ``~`` is the home folder.
        params: dictionaries of arrays.
        config: what JSON can hold.
        overwrite: replace an earlier run in this folder.

    Raises:
        FileExistsError: the folder holds a run already.
        TypeError, ValueError: something else than arrays in dictionaries, a dtype that the format does not have, or a
            config that JSON cannot hold.

    Example:
        >>> import tempfile
        >>> folder = save(tempfile.mkdtemp(), {"w": np.ones((2, 4))}, {"width": 4})
        >>> params, config = load(folder)
        >>> params["w"].shape, config
        ((2, 4), {'width': 4})
    """
    folder = _host.path("folder", folder)
    if not overwrite:
        vacant(folder, "pass overwrite=True to replace it")
    arrays = dict(_named(params, "params"))
    safetensors.check(arrays)
    replace(folder, {ARRAYS: lambda path: safetensors.write(path, arrays)} | config_file(config))
    return folder


def config_file(config: Mapping[str, Any]) -> dict[str, Callable[[Path], Any]]:
    """Return how to write the config of a run, for ``replace``.

    Raises:
        TypeError: JSON cannot hold it.
    """
    text = strict_json.dumps(strict_json.as_json(config), indent=2) + "\n"
    return {CONFIG: lambda path: path.write_text(text)}


def replace(folder: Path, contents: Mapping[str, Callable[[Path], Any]]) -> None:
    """Write the files of a run, and then delete those of an earlier one.

    All are written under other names first: if one cannot be, nothing has changed.
    """
    drafts = {name: folder / f"{name}.draft" for name in contents}
    with made(folder), _writing(folder):
        try:
            for name, write in contents.items():
                write(drafts[name])
            for name, draft in drafts.items():
                draft.replace(folder / name)
        finally:
            for draft in drafts.values():
                draft.unlink(missing_ok=True)
    for name in set(FILES) - set(contents):
        (folder / name).unlink(missing_ok=True)


def replace_file(path: Path, text: str) -> None:
    """Write a file of text, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    draft = path.with_name(f"{path.name}.draft")
    with _writing(path):
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Say which place could not be written."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{place} cannot be written ({error}): choose another place, or make room; what was there stays"
        ) from error


def vacant(folder: Path, otherwise: str) -> None:
    """Require a folder without a run; it need not be there.

    Raises:
        FileExistsError: a file of a run is there, or checkpoints, or the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; expected a folder for the run: choose another name")
    if found := occupied(folder):
        raise FileExistsError(
            f"{folder} holds a run already ({', '.join(found)}): choose another folder, or {otherwise}"
        )


def occupied(folder: Path) -> list[str]:
    """Return which parts of a run are in a folder."""
    saved = ["checkpoints"] if steps(folder / "checkpoints") else []
    return [name for name in FILES if (folder / name).exists()] + saved


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make the folder; if what follows fails and has written nothing there, it goes again, with those above it."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be made ({error}): choose another") from error
    try:
        yield
    except BaseException:
        for place in new:
            if any(place.iterdir()):
                break
            place.rmdir()
        raise


def load(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the params and the config of a run.

    Raises:
        FileNotFoundError: the folder is not one of a run.
        ValueError: a file in it is damaged.
    """
    trees, config = read(folder)
    return trees["params"], config


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all arrays of a run, in dictionaries by what they are ("params", "start", …), and its config.

    Raises:
        FileNotFoundError, ValueError: as ``load``.
    """
    folder = _host.path("folder", folder)
    missing = [name for name in (ARRAYS, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(missing)}; expected one written by `narrow-jax train` or `memorize`"
        )
    arrays = safetensors.read(folder / ARRAYS)
    try:
        trees = labels.nested(arrays)
    except ValueError as error:
        raise ValueError(f"{folder / ARRAYS} cannot be read ({error}): make the run again") from error
    if not isinstance(trees.get("params"), dict):
        raise ValueError(
            f"{folder / ARRAYS} holds no params by name but {', '.join(trees) or 'nothing'}; expected those of a run"
        )
    return trees, strict_json.read(folder / CONFIG)


def _named(tree: Params, inside: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays in dictionaries by their names, of which ``read`` makes the dictionaries again."""
    where = inside.removeprefix("params").lstrip("/")
    if not isinstance(tree, Mapping) or (where and not tree):
        kind = "an empty" if isinstance(tree, Mapping) else "of type"
        raise TypeError(
            f"params {where or 'as a whole'} are {kind} {type(tree).__name__}; expected "
            "arrays in dictionaries, such as {'w': …, 'head': {'v': …}}: leave empty nodes out and name the entries of "
            "lists, tuples and other trees"
        )
    for name in tree:
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"params have the name {name!r}; expected a word without a slash: rename it")
    for name, node in sorted(tree.items()):
        path = f"{inside}/{name}"
        if isinstance(node, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
            yield path, _stored(path, node)
        else:
            yield from _named(node, path)


def _stored(name: str, leaf: HostArray | np.generic | complex) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        raise TypeError(
            f"{name!r} is a random key ({leaf.dtype}); expected numbers: save jax.random.key_data(key), and "
            "call jax.random.wrap_key_data on what is loaded"
        )
    return np.asarray(leaf)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by their names; nothing is unpickled.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, or no npz file of plain arrays.
    """
    path = _host.path("path", path)
    with open(path, "rb") as file:
        try:
            with NpzFile(file) as stored:
                found = {name: stored[name] for name in stored.files}
        except _DAMAGE as error:
            raise ValueError(f"{path} cannot be read ({error}); {_EXPECTED}") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{path} holds {name}, which is no array; {_EXPECTED}")
        if array.dtype.kind == "V" and array.dtype.names is None:
            raise ValueError(
                f"{path} holds {name} as bytes without a dtype ({array.dtype}), as numpy.savez writes bfloat16; "
                "expected numbers: write it again as float32"
            )
    return found
