"""The sets of tensorflow-datasets from made-up files in every form, and the subsets from real ones."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from raw_files import (
    FASHION,
    SHARED,
    assert_holds,
    grey_levels,
    idx_files,
    made_up,
    mat_file,
    needs,
    publish,
    put,
    record_bytes,
    stock_reader,
    strips,
    tar_gz,
)

import narrow_jax.data as data
from narrow_jax.data import cifar10_files, records

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A stand-in for the network: an HTTP proxy that answers with the content stored under a file name."""
    contents: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = contents.get(self.path.rsplit("/", 1)[-1])
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
    yield contents
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_where_there_is_a_network(
    proxy: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    files = idx_files(*FASHION)
    publish(monkeypatch, "fashion_mnist", files)
    proxy.update(files)
    assert_holds(data.load("fashion_mnist", data_dir=tmp_path), *FASHION)
    assert capfd.readouterr().out == ""
    proxy.clear()
    assert_holds(data.load("fashion_mnist", data_dir=tmp_path, download=False), *FASHION)


def test_preparing_without_a_download_says_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = idx_files(*FASHION)
    publish(monkeypatch, "fashion_mnist", files)
    raw = put(tmp_path / "raw" / "fashion_mnist", files)
    data.load("fashion_mnist", raw_dir=raw, data_dir=tmp_path, download=False)
    assert capfd.readouterr() == ("", f"preparing the data set fashion_mnist in {tmp_path}\n")
    data.load("fashion_mnist", data_dir=tmp_path, download=False)
    assert capfd.readouterr() == ("", "")


def test_files_that_raw_dir_lacks_are_downloaded(
    proxy: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = idx_files(*FASHION)
    publish(monkeypatch, "fashion_mnist", files)
    proxy["t10k-labels-idx1-ubyte.gz"] = files.pop("t10k-labels-idx1-ubyte.gz")
    raw = put(tmp_path / "raw" / "fashion_mnist", files)
    assert_holds(data.load("fashion_mnist", raw_dir=raw, data_dir=tmp_path / "home"), *FASHION)


def test_wrong_download_is_refused(
    proxy: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = idx_files(*FASHION)
    publish(monkeypatch, "fashion_mnist", files)
    proxy.update(files, **{"t10k-labels-idx1-ubyte.gz": b"<html>sign in</html>"})
    with pytest.raises(ValueError, match="fashion_mnist: what was downloaded is damaged or another file"):
        data.load("fashion_mnist", data_dir=tmp_path)


def test_download_that_breaks_off_gives_the_one_error(
    proxy: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = idx_files(*FASHION)
    publish(monkeypatch, "fashion_mnist", files)
    del files["train-labels-idx1-ubyte.gz"]
    proxy.update(files)
    with pytest.raises(FileNotFoundError, match=r"not downloaded \(Failed to get url .*HTTP code: 404"):
        data.load("fashion_mnist", data_dir=tmp_path)


CIFAR10_TRAIN, CIFAR10_TEST = made_up(3, 50, 32, 32, 3, classes=10), made_up(4, 10, 32, 32, 3, classes=10)
CIFAR10_BINS = {
    **{
        f"data_batch_{i + 1}.bin": record_bytes(
            CIFAR10_TRAIN[0][10 * i :][:10], CIFAR10_TRAIN[1][10 * i :][:10]
        )
        for i in range(5)
    },
    "test_batch.bin": record_bytes(*CIFAR10_TEST),
}


@pytest.fixture
def small_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the made-up files the published ones."""
    sha1 = {name: hashlib.sha1(content).hexdigest() for name, content in CIFAR10_BINS.items()}
    monkeypatch.setattr(cifar10_files, "_SHA1", sha1)
    monkeypatch.setattr(cifar10_files, "_STRIPS", 2)
    monkeypatch.setattr(cifar10_files, "_IMAGES", 5)


@pytest.mark.usefixtures("small_cifar10")
@pytest.mark.parametrize("form", ["bins", "strips"])
def test_cifar10_from_its_six_files(form: str, tmp_path: Path) -> None:
    raw = put(tmp_path / "raw" / "cifar10", CIFAR10_BINS if form == "bins" else strips(CIFAR10_BINS))
    cifar = data.load("cifar10", raw_dir=raw, data_dir=tmp_path / "home", download=False)
    assert_holds(cifar, CIFAR10_TRAIN, CIFAR10_TEST)
    assert (cifar.classes, cifar.image_shape) == (10, (32, 32, 3))
    stock = stock_reader("cifar10", tmp_path / "home", "train")
    for example in stock:
        row = int(example["id"].decode().removeprefix("train_"))
        np.testing.assert_array_equal(example["image"], CIFAR10_TRAIN[0][row])
        assert example["label"] == CIFAR10_TRAIN[1][row]
    assert stock.dataset_info.features["label"].names[3] == "cat"


@pytest.mark.usefixtures("small_cifar10")
def test_damaged_cifar10_file_is_refused(tmp_path: Path) -> None:
    changed = bytearray(CIFAR10_BINS["data_batch_3.bin"])
    changed[0] = (changed[0] + 1) % 10
    files = CIFAR10_BINS | {"data_batch_3.bin": bytes(changed)}
    raw = put(tmp_path / "bins" / "cifar10", files)
    with pytest.raises(ValueError, match=r"data_batch_3\.bin has the sha1 .*, the published one is"):
        data.load("cifar10", raw_dir=raw, data_dir=tmp_path / "home", download=False)
    raw = put(tmp_path / "strips" / "cifar10", strips(files))
    with pytest.raises(ValueError, match=r"data_batch_3_\*\.webp with its \.labels has the sha1"):
        data.load("cifar10", raw_dir=raw, data_dir=tmp_path / "home", download=False)


@pytest.mark.usefixtures("small_cifar10")
def test_five_of_the_six_files_are_not_enough(tmp_path: Path) -> None:
    files = {name: content for name, content in CIFAR10_BINS.items() if name != "test_batch.bin"}
    raw = put(tmp_path / "raw" / "cifar10", files)
    with pytest.raises(
        FileNotFoundError, match=r"(?s)instead of the archive its six \.bin files.*cifar-10-binary"
    ):
        data.load("cifar10", raw_dir=raw, data_dir=tmp_path / "home", download=False)


def test_cifar10_from_its_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = "".join(f"class{i}\n" for i in range(10)).encode()
    members = {f"cifar-10-batches-bin/{name}": content for name, content in CIFAR10_BINS.items()}
    files = {"cifar-10-binary.tar.gz": tar_gz(members | {"cifar-10-batches-bin/batches.meta.txt": names})}
    publish(monkeypatch, "cifar10", files)
    raw = put(tmp_path / "raw" / "cifar10", files)
    cifar = data.load("cifar10", raw_dir=raw, data_dir=tmp_path / "home", download=False)
    assert_holds(cifar, CIFAR10_TRAIN, CIFAR10_TEST)


def test_cifar100_has_the_fine_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train, test = made_up(5, 40, 32, 32, 3, classes=100), made_up(6, 10, 32, 32, 3, classes=100)
    members = {
        "train.bin": record_bytes(train[0], train[1] // 5, train[1]),
        "test.bin": record_bytes(test[0], test[1] // 5, test[1]),
        "coarse_label_names.txt": "".join(f"coarse{i}\n" for i in range(20)).encode(),
        "fine_label_names.txt": "".join(f"fine{i}\n" for i in range(100)).encode(),
    }
    archive = tar_gz({f"cifar-100-binary/{name}": content for name, content in members.items()})
    files = {"cifar-100-binary.tar.gz": archive}
    publish(monkeypatch, "cifar100", files)
    raw = put(tmp_path / "raw" / "cifar100", files)
    cifar = data.load("cifar100", raw_dir=raw, data_dir=tmp_path / "home", download=False)
    assert_holds(cifar, train, test)
    assert (cifar.classes, cifar.y.shape) == (100, (40, 100))
    for split, (images, labels) in (("train", train), ("test", test)):
        for example in stock_reader("cifar100", tmp_path / "home", split):
            prefix, row = example["id"].decode().split("_")
            assert prefix == split
            np.testing.assert_array_equal(example["image"], images[int(row)])
            assert (example["label"], example["coarse_label"]) == (labels[int(row)], labels[int(row)] // 5)


def test_truncated_archive_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "cifar-100-binary.tar.gz"
    archive = tar_gz({"cifar-100-binary/train.bin": bytes(5000)})
    publish(monkeypatch, "cifar100", {name: archive})
    raw = put(tmp_path / "raw" / "cifar100", {name: archive[:-20]})
    with pytest.raises(ValueError, match=rf"cifar100: .*{name} has the sha256 .* replace it by https"):
        data.load("cifar100", raw_dir=raw, data_dir=tmp_path / "home", download=False)


def test_svhn_without_its_extra_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train, test = made_up(7, 40, 32, 32, 3, classes=10), made_up(8, 10, 32, 32, 3, classes=10)
    assert 0 in train[1]
    files = {"train_32x32.mat": mat_file(*train), "test_32x32.mat": mat_file(*test)}
    publish(monkeypatch, "svhn_cropped", files)
    raw = put(tmp_path / "raw" / "svhn_cropped", files)
    svhn = data.load("svhn_cropped", raw_dir=raw, data_dir=tmp_path / "home", download=False)
    assert_holds(svhn, train, test)


def test_set_prepared_for_tensorflow_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = idx_files(*FASHION)
    publish(monkeypatch, "fashion_mnist", files)
    raw = put(tmp_path / "raw" / "fashion_mnist", files)
    data.load("fashion_mnist", raw_dir=raw, data_dir=tmp_path / "home", download=False)
    (path,) = (tmp_path / "home" / "fashion_mnist").glob("*/dataset_info.json")
    info = json.loads(path.read_text())
    assert info["fileFormat"] == "array_record"
    path.write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(
        ValueError, match=r"holds 'fashion_mnist' in a form that needs TensorFlow.*another data_dir"
    ):
        data.load("fashion_mnist", raw_dir=raw, data_dir=tmp_path / "home", download=False)


def test_data_dir_that_takes_no_cache_is_read_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = idx_files(*FASHION)
    publish(monkeypatch, "fashion_mnist", files)
    raw = put(tmp_path / "raw" / "fashion_mnist", files)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "decoded").write_text("a file where the folder of the cache would be")
    assert_holds(
        data.load("fashion_mnist", raw_dir=raw, data_dir=tmp_path / "home", download=False), *FASHION
    )


@needs("cifar10")
def test_real_strips_give_the_published_file() -> None:
    images, labels = records.parse(cifar10_files.read(SHARED / "cifar10", "test_batch.bin"), label_bytes=1)
    assert images.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(labels[:, 0]), np.full(10, 1000))
    assert cifar10_files.complete(SHARED / "cifar10")


@pytest.mark.parametrize(
    ("name", "classes", "label_bytes"),
    [
        pytest.param("cifar100_subset", 100, 2, marks=needs("cifar100_subset")),
        pytest.param("svhn_cropped_subset", 10, 1, marks=needs("svhn_cropped_subset")),
    ],
)
def test_subsets_are_their_records(name: str, classes: int, label_bytes: int) -> None:
    subset = data.load(name, raw_dir=SHARED)
    assert (subset.x.shape, subset.y.shape) == ((5000, 3072), (5000, classes))
    assert (subset.x_test.shape, subset.image_shape) == ((1000, 3072), (32, 32, 3))
    for file, x, labels in (
        ("train_subset.bin", subset.x, subset.labels),
        ("test_subset.bin", subset.x_test, subset.labels_test),
    ):
        content, size = (SHARED / name / file).read_bytes(), 3072 + label_bytes
        for row in (0, 1, 777):
            record = content[row * size : (row + 1) * size]
            assert labels[row] == record[label_bytes - 1]
            image = grey_levels(x[row]).reshape(32, 32, 3)
            for channel, i, j in ((0, 0, 0), (1, 2, 30), (2, 31, 5)):
                assert image[i, j, channel] == record[label_bytes + 1024 * channel + 32 * i + j]


def test_subset_of_another_content_or_missing_is_refused(tmp_path: Path) -> None:
    raw = put(tmp_path / "svhn_cropped_subset", {"train_subset.bin": b"x" * 3073})
    with pytest.raises(
        FileNotFoundError, match=r"test_subset\.bin not found in .*the whole set, 'svhn_cropped'"
    ):
        data.load("svhn_cropped_subset", raw_dir=raw)
    put(tmp_path / "svhn_cropped_subset", {"test_subset.bin": b"x" * 3073})
    with pytest.raises(ValueError, match=r"train_subset\.bin has the sha256 .* this subset's is a2a64859"):
        data.load("svhn_cropped_subset", raw_dir=raw)
