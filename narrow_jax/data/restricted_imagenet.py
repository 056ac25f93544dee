"""Restricted ImageNet: nine super-classes of ImageNet, from a folder of images or from prepared records.

The images stay in their files; ``nj.data.Stream(images, images.labels)`` feeds them to ``nj.fit``. They come as bytes
(size, size, 3): let the model scale them, by ``(x / 255 - MEAN) / DEVIATION``, so that bytes travel to the device.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from narrow_jax import _checks, _host
from narrow_jax._typing import Int, UInt8
from narrow_jax.data.extras import extra
from narrow_jax.data.prepared import save_array

RANGES = {
    "dog": (151, 268),
    "cat": (281, 285),
    "frog": (30, 32),
    "turtle": (33, 37),
    "bird": (80, 100),
    "primate": (365, 382),
    "fish": (389, 397),
    "crab": (118, 121),
    "insect": (300, 319),
}
"""First and last ImageNet class of each super-class; their order is that of the labels."""
CLASSES = tuple(RANGES)
MEAN, DEVIATION = (0.4717, 0.4499, 0.3837), (0.2600, 0.2516, 0.2575)
"""Of red, green and blue over the training images, pixels in [0, 1]."""
_IMAGENET_CLASSES = 1000
_SHORTER_SIDE = 256 / 224
_SUFFIXES = {".jpeg", ".jpg", ".png"}
_PURPOSE = "Restricted ImageNet"


def superclass(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return the super-class 0 … 8 of each ImageNet class, −1 for a class outside.

    Raises:
        TypeError, ValueError: labels that are no integers, or one outside 0 … 999.

    Example:
        >>> superclass(np.array([151, 268, 269, 33])).tolist()
        [0, 0, -1, 3]
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels are {labels.dtype}; expected integers, ImageNet classes from 0 to 999")
    bad = np.flatnonzero((labels < 0) | (labels >= _IMAGENET_CLASSES))
    if bad.size:
        raise ValueError(
            f"label {labels[bad[0]]} (row {bad[0]}) is out of range; expected an ImageNet class, 0 to 999"
        )
    found = np.full(_IMAGENET_CLASSES, -1, np.int32)
    for number, (first, last) in enumerate(RANGES.values()):
        found[first : last + 1] = number
    return found[labels]


@dataclass(frozen=True)
class Images:
    """Images by their number, decoded when asked for: RGB, the shorter side resized, the centre cut out.

    Attributes:
        names: what to call each image in a message.
        labels: super-class of each image (n,), an index into ``CLASSES``.
        size: height and width of what comes out.
        content: from a number to the bytes of the file.
        marks: of each image what tells it from another without reading it: name and length of the file, or the number
            of the record.
    """

    names: list[str]
    labels: Int[np.ndarray, " n"]
    size: int
    content: Callable[[int], bytes]
    marks: list[Any]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "size size 3"]:
        """Return one image; grey, CMYK and transparent ones become RGB.

        Raises:
            ValueError: it cannot be decoded; the message names it.
        """
        content = self.content(row)
        try:
            return _prepared(content, self.size)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"{self.names[row]} cannot be decoded ({error}): replace or remove it, or leave out what cannot "
                "be decoded with skip_undecodable=True"
            ) from error

    def fingerprint(self) -> str:
        """Return the SHA-256 of the size and the marks, which ``nj.fit`` compares on resuming."""
        return hashlib.sha256(json.dumps([self.size, self.marks]).encode()).hexdigest()

    def only(self, rows: Int[np.ndarray, " m"]) -> Images:
        """Return the images of these numbers."""
        names, marks = ([values[row] for row in rows] for values in (self.names, self.marks))
        return Images(names, self.labels[rows], self.size, lambda row: self.content(int(rows[row])), marks)


def from_folder(folder: str | Path, *, size: int = 224, skip_undecodable: bool = False) -> Images:
    """Return the images of a folder that has one folder a class, named by its WordNet number (n02085620, …).

    Classes outside the nine super-classes are left out. The order is that of the folders' and files' names.

    Args:
        folder: such as ``…/ILSVRC2012/train``.
        size: height and width; the shorter side is resized to 256/224 of it before the centre is cut out.
        skip_undecodable: decode every image once now, and leave out, with a warning, what cannot be decoded.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a folder that is no ImageNet class, or no image of the nine super-classes.
        ImportError: the extra ``data`` is not installed.
    """
    _checks.count("size", size)
    folder = _host.path("folder", folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there; expected a folder with one folder of images a class")
    classes = _imagenet_classes()
    paths: list[Path] = []
    labels: list[int] = []
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        if child.name not in classes:
            raise ValueError(
                f"{child} is the folder of no ImageNet class; expected a WordNet number such as n02085620: move it "
                "elsewhere"
            )
        files = sorted(path for path in child.rglob("*") if path.suffix.lower() in _SUFFIXES)
        paths += files
        labels += [classes[child.name]] * len(files)
    numbers = superclass(np.array(labels, np.int32))
    kept = [path for path, number in zip(paths, numbers, strict=True) if number >= 0]
    marks = [(path.name, path.stat().st_size) for path in kept]
    images = Images(
        list(map(str, kept)), numbers[numbers >= 0], size, lambda row: kept[row].read_bytes(), marks
    )
    return _usable(images, folder, skip_undecodable)


def from_records(
    folder: str | Path, split: str = "train", *, size: int = 224, skip_undecodable: bool = False
) -> Images:
    """Return the images of ``imagenet2012`` as tensorflow-datasets prepared it, in the order of its records.

    The labels of all records are read once and kept beside them, in ``restricted_imagenet.SPLIT.npy``.

    Args:
        folder: the folder of a version, such as ``…/imagenet2012/5.1.0``, in the format ``array_record``.
        split: ``"train"`` or ``"validation"``.
        size, skip_undecodable: as in ``from_folder``.

    Raises:
        FileNotFoundError: no prepared data set.
        ValueError: a label out of range, no such split, or no image of the nine super-classes.
        ImportError: the extra ``data`` is not installed.
    """
    _checks.count("size", size)
    folder = _host.path("folder", folder)
    if not (folder / "dataset_info.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no dataset_info.json; expected a version of imagenet2012 as tensorflow-datasets "
            "prepared it, in the format array_record"
        )
    tfds = extra("tensorflow_datasets", _PURPOSE)
    builder = tfds.builder_from_directory(folder)
    _checks.choice("split", split, builder.info.splits)
    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    numbers = superclass(_labels(source, folder / f"restricted_imagenet.{split}.npy"))
    names = [f"record {row} of {split} in {folder}" for row in range(len(numbers))]
    records = Images(names, numbers, size, lambda row: source[row]["image"], list(range(len(numbers))))
    return _usable(records.only(np.flatnonzero(numbers >= 0)), folder, skip_undecodable)


def _imagenet_classes() -> dict[str, int]:
    """Return the number of each WordNet number: their alphabetical order."""
    tfds = extra("tensorflow_datasets", _PURPOSE)
    names = tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()
    return {name: number for number, name in enumerate(names)}


def _labels(source: Any, cache: Path) -> np.ndarray:
    if cache.is_file() and len(labels := np.load(cache, allow_pickle=False)) == len(source):
        return labels
    labels = np.array([example["label"] for example in source], np.int32)
    with contextlib.suppress(OSError):  # a folder that others prepared may be read-only
        save_array(cache, labels)
    return labels


def _usable(images: Images, folder: Path, skip_undecodable: bool) -> Images:
    if skip_undecodable:
        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(lambda row: _decodes(images, row), range(len(images))))
        bad = [name for name, good in zip(images.names, decoded, strict=True) if not good]
        if bad:
            warnings.warn(f"left out, since they cannot be decoded: {', '.join(bad)}", stacklevel=3)
        images = images.only(np.flatnonzero(decoded))
    if not len(images):
        raise ValueError(f"{folder} has no image of the super-classes {', '.join(CLASSES)}")
    return images


def _decodes(images: Images, row: int) -> bool:
    try:
        images[row]
    except ValueError:
        return False
    return True


def _prepared(content: bytes, size: int) -> np.ndarray:
    pillow = extra("PIL.Image", _PURPOSE)
    image = pillow.open(io.BytesIO(content)).convert("RGB")
    scale = size * _SHORTER_SIDE / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), pillow.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))
