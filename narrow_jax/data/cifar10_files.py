"""CIFAR-10's six binary files from a folder: as they are, or unpacked from lossless WebP strips.

The archive's own sha256 cannot be had from its parts, so each file is compared with its published sha1.
Strips: ``data_batch_1_00.webp`` to ``_19.webp`` hold 500 images of 32×32 one below the other,
``data_batch_1.labels`` one byte an image; the same for the other five files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from narrow_jax.data.extras import extra

TRAIN_SHA1 = {
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
}
TEST_SHA1 = {"test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c"}
_SHA1 = TRAIN_SHA1 | TEST_SHA1
_STRIPS, _IMAGES = 20, 500


def complete(folder: Path) -> bool:
    """Return whether the folder holds each of the six files, whole or as strips with labels."""
    return all((folder / name).is_file() or all(map(Path.is_file, _parts(folder, name))) for name in _SHA1)


def read(folder: Path, name: str) -> bytes:
    """Return the content of one of the six files.

    Raises:
        ValueError: the content does not have the published sha1.
    """
    whole = folder / name
    content = whole.read_bytes() if whole.is_file() else _unpack(*_parts(folder, name))
    found = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    if found != _SHA1[name]:
        origin = whole if whole.is_file() else f"{whole.with_suffix('')}_*.webp with its .labels"
        raise ValueError(
            f"cifar10: {origin} has the sha1 {found}, the published one is {_SHA1[name]}: "
            "the file is damaged or another one; replace it"
        )
    return content


def _parts(folder: Path, name: str) -> list[Path]:
    stem = name.removesuffix(".bin")
    return [folder / f"{stem}.labels", *(folder / f"{stem}_{i:02d}.webp" for i in range(_STRIPS))]


def _unpack(labels: Path, *strips: Path) -> bytes:
    image = extra("PIL.Image", "the data set 'cifar10'")
    tall = [np.asarray(image.open(strip)).reshape(_IMAGES, 32, 32, 3) for strip in strips]
    pixels = np.concatenate(tall).transpose(0, 3, 1, 2).reshape(_STRIPS * _IMAGES, -1)
    column = np.frombuffer(labels.read_bytes(), np.uint8)[:, None]
    return np.concatenate([column, pixels], axis=1).tobytes()
