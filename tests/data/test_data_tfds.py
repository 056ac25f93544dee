"""The sets of tensorflow-datasets, without TensorFlow: the real MNIST where its folder is; what is missing."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from raw_files import (
    SHARED,
    grey_levels,
    multiset,
    needs,
    read_idx,
    stock_reader,
)

import narrow_jax.data as data
from narrow_jax.data import builders, prepared

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def mnist_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("prepared")
    data.load("mnist", raw_dir=SHARED, data_dir=home, download=False)
    return home


@needs("mnist")
def test_mnist_is_the_original(mnist_home: Path) -> None:
    mnist = data.load("mnist", data_dir=mnist_home, download=False)
    assert (mnist.x.shape, mnist.y.shape, mnist.image_shape) == ((60_000, 784), (60_000, 10), (28, 28, 1))
    for prefix, x, labels in (("train", mnist.x, mnist.labels), ("t10k", mnist.x_test, mnist.labels_test)):
        images = read_idx(SHARED / "mnist" / f"{prefix}-images-idx3-ubyte.gz")
        digits = read_idx(SHARED / "mnist" / f"{prefix}-labels-idx1-ubyte.gz")
        assert multiset(grey_levels(x), labels) == multiset(images, digits)


@needs("mnist")
def test_mnist_as_in_the_figure_of_depth_and_width(mnist_home: Path) -> None:
    mnist = data.load("mnist", samples=50, data_dir=mnist_home, download=False)
    small = data.shrink(mnist, crop=24, size=8)
    blocks = mnist.x.reshape(-1, 28, 28)[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(small.x, blocks.reshape(50, 64), atol=1e-6)
    assert small.x_test is not None
    assert small.x_test.shape == (10_000, 64)


@needs("mnist")
def test_mnist_is_what_the_stock_reader_reads(mnist_home: Path) -> None:
    mnist = data.load("mnist", data_dir=mnist_home, download=False)
    stock = stock_reader("mnist", mnist_home, "test")
    assert len(stock) == 10_000
    for row, example in enumerate(stock.__getitems__(range(200))):
        np.testing.assert_array_equal(example["image"].ravel(), grey_levels(mnist.x_test[row]))
        assert example["label"] == mnist.labels_test[row]
    assert "tensorflow" not in sys.modules


@needs("mnist")
def test_prepared_mnist_needs_no_originals_and_takes_options(mnist_home: Path) -> None:
    options = {"labels": "random", "samples": 1000, "data_dir": mnist_home, "download": False}
    raw, white = (data.load("mnist", normalize=normalize, **options) for normalize in (None, "whiten"))
    assert white.normalizer is not None
    np.testing.assert_array_equal(white.x_test, white.normalizer.apply(grey_levels(raw.x_test)))
    np.testing.assert_array_equal(white.x_test, data.whiten(raw.x).apply(raw.x_test))
    assert white.y.shape == (1000, 1)
    assert white.y_test.shape == (10_000, 1)
    assert set(np.unique(white.y_test)) == {-1.0, 1.0}


@needs("mnist")
def test_damaged_original_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "mnist"
    folder.mkdir(parents=True)
    for path in (SHARED / "mnist").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    labels = folder / "train-labels-idx1-ubyte.gz"
    content = bytearray(labels.read_bytes())
    content[1000] ^= 1
    labels.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"mnist: .*train-labels-idx1-ubyte.gz has the sha256 .* published one"
    ):
        data.load("mnist", raw_dir=tmp_path / "raw", data_dir=tmp_path / "home", download=False)
    assert not (tmp_path / "home" / "mnist").exists()


@needs("mnist")
def test_fashion_mnist_is_not_confused_with_mnist(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "fashion_mnist").symlink_to(SHARED / "mnist")
    with pytest.raises(
        ValueError, match=r"fashion_mnist: .* has the sha256 .* replace it by http://fashion-mnist"
    ):
        data.load("fashion_mnist", raw_dir=tmp_path / "raw", data_dir=tmp_path / "home", download=False)


@pytest.mark.parametrize("name", prepared.NAMES)
@pytest.mark.parametrize("download", [True, False])
def test_nothing_there_gives_one_error_quickly(name: str, download: bool, tmp_path: Path) -> None:
    raw, home = tmp_path / "raw", tmp_path / "home"
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, raw_dir=raw, data_dir=home, download=download)
    assert time.perf_counter() - start < 20
    message = str(caught.value)
    urls = [url for url in builders.BUILDERS[name].url_infos if "extra" not in url]
    for part in (*urls, str(raw / name), str(home), f"load('{name}', raw_dir=", "curl -fL", "NARROW_JAX_RAW"):
        assert part in message
    assert ("download=False" in message) is not download
    assert ("refused" in message) is download


def test_error_without_raw_dir_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no raw_dir, and NARROW_JAX_RAW is not set.*six \.bin files"
    ):
        data.load("cifar10", data_dir=tmp_path)


def test_folders_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NARROW_JAX_RAW", str(tmp_path / "originals"))
    monkeypatch.setenv("NARROW_JAX_DATA", str(tmp_path / "sets"))
    with pytest.raises(FileNotFoundError, match=r"sets.*originals/mnist"):
        data.load("mnist", download=False)
    with pytest.raises(FileNotFoundError, match="originals/cifar100_subset"):
        data.load("cifar100_subset")
