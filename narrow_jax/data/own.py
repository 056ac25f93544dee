"""Data of one's own, arrays or a file, as the ``Dataset`` that ``load`` gives."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from narrow_jax import _checks, _host
from narrow_jax._host import host_only
from narrow_jax._typing import Samples
from narrow_jax.checkpoints import runs
from narrow_jax.data import arrays
from narrow_jax.data.dataset import Dataset, Source, Split, regression_targets
from narrow_jax.data.normalizers import Normalizer, Transformer, pixels, scale, standardize, whiten
from narrow_jax.data.tables import Columns, read_table

NORMALIZERS = {"standardize": standardize, "scale": scale, "whiten": whiten}
TASKS = ("classification", "regression")
_MOST_CLASSES = 1_000
_BYTE = 255

Normalize = Any
"""The name of a map, an object with ``fit`` and ``transform``, or None."""
RandomKey = Any
"""A key of ``jax.random``."""


@host_only
def from_arrays(
    x: Samples,
    y: Samples,
    *,
    test: tuple[Samples, Samples] | None = None,
    test_fraction: float = 0.0,
    key: RandomKey | None = None,
    normalize: Normalize = "standardize",
    normalize_targets: bool = True,
    task: str | None = None,
    name: str = "arrays",
) -> Dataset:
    """Return arrays as the data set that ``load`` gives, for ``nj.fit`` and for a model that keeps its map.

    Args:
        x: Samples (n, d), or images (n, height, width, channels), which bytes are taken as from 0 to 255.
        y: Targets. Words, truth values and integers (n,) are classes; floating numbers (n,) or (n, k) are real.
        test: ``(x, y)`` of a test split.
        test_fraction: fraction of the rows put aside as test split, drawn with ``key``.
        key: random key, needed with ``test_fraction``.
        normalize: "standardize", "scale", "whiten" (see ``load``), None, or any object with ``fit`` and ``transform``
            such as scikit-learn's, of which a copy is fitted. The map is fitted to the training rows.
        normalize_targets: Whether real targets are taken to mean 0 and deviation 1 of each column; a model's
            predictions are taken back.
        task: "classification" or "regression" where the dtype of y says another thing, such as integers that are
            amounts; None to go by the dtype.
        name: the name of the data set.

    Raises:
        ValueError: sizes that do not fit, entries that are not finite, fewer than two rows, targets that are all the
            same, more classes than every second row, or a class that only the test split has.
        TypeError: x without numbers, or a normalizer without ``fit`` and ``transform``.

    Example:
        >>> data = from_arrays([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]], ["no", "yes", "no"])
        >>> data.y[:, 0].tolist(), data.names, data.x.shape
        ([-1.0, 1.0, -1.0], ('no', 'yes'), (3, 2))
    """
    check_normalize(normalize)
    inputs, given = _samples("x", x, y)
    train, rest = (inputs, given), None
    if test is not None:
        rest = _samples("test: x", *arrays.pair("test", test))
        if rest[0].shape[1:] != inputs.shape[1:]:
            raise ValueError(
                f"test: x has shape {rest[0].shape} and x {inputs.shape}; expected samples of one shape"
            )
    if test_fraction:
        if test is not None:
            raise ValueError(f"test_fraction is {test_fraction} and test is given; expected one of the two")
        train, rest = _split(inputs, given, test_fraction, key)
    return _dataset(name, train, rest, (normalize, normalize_targets), task)


@host_only
def from_file(
    path: str | Path,
    target: str | None = None,
    *,
    test: str | Path | None = None,
    test_fraction: float = 0.0,
    key: RandomKey | None = None,
    normalize: Normalize = "standardize",
    normalize_targets: bool = True,
    task: str | None = None,
) -> Dataset:
    """Return the data set of a file: a table, or arrays.

    In a table numbers stay, truth values are 0 and 1, and a column of words becomes one column of 0 and 1 for each
    of its words; ``Dataset.columns`` is that rule. Empty cells, dates and words among numbers are refused.

    Args:
        path: ``.csv``, ``.tsv`` (UTF-8, the names of the columns in the first line), ``.parquet``, ``.npy`` (a matrix,
            its columns "0", "1", …), or ``.npz`` with x and y, and x_test and y_test where there are such.
        target: the column to be learned; of an ``.npz`` file the array, "y" if None.
        test: a file of the same kind with the test split.
        test_fraction, key, normalize, normalize_targets, task: as in ``from_arrays``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as ``from_arrays``; no such column (close matches are named); what a table cannot be.
        ImportError: pandas is not installed: the extra ``data``.
    """
    path = _host.path("path", path)
    options: dict[str, Any] = {"test_fraction": test_fraction, "key": key, "normalize": normalize}
    options |= {"normalize_targets": normalize_targets, "task": task, "name": path.stem}
    if path.suffix.lower() == ".npz":
        x, y, stored = _of_npz(path, target or "y")
        other = stored if test is None else _of_npz(_host.path("test", test), target or "y")[:2]
        return from_arrays(x, y, test=other, **options)
    table = read_table(path)
    if target is None:
        raise ValueError(
            f"target is None and {path} is a table; expected the column to be learned, one of "
            f"{', '.join(table.columns[:6])}: pass target= (shell: --target)"
        )
    _checks.choice(f"target of {path.name}", target, table.columns)
    columns = Columns.of(table, target)
    data = from_arrays(
        columns.encode(table),
        target_values(table, target),
        test=None if test is None else _table_of(_host.path("test", test), columns),
        **options,
    )
    return data._replace(columns=columns)


def _table_of(path: Path, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    table = read_table(path)
    _checks.choice(f"target of {path.name}", columns.target, table.columns)
    return columns.encode(table), target_values(table, columns.target)


def target_values(table: Any, target: str) -> np.ndarray:
    """Return the column that is learned, words as objects.

    Raises:
        ValueError: empty cells.
    """
    column = table[target]
    if empty := int(column.isna().sum()):
        raise ValueError(
            f"the target {target!r} has {empty} empty cells of {len(column)}; expected a value in each row: remove "
            "these rows"
        )
    kind = getattr(column.dtype, "kind", "O")
    return np.asarray(column) if kind in "biuf" else np.asarray(column.astype(str), dtype=object)


def _of_npz(path: Path, target: str) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path}; expected arrays x and y: check the name and the folder"
        )
    found = runs.read_npz(path)
    for name in ("x", target):
        if name not in found:
            raise ValueError(
                f"{path} holds {', '.join(found) or 'nothing'} and no array {name!r}; expected x and the target "
                f"{target!r}"
            )
    pair = found.get("x_test"), found.get(f"{target}_test")
    return found["x"], found[target], None if pair[0] is None or pair[1] is None else (pair[0], pair[1])


def _samples(what: str, x: Samples, y: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets as NumPy arrays that fit together; words stay words."""
    inputs = np.asarray(_checks.as_array(what, x))
    targets = np.asarray(y, dtype=object) if _holds_words(y) else np.asarray(_checks.as_array("y", y))
    if targets.dtype.kind == "c":
        raise TypeError(
            f"y has dtype {targets.dtype}; expected real numbers: pass np.stack([y.real, y.imag], axis=1)"
        )
    prefix = what.removesuffix("x")
    _checks.samples(inputs, targets, prefix)
    _checks.finite(what, inputs)
    if inputs.ndim == 3:
        inputs = inputs[..., None]
    if inputs.ndim not in (2, 4):
        raise ValueError(
            f"{what} has shape {inputs.shape}; expected (n, d), or images (n, height, width, channels)"
        )
    return inputs, targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets


