"""Folders of runs: ``params.npz`` (plain arrays, never pickled) and ``config.json``."""

from __future__ import annotations

import json
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

from narrow_jax import labels
from narrow_jax._typing import HostArray, Params
from narrow_jax.checkpoints import strict_json
from narrow_jax.checkpoints.leaves import is_registered

__all__ = [
    "FILES",
    "files",
    "load",
    "made",
    "occupied",
    "read_npz",
    "read_tree",
    "replace",
    "replace_file",
    "save",
    "vacant",
    "write_npz",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


_PARAMS, _CONFIG = "params.npz", "config.json"
FILES = (_PARAMS, _CONFIG, "model.safetensors", "model.json", "history.jsonl", "summary.json", "sweep.json")
"""What ``save``, ``nj.save`` and the command line write into the folder of a run."""
_DAMAGE = (zipfile.BadZipFile, EOFError, KeyError, OSError, RuntimeError, ValueError, zlib.error)
"""What zipfile, zlib and NumPy raise for bytes that are no npz file of plain arrays."""
_EXPECTED = "expected an npz file of plain arrays: write it again with numpy.savez"


def save(folder: str | Path, params: Params, config: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Write params (a dictionary of arrays, nested or not) and the config that made them; return the folder.

    All is written under other names first: what was there before is replaced by whole files or not at all.
    A dtype that npz files do not know, such as bfloat16, is kept in the name of its array (``w:bfloat16``), beside
    its bits as integers; ``load`` gives it back.

    Args:
        folder: made if it is not there; ``~`` is the home folder.
        params: dictionaries of arrays.
        config: what JSON can hold.
        overwrite: replace an earlier run in this folder.

    Raises:
        FileExistsError: the folder holds a run already.
        TypeError, ValueError: something else than arrays in dictionaries, or a config that JSON cannot hold.

    Example:
        >>> import tempfile
        >>> folder = save(tempfile.mkdtemp(), {"w": np.ones((2, 4))}, {"width": 4})
        >>> params, config = load(folder)
        >>> params["w"].shape, config
        ((2, 4), {'width': 4})
    """
    folder = Path(folder).expanduser()
    if not overwrite:
        vacant(folder, "pass overwrite=True to replace it")
    replace(folder, files(params, config))
    return folder


def files(params: Params, config: Mapping[str, Any]) -> dict[str, Callable[[Path], Any]]:
    """Return how to write each file of a run, for ``replace``.

    Raises:
        TypeError: a config that JSON cannot hold.
    """
    text = strict_json.dumps(config, indent=2) + "\n"
    return {_PARAMS: lambda path: write_npz(path, params), _CONFIG: lambda path: path.write_text(text)}


def replace(folder: Path, contents: Mapping[str, Callable[[Path], Any]]) -> None:
    """Write the files of a run, and then delete those of an earlier one.

    All are written under other names first: if one cannot be, nothing has changed.
    """
    drafts = {name: folder / f"{name}.draft" for name in contents}
    with made(folder):
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
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


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
    return [name for name in (*FILES, "checkpoints") if _holds(folder / name)]


def _holds(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make the folder; if what follows fails and has written nothing there, it goes again."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be made ({error}): choose another") from error
    try:
        yield
    except BaseException:
        if new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def load(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the params and the config of a run.

    Raises:
        FileNotFoundError: the folder is not one that ``save`` wrote.
        ValueError: a file in it is damaged.
    """
    folder = Path(folder).expanduser()
    missing = [name for name in (_PARAMS, _CONFIG) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(missing)}; expected one written by `narrow-jax train` or `memorize`"
        )
    return read_tree(folder / _PARAMS), _read_config(folder / _CONFIG)


def write_npz(path: Path, tree: Params) -> None:
    """Write arrays in dictionaries, nested or not, by their names, as ``numpy.savez`` would; nothing is pickled.

    Raises:
        TypeError, ValueError: something else than arrays in dictionaries, or names that the file cannot tell apart.
    """
    arrays = dict(_named(tree, ""))
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _named(tree: Params, inside: str) -> Iterator[tuple[str, np.ndarray]]:
    if not isinstance(tree, Mapping) or (inside and not tree):
        kind = "an empty" if isinstance(tree, Mapping) else "of type"
        raise TypeError(
            f"params {inside or 'as a whole'} are {kind} {type(tree).__name__}; expected "
            "arrays in dictionaries, such as {'w': …, 'head': {'v': …}}: leave empty nodes out and name the entries of "
            "lists, tuples and other trees"
        )
    for name in tree:
        if not isinstance(name, str) or not name or set(name) & set("/\0") or name.endswith(".npy"):
            raise ValueError(
                f"params have the name {name!r}; expected a word without a slash that does not end in .npy: rename it"
            )
    for name, node in sorted(tree.items()):
        path = f"{inside}/{name}" if inside else name
        if isinstance(node, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
            yield _stored(path, node)
        else:
            yield from _named(node, path)


def _stored(name: str, leaf: HostArray | np.generic | complex) -> tuple[str, np.ndarray]:
    """Return name and array as the file has them: where the dtype is not NumPy's own, its bits and it in the name."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        raise TypeError(
            f"params {name!r} is a random key ({leaf.dtype}); expected numbers: save jax.random.key_data(key), and "
            "call jax.random.wrap_key_data on what is loaded"
        )
    array = np.asarray(leaf)
    if array.dtype.hasobject:
        raise TypeError(f"params {name!r} is an array of objects; expected numbers: give it a dtype")
    if _registered(name) is not None:
        raise ValueError(f"params have the name {name!r}, which reads as an array of that dtype: rename it")
    if not is_registered(array.dtype):
        return name, array
    return f"{name}:{array.dtype.name}", array.view(f"u{array.dtype.itemsize}")


def _registered(name: str) -> np.dtype | None:
    """Return the dtype at the end of a name, if it is one that was registered with NumPy, as bfloat16 is."""
    _, colon, word = name.rpartition(":")
    if not (colon and word.isidentifier() and len(word) > 1):
        return None
    try:
        dtype = np.dtype(word)
    except TypeError:
        return None
    return dtype if is_registered(dtype) else None


def read_tree(path: str | Path) -> dict[str, Any]:
    """Return the arrays of an npz file in dictionaries, as ``write_npz`` was given them.

    Raises:
        OSError, ValueError: as ``read_npz``; a name that is of an array and of a dictionary.
    """
    arrays = read_npz(path)
    try:
        return labels.nested(arrays)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): write it again") from error


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by their names; nothing is unpickled.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, or no npz file of plain arrays.
    """
    path = Path(path).expanduser()
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
                "expected numbers: write it again with narrow_jax.runs.save"
            )
    return dict(_loaded(name, array) for name, array in found.items())


def _loaded(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    dtype = _registered(name)
    if dtype is None or array.dtype != np.dtype(f"u{dtype.itemsize}"):
        return name, array
    return name.removesuffix(f":{dtype.name}"), array.view(dtype)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); expected JSON: make the run again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__}; expected the fields of a config by name")
    return config
