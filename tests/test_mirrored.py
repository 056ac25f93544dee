"""The regime for any model: mirrored channels, equal sums for equal filters, the pairwise head, labels by path."""

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
from narrow_jax.constraints import by_path
from narrow_jax.models import PairwiseHead, mirror, mirrored, pairwise_conv, pairwise_head

# a float64 sum of at most 100 products of numbers of order 1, in another order
SUM_ORDER = 5e-14

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
    with pytest.raises(ValueError, match="unknown leaf 'blok': did you mean 'block/bias'"):
        by_path(w="blok")(PARAMS)
    with pytest.raises(ValueError, match="unknown leaf 'ock'"):  # parts of a path, not of a name
        by_path(w="ock")(PARAMS)
    with pytest.raises(ValueError, match=r"leaf 'head/v' is named by both w='head' and v='v'"):
        by_path(w="head", v="v")(PARAMS)


# convolutions


def convolve(x, w, stride, pad, dilation):
    """Return the convolution of NHWC images with an HWIO kernel, window by window, in float64."""
    x = np.pad(np.asarray(x, float), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    reach = [(size - 1) * dilation + 1 for size in w.shape[:2]]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(1, 2))
    windows = windows[:, ::stride, ::stride, :, ::dilation, ::dilation]
    return np.einsum("nyxcij,ijcm->nyxm", windows, np.asarray(w, float))


def direct(x, w, stride=1, pad=0, dilation=1):
    return pairwise_conv(
        x,
        w,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@pytest.mark.parametrize(("size", "stride", "pad", "dilation"), [(1, 2, 0, 1), (3, 1, 1, 1), (2, 2, 1, 2)])
def test_value_is_that_of_a_convolution(size, stride, pad, dilation, x64):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 5, 5, 3)), rng.normal(size=(size, size, 3, 6))
    expected = convolve(x, w, stride, pad, dilation)
    found = jax.jit(direct, static_argnums=(2, 3, 4))(x, w, stride, pad, dilation)
    np.testing.assert_allclose(found, expected, rtol=0, atol=SUM_ORDER)


# (n, height, channels, half of the width, kernel): in all of them XLA's own convolution on a CPU rounds two equal
# filters apart, by up to 1e-4
UNEVEN = [(2, 4, 3, 3, 1), (8, 1, 3, 3, 1), (1, 3, 256, 33, 3), (2, 3, 256, 48, 3), (1, 4, 64, 100, 3)]


@pytest.mark.parametrize(("n", "height", "channels", "half", "size"), UNEVEN)
def test_equal_filters_give_equal_bits(n, height, channels, half, size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(n, height, height, channels)), jnp.float32)
    w = rng.normal(size=(size, size, channels, half))
    y = jax.jit(direct)(x, jnp.asarray(np.concatenate([w, w], axis=-1), jnp.float32))
    np.testing.assert_array_equal(y[..., :half], y[..., half:])
    assert np.abs(y).min() > 0


def test_gradient_is_that_of_a_convolution(x64):
    rng = np.random.default_rng(0)
    x, w, r = (rng.normal(size=shape) for shape in ((2, 4, 4, 3), (1, 1, 3, 4), (2, 4, 4, 4)))
    dx, dw = jax.jit(jax.grad(lambda x, w: jnp.sum(r * direct(x, w)), (0, 1)))(x, w)
    np.testing.assert_allclose(dx, np.einsum("nyxm,cm->nyxc", r, w[0, 0]), atol=SUM_ORDER)
    np.testing.assert_allclose(dw[0, 0], np.einsum("nyxm,nyxc->cm", r, x), atol=SUM_ORDER)


def test_grouped_and_odd_convolutions_are_refused():
    x = jnp.ones((1, 3, 3, 4))
    with pytest.raises(ValueError, match=r"'feature_group_count': 2.*expected 1: halves of grouped channels"):
        pairwise_conv(x, jnp.ones((1, 1, 2, 4)), (1, 1), "SAME", feature_group_count=2)
    with pytest.raises(ValueError, match="width is 5; expected an even number"):
        direct(x, jnp.ones((1, 1, 4, 5)))


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


def test_head_is_exactly_zero_where_its_features_are_computed_in_the_same_loop():
    # (Σa)c − (Σb)c as one fused multiply-add is 1e-8 for a = b
    half = jnp.asarray(np.random.default_rng(0).uniform(size=(5, 3, 3, 3)), jnp.float32)
    v, images = jnp.ones((3, 1)), jnp.concatenate([half, half], axis=-1)
    logits = jax.jit(lambda v, x: pairwise_head(v, (x * 1.7 + 0.3).mean((1, 2))))(v, images)
    np.testing.assert_array_equal(logits, np.zeros((5, 1)))


def test_head_keeps_its_gradient_at_equal_halves_and_hides_no_overflow():
    v, features = jnp.array([[2.0], [3.0]]), jnp.array([[1.0, 5.0, 1.0, 5.0]])
    slope = jax.jit(jax.grad(lambda f: pairwise_head(v, f).sum()))(features)
    np.testing.assert_array_equal(slope, [[2, 3, -2, -3]])
    assert not np.isfinite(pairwise_head(v, jnp.full((1, 4), jnp.inf))).any()


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
        conv = nn.Conv(6, (3, 3), conv_general_dilated=pairwise_conv, name="narrow")
        return PairwiseHead(2, name="head")(nn.relu(conv(x)).mean((1, 2)))


class NnxCNN(nnx.Module):
    """The same in NNX, whose params are a State or, here, a plain dict."""

    def __init__(self, rngs):
        self.narrow = nnx.Conv(2, 6, (3, 3), conv_general_dilated=pairwise_conv, rngs=rngs)
        self.v = nnx.Param(jnp.ones((3, 2)))

    def __call__(self, x):
        return pairwise_head(self.v[...], nnx.relu(self.narrow(x)).mean((1, 2)))


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
