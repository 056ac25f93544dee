"""The order of samples in minibatch training: one function of key and epoch, for every way to feed a run."""

from __future__ import annotations

import jax

from narrow_jax._typing import Array, Int, Key


def order(key: Key[Array, ""], epoch: Array | int, samples: int) -> Int[Array, " n"]:
    """Return the order in which an epoch visits the samples."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), samples)
