"""Original files as the data sets' tests need them: readers of the real ones, writers of made-up ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

import narrow_jax.data as data
from narrow_jax.data import builders

SHARED = Path(os.environ.get("NARROW_JAX_RAW") or Path(__file__).parents[3] / "shared" / "data")
UrlInfo = tfds.core.download.checksums.UrlInfo


def needs(folder: str) -> pytest.MarkDecorator:
    absent = not (SHARED / folder).is_dir()
    return pytest.mark.skipif(
        absent, reason=f"no originals: {SHARED / folder} is absent (set NARROW_JAX_RAW)"
    )


def read_idx(path: Path) -> np.ndarray:
    """The idx format by its definition: two zero bytes, type, number of axes, their lengths, the data."""
    content = gzip.decompress(path.read_bytes())
    zero, kind, axes = struct.unpack(">HBB", content[:4])
    assert (zero, kind) == (0, 8)
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    return np.array(bytearray(content[4 + 4 * axes :]), np.uint8).reshape(shape)


def idx_file(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def multiset(pixels: np.ndarray, labels: np.ndarray) -> list[bytes]:
    """Rows of (label, image) in an order of their own: the prepared order is a hash."""
    return sorted(
        bytes([label]) + image.tobytes()
        for label, image in zip(labels, pixels.reshape(len(labels), -1), strict=True)
    )


def grey_levels(x: np.ndarray) -> np.ndarray:
    return np.rint(x * 255).astype(np.uint8)


def stock_reader(name: str, home: Path, split: str) -> Any:
    form = {"file_format": "array_record"}
    return tfds.data_source(name, split=split, data_dir=home, download=False, builder_kwargs=form)


def made_up(seed: int, n: int, *shape: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(n, *shape), dtype=np.uint8), rng.integers(classes, size=n, dtype=np.uint8)


def idx_files(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> dict[str, bytes]:
    return {
        f"{prefix}-{kind}-ubyte.gz": idx_file(array)
        for prefix, arrays in (("train", train), ("t10k", test))
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays, strict=True)
    }


def record_bytes(images: np.ndarray, *labels: np.ndarray) -> bytes:
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.column_stack([*labels, planes]).tobytes()


def tar_gz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def publish(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]) -> None:
    """Make the checksums of made-up files the published ones, at the real addresses."""
    builder = builders.BUILDERS[name]
    infos = {}
    for url, info in builder.url_infos.items():
        content = files[info.filename]
        digest = hashlib.sha256(content).hexdigest()
        infos[url] = UrlInfo(size=len(content), checksum=digest, filename=info.filename)
    monkeypatch.setattr(builder, "url_infos", infos)


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder.parent


def assert_holds(loaded: data.Dataset, train: tuple, test: tuple) -> None:
    assert multiset(grey_levels(loaded.x), loaded.labels) == multiset(*train)
    assert multiset(grey_levels(loaded.x_test), loaded.labels_test) == multiset(*test)


def strips(bins: dict[str, bytes]) -> dict[str, bytes]:
    """Two lossless WebP strips of five images, and the labels, for each file of ten images."""
    files = {}
    for name, content in bins.items():
        stem, rows = name.removesuffix(".bin"), np.frombuffer(content, np.uint8).reshape(10, 3073)
        files[f"{stem}.labels"] = rows[:, 0].tobytes()
        images = rows[:, 1:].reshape(10, 3, 32, 32).transpose(0, 2, 3, 1)
        for i in range(2):
            buffer = io.BytesIO()
            tall = np.ascontiguousarray(images[5 * i :][:5]).reshape(160, 32, 3)
            Image.fromarray(tall).save(buffer, format="webp", lossless=True, exact=True)
            files[f"{stem}_{i:02d}.webp"] = buffer.getvalue()
    return files


def mat_file(images: np.ndarray, labels: np.ndarray) -> bytes:
    """SVHN's form: images along the last axis, the digit 0 labelled 10."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels, labels, 10)[:, None]})
    return buffer.getvalue()


FASHION = made_up(1, 30, 28, 28, classes=10), made_up(2, 11, 28, 28, classes=10)
