"""Optimizers for strict tests: optax's own code promotes (decay ** count), ours must not."""

import jax
import optax


def unstrict(tx):
    """Run an optax optimizer under standard promotion, whatever surrounds it."""
    inner = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra):
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def adam(learning_rate):
    """Adam, usable in strict tests."""
    return unstrict(optax.adam(learning_rate))
