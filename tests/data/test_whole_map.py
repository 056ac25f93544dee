"""What ``load`` and ``shrink`` did to the stored rows is in the normalizer: applied to them it gives x, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raw_files import FASHION, SHARED, idx_files, made_up, mat_file, needs, publish, put
from sklearn.datasets import load_digits

from narrow_jax import data

pytestmark = pytest.mark.usefixtures("no_network")
NORMALIZE = (None, "standardize", "scale", "whiten")
SVHN = made_up(5, 30, 32, 32, 3, classes=10), made_up(6, 9, 32, 32, 3, classes=10)


def assert_same(left, right):
    """Equal to the bit, and float32."""
    assert left.dtype == right.dtype == np.float32
    np.testing.assert_array_equal(left, right)


def levels(x, largest):
    """The pixels behind rows in [0, 1]."""
    return np.rint(x * largest).astype(np.uint8)


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
def test_stored_digits_become_x(normalize, dtype):
    digits = data.load("digits", normalize=normalize)
    assert_same(digits.normalizer.apply(load_digits().data.astype(dtype)), digits.x)
    assert_same(digits.normalizer.apply(load_digits().images.astype(dtype)), digits.x)


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("options", [{"labels": "random"}, {"samples": 90, "test_fraction": 0.2, "seed": 3}])
def test_subset_and_test_split_have_the_map(normalize, options):
    plain, digits = (data.load("digits", normalize=chosen, **options) for chosen in (None, normalize))
    assert_same(digits.normalizer.apply(levels(plain.x, 16)), digits.x)
    if digits.x_test is not None:
        assert_same(digits.normalizer.apply(levels(plain.x_test, 16)), digits.x_test)


@pytest.mark.parametrize("name", ["synthetic", "teacher"])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_drawn_rows_have_the_map(name, normalize):
    options = {"samples": 60, "inputs": 4, "test_fraction": 0.1}
    plain, drawn = (data.load(name, normalize=chosen, **options) for chosen in (None, normalize))
    assert_same(drawn.normalizer.apply(plain.x), drawn.x)
    assert_same(drawn.normalizer.apply(plain.x_test.astype(np.float64)), drawn.x_test)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Prepared sets of made-up images, grey and in colour."""
    folder = tmp_path_factory.mktemp("made-up")
    svhn = {
        f"{part}_32x32.mat": mat_file(*split) for part, split in zip(("train", "test"), SVHN, strict=True)
    }
    with pytest.MonkeyPatch.context() as patched:
        for name, files in (("fashion_mnist", idx_files(*FASHION)), ("svhn_cropped", svhn)):
            publish(patched, name, files)
            raw = put(folder / "raw" / name, files)
            data.load(name, raw_dir=raw, data_dir=folder, download=False)
    return folder


@pytest.mark.parametrize(
    ("name", "normalize"),
    [("svhn_cropped", "scale"), ("svhn_cropped", None), *(("fashion_mnist", each) for each in NORMALIZE)],
)
def test_images_from_files_have_the_map(name, normalize, home):
    options = {"samples": 20, "data_dir": home, "download": False}
    plain, images = (data.load(name, normalize=chosen, **options) for chosen in (None, normalize))
    stored = levels(plain.x, 255).reshape(-1, *plain.image_shape)
    assert_same(images.normalizer.apply(stored), images.x)
    assert_same(images.normalizer.apply(levels(plain.x_test, 255).astype(float)), images.x_test)


@pytest.mark.parametrize(("name", "crop", "size"), [("fashion_mnist", 24, 8), ("svhn_cropped", 29, 12)])
def test_shrinking_is_in_the_map(name, crop, size, home):
    plain = data.load(name, data_dir=home, download=False)
    small = data.shrink(plain, crop, size)
    smaller = data.shrink(small, size, 2)
    for images in (small, smaller):
        assert_same(images.normalizer.apply(levels(plain.x, 255)), images.x)
        assert_same(images.normalizer.apply(levels(plain.x_test, 255)), images.x_test)
    assert smaller.x.shape[1:] == (4,)
    assert 0.3 < smaller.x.mean() < 0.7


@needs("svhn_cropped_subset")
def test_a_subset_of_files_has_the_map():
    svhn = data.load("svhn_cropped_subset", raw_dir=SHARED, samples=50, normalize="scale")
    plain = data.load("svhn_cropped_subset", raw_dir=SHARED, samples=50)
    assert_same(svhn.normalizer.apply(levels(plain.x, 255)), svhn.x)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_rows_on_the_device_have_the_map_up_to_rounding(normalize):
    digits = data.load("digits", normalize=normalize)
    rows = jnp.asarray(load_digits().data[:50].astype(np.float32))
    mapped = jax.jit(lambda mapping, rows: mapping.apply(rows))(digits.normalizer, rows)
    np.testing.assert_allclose(mapped, digits.x[:50], atol=5e-5)  # of entries up to 36, in float32


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_rows_of_other_length_are_refused(normalize):
    digits = data.load("digits", normalize=normalize)
    with pytest.raises(ValueError, match=r"x has shape \(3, 61\); expected \(n, 64\)"):
        digits.normalizer.apply(np.ones((3, 61)))
    with pytest.raises(TypeError, match="x is ndarray of <U1; expected an array of real numbers"):
        digits.normalizer.apply(np.full((3, 64), "a"))
