"""Restricted ImageNet: real sample images where their folder is, made-up ones elsewhere."""

import csv
import io
import itertools
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from raw_files import SHARED, needs

from narrow_jax import data
from narrow_jax.data import restricted_imagenet as restricted

pytestmark = pytest.mark.usefixtures("no_network")
CHIHUAHUA, TABBY, AXOLOTL = "n02085620", "n02123045", "n01632777"  # dog, cat, outside


def encoded(mode="RGB", size=(40, 60), kind="jpeg", seed=0):
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(256, size=shape, dtype=np.uint8), mode=None).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Two dogs, a cat, an axolotl."""
    for name, wnid in (("a", CHIHUAHUA), ("b", CHIHUAHUA), ("c", TABBY), ("d", AXOLOTL)):
        path = tmp_path / "train" / wnid / f"{wnid}_{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(seed=ord(name)))
    return tmp_path / "train"


def test_superclasses_cover_203_classes():
    found = restricted.superclass(np.arange(1000))
    assert (found >= 0).sum() == 203
    assert restricted.CLASSES == ("dog", "cat", "frog", "turtle", "bird", "primate", "fish", "crab", "insect")
    assert np.bincount(found[found >= 0]).tolist() == [118, 5, 3, 5, 21, 18, 9, 4, 20]


@pytest.mark.parametrize("label", [-1, 1000])
def test_label_out_of_range(label):
    with pytest.raises(ValueError, match=rf"label {label} \(row 1\) is out of range; .* 0 to 999"):
        restricted.superclass(np.array([3, label]))


def test_outside_classes_are_left_out(folder):
    images = restricted.from_folder(folder, size=32)
    assert images.labels.tolist() == [0, 0, 1]
    assert [Path(name).name[-6] for name in images.names] == ["a", "b", "c"]


class TestPixels:
    """The shorter side becomes 256/224 of the size, and the centre is cut out."""

    def test_centre(self):
        wide = np.zeros((64, 128, 3), np.uint8)
        wide[:, 32:96] = np.linspace(0, 255, 64).astype(np.uint8)[:, None, None]
        buffer = io.BytesIO()
        Image.fromarray(wide).save(buffer, "png")
        result = restricted._prepared(buffer.getvalue(), 56)  # the shorter side 64: nothing is resized
        np.testing.assert_array_equal(result, wide[4:60, 36:92])

    @pytest.mark.parametrize("size", [(40, 60), (60, 40), (33, 500), (8, 8)])
    def test_every_shape_gives_a_square(self, size):
        result = restricted._prepared(encoded(size=size), 224)
        assert (result.shape, result.dtype) == ((224, 224, 3), np.uint8)

    def test_grey_becomes_three_equal_channels(self):
        grey = restricted._prepared(encoded("L"), 32)
        assert grey.shape == (32, 32, 3)
        assert (grey == grey[:, :, :1]).all()
        assert grey.std() > 0

    @pytest.mark.parametrize(("mode", "kind"), [("CMYK", "jpeg"), ("RGBA", "png"), ("P", "png")])
    def test_other_modes_become_rgb(self, mode, kind):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(encoded())).convert(mode).save(buffer, kind)
        assert restricted._prepared(buffer.getvalue(), 32).shape == (32, 32, 3)


class TestUndecodable:
    @pytest.fixture(params=["truncated", "no image"])
    def broken(self, folder, request):
        path = folder / CHIHUAHUA / f"{CHIHUAHUA}_b.JPEG"
        path.write_bytes(path.read_bytes()[:500] if request.param == "truncated" else b"no image at all")
        return path

    def test_is_named(self, folder, broken):
        images = restricted.from_folder(folder, size=32)
        assert images[0].shape == (32, 32, 3)
        with pytest.raises(ValueError, match=rf"{broken} cannot be decoded .*skip_undecodable=True"):
            images[1]

    def test_is_named_through_a_stream(self, folder, broken):
        images = restricted.from_folder(folder, size=32)
        with pytest.raises(ValueError, match=f"{broken.name} cannot be decoded"):
            list(itertools.islice(data.Stream(images, images.labels).batches(jax.random.key(0), 1), 3))

    def test_is_skipped_when_asked(self, folder, broken):
        with pytest.warns(UserWarning, match=f"left out, since they cannot be decoded: {broken}"):
            images = restricted.from_folder(folder, size=32, skip_undecodable=True)
        assert images.labels.tolist() == [0, 1]
        whole = restricted.from_folder(folder, size=32)
        np.testing.assert_array_equal(images[1], whole[2])


def test_nothing_is_skipped_where_all_decode(folder):
    assert len(restricted.from_folder(folder, size=32, skip_undecodable=True)) == 3


def test_fingerprint_follows_names_lengths_and_size_and_no_place(folder, tmp_path):
    """The SHA-256 that a resumed run compares."""
    first = restricted.from_folder(folder, size=32).fingerprint()
    moved = folder.rename(tmp_path / "elsewhere")
    assert restricted.from_folder(moved, size=32).fingerprint() == first
    assert restricted.from_folder(moved, size=16).fingerprint() != first
    images = restricted.from_folder(moved, size=32)
    Path(images.names[0]).write_bytes(Path(images.names[0]).read_bytes() + b" ")
    assert restricted.from_folder(moved, size=32).fingerprint() != first


def test_unknown_class_folder(folder):
    (folder / "dogs").mkdir()
    with pytest.raises(ValueError, match=r"train/dogs is the folder of no ImageNet class; .* n02085620"):
        restricted.from_folder(folder)


def test_absent_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        restricted.from_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no dataset_info\.json"):
        restricted.from_records(tmp_path)
    (tmp_path / AXOLOTL).mkdir()
    with pytest.raises(ValueError, match="has no image of the super-classes dog, cat"):
        restricted.from_folder(tmp_path)


class Imagenet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A few records in the form of imagenet2012."""

    name = "imagenet2012"
    VERSION = tfds.core.Version("5.1.0")
    examples = ()

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.Scalar(np.int64),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for name, label, content in self.examples:
            yield name, {"image": io.BytesIO(content), "label": label, "file_name": name}


