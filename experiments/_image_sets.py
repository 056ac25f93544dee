"""Images for training and test by the name of their data set, in arrays or in files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import narrow_jax as nj
from narrow_jax.data import restricted_imagenet

RESTRICTED = "restricted-imagenet"
_AT_ONCE = 500


class Images(Protocol):
    """Images that are read by their number."""

    def __getitem__(self, number: int, /) -> np.ndarray:
        """Return one image."""


class ImageSet(NamedTuple):
    """What a run needs of its data.

    Fields:
        train: what ``nj.fit`` takes: images and labels, or a stream of them.
        samples: number of training images.
        test: images by their number.
        test_labels: theirs.
        outputs: number of classes.
        first: one batch of training images, for ``init``.
        in_bytes: pixels are bytes, to be scaled by the model.
    """

    train: tuple[np.ndarray, np.ndarray] | nj.data.Stream
    samples: int
    test: Images
    test_labels: np.ndarray
    outputs: int
    first: np.ndarray
    in_bytes: bool


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


def in_arrays(name: str, samples: int | None) -> ImageSet:
    """Return a set of ``nj.data.load``, normalised by one mean and one deviation; of digits a fifth is put aside."""
    data = nj.data.load(
        name, samples=samples, normalize="scale", test_fraction=0.2 if name == "digits" else 0.0
    )
    assert data.labels is not None and data.x_test is not None and data.labels_test is not None  # noqa: PT018
    assert data.image_shape is not None and data.classes is not None  # noqa: PT018
    x, x_test = (rows.reshape(-1, *data.image_shape) for rows in (data.x, data.x_test))
    return ImageSet((x, data.labels), len(x), x_test, data.labels_test, data.classes, x[:1], in_bytes=False)


def in_files(folder: Path, pixels: int) -> ImageSet:
    """Return Restricted ImageNet from ``folder/train`` and ``folder/val``, one folder a class in each."""
    train, test = (restricted_imagenet.from_folder(folder / part, size=pixels) for part in ("train", "val"))
    return ImageSet(
        nj.data.Stream(train, train.labels),
        len(train),
        test,
        test.labels,
        len(restricted_imagenet.CLASSES),
        train[0][None],
        in_bytes=True,
    )


@functools.partial(jax.jit, static_argnums=0)
def _classes(forward: Callable[..., Any], params: Any, state: Any, x: np.ndarray) -> jax.Array:
    return jnp.argmax(forward(params, state, x, train=False)[0], axis=1)


def accuracy(forward: Callable[..., Any], result: nj.FitResult, images: Images, labels: np.ndarray) -> float:
    """Return the share of the images that are classified rightly, 500 at a time."""
    right = 0
    for start in range(0, len(labels), _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, len(labels)))
        x = np.stack([images[row] for row in rows])
        found = _classes(forward, result.params, result.model_state, x)
        right += int(np.sum(np.asarray(found) == labels[rows.start : rows.stop]))
    return right / len(labels)
