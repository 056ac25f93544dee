"""Data sets that need no file: scikit-learn's digits and the synthetic regressions."""

from __future__ import annotations

import itertools

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
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    train = Split(x, None, rng.standard_normal((rows, 1)))
    return Source(train, test=None, classes=None, levels=None, image_shape=None)


def teacher(rows: int, inputs: int, rng: np.random.Generator) -> Source:
    """Return x ~ N(0, I) and y from a net of 7 hidden layers of 50 tanh units, its weights N(0, 2/d_l) in layer l.

    Reference:
        "Effect of Depth and Width on Local Minima in Deep Learning", section 4.3 and appendix C.
    """
    x = rng.standard_normal((rows, inputs))
    widths = (inputs, *[50] * 7, 1)
    features = x
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths), start=1):
        z = features @ (rng.standard_normal((fan_in, fan_out)) * np.sqrt(2 / fan_out))
        features = z if layer == len(widths) - 1 else np.tanh(z)
    return Source(
        Split(x.astype(np.float32), None, features), test=None, classes=None, levels=None, image_shape=None
    )
