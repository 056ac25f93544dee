"""Images made small and grey, for theory on real data that a dense computation can still hold."""

from __future__ import annotations

import numpy as np

from narrow_jax import _checks
from narrow_jax.data.dataset import Dataset, mapped
from narrow_jax.data.normalizers import Normalizer

_LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the grey level (ITU-R BT.601)."""


def shrink(data: Dataset, crop: int, size: int) -> Dataset:
    """Return the set with each image cut to its centre, made grey and averaged down to size × size.

    A pixel of the result is the mean of the area of the crop that it covers. The paper takes crop 24, size 8 for
    MNIST, and crop 28, size 12 for CIFAR-10 and SVHN.

    Raises:
        ValueError: rows that are no images, or a crop or size larger than what it is taken from.

    Example:
        >>> import narrow_jax as nj
        >>> shrink(nj.data.load("digits", samples=20), crop=6, size=3).x.shape
        (20, 9)

    Reference:
        "Effect of Depth and Width on Local Minima in Deep Learning", section 4.3.
    """
    if data.image_shape is None or data.x.min() < 0 or data.x.max() > 1:
        raise ValueError(
            f"the rows of {data.name!r} are no images in [0, 1]; expected load(..., normalize=None)"
        )
    _checks.count("size", size)
    if not size <= crop <= min(data.image_shape[:2]):
        raise ValueError(
            f"crop is {crop} and size {size} for images of shape {data.image_shape}; "
            "expected size ≤ crop ≤ height and width"
        )
    height, width, channels = data.image_shape
    grey = _LUMA if channels == 3 else np.full(channels, 1 / channels)
    rows, columns = (_centre(side, crop, size) for side in (height, width))
    small = Normalizer(np.zeros(data.x.shape[1]), np.kron(np.kron(rows, columns), grey).T)
    return mapped(data, small)._replace(image_shape=(size, size, 1))


def _centre(side: int, crop: int, size: int) -> np.ndarray:
    """Return the matrix (size, side) of the means over the centre of that side."""
    first = (side - crop) // 2
    return np.pad(area_average(crop, size), ((0, 0), (first, side - crop - first)))


def area_average(many: int, few: int) -> np.ndarray:
    """Return the matrix (few, many) of the means over intervals of length many/few.

    Example:
        >>> area_average(3, 2).round(3).tolist()
        [[0.667, 0.333, 0.0], [0.0, 0.333, 0.667]]
    """
    edges = np.linspace(0, many, few + 1)
    low, high = np.arange(many), np.arange(1, many + 1)
    overlap = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.maximum(overlap, 0) * few / many