def _holds_words(y: Samples) -> bool:
    if getattr(getattr(y, "dtype", None), "kind", "O") not in "OUST":
        return False
    words = [isinstance(value, str) for value in np.asarray(y, dtype=object).ravel()]
    if any(words) and not all(words):
        raise TypeError(
            f"y holds words and other values, {words.count(False)} of {len(words)}; expected classes of one kind: make "
            "words of all, or numbers"
        )
    return all(words)


def _split(
    x: np.ndarray, y: np.ndarray, fraction: float, key: RandomKey | None
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray] | None]:
    if not isinstance(fraction, int | float | np.number) or not 0 <= fraction < 1:
        raise ValueError(f"test_fraction is {fraction!r}; expected a number ≥ 0 and < 1")
    if key is None:
        raise ValueError("the test split is drawn at random: pass key=jax.random.key(seed)")
    order = np.asarray(jax.random.permutation(arrays.random_key(key), len(x)))
    few, many = np.split(order, [round(fraction * len(x))])
    return (x[many], y[many]), (x[few], y[few]) if len(few) else None


def _dataset(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    maps: tuple[Normalize, bool],
    task: str | None,
) -> Dataset:
    x, y = train
    if len(x) < 2:
        raise ValueError(f"training rows: {len(x)}; expected two at least: add rows")
    classes = _classes(y, task)
    splits = [(x, y)] if test is None else [(x, y), test]
    if classes is None:
        target_map = _target_map(y, maps[1])
        rows = [Split(a, None, _columns(b).astype(np.float64)) for a, b in splits]
    else:
        target_map = None
        rows = [Split(a, labels_of(b, classes)) for a, b in splits]
    image = x.shape[1:] if x.ndim == 4 else None
    levels = _BYTE if image and x.dtype == np.uint8 else None
    number = None if classes is None else len(classes)
    source = Source(rows[0], None if test is None else rows[1], number, levels, image)
    return normalized(name, source, maps[0], target_map, classes)


def _columns(y: np.ndarray) -> np.ndarray:
    return y[:, None] if y.ndim == 1 else y


