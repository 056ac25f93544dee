"""``save`` and ``load``: a model in a folder, ``model.safetensors`` and ``model.json``, every byte verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _host, checkpoints, labels
from narrow_jax._host import host_only
from narrow_jax._typing import Tree
from narrow_jax.checkpoints import runs, safetensors, strict_json
from narrow_jax.data import Columns, Normalizer, Transformer
from narrow_jax.models import architectures
from narrow_jax.models.model import Model

ARRAYS, ABOUT = runs.ARRAYS, "model.json"
FORMAT = 1
OUTLINE = "outline"
_WEIGHTS, _MAPS = ("params", "model_state"), ("normalizer", "target_map")
_TREES = (*_WEIGHTS, *_MAPS)


@host_only
def save(
    folder: str | Path,
    model: Model,
    *,
    history: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model; return its folder.

    ``model.safetensors`` has the arrays, in their own dtypes, ``model.json`` everything else and the checksums of both.
    Nothing is pickled. A random key, as of dropout, comes back as the numbers behind it. A function of the user's
    own, and a normalizer of theirs, are not in the files: ``load`` is
    given them again.

    Args:
        folder: made if it is not there; ``~`` is the home folder.
        model: what to keep, such as ``result.model``.
        history: ``result.history``, for the curves of ``narrow-jax report``.
        config: what made the model, as JSON can hold it, for ``narrow-jax runs`` and ``report``.
        overwrite: replace a run or model in this folder.

    Raises:
        FileExistsError: the folder holds a run or model already.
        OSError: it cannot be written; what was there stays.
        TypeError: no model, an array of a dtype that the format does not have, or a config that JSON cannot hold.
        ValueError: two leaves of one name, or a history with more than one number a record.

    Example:
        >>> import tempfile
        >>> import narrow_jax as nj
        >>> model = Model(nj.models.standard_apply, {"w": jnp.eye(2), "v": jnp.ones((2, 1))})
        >>> same = load(save(tempfile.mkdtemp(), model))
        >>> bool((same.predict([[1.0, 2.0]]) == model.predict([[1.0, 2.0]])).all())
        True
    """
    if not isinstance(model, Model):
        raise TypeError(f"model is a {type(model).__name__}; expected an nj.Model: pass result.model")
    folder = _host.path("folder", folder)
    if not overwrite:
        runs.vacant(folder, "pass overwrite=True to replace it")
    contents = files(model) | ({} if config is None else runs.config_file(config))
    runs.replace(folder, contents | ({} if history is None else _history_file(history)))
    return folder


def _history_file(history: Mapping[str, Any]) -> dict[str, Callable[[Path], Any]]:
    if not isinstance(history, Mapping):
        raise TypeError(
            f"history is a {type(history).__name__}; expected records by name: pass result.history"
        )
    records = {name: np.asarray(values) for name, values in history.items()}
    shapes = {values.shape for values in records.values()}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        said = ", ".join(f"{name} {values.shape}" for name, values in list(records.items())[:3])
        raise ValueError(
            f"history has the shapes {said}; expected one number a record in each entry: of a sweep pass "
            "result.at(…).history"
        )
    lines = "".join(json.dumps(line) + "\n" for line in strict_json.lines_of(records))
    return {"history.jsonl": lambda path: path.write_text(lines)}


def save_outline(folder: Path, model: Model) -> None:
    """Write all of a model but its weights beside the checkpoints that have these, for ``load``."""
    runs.replace(folder / OUTLINE, files(model, parts=_MAPS))


def files(
    model: Model, start: Tree = None, parts: Sequence[str] = _TREES
) -> dict[str, Callable[[Path], Any]]:
    """Return how to write each file of a model, for ``runs.replace``; all that can be wrong is looked at before.

    Args:
        model: the model.
        start: params from which it was solved for, kept beside its own.
        parts: which of its arrays are written.
    """
    arrays = _arrays({part: getattr(model, part) for part in parts} | {"start": start})
    safetensors.check(arrays)
    about = strict_json.as_json(_about(model))

    def write_arrays(path: Path) -> None:
        safetensors.write(path, arrays)
        about["arrays"] = _digest(path.read_bytes())

    def write_about(path: Path) -> None:  # after the arrays, whose digest it has
        path.write_text(json.dumps({"sha256": _sealed(about), **about}, indent=1) + "\n", encoding="utf-8")

    return {ARRAYS: write_arrays, ABOUT: write_about}


