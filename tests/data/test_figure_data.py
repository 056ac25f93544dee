"""The sets of the depth-and-width figure: the teacher's, and images made small and grey."""

import numpy as np
import pytest
from PIL import Image
from raw_files import SHARED, needs

from narrow_jax import data
from narrow_jax.data.images import area_average


def test_teacher_is_a_deep_tanh_net_of_gaussian_inputs():
    drawn = data.load("teacher")
    assert (drawn.x.shape, drawn.y.shape, drawn.classes) == ((5000, 10), (5000, 1), None)
    assert abs(drawn.x.mean()) < 0.02
    assert abs(drawn.x.std() - 1) < 0.02
    few = data.load("teacher", samples=50, inputs=3)
    assert few.x.shape == (50, 3)
    # tanh is odd: a net of tanh and no biases has odd outputs, so that y has no constant part
    assert abs(drawn.y.mean()) < 0.1 * drawn.y.std()
    linear = drawn.y - drawn.x @ np.linalg.lstsq(drawn.x, drawn.y, rcond=None)[0]
    assert linear.std() > 0.3 * drawn.y.std()


def test_teacher_scale():
    """The last hidden units lie in (−1, 1), the output weights are N(0, 2): |y| stays below √2·50."""
    y = data.load("teacher", seed=1).y
    assert 1 < y.std() < np.sqrt(2 * 50)


@pytest.mark.parametrize(("many", "few"), [(24, 8), (28, 12), (5, 5), (3, 2)])
def test_area_average_is_that_of_pillow(many, few):
    """A box filter of the same support, by another library."""
    average = area_average(many, few)
    np.testing.assert_allclose(average.sum(axis=1), 1)
    np.testing.assert_allclose(average.sum(axis=0), few / many)
    image = np.random.default_rng(0).random((many, many)).astype(np.float32)
    ours = average @ image @ average.T
    if many % few == 0:
        other = np.asarray(Image.fromarray(image).resize((few, few), Image.Resampling.BOX))
        np.testing.assert_allclose(ours, other, atol=1e-6)
    # integrals over the whole are kept
    np.testing.assert_allclose(ours.mean(), image.mean(), rtol=1e-6)


def test_shrink_takes_the_centre():
    digits = data.load("digits", samples=30)
    small = data.shrink(digits, crop=4, size=4)
    expected = digits.x.reshape(-1, 8, 8)[:, 2:6, 2:6].reshape(30, 16)
    np.testing.assert_allclose(small.x, expected, atol=1e-7)
    assert (small.image_shape, small.x.dtype) == ((4, 4, 1), np.float32)
    np.testing.assert_array_equal(small.y, digits.y)


@needs("svhn_cropped_subset")
def test_svhn_is_grey(no_network):
    svhn = data.load("svhn_cropped_subset", samples=20, raw_dir=SHARED)
    small = data.shrink(svhn, crop=32, size=32)
    grey = svhn.x.reshape(-1, 32, 32, 3) @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(small.x, grey.reshape(20, -1), atol=1e-6)
    assert data.shrink(svhn, crop=28, size=12).x.shape == (20, 144)


BAD = {
    "no images": ("synthetic", {}, 2, 2, "are no images"),
    "scaled": ("digits", {"normalize": "scale"}, 4, 2, "normalize=None"),
    "standardized": ("digits", {"normalize": "standardize"}, 4, 2, "normalize=None"),
    "whitened": ("digits", {"normalize": "whiten"}, 4, 2, "normalize=None"),
    "crop": ("digits", {}, 9, 3, "crop is 9 and size 3 for images of shape"),
    "size": ("digits", {}, 4, 5, "expected size ≤ crop"),
    "zero": ("digits", {}, 4, 0, "size is 0"),
}


@pytest.mark.parametrize(("name", "options", "crop", "size", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input(name, options, crop, size, message):
    with pytest.raises(ValueError, match=message):
        data.shrink(data.load(name, samples=10, **options), crop, size)
