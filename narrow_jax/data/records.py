"""CIFAR's binary records, and the two small subsets that are kept in that form."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from narrow_jax.data.dataset import Source, Split

_SHAPE = (32, 32, 3)


class _Subset(NamedTuple):
    whole: str
    classes: int
    label_bytes: int
    sha256: dict[str, str]


SUBSETS = {
    "cifar100_subset": _Subset(
        whole="cifar100",
        classes=100,
        label_bytes=2,
        sha256={
            "train_subset.bin": "5e93e726ffdccc69ddb3422fc110931293c93367a42d50553e1797d950789038",
            "test_subset.bin": "a15762d2b450c54244cab5e6d766a7c7e4b186ae99cb2862bdd3dbd7d93e5662",
        },
    ),
    "svhn_cropped_subset": _Subset(
        whole="svhn_cropped",
        classes=10,
        label_bytes=1,
        sha256={
            "train_subset.bin": "a2a64859748058816b76e996f0cff81739831fabdff7b0706b0fc4b0ee6fb512",
            "test_subset.bin": "700ff9fb6a0a474d4836981e898bad4a7d1ba5b61c524532a56ec865bc0907f6",
        },
    ),
}


def parse(content: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 32, 32, 3) and labels (n, label_bytes) of binary records.

    A record is its labels, one byte each, then 1,024 red, 1,024 green and 1,024 blue pixels, row by row.
    """
    records = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + 3072)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, records[:, :label_bytes]


def subset(name: str, raw_dir: Path | None) -> Source:
    """Return one of the subsets from its folder under ``raw_dir``.

    Raises:
        FileNotFoundError: a file is missing; there is no address to fetch it from.
        ValueError: a file has another sha256 than the subset of that name.
    """
    kind = SUBSETS[name]
    folder = None if raw_dir is None else raw_dir / name
    missing = [file for file in kind.sha256 if folder is None or not (folder / file).is_file()]
    if folder is None or missing:
        raise FileNotFoundError(
            f"{name}: {', '.join(missing)} not found in {folder or 'RAW/' + name} "
            f"({'raw_dir is ' + str(raw_dir) if raw_dir else 'no raw_dir, and NARROW_JAX_RAW is not set'}). "
            f"No address offers this subset: put its files there and call load({name!r}, raw_dir=...), "
            f"or load the whole set, {kind.whole!r}"
        )
    train, test = (_split(folder / file, kind) for file in kind.sha256)
    return Source(train, test, kind.classes, levels=255, image_shape=_SHAPE)


def _split(path: Path, kind: _Subset) -> Split:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != kind.sha256[path.name]:
        raise ValueError(
            f"{path} has the sha256 {found}, this subset's is {kind.sha256[path.name]}: "
            "the file is damaged or another one; replace it"
        )
    images, labels = parse(content, kind.label_bytes)
    return Split(images, labels[:, -1])