def _arrays(trees: Mapping[str, Tree]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for part, tree in trees.items():
        tree = tree.before if isinstance(tree, Transformer) else tree  # the fitted object is the user's
        tree = tree.to_arrays() if isinstance(tree, Normalizer) else tree
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = "/".join(filter(None, (part, labels.path_name(path))))
            if name in found:
                raise ValueError(
                    f"two arrays of the model have the name {name!r}; expected one of its own for each"
                )
            found[name] = np.asarray(jax.random.key_data(leaf) if _checks.is_key(leaf) else leaf)
    return found


def _about(model: Model) -> dict[str, Any]:
    fitted = model.normalizer.fitted if isinstance(model.normalizer, Transformer) else None
    return {
        "format": FORMAT,
        "narrow_jax": metadata.version("narrow_jax"),
        "architecture": architectures.described(model.apply_fn),
        "has_state": model.model_state is not None,
        "normalizer": None if fitted is None else type(fitted).__qualname__,
        "classes": model.classes,
        "columns": None if model.columns is None else model.columns._asdict(),
        "loss": model.loss,
        "inputs": None
        if model.inputs is None
        else {"shape": model.inputs.shape, "dtype": jnp.dtype(model.inputs.dtype).name},
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sealed(about: Mapping[str, Any]) -> str:
    return _digest(json.dumps(about, sort_keys=True).encode())


@host_only
def load(
    folder: str | Path,
    apply_fn: Callable[..., Any] | None = None,
    *,
    like: Tree = None,
    normalizer: Any = None,
) -> Model:
    """Return the model that ``save`` or ``narrow-jax train`` wrote, after every byte of it has been verified.

    It predicts the same numbers to the bit, on the same kind of machine. Arrays come as NumPy's. Of a run that has not
    ended, or was killed, the weights are those of its newest checkpoint; data and optimizer are not needed.

    Args:
        folder: that of the model, of a run, or of ``nj.callbacks.Checkpoint``.
        apply_fn: the function of a model that is not of this library's, as it was when it was saved.
        like: params in their structure, where this is not dictionaries: an ``nnx.State``, lists, tuples. With
            ``model_state`` a pair of both.
        normalizer: the fitted object, where the map of the inputs is one of the user's: ``model.normalizer.fitted``
            of the model that was saved.

    Raises:
        FileNotFoundError: the folder has no model.
        CheckpointError: (a ValueError) the newest checkpoint is damaged.
        ValueError: a file that was altered or is of a newer version, a function that does not fit the weights, or one
            that is needed, or not needed.
    """
    folder = _host.path("folder", folder)
    about, trees = _stored(folder)
    net = _net(folder, about, apply_fn)
    maps = {part: None if trees[part] is None else Normalizer.from_arrays(trees[part]) for part in _MAPS}
    params, state = _restructured(trees["params"], trees["model_state"] if about["has_state"] else None, like)
    inputs, columns, classes = about["inputs"], about["columns"], about["classes"]
    model = Model(
        net,
        params,
        {} if about["has_state"] and state is None else state,
        _normalizer(folder, about, normalizer, maps["normalizer"]),
        maps["target_map"],
        None if classes is None else tuple(classes),
        None if columns is None else _columns(columns),
        about["loss"],
        None if inputs is None else jax.ShapeDtypeStruct(tuple(inputs["shape"]), jnp.dtype(inputs["dtype"])),
    )
    _check_fits(folder, about, model)
    return model


def _stored(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is said of a model, and its arrays by part."""
    if not (folder / ABOUT).is_file():
        for saved in (folder, folder / "checkpoints"):
            if checkpoints.steps(saved):
                return _of_checkpoints(saved)
    about, arrays = _verified(folder)
    return about, {part: _tree(arrays, part) for part in _TREES}


def _of_checkpoints(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the same with the weights of the newest checkpoint."""
    if not (folder / OUTLINE / ABOUT).is_file():
        raise FileNotFoundError(
            f"{folder} has checkpoints and no {OUTLINE}/{ABOUT}; expected what nj.callbacks.Checkpoint writes: "
            "nj.checkpoints.load_params gives the weights alone"
        )
    about, arrays = _verified(folder / OUTLINE)
    weights = checkpoints.load_params(folder)
    maps = {part: _tree(arrays, part) for part in _MAPS}
    return about, maps | {part: getattr(weights, part) for part in _WEIGHTS}


def _verified(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    missing = [name for name in (ABOUT, ARRAYS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(missing)}; expected a folder that nj.save or `narrow-jax train` wrote"
        )
    about = strict_json.read(folder / ABOUT)
    sealed, version = about.pop("sha256", None), about.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise ValueError(
            f"{folder / ABOUT} is of format {version}, written by narrow_jax {about.get('narrow_jax')}; expected "
            f"{FORMAT} at most: use that version, or a newer one"
        )
    if _sealed(about) != sealed:
        raise ValueError(
            f"{folder / ABOUT} was altered: its SHA-256 is not the one in it; restore the file, or save the model again"
        )
    if _digest((folder / ARRAYS).read_bytes()) != about["arrays"]:
        raise ValueError(
            f"{folder / ARRAYS} was altered: its SHA-256 is not the one in {ABOUT}; restore the file, or save the "
            "model again"
        )
    return about, safetensors.read(folder / ARRAYS)


def _net(folder: Path, about: Mapping[str, Any], apply_fn: Callable[..., Any] | None) -> Callable[..., Any]:
    architecture = about["architecture"]
    if architectures.is_own(architecture):
        if apply_fn is None:
            raise ValueError(
                f"the model in {folder} is a function of its maker's ({architecture['own']}), which is not in the "
                "files: "
                "pass it again, nj.load(folder, apply_fn)"
            )
        return _checks.function("apply_fn", apply_fn, "(params, x) ↦ outputs", "module.apply")
    if apply_fn is not None and architectures.described(apply_fn) != architecture:
        raise ValueError(
            f"apply_fn is {architectures.described(apply_fn)} and the model in {folder} is {architecture}: leave it out"
        )
    return architectures.built(architecture)


def _tree(arrays: Mapping[str, np.ndarray], part: str) -> Any:
    own = {
        name.removeprefix(part + "/"): array
        for name, array in arrays.items()
        if name == part or name.startswith(part + "/")
    }
    return (own[part] if part in own else labels.nested(own)) if own else None


def _restructured(params: Tree, state: Tree, like: Tree) -> tuple[Tree, Tree]:
    if like is None:
        return params, state
    if state is None:
        return _filled(params, like), None
    if not (isinstance(like, tuple) and len(like) == 2):
        raise TypeError(
            f"like is a {type(like).__name__}; expected a pair (params, model_state) for this model"
        )
    return _filled(params, like[0]), _filled(state, like[1])


def _filled(tree: Tree, like: Tree) -> Tree:
    """Return the arrays in the structure of ``like``, by their names."""
    stored = dict(zip(labels.leaf_names(tree), jax.tree.leaves(tree), strict=True))
    names = labels.leaf_names(like)
    if set(names) != set(stored):
        missing, others = sorted(set(stored) - set(names)), sorted(set(names) - set(stored))
        raise ValueError(
            f"like has another structure than the model: {', '.join(missing) or 'none'} missing, "
            f"{', '.join(others) or 'none'} too many; expected the params that were saved"
        )
    return jax.tree.unflatten(jax.tree.structure(like), [stored[name] for name in names])


def _normalizer(
    folder: Path, about: Mapping[str, Any], given: Any, stored: Normalizer | None
) -> Normalizer | Transformer | None:
    """Return the map of the inputs: that of the files, or behind it the user's."""
    if (name := about["normalizer"]) is None:
        if given is not None:
            raise ValueError(f"the model in {folder} has its own normalizer in the files: leave it out")
        return stored
    if given is None:
        raise ValueError(
            f"the model in {folder} has a normalizer of its maker's ({name}), which is not in the files: pass the "
            "fitted object again, nj.load(folder, normalizer=…)"
        )
    fitted = given.fitted if isinstance(given, Transformer) else given
    if type(fitted).__qualname__ != name or not callable(getattr(fitted, "transform", None)):
        raise ValueError(
            f"normalizer is a {type(fitted).__qualname__}; expected the {name} that was fitted in training, with its "
            "method transform"
        )
    return Transformer(fitted, stored)


def _columns(saved: Mapping[str, Any]) -> Columns:
    words = {name: tuple(values) for name, values in saved["words"].items()}
    return Columns(tuple(saved["names"]), words, saved["target"])


def _check_fits(folder: Path, about: Mapping[str, Any], model: Model) -> None:
    """Require a net that takes these weights, where it is known what it sees: nothing is computed."""
    if model.inputs is None:
        return
    x = jax.ShapeDtypeStruct((2, *model.inputs.shape), model.inputs.dtype)
    try:
        jax.eval_shape(
            lambda params, state, x: model.apply_fn(
                *((params, x) if state is None else (params, state, x)),
                **({} if state is None else {"train": False}),
            ),
            *(model.params, model.model_state, x),
        )
    except Exception as error:
        raise ValueError(
            f"the weights in {folder} do not fit the architecture {about['architecture']}: "
            f"{' '.join(str(error).split())[:300]}; expected the function that they were trained with, and like= for "
            "params that are no dictionaries"
        ) from error
