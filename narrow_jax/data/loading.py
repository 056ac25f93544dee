"""From a name to arrays that a regression can use."""

from __future__ import annotations

import os

import numpy as np

from narrow_jax import _checks, _host
from narrow_jax.data import embedded, prepared, records
from narrow_jax.data.dataset import Dataset, Source, Split
from narrow_jax.data.own import Normalize, check_normalize, normalized

NAMES = ("digits", "synthetic", "teacher", *prepared.NAMES, *records.SUBSETS)
_WITHOUT_TEST = ("digits", "synthetic", "teacher")
_Folder = str | os.PathLike[str] | None
# Regressions that are drawn: how, and their default numbers of rows and inputs
_DRAWN = {"synthetic": (embedded.synthetic, 200, 20), "teacher": (embedded.teacher, 5000, 10)}
# One stream of random numbers per purpose: the choice of rows says nothing about the labels drawn
_TEST_ROWS, _SUBSET_ROWS, _TRAIN_LABELS, _TEST_LABELS, _GAUSSIAN = range(5)


def load(
    name: str,
    *,
    labels: str = "true",
    classes: int = 2,
    samples: int | None = None,
    inputs: int | None = None,
    normalize: Normalize = None,
    seed: int = 0,
    test_fraction: float = 0.0,
    raw_dir: _Folder = None,
    data_dir: _Folder = None,
    download: bool = True,
) -> Dataset:
    """Return a data set as float32 arrays for regression.

    ======================== ============================================================= =========
    name                     what                                                          needs
    ======================== ============================================================= =========
    ``digits``               1,797 images of 8×8, ten classes; no test split of its own    nothing
    ``synthetic``            x ~ N(0, I), y ~ N(0, 1), independent; no test split          nothing
    ``teacher``              x ~ N(0, I), y from a deep tanh net; no test split             nothing
    ``mnist``                60,000 + 10,000 images of 28×28, ten classes                  originals
    ``fashion_mnist``        60,000 + 10,000 images of 28×28, ten classes                  originals
    ``cifar10``              50,000 + 10,000 images of 32×32×3, ten classes                originals
    ``cifar100``             50,000 + 10,000 images of 32×32×3, a hundred classes          originals
    ``svhn_cropped``         73,257 + 26,032 images of 32×32×3, ten classes                originals
    ``cifar100_subset``      5,000 + 1,000 images of ``cifar100``                          raw_dir
    ``svhn_cropped_subset``  5,000 + 1,000 images of ``svhn_cropped``, *all* from SVHN's   raw_dir
                             test split, the training rows too: say so beside a number
    ======================== ============================================================= =========

    Digits need scikit-learn, the sets of images tensorflow-datasets (never TensorFlow): the extra ``data``.
    A set is prepared once in ``data_dir``, from the original files in ``raw_dir/<name>`` or from the network,
    with checksums verified; its rows come in the fixed order of tensorflow-datasets. For ``cifar10`` the
    folder may hold the archive, its six ``.bin`` files, or lossless strips of them.

    Args:
        name: One of the names above.
        labels: ``"true"``, or ``"random"`` for labels drawn uniformly, training and test rows alike.
        classes: Number of classes of random labels.
        samples: Size of a random subset of the training rows; rows of a smaller subset with the same seed
            belong to the larger, with the same labels. For ``synthetic`` and ``teacher`` the number of
            training rows (200 and 5,000 if None).
        inputs: Number d of inputs of ``synthetic`` and ``teacher`` (20 and 10 if None).
        normalize: ``"standardize"`` (mean 0 and deviation 1 of each column, constant columns dropped),
            ``"scale"`` (one mean and deviation for the whole array) or ``"whiten"``: the map of that name, or a copy
            of any object with ``fit`` and ``transform``, fitted to the training rows and applied to the test rows
            too. Pixels are scaled to [0, 1] before.
        seed: Of everything drawn here.
        test_fraction: Fraction of the rows put aside as test split, for the sets without one.
        raw_dir: Folder with a folder of original files per data set; ``$NARROW_JAX_RAW`` if None.
        data_dir: Folder of prepared sets; ``$NARROW_JAX_DATA`` or ``~/.cache/narrow_jax`` if None.
        download: Whether files that ``raw_dir`` lacks may come from the network.

    Returns:
        The data set.

    Raises:
        ValueError: unknown name (close matches are named), an argument out of range or of no use for this
            data set, more samples than there are, or a file without its published checksum.
        FileNotFoundError: neither prepared nor in ``raw_dir`` nor to be downloaded.
        ImportError: the extra ``data`` is not installed.

    Example:
        >>> data = load("digits", labels="random", normalize="whiten")
        >>> data.x.shape, data.y.shape, sorted(set(data.y[:, 0].tolist()))
        ((1797, 61), (1797, 1), [-1.0, 1.0])
        >>> load("synthetic", samples=50, inputs=3).x.shape
        (50, 3)
    """
    _check_choices(name, labels, classes, normalize)
    _check_sizes(name, samples, inputs, test_fraction)
    _checks.count("seed", seed, minimum=0)
    if name in _DRAWN:
        draw, default_rows, default_inputs = _DRAWN[name]
        rows = round((samples or default_rows) / (1 - test_fraction))
        source = draw(rows, inputs or default_inputs, _rng(seed, _GAUSSIAN))
    elif name == "digits":
        source = embedded.digits()
    else:
        source = _from_files(name, raw_dir, data_dir, download)
    source = _set_aside(source, test_fraction, seed)
    if labels == "random":
        source = _with_random_labels(source, classes, seed)
    if samples is not None:
        source = _subset(name, source, samples, seed)
    return normalized(name, source, normalize)


