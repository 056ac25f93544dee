"""The pairwise net over any features: against the formula, exactly 0 for equal copies, and what it refuses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import narrow_jax as nj
from narrow_jax.models import pairwise, pairwise_mlp_apply

SUM_ORDER = 5e-14  # float64, sums of at most 40 products of numbers of order 1


def features(w, x):
    """An MLP of two layers, the second with a bias."""
    return jnp.sin(jnp.tanh(x @ w["w1"]) @ w["w2"] + w["bias"][None])


class CNN(nn.Module):
    """A convolution, normalised and averaged."""

    width: int = 6

    @nn.compact
    def __call__(self, x):
        return nn.gelu(nn.GroupNorm(2)(nn.Conv(self.width, (3, 3))(x))).mean((1, 2))


def draw(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    w = {"w1": rng.normal(size=(3, 5)), "w2": rng.normal(size=(5, 4)), "bias": rng.normal(size=4)}
    return jax.tree.map(lambda leaf: leaf.astype(dtype), w)


X = np.random.default_rng(9).normal(size=(6, 3))
V = np.random.default_rng(8).normal(size=(4, 2))
IMAGES = np.random.default_rng(7).normal(size=(3, 8, 8, 2)).astype(np.float32)


def plain(params, x):
    return (features(params["plus"], x) - features(params["minus"], x)) @ params["v"]


@pytest.mark.parametrize("minus", [0, 1], ids=["equal copies", "other copies"])
def test_value_and_gradients_are_those_of_the_formula(minus, x64):
    params = {"plus": draw(0), "minus": draw(minus), "v": V}
    weights = np.random.default_rng(2).normal(size=(6, 2))
    found, expected = (
        jax.jit(jax.value_and_grad(lambda p, x, f=f: jnp.sum(weights * f(p, x)), (0, 1)))(params, X)
        for f in (pairwise(features), plain)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=SUM_ORDER), found, expected)
    assert np.abs(found[1][0]["plus"]["w1"]).max() > 0.1
    assert (abs(found[0]) == 0) == (minus == 0)


def test_layers_of_an_mlp_give_the_deep_pairwise_net(x64):
    params = nj.initializers.mirrored_mlp(jax.random.key(0), inputs=3, widths=(5, 4), dtype="float64")
    params["plus"] = jax.tree.map(lambda w: w + 0.1, params["plus"])
    apply = pairwise(lambda w, x: jnp.tanh(jnp.tanh(x @ w["w1"]) @ w["w2"]))
    np.testing.assert_allclose(apply(params, X), pairwise_mlp_apply(params, X), rtol=0, atol=SUM_ORDER)


def test_smallest_singular_value_at_the_start_is_that_of_one_copy_times_the_root_of_two(x64):
    params = {"plus": draw(0), "minus": draw(0), "v": V}
    pair = nj.jacobian.autodiff(pairwise(features), params, X, wrt=("plus", "minus"))
    one = nj.jacobian.autodiff(lambda w, x: features(w, x) @ jnp.asarray(V), params["plus"], X)
    assert nj.sigma_min(pair).value == pytest.approx(2**0.5 * nj.sigma_min(one).value, rel=1e-9)


def linen():
    net = CNN()
    return net, net.init(jax.random.key(0), IMAGES)


def bound_method():
    net, variables = linen()
    return net.apply, variables


def of_nnx():
    graph, state = nnx.split(nnx.Conv(2, 6, (3, 3), rngs=nnx.Rngs(0)))
    return (lambda w, x: nnx.gelu(nnx.merge(graph, w)(x)).mean((1, 2))), state


@pytest.mark.parametrize("make", [linen, bound_method, of_nnx])
def test_copies_of_a_model_are_zero_while_they_are_equal_and_only_then(make):
    phi, w = make()
    params = {"plus": w, "minus": jax.tree.map(jnp.copy, w), "v": jnp.ones((6, 2))}
    apply = jax.jit(pairwise(phi))
    np.testing.assert_array_equal(apply(params, IMAGES), np.zeros((3, 2)))
    moved = params | {"plus": jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, w)}
    assert np.abs(apply(moved, IMAGES)).min() > 1e-3


def test_copies_that_differ_in_one_entry_are_not_called_equal():
    # features that forget w: what rounding makes of them is told as it is
    rounded = pairwise(lambda w, x: x * w["plus"] + w["seen"])
    w = {"plus": jnp.float32(1), "seen": jnp.zeros((1, 2))}
    params = {"plus": w, "minus": w | {"seen": jnp.full((1, 2), 1e-3)}, "v": jnp.ones((2, 1))}
    np.testing.assert_allclose(rounded(params, jnp.ones((1, 2))), [[-2e-3]], rtol=1e-3)


def test_equal_features_give_equal_functions():
    # a compiled loop is used again
    assert pairwise(features) == pairwise(features)
    assert pairwise(CNN()) == pairwise(CNN())
    assert hash(pairwise(CNN())) == hash(pairwise(CNN()))
    assert pairwise(CNN()) != pairwise(CNN(width=2))


def test_features_are_cast_to_the_dtype_of_v():
    apply = pairwise(lambda w, x: (x * w["a"]).astype(jnp.bfloat16))
    w = {"a": jnp.ones((1, 2))}
    assert apply({"plus": w, "minus": w, "v": jnp.ones((2, 1))}, jnp.ones((3, 2))).dtype == jnp.float32


NOT_FEATURES = {
    "nnx": (
        nnx.Linear(2, 3, rngs=nnx.Rngs(0)),
        r"features is an nnx.Module; expected .*graphdef, state = nnx.split\(model\)",
    ),
    "none": (
        None,
        r"features is None; expected a function \(w, x\) ↦ features \(n, h\): pass one, such as module.apply",
    ),
    "an array": (np.ones(3), "features is an array; expected a function"),
}


@pytest.mark.parametrize(("value", "message"), NOT_FEATURES.values(), ids=NOT_FEATURES.keys())
def test_what_is_no_features_is_refused(value, message, unchecked):
    with pytest.raises(TypeError, match=message):
        pairwise(value)


W = {"a": jnp.ones(2)}
GOOD = {"plus": W, "minus": W, "v": jnp.ones((4, 1))}
BAD = {
    "a vector": (
        lambda w, x: x[:, 0],
        GOOD,
        ValueError,
        r"features\(w, x\) has shape \(6,\) for x of shape \(6, 3\); expected \(n, h\)",
    ),
    "an image": (
        lambda w, x: jnp.ones((6, 2, 2)),
        GOOD,
        ValueError,
        r"has shape \(6, 2, 2\) .*expected \(n, h\), one row a sample",
    ),
    "other samples": (
        lambda w, x: jnp.ones((5, 4)),
        GOOD,
        ValueError,
        r"has shape \(5, 4\) for x of shape \(6, 3\)",
    ),
    "another height": (
        lambda w, x: x,
        GOOD,
        ValueError,
        r"v has shape \(4, 1\) and features\(w, x\) \(6, 3\); expected v \(h, k\) with h = 3",
    ),
    "v is a vector": (
        lambda w, x: x,
        GOOD | {"v": jnp.ones(3)},
        ValueError,
        r"v has shape \(3,\) .*with h = 3",
    ),
    "a pair": (
        lambda w, x: (x, x),
        GOOD,
        TypeError,
        r"it is a tuple of 2; expected an array of numbers|features\(w, x\) is a tuple",
    ),
    "no weights": (
        lambda w, x: x,
        {"plus": {}, "minus": {}, "v": jnp.ones((3, 1))},
        ValueError,
        "plus has no leaf",
    ),
    "other copies": (
        lambda w, x: x,
        GOOD | {"minus": {"a": jnp.ones(3)}},
        ValueError,
        r"minus is not like plus at 'a' \(float32\[2\] expected",
    ),
    "other names": (
        lambda w, x: x,
        GOOD | {"minus": {"b": jnp.ones(2)}},
        ValueError,
        "minus is not like plus at 'a'.* nothing found",
    ),
    "other keys": (
        lambda w, x: x,
        {"w": W, "v": jnp.ones((3, 1))},
        ValueError,
        "params have the keys w, v; expected",
    ),
}


@pytest.mark.parametrize(("phi", "params", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_features_and_params_are_refused(phi, params, error, message, unchecked):
    with pytest.raises(error, match=message):
        pairwise(phi)(params, jnp.ones((6, 3)))


def test_the_class_of_a_module_is_no_module():
    with pytest.raises(TypeError, match=r"features is the class Dense; expected a module of it, Dense\(…\)"):
        nj.models.pairwise(nn.Dense)
