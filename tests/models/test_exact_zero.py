"""The logits of a mirrored residual net are exactly 0, also where compiled code rounds equal channels apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resnets import NET, compiled, images, mirrored_at_random, start

from narrow_jax.models import ResNet18, pairwise_head

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
