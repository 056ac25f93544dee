"""Images for training and test by the name of their data set, in arrays or in files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import narrow_jax as nj
from narrow_jax.data import restricted_imagenet

from ._run import digest, require_memory

RESTRICTED = "restricted-imagenet"
_AT_ONCE = 500


class ImageSet(NamedTuple):
    """What a run needs of its data.

    Fields:
        train: what ``nj.fit`` takes: images and labels, or a stream of them.
        samples: number of training images.
        test: images and labels.
        outputs: number of classes.
        mark: what tells these images from others.
    """

    train: tuple[np.ndarray, np.ndarray] | nj.data.Stream
    samples: int
    test: tuple[np.ndarray, np.ndarray]
    outputs: int
    mark: str

    @property
    def first(self) -> np.ndarray:
        """Return one image as the net gets it, for ``init``."""
        x = self.test[0][:1]
        return np.asarray(scaled(x)) if self.in_bytes else x

    @property
    def in_bytes(self) -> bool:
        """Return whether pixels are bytes, to be scaled by the model."""
        return self.test[0].dtype == np.uint8


@dataclass(frozen=True)
class FromBytes:
    """A net on images that come as bytes; equal for equal nets, so that a compiled loop is used again."""

    forward: Callable[..., Any]

    def __call__(self, params: Any, state: Any, x: Any, train: bool) -> tuple[Any, Any]:
        """Scale the pixels to numbers of order 1, then apply the net."""
        return self.forward(params, state, scaled(x), train=train)


def scaled(x: ArrayLike) -> jax.Array:
    """Return bytes as numbers with the mean and deviation of Restricted ImageNet taken out."""
    mean, deviation = (
        jnp.array([[[values]]]) for values in (restricted_imagenet.MEAN, restricted_imagenet.DEVIATION)
    )
    return (jnp.asarray(x, jnp.float32) / 255 - mean) / deviation


def crop_and_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Return each image moved by an eighth of its height at most, and every second one mirrored."""
    crop, flip = jax.random.split(key)
    moved = nj.data.augment.random_crop(crop, images, padding=images.shape[1] // 8)
    return nj.data.augment.horizontal_flip(flip, moved)


def in_arrays(name: str, samples: int | None, raw_dir: Path | None, fold: bool = False) -> ImageSet:
    """Return a set of ``nj.data.load``, normalised by one mean and one deviation; of digits a fifth is put aside.

    Args:
        name: of the set.
        samples: a random subset of so many training images.
        raw_dir: folder of the original files.
        fold: make 2 × 2 pixels one of four times the colours.

    Raises:
        ValueError: more samples than there are.
        FileNotFoundError: the original files are not there.
    """
    options: dict[str, Any] = {"test_fraction": 0.2} if name == "digits" else {}
    data = nj.data.load(name, samples=samples, normalize="scale", raw_dir=raw_dir, **options)
    assert data.labels is not None and data.x_test is not None and data.labels_test is not None  # noqa: PT018
    assert data.image_shape is not None and data.classes is not None  # noqa: PT018
    x, x_test = (rows.reshape(-1, *data.image_shape) for rows in (data.x, data.x_test))
    x, x_test = (folded(x), folded(x_test)) if fold else (x, x_test)
    # on a CPU XLA takes ten times as long for a convolution inside a compiled loop
    on_cpu = jax.default_backend() == "cpu"
    return ImageSet(
        nj.data.Stream(x, data.labels) if on_cpu else (x, data.labels),
        len(x),
        (x_test, data.labels_test),
        data.classes,
        digest(x, data.labels, x_test, data.labels_test),
    )


def folded(x: np.ndarray) -> np.ndarray:
    """Return images of half the height and width whose pixels have the colours of four.

    Example:
        >>> folded(np.arange(4).reshape(1, 2, 2, 1)).tolist()
        [[[[0, 1, 2, 3]]]]
    """
    n, height, width, colours = x.shape
    parts = x.reshape(n, height // 2, 2, width // 2, 2, colours).swapaxes(2, 3)
    return parts.reshape(n, height // 2, width // 2, 4 * colours)


def pixels(name: str, samples: int, raw_dir: Path | None) -> np.ndarray:
    """Return the images that ``nj.data.load`` gives, in [0, 1]: what tells them from others on every machine.

    Whitened ones have the rounding of a factorisation, and that is the processor's.

    Raises:
        ValueError: more samples than there are.
        FileNotFoundError: the original files are not there.
    """
    return nj.data.load(name, samples=samples, raw_dir=raw_dir).x


def in_files(folder: Path, pixels: int, samples: int | None = None) -> ImageSet:
    """Return Restricted ImageNet from ``folder/train`` and ``folder/val``, one folder a class in each.

    The test images are read into memory, the training images, evenly chosen among all, when they are needed.

    Raises:
        FileNotFoundError: there is no such folder.
        SystemExit: the test images do not fit the memory.
    """
    train, test = (restricted_imagenet.from_folder(folder / part, size=pixels) for part in ("train", "val"))
    if samples is not None and samples < len(train):
        train = train.only(np.arange(samples) * len(train) // samples)
    require_memory(6 * len(test) * pixels**2, f"{len(test):,} test images of {pixels} × {pixels} pixels")
    with ThreadPoolExecutor() as pool:
        x_test = np.stack(list(pool.map(test.__getitem__, range(len(test)))))
    return ImageSet(
        nj.data.Stream(train, train.labels),
        len(train),
        (x_test, test.labels),
        len(restricted_imagenet.CLASSES),
        digest(train.fingerprint(), train.labels, test.fingerprint(), test.labels),
    )


@functools.partial(jax.jit, static_argnums=0)
def _classes(forward: Callable[..., Any], params: Any, state: Any, x: np.ndarray) -> jax.Array:
    return jnp.argmax(forward(params, state, x, train=False)[0], axis=1)


def accuracy(
    forward: Callable[..., Any], params: Any, state: Any, x: np.ndarray, labels: np.ndarray
) -> float:
    """Return the share of images that are classified rightly, 500 at a time."""
    starts = range(0, len(x), _AT_ONCE)
    found = [_classes(forward, params, state, x[start : start + _AT_ONCE]) for start in starts]
    return float(np.mean(np.concatenate(found) == labels))
