"""The regime for any model: mirrored channels, what tells the head of them, the pairwise head, labels by path."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from narrow_jax import constraints
from narrow_jax.labels import by_path
from narrow_jax.models import PairwiseHead, is_mirrored, mirror, mirrored, pairwise_head

PARAMS = {
    "free": {"kernel": np.arange(6.0).reshape(2, 3)},
    "block": {"kernel": np.arange(24.0).reshape(1, 2, 3, 4), "bias": np.arange(4.0)},
    "head": {"v": np.ones((2, 5))},
}
LABELS = by_path(w="block", v="head/v")


# mirror


def test_mirror_copies_the_first_half_of_the_output_channels_of_the_ball_only():
    found = mirror(PARAMS, LABELS)
    np.testing.assert_array_equal(found["block"]["bias"], [0, 1, 0, 1])
    for j in range(4):
        np.testing.assert_array_equal(found["block"]["kernel"][..., j], PARAMS["block"]["kernel"][..., j % 2])
    assert found["free"]["kernel"] is PARAMS["free"]["kernel"]
    assert found["head"]["v"] is PARAMS["head"]["v"]
    jax.tree.map(np.testing.assert_array_equal, mirror(found, LABELS), found)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (2, 3),
            r"leaf 'block/bias' of shape \(2, 3\) cannot be mirrored: width is 3; expected an even number",
        ),
        (
            (2, 1),
            r"leaf 'block/bias' of shape \(2, 1\) cannot be mirrored: width is 1; expected an integer ≥ 2",
        ),
        ((), r"leaf 'block/bias' of shape \(\) cannot be mirrored: .*output channels along the last axis"),
    ],
)
def test_what_cannot_be_mirrored_is_named(shape, message):
    with pytest.raises(ValueError, match=message):
        mirror({"block": {"bias": jnp.ones(shape)}}, by_path(w="block"))


def test_mirror_refuses_bad_labels():
    with pytest.raises(ValueError, match="has the label 'ball'; expected 'w', 'v' or 'free'"):
        mirror({"w": jnp.ones(2)}, {"w": "ball"})


# labels


@pytest.mark.parametrize(
    ("w", "chosen"),
    [
        ("block", {"block/bias", "block/kernel"}),
        ("block/bias", {"block/bias"}),
        ("kernel", {"block/kernel", "free/kernel"}),
        (("bias", "free"), {"block/bias", "free/kernel"}),
        ((), set()),
    ],
)
def test_leaves_are_found_by_whole_path_first_or_last_parts(w, chosen):
    marks = jax.tree_util.tree_leaves_with_path(by_path(w=w, v="v")(PARAMS))
    labels = {jax.tree_util.keystr(path, simple=True, separator="/"): mark for path, mark in marks}
    assert {name for name, mark in labels.items() if mark == "w"} == chosen
    assert {name for name, mark in labels.items() if mark == "v"} == {"head/v"}


def test_labels_of_a_name_that_no_leaf_has_are_refused():
    with pytest.raises(ValueError, match="unknown leaf 'blok': did you mean 'block' or"):
        by_path(w="blok")(PARAMS)
    with pytest.raises(ValueError, match="unknown leaf 'ock'"):  # parts of a path, not of a name
        by_path(w="ock")(PARAMS)
    with pytest.raises(ValueError, match=r"leaf 'head/v' is named by both w='head' and v='v'"):
        by_path(w="head", v="v")(PARAMS)


# equal halves


def test_is_mirrored_sees_every_leaf_and_channel():
    block = jax.tree.map(lambda leaf: leaf + 1, mirror(PARAMS, LABELS)["block"])
    stats = {"mean": np.zeros(4, np.float32)}
    assert jax.jit(is_mirrored)(block, stats)
    for name in ("kernel", "bias"):
        for channel in range(4):
            other = np.array(block[name])
            other[..., channel] = np.nextafter(other[..., channel], np.inf)
            assert not is_mirrored({**block, name: other}, stats), (name, channel)
    assert not is_mirrored(block, {"mean": np.array([0, 0, 1, 0], np.float32)})
    assert not is_mirrored({"kernel": np.full(4, np.nan)})


def test_is_mirrored_refuses_what_says_nothing():
    with pytest.raises(ValueError, match="is_mirrored got no leaf"):
        is_mirrored({}, [])
    with pytest.raises(ValueError, match="width is 3; expected an even number"):
        is_mirrored(np.ones(3))


# the head


@functools.cache
def head(outputs=3):
    module = PairwiseHead(outputs)
    variables = jax.jit(module.init)(jax.random.key(0, impl="rbg"), jnp.ones((4, 6)))
    return variables, jax.jit(module.apply)


@given(st.integers(0, 10_000), st.integers(-30, 30))
def test_head_is_the_formula_and_exactly_zero_for_equal_halves_only(seed, exponent):
    variables, apply = head()
    features = (np.random.default_rng(seed).normal(size=(4, 6)) * 2.0**exponent).astype(np.float32)
    v = np.asarray(variables["params"]["v"], float)
    expected = (features[:, :3].astype(float) - features[:, 3:]) @ v
    np.testing.assert_allclose(apply(variables, features), expected, rtol=0, atol=1e-6 * 2.0**exponent)
    assert np.abs(expected).max() > 1e-3 * 2.0**exponent
    equal = np.concatenate([features[:, :3]] * 2, axis=1)
    np.testing.assert_array_equal(apply(variables, equal), np.zeros((4, 3)))


@pytest.mark.parametrize("mirrored", [False, True])
def test_head_keeps_its_gradient_at_equal_halves_and_hides_no_overflow(mirrored):
    v, features = jnp.array([[2.0], [3.0]]), jnp.array([[1.0, 5.0, 1.0, 5.0]])
    slope = jax.jit(jax.grad(lambda f: pairwise_head(v, f, mirrored).sum()))(features)
    np.testing.assert_array_equal(slope, [[2, 3, -2, -3]])
    assert not np.isfinite(pairwise_head(v, jnp.full((1, 4), jnp.inf), mirrored)).any()


def test_head_that_is_told_of_equal_halves_does_not_read_their_rounding():
    v = jnp.array([[2.0], [3.0]])
    rounded = jnp.array([[1.0, 5.0, np.nextafter(np.float32(1), np.float32(2)), 5.0]])
    told = jax.jit(pairwise_head)
    np.testing.assert_array_equal(told(v, rounded, True), [[0.0]])
    assert told(v, rounded, False)[0, 0] != 0


@pytest.mark.parametrize("features", [(4,), (2, 3), (2, 2)])
def test_pure_head_refuses_other_shapes(features):
    with pytest.raises(
        ValueError, match=r"features have shape .*, v \(2, 1\); expected \(n, 2h\) and \(h, k\)"
    ):
        pairwise_head(jnp.ones((2, 1)), jnp.ones(features))


@pytest.mark.parametrize("outputs", [1, 3])
def test_head_starts_inside_the_cone(outputs):
    variables, _ = head(outputs)
    v = np.asarray(variables["params"]["v"])
    assert v.shape == (3, outputs)
    assert np.abs(v).min() >= np.float32(1e-3)
    assert (v > 0).all() == (outputs == 1)
    constraints.project(zeta=1e-3).init(variables["params"])  # labelled by its own name, and feasible


def test_features_of_half_precision_are_cast_to_the_dtype_of_the_head():
    variables, _ = head()
    assert PairwiseHead(outputs=3).apply(variables, jnp.ones((4, 6), jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("width", "message"), [(1, "width is 1; expected an integer ≥ 2"), (5, "width is 5.*use 4 or 6")]
)
def test_head_refuses_features_that_do_not_pair(width, message):
    with pytest.raises(ValueError, match=message):
        PairwiseHead().init(jax.random.key(0), jnp.ones((2, width)))


# a model of one's own


class LinenCNN(nn.Module):
    """A convolution, averaged, and the pairwise head."""

    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(6, (3, 3), name="narrow")
        features = nn.relu(conv(x)).mean((1, 2))
        return PairwiseHead(2, name="head")(features, is_mirrored(conv.variables))


class NnxCNN(nnx.Module):
    """The same in NNX, whose params are a State or, here, a plain dict."""

    def __init__(self, rngs):
        self.narrow = nnx.Conv(2, 6, (3, 3), rngs=rngs)
        self.v = nnx.Param(jnp.ones((3, 2)))

    def __call__(self, x):
        mirrored = is_mirrored(nnx.state(self.narrow))
        return pairwise_head(self.v[...], nnx.relu(self.narrow(x)).mean((1, 2)), mirrored)


def linen():
    net, x = LinenCNN(), jnp.ones((3, 4, 4, 2))
    return jax.jit(net.init)(jax.random.key(0, impl="rbg"), x)["params"], lambda p, x: net.apply(
        {"params": p}, x
    )


def plain_nnx():
    params, apply = state_nnx()
    return nnx.to_pure_dict(params), apply


@functools.cache
def state_nnx():
    graph, params = nnx.split(NnxCNN(nnx.Rngs(0)))
    return params, lambda p, x: nnx.merge(graph, p)(x)


@pytest.mark.parametrize("make", [linen, plain_nnx, state_nnx])
def test_model_of_a_user_is_zero_once_mirrored_and_not_before(make):
    params, apply = make()
    apply = jax.jit(apply)
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
    assert np.abs(apply(params, x)).max() > 1e-3
    np.testing.assert_array_equal(apply(mirror(params, by_path(w="narrow", v="v")), x), np.zeros((3, 2)))


def test_mirrored_initializer_mirrors_its_draw():
    drawn = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    found = mirrored(lambda key, shape: drawn)(None, (3, 6))
    np.testing.assert_array_equal(found, np.tile(drawn[:, :3], 2))
