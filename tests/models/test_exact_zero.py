"""Outputs at a mirrored start are exactly 0, also where compiled code rounds equal channels or units apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resnets import NET, compiled, images, mirrored_at_random, start

from narrow_jax import activations
from narrow_jax.initializers import mirrored_lecun, mirrored_mlp
from narrow_jax.models import ResNet18, pairwise, pairwise_apply, pairwise_head, pairwise_mlp_apply

NETS = {
    "batch, 3": NET,  # half a width that fills no vector register
    "batch, 32": NET.clone(channels=(16, 64)),
    "group, 3": NET.clone(norm="group"),
    "group, 10": NET.clone(channels=(3, 20), blocks=(1, 2), norm="group"),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())
@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(-3, 3))
def test_logits_are_exactly_zero_for_any_images_in_both_modes(net, seed, exponent):
    x = images(seed, 10.0**exponent)
    apply, train = compiled(net)
    for variables in (start(net, seed), mirrored_at_random(net, seed)):
        np.testing.assert_array_equal(apply(variables, x), np.zeros((5, 3)))
        np.testing.assert_array_equal(train(variables, x)[0], np.zeros((5, 3)))


def test_logits_of_the_full_net_are_exactly_zero():
    net, x = ResNet18(width=64, outputs=10), images(0, shape=(2, 16, 16, 2))
    variables = mirrored_at_random(net, 0)
    logits, _ = jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]))(variables, x)
    np.testing.assert_array_equal(logits, np.zeros((2, 10)))


def test_head_is_exactly_zero_where_its_features_are_computed_in_the_same_loop():
    # (Σa)c − (Σb)c as one fused multiply-add is 1e-8 for a = b
    half = jnp.asarray(np.random.default_rng(0).uniform(size=(5, 3, 3, 3)), jnp.float32)
    v, images = jnp.ones((3, 1)), jnp.concatenate([half, half], axis=-1)
    logits = jax.jit(lambda v, x: pairwise_head(v, (x * 1.7 + 0.3).mean((1, 2))))(v, images)
    np.testing.assert_array_equal(logits, np.zeros((5, 1)))


def features(w, x):
    """Return a product and a sum, which may each be fused with the difference of two copies."""
    z = x @ w["w1"]
    return z * jax.nn.sigmoid(z) * 1.7 + 0.3


ONE_LAYER = mirrored_lecun(jax.random.key(0), inputs=5, width=14, outputs=2)
DEEP = mirrored_mlp(jax.random.key(0), inputs=5, widths=(7, 3, 16), outputs=2, scale=2.0)
PAIRS = {
    "one layer": (lambda p, x: pairwise_apply(p, x, "gelu"), ONE_LAYER),
    "three layers, swish": (lambda p, x: pairwise_mlp_apply(p, x, "swish"), DEEP),
    "three layers": (lambda p, x: pairwise_mlp_apply(p, x, ("mish", "gelu", "tanh")), DEEP),
    "features": (
        pairwise(features),
        mirrored_mlp(jax.random.key(0), inputs=5, widths=(7,), outputs=2, scale=2.0),
    ),
}


def call(apply, params, x):
    return apply(params, x)


def row_by_row(apply, params, x):
    return jax.vmap(apply, (None, 0))(params, x[:, None])


def with_gradient(apply, params, x):
    return jax.value_and_grad(lambda p: jnp.sum(apply(p, x)))(params)[0]


def with_tangent(apply, params, x):
    return jax.jvp(apply, (params, x), (params, x))[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_equal_halves_give_exactly_zero_under_every_transformation(name, dtype, x64):
    # gelu and swish are products: z·Φ(z) − z·Φ(z) as one fused multiply-add is 1e-7
    apply, params = PAIRS[name]
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    x = jnp.asarray(3 * np.random.default_rng(0).normal(size=(9, 5)), dtype)
    found = {"eager": apply(params, x)}
    for how in (call, row_by_row, with_gradient, with_tangent):
        found[how.__name__] = jax.jit(lambda p, x, how=how: how(apply, p, x))(params, x)
    assert {how: float(jnp.abs(f).max()) for how, f in found.items()} == dict.fromkeys(found, 0.0)


@pytest.mark.parametrize("activation", activations.names())
def test_equal_halves_give_exactly_zero_for_every_activation(activation):
    x = jnp.asarray(3 * np.random.default_rng(0).normal(size=(9, 5)), jnp.float32)
    for apply, params in ((pairwise_apply, ONE_LAYER), (pairwise_mlp_apply, DEEP)):
        found = jax.jit(lambda p, x, apply=apply: apply(p, x, activation))(params, x)
        np.testing.assert_array_equal(found, np.zeros((9, 2)))


def test_without_the_guard_a_fused_product_is_not_zero():
    swish = activations.get("swish")
    z = jnp.asarray(np.random.default_rng(0).normal(size=(9, 70)), jnp.float32)
    unguarded = jax.jit(lambda z, gap: swish(z) - swish(z - gap))(z, jnp.zeros_like(z))
    assert 0 < jnp.abs(unguarded).max() < 1e-6
