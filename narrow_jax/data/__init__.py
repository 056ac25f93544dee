"""Data sets as arrays: ``load`` gives a ``Dataset`` with true or random labels, ``from_arrays`` and ``from_file`` one
of the user's own data; normalised on request.
"""

from narrow_jax.data import arrays as arrays
from narrow_jax.data import augment, restricted_imagenet
from narrow_jax.data.dataset import Dataset, sphere
from narrow_jax.data.images import shrink
from narrow_jax.data.loading import NAMES, load
from narrow_jax.data.normalizers import Normalizer, Transformer, scale, standardize, whiten
from narrow_jax.data.own import NORMALIZERS as NORMALIZERS
from narrow_jax.data.own import TASKS as TASKS
from narrow_jax.data.own import from_arrays, from_file
from narrow_jax.data.own import labels_of as labels_of
from narrow_jax.data.own import target_values as target_values
from narrow_jax.data.stream import Batch as Batch
from narrow_jax.data.stream import Stream
from narrow_jax.data.stream import epoch_order as epoch_order
from narrow_jax.data.tables import Columns, read_table

__all__ = [
    "NAMES",
    "Columns",
    "Dataset",
    "Normalizer",
    "Stream",
    "Transformer",
    "augment",
    "from_arrays",
    "from_file",
    "load",
    "read_table",
    "restricted_imagenet",
    "scale",
    "shrink",
    "sphere",
    "standardize",
    "whiten",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