def _classes(y: np.ndarray, task: str | None) -> tuple[Any, ...] | None:
    """Return the classes in order, None for real targets."""
    if task is not None:
        _checks.choice("task", task, TASKS)
    discrete = y.dtype.kind in "biuO"
    if task == "regression" and y.dtype.kind == "O":
        raise ValueError(
            f"y holds words such as {y.ravel()[0]!r} and the task is regression; expected numbers"
        )
    if not (discrete if task is None else task == "classification"):
        return None
    if y.ndim != 1:
        raise ValueError(f"y holds {y.dtype} and has shape {y.shape}; expected one class a sample, (n,)")
    classes = tuple(np.unique(y).tolist())
    if len(classes) == 1:
        raise ValueError(
            f"all {len(y)} targets are {classes[0]!r}; expected two classes at least: check the column"
        )
    if len(classes) > min(max(2, len(y) / 2), _MOST_CLASSES):
        raise ValueError(
            f"y has {len(classes)} different {'words' if y.dtype.kind == 'O' else 'integers'} in {len(y)} rows, such "
            "as "
            f"{classes[0]!r}, which are taken as classes; expected classes that come again: pass task='regression' "
            "(shell: "
            "--task regression) if they are amounts"
        )
    return classes


def labels_of(y: np.ndarray, classes: tuple[Any, ...]) -> np.ndarray:
    """Return the number of each target's class.

    Raises:
        ValueError: a target that is none of the classes.
    """
    number = {value: place for place, value in enumerate(classes)}
    values = y.tolist()
    if unseen := [value for value in values if value not in number]:
        raise ValueError(
            f"y holds the class {unseen[0]!r}, unseen in training; expected one of "
            f"{', '.join(map(repr, classes[:6]))}: correct these rows, or train with them"
        )
    return np.array([number[value] for value in values], np.int32)


def _target_map(y: np.ndarray, wanted: bool) -> Normalizer | None:
    y = _columns(y).astype(np.float64)
    _checks.finite("y", y)
    spread = y.max(axis=0) - y.min(axis=0)
    if not spread.all():
        column = int(np.argmin(spread))
        raise ValueError(
            f"all {len(y)} targets{'' if y.shape[1] == 1 else f' of column {column}'} are {y[0, column]:g}; expected "
            "targets that vary: check the column"
        )
    if not wanted:
        return None
    fitted = standardize(y)
    if fitted.kept is not None:
        raise ValueError("the targets vary less than rounding; expected targets that vary: scale them up")
    return fitted


def normalized(
    name: str,
    source: Source,
    normalize: Normalize,
    target_map: Normalizer | None = None,
    names: tuple[Any, ...] | None = None,
) -> Dataset:
    """Return the data set of a source, its inputs under the map that is fitted to the training rows."""
    train, test = source.train, source.test
    normalizer = fitted(normalize, train.inputs, source.levels)
    mixed = isinstance(normalizer, Transformer) or normalize == "whiten" or normalizer.kept is not None
    if names is None and source.classes is not None:
        names = tuple(range(source.classes))
    return Dataset(
        name=name,
        x=normalizer.apply(train.inputs),
        y=_targets(train, source.classes, target_map),
        labels=_labels(train),
        x_test=None if test is None else normalizer.apply(test.inputs),
        y_test=None if test is None else _targets(test, source.classes, target_map),
        labels_test=None if test is None else _labels(test),
        classes=source.classes,
        names=names,
        normalizer=normalizer,
        target_map=target_map,
        image_shape=None if mixed else source.image_shape,
    )


def fitted(normalize: Normalize, inputs: np.ndarray, levels: int | None) -> Normalizer | Transformer:
    """Return the map of that name, or of a copy of that object, fitted to rows: of pixels behind that to [0, 1].

    Other rows are taken as they are, in float64 too: a column may vary by less than float32 tells apart.
    """
    check_normalize(normalize)
    before = pixels(math.prod(inputs.shape[1:]), levels)
    if normalize is None:
        return before
    rows = before.apply(inputs) if levels else inputs.reshape(len(inputs), -1)
    kept = before if levels else None
    if isinstance(normalize, str):
        return NORMALIZERS[normalize](rows)._replace(before=kept)
    own = copy.deepcopy(normalize)
    own.fit(rows)
    return Transformer(own, kept)


def check_normalize(normalize: Normalize) -> None:
    """Require the name of a map, an object that can be fitted, or None.

    Raises:
        ValueError: an unknown name; close matches are named.
        TypeError: an object without ``fit`` or ``transform``.
    """
    if isinstance(normalize, str):
        _checks.choice("normalization", normalize, NORMALIZERS)
    elif normalize is not None and (
        isinstance(normalize, type)
        or not all(callable(getattr(normalize, method, None)) for method in ("fit", "transform"))
    ):
        raise TypeError(
            f"normalize is {normalize!r:.60}; expected one of {', '.join(NORMALIZERS)}, None, or an object with fit "
            "and "
            "transform, such as sklearn.preprocessing.RobustScaler()"
        )


def _labels(split: Split) -> np.ndarray | None:
    return None if split.labels is None else np.asarray(split.labels, dtype=np.int32)


def _targets(split: Split, classes: int | None, target_map: Normalizer | None) -> np.ndarray:
    if split.targets is not None:
        return (split.targets if target_map is None else target_map.apply(split.targets)).astype(np.float32)
    assert split.labels is not None
    assert classes is not None
    return regression_targets(np.asarray(split.labels, dtype=np.int32), classes)