def _check_choices(name: str, labels: str, classes: int, normalize: Normalize) -> None:
    if not isinstance(name, str):
        raise TypeError(
            f"name is {type(name).__name__}; expected one of the words {', '.join(NAMES)}: arrays of your own go to "
            "nj.data.from_arrays(x, y)"
        )
    _checks.choice("data set", name, NAMES)
    _checks.choice("labels", labels, ("true", "random"))
    check_normalize(normalize)
    _checks.count("classes", classes, minimum=2)
    if labels == "true" and classes != 2:
        raise ValueError(f"classes is {classes}, which goes with labels='random': leave it out")


def _check_sizes(name: str, samples: int | None, inputs: int | None, test_fraction: float) -> None:
    if samples is not None:
        _checks.count("samples", samples)
    if inputs is not None:
        _checks.count("inputs", inputs)
        if name not in _DRAWN:
            drawn = " and ".join(map(repr, _DRAWN))
            raise ValueError(f"inputs is {inputs}, which goes with {drawn} only; {name!r} brings its own")
    if not isinstance(test_fraction, int | float | np.number) or not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction!r}; expected a number ≥ 0 and < 1")
    if test_fraction and name not in _WITHOUT_TEST:
        raise ValueError(
            f"test_fraction is {test_fraction}, but {name!r} has a test split of its own: leave it at 0"
        )


def _from_files(name: str, raw_dir: _Folder, data_dir: _Folder, download: bool) -> Source:
    raw = raw_dir or os.environ.get("NARROW_JAX_RAW") or None
    raw = None if raw is None else _host.path("raw_dir", raw)
    if name in records.SUBSETS:
        return records.subset(name, raw)
    home = data_dir or os.environ.get("NARROW_JAX_DATA") or "~/.cache/narrow_jax"
    return prepared.read(name, raw, _host.path("data_dir", home), download)


def _rng(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng((seed, stream))


def _set_aside(source: Source, fraction: float, seed: int) -> Source:
    rows = len(source.train.inputs)
    count = round(fraction * rows)
    if not count:
        return source
    order = _rng(seed, _TEST_ROWS).permutation(rows)
    return source._replace(train=source.train.take(order[count:]), test=source.train.take(order[:count]))


def _with_random_labels(source: Source, classes: int, seed: int) -> Source:
    def redraw(split: Split, stream: int) -> Split:
        labels = _rng(seed, stream).integers(classes, size=len(split.inputs), dtype=np.int32)
        return Split(split.inputs, labels)

    return source._replace(
        train=redraw(source.train, _TRAIN_LABELS),
        test=None if source.test is None else redraw(source.test, _TEST_LABELS),
        classes=classes,
    )


def _subset(name: str, source: Source, samples: int, seed: int) -> Source:
    rows = len(source.train.inputs)
    if samples > rows:
        raise ValueError(f"samples is {samples}, but {name!r} has {rows} training rows: ask for at most that")
    chosen = _rng(seed, _SUBSET_ROWS).permutation(rows)[:samples]
    return source._replace(train=source.train.take(chosen))
