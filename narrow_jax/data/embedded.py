"""Data sets that need no file: scikit-learn's digits and the Gaussian regression."""

from __future__ import annotations

import numpy as np

from narrow_jax.data.dataset import Source, Split
from narrow_jax.data.extras import extra


def digits() -> Source:
    """Return the 1,797 images of 8×8 pixels, grey levels 0 to 16, that scikit-learn carries."""
    stored = extra("sklearn.datasets", "the data set 'digits'").load_digits()
    train = Split(stored.images[..., None].astype(np.uint8), stored.target)
    return Source(train, test=None, classes=10, levels=16, image_shape=(8, 8, 1))


def synthetic(rows: int, inputs: int, rng: np.random.Generator) -> Source:
    """Return x ~ N(0, I) and, independent of it, y ~ N(0, 1)."""
    train = Split(rng.standard_normal((rows, inputs)), None, rng.standard_normal((rows, 1)))
    return Source(train, test=None, classes=None, levels=None, image_shape=None)
