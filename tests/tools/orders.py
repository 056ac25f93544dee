"""The order of samples in minibatch training, written down a second time."""

import jax
import jax.numpy as jnp
import numpy as np


def epoch_order(key, epoch, samples):
    """Return the documented order of an epoch: the samples sorted by 32 random bits."""
    bits = jax.random.bits(jax.random.fold_in(key, epoch), (samples,), jnp.uint32)
    return np.argsort(np.asarray(bits), kind="stable")
