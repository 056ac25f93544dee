"""The stock builders of tensorflow-datasets, made to prepare their sets without TensorFlow.

Name, version, features and checksums are the stock ones, so the stock reader reads the result. Three things
differ: files are downloaded but not extracted (its cache of extracted files goes by the bare file name, and
gave Fashion-MNIST the pictures of MNIST), gzip and tarfile open them, and images are encoded by Pillow.

This module imports tensorflow-datasets and Pillow: import it inside a function, through ``extra``.
"""

from __future__ import annotations

import gzip
import itertools
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.datasets.svhn_cropped import svhn_cropped_dataset_builder as svhn
from tensorflow_datasets.image_classification import cifar, mnist

from narrow_jax.data import cifar10_files, records

Examples = Iterator[tuple[int, dict[str, Any]]]

# The archive carries them in batches.meta.txt; loose .bin files and strips do not.
_CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class _Original(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """What the loader asks of each builder: which original files are needed, and where they lie."""

    folder: Path | None = None
    instead = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(skip_registration=True, **kwargs)  # the names belong to the stock builders

    def missing(self) -> dict[str, str]:
        """Return name and address of each original file that the folder lacks."""
        return {
            info.filename: url
            for url, info in self.url_infos.items()
            if self.folder is None or not (self.folder / info.filename).is_file()
        }


class _Idx(_Original):
    """Four gzipped idx files: images after 16 bytes of header, labels after 8."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        urls = {info.filename: url for url, info in self.url_infos.items()}
        paths = dl_manager.download(urls)
        return {
            split: self._generate_examples(
                _gunzip(paths[f"{prefix}-images-idx3-ubyte.gz"], header=16).reshape(-1, 28, 28),
                _gunzip(paths[f"{prefix}-labels-idx1-ubyte.gz"], header=8),
            )
            for split, prefix in (("train", "train"), ("test", "t10k"))
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Examples:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": Image.fromarray(image), "label": int(label)}


class MNIST(_Idx, mnist.MNIST):
    """Handwritten digits."""

    url_infos = mnist.MNIST.url_infos


class FashionMNIST(_Idx, mnist.FashionMNIST):
    """Articles of clothing."""

    url_infos = mnist.FashionMNIST.url_infos


class _Cifar(_Original):
    """One archive of binary records."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        layout = self._cifar_info
        wanted = [*layout.train_files, *layout.test_files, *layout.label_files]
        members = _members(dl_manager.download(layout.url), layout.prefix, wanted)
        for key, file in zip(layout.label_keys, layout.label_files, strict=True):
            self._name_classes(key, members[file].decode().split())
        return {
            "train": self._generate_examples("train_", (members[file] for file in layout.train_files)),
            "test": self._generate_examples("test_", (members[file] for file in layout.test_files)),
        }

    def _name_classes(self, key: str, names: list[str]) -> None:
        self.info.features[key].names = names

    def _generate_examples(self, prefix: str, contents: Iterator[bytes]) -> Examples:
        keys = self._cifar_info.label_keys
        parsed = itertools.chain.from_iterable(
            zip(*records.parse(content, len(keys)), strict=True) for content in contents
        )
        for index, (image, labels) in enumerate(parsed):
            example = {key: int(label) for key, label in zip(keys, labels, strict=True)}
            picture = Image.fromarray(np.ascontiguousarray(image))
            yield index, {"id": f"{prefix}{index:05d}", "image": picture, **example}


class Cifar10(_Cifar, cifar.Cifar10):
    """CIFAR-10, from its archive or from the six files of the archive (see ``cifar10_files``)."""

    url_infos = cifar.Cifar10.url_infos
    instead = " (or instead of the archive its six .bin files, or lossless strips of all six)"

    def missing(self) -> dict[str, str]:
        """Return the archive, unless the folder has it or its six files."""
        archive = super().missing()
        return {} if self.folder is not None and cifar10_files.complete(self.folder) else archive

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        folder = self.folder
        if folder is None or not super().missing() or not cifar10_files.complete(folder):
            return super()._split_generators(dl_manager)
        self._name_classes("label", _CIFAR10_NAMES)
        return {
            split: self._generate_examples(f"{split}_", (cifar10_files.read(folder, file) for file in files))
            for split, files in (("train", cifar10_files.TRAIN_SHA1), ("test", cifar10_files.TEST_SHA1))
        }


class Cifar100(_Cifar, cifar.Cifar100):
    """CIFAR-100."""

    url_infos = cifar.Cifar100.url_infos


class SvhnCropped(_Original, svhn.Builder):
    """House numbers, without the 1.3 GB split "extra" that the stock builder also downloads."""

    url_infos: ClassVar = {url: info for url, info in svhn.Builder.url_infos.items() if "extra" not in url}
    pkg_dir_path = tfds.core.Path(svhn.__file__).parent

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        urls = {info.filename.partition("_")[0]: url for url, info in self.url_infos.items()}
        paths = dl_manager.download(urls)
        return {split: self._generate_examples(f"{split}_", paths[split]) for split in ("train", "test")}

    def _generate_examples(self, prefix: str, path: os.PathLike[str]) -> Examples:
        stored = scipy.io.loadmat(os.fspath(path))
        images, labels = (
            np.moveaxis(stored["X"], -1, 0),
            stored["y"].ravel() % 10,
        )  # the digit 0 is stored as 10
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            picture = Image.fromarray(np.ascontiguousarray(image))
            yield index, {"id": f"{prefix}{index:06d}", "image": picture, "label": int(label)}


def _gunzip(path: os.PathLike[str], header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(Path(path).read_bytes()), np.uint8, offset=header)


def _members(archive: os.PathLike[str], prefix: str, wanted: list[str]) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(archive) as tar:
        for file in wanted:
            member = tar.extractfile(prefix + file)
            assert member is not None, f"{prefix}{file} is a folder"
            contents[file] = member.read()
    return contents


BUILDERS = {
    "mnist": MNIST,
    "fashion_mnist": FashionMNIST,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "svhn_cropped": SvhnCropped,
}
