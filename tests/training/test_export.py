"""Training steps lower for accelerators that are not here."""

import jax
import jax.numpy as jnp
import optax
import pytest

import narrow_jax as nj


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("inner", [optax.sgd(0.1), optax.sgd(0.1, momentum=0.9)], ids=["sgd", "momentum"])
def test_training_step_lowers(platform, inner):
    params = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=3, width=4)
    tx = nj.constraints.regime(inner, radius=0.1, kappa=4.0)
    state = tx.init(params)

    @jax.jit
    def step(params, state, x, y):
        grads = jax.grad(lambda p: nj.losses.squared(nj.models.pairwise_apply(p, x), y))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    exported = jax.export.export(step, platforms=[platform])(
        params, state, jnp.ones((5, 3)), jnp.ones((5, 1))
    )
    assert exported.platforms == (platform,)
    shapes = [aval.shape for aval in exported.out_avals]
    assert (3, 4) in shapes
    assert all(aval.dtype != jnp.float64 for aval in exported.out_avals)
