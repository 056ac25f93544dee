"""Data sets as arrays: ``load`` gives a ``Dataset`` with true or random labels, normalised on request."""

from narrow_jax.data import arrays as arrays
from narrow_jax.data import augment, restricted_imagenet
from narrow_jax.data.dataset import Dataset
from narrow_jax.data.images import shrink
from narrow_jax.data.loading import NAMES, load
from narrow_jax.data.loading import NORMALIZERS as NORMALIZERS
from narrow_jax.data.normalizers import Normalizer, scale, standardize, whiten
from narrow_jax.data.stream import Batch as Batch
from narrow_jax.data.stream import Stream
from narrow_jax.data.stream import epoch_order as epoch_order

__all__ = [
    "NAMES",
    "Dataset",
    "Normalizer",
    "Stream",
    "augment",
    "load",
    "restricted_imagenet",
    "scale",
    "shrink",
    "standardize",
    "whiten",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
