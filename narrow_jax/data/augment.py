"""Augmentation inside the compiled step: pure functions of a key and a batch of images (n, height, width, channels).

Pass one to ``nj.fit(augment=…)``. Several are one function of their own, with a key each.

Example:
    >>> import jax
    >>> def augment(key, images):
    ...     crop, flip = jax.random.split(key)
    ...     return horizontal_flip(flip, random_crop(crop, images, padding=4))
    >>> augment(jax.random.key(0), jax.numpy.ones((2, 32, 32, 3))).shape
    (2, 32, 32, 3)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax._typing import Array, HostArray, Key, Shaped


def random_crop(
    key: Key[Array, ""], images: Shaped[HostArray, "n ..."], padding: int = 4
) -> Shaped[Array, "n height width channels"]:
    """Return windows of the images' own size, each at a place of its own, out of images padded with zeros.

    Args:
        key: of the places, uniform over the (2·padding + 1)² windows.
        images: a batch.
        padding: rows and columns of zeros on each side.

    Raises:
        ValueError: not a batch of images, or a padding below 1.
        TypeError: a key that is none, such as 42, or images that are no array.

    Example:
        >>> images = jnp.ones((2, 3, 3, 1))
        >>> random_crop(jax.random.key(0), images, padding=1).shape
        (2, 3, 3, 1)
    """
    _check_images(images)
    _checks.key("key", key)
    _checks.count("padding", padding)
    n = images.shape[0]
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, around)
    corners = jax.random.randint(key, (n, 2), 0, 2 * padding + 1)

    def window(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(window)(padded, corners)


def horizontal_flip(
    key: Key[Array, ""], images: Shaped[HostArray, "n ..."]
) -> Shaped[Array, "n height width channels"]:
    """Return the images, each mirrored left to right with probability one half.

    Raises:
        ValueError: not a batch of images.
        TypeError: a key that is none, such as 42, or images that are no array.

    Example:
        >>> horizontal_flip(jax.random.key(0), jnp.ones((2, 3, 3, 1))).shape
        (2, 3, 3, 1)
    """
    _check_images(images)
    _checks.key("key", key)
    flipped = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def _check_images(images: HostArray) -> None:
    _checks.array("images", images)
    if images.ndim != 4:
        raise ValueError(
            f"images have shape {images.shape}; expected (n, height, width, channels): "
            "rows of nj.data.load are flat, reshape them with its image_shape"
        )
