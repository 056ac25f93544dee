"""Projections, initializers, losses, models and activations: the same number under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj

NAMES = ("tanh", "sigmoid", "softplus", "sin", "relu", "gelu")


def leaves(w):
    return {"w": w, "v": jnp.abs(w[0, :3, None]) + 1}


FUNCTIONS = {
    "l2_norm": nj.projections.l2_norm,
    "l2_ball": lambda w: jnp.sum(nj.projections.l2_ball(w, 0.5 * w, 0.3) ** 2),
    "ratio_cone": lambda w: jnp.sum(nj.projections.ratio_cone(leaves(w)["v"], 0.5, 1.5) ** 2),
    "squared": lambda w: nj.losses.squared(w, 0.5 * w),
    "mean_squared": lambda w: nj.losses.mean_squared(w, 0.5 * w),
    "cross_entropy": lambda w: nj.losses.cross_entropy(w, jnp.arange(4, dtype=jnp.int32)),
    "pairwise_apply": lambda w: jnp.sum(nj.models.pairwise_apply(leaves(w), w[:, :4])),
    "standard_apply": lambda w: jnp.sum(nj.models.standard_apply({"w": w, "v": w.T[:, :1]}, w[:, :4])),
    **{name: lambda w, name=name: jnp.sum(nj.activations.get(name)(w)) for name in NAMES},
    **{f"{name}'": lambda w, name=name: jnp.sum(nj.activations.get(name).derivative(w)) for name in NAMES},
}


def batched(f):
    return lambda w: jax.vmap(f)(w[None])[0]


TRANSFORMATIONS = {
    "jit of vmap": lambda f: jax.jit(batched(f)),
    "vmap of jit": lambda f: batched(jax.jit(f)),
    "map in batches": lambda f: lambda w: jax.lax.map(f, w[None], batch_size=1)[0],
}


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients(name, on):
    with jax.enable_x64(on):
        w, f = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), float), FUNCTIONS[name]
        tolerance = 1e-10 if on else 2e-5
        value, slope = f(w), jax.grad(f)(w)
        for transform in TRANSFORMATIONS.values():
            np.testing.assert_allclose(transform(f)(w), value, rtol=tolerance)
        np.testing.assert_allclose(batched(jax.jit(jax.grad(f)))(w), slope, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(jax.grad(jax.jit(batched(f)))(w), slope, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("initializer", [nj.initializers.lecun, nj.initializers.mirrored_lecun])
def test_initializers(initializer):
    def draw(key):
        return initializer(key, inputs=3, width=4)["w"]

    keys = jax.random.split(jax.random.key(0), 2)
    eager = np.stack([draw(key) for key in keys])
    for transform in (jax.vmap, lambda f: jax.jit(jax.vmap(f)), lambda f: jax.vmap(jax.jit(f))):
        np.testing.assert_allclose(transform(draw)(keys), eager, rtol=1e-6)