def records(folder, examples):
    Imagenet.examples = examples
    builder = Imagenet(data_dir=folder, file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
    return Path(builder.data_path)


def test_records_are_the_images_of_the_folder(folder, tmp_path, capsys):
    paths = sorted(folder.rglob("*.JPEG"))
    numbers = {CHIHUAHUA: 151, TABBY: 281, AXOLOTL: 29}
    examples = [(path.name, numbers[path.parent.name], path.read_bytes()) for path in paths]
    home = records(tmp_path / "sets", examples)
    expected = restricted.from_folder(folder, size=32)
    wanted = sorted((label, image.tobytes()) for label, image in zip(expected.labels, expected, strict=True))
    cache = home / "restricted_imagenet.train.npy"
    for turn in range(
        3
    ):  # the labels are read from the records, from beside them, and not from a stale file there
        if turn == 2:
            np.save(cache, np.load(cache)[:-1])
        images = restricted.from_records(home, size=32)
        found = sorted((label, image.tobytes()) for label, image in zip(images.labels, images, strict=True))
        assert found == wanted
    assert images.fingerprint() != images.only(np.arange(1)).fingerprint()
    with pytest.raises(ValueError, match="unknown split 'tran': did you mean 'train'"):
        restricted.from_records(home, "tran")


def test_record_with_a_label_out_of_range(tmp_path, capsys):
    home = records(tmp_path, [("a", 1000, encoded())])
    with pytest.raises(ValueError, match=r"label 1000 .* out of range"):
        restricted.from_records(home)


@needs("imagenet_sample")
def test_real_images_have_the_right_superclass(tmp_path):
    sample = SHARED / "imagenet_sample"
    with (sample / "index.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        wnid = row["file"].split("_")[0]
        (tmp_path / wnid).mkdir(exist_ok=True)
        (tmp_path / wnid / row["file"]).symlink_to(sample / row["file"])
    images = restricted.from_folder(tmp_path)
    found = {
        Path(name).name: restricted.CLASSES[label]
        for name, label in zip(images.names, images.labels, strict=True)
    }
    assert found == {
        row["file"]: row["restricted_superclass"] for row in rows if row["restricted_superclass"]
    }
    assert len(found) == 42
    assert {images[row].shape for row in range(0, 42, 5)} == {(224, 224, 3)}
    whole, rest = (
        itertools.islice(data.Stream(images, images.labels).batches(jax.random.key(0), 10, first), 3)
        for first in (4, 5)  # in the middle of the second epoch
    )
    next(whole)
    for one, other in zip(whole, rest, strict=False):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@needs("tiny_imagenet_restricted")
def test_real_tiny_images_with_grey_ones(tmp_path):
    source = SHARED / "tiny_imagenet_restricted"
    with tarfile.open(source / "tiny_imagenet_restricted.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    with (source / "classes.tsv").open() as file:
        classes = {row["wnid"]: row["restricted_superclass"] for row in csv.DictReader(file, delimiter="\t")}
    grey = 0
    for split, count in (("train", 920), ("val", 230)):
        images = restricted.from_folder(tmp_path / split, size=56)
        assert len(images) == count
        for name, label in zip(images.names, images.labels, strict=True):
            assert restricted.CLASSES[label] == classes[Path(name).parent.name]
        for row, name in enumerate(images.names):
            with Image.open(name) as original:
                mode = original.mode
            if mode == "L":
                grey += 1
                image = images[row]
                assert (image == image[:, :, :1]).all()
    assert grey == 6
