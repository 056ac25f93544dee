"""Two copies of any model that interpolate, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj

X = np.random.default_rng(0).normal(size=(12, 4))
Y = np.random.default_rng(1).choice([-1.0, 1.0], size=12)
W = {"kernel": np.asarray(jax.random.normal(jax.random.key(0), (4, 6))), "bias": np.zeros(6, np.float32)}


def sine(w, x):
    return jnp.sin(x @ w["kernel"] + w["bias"][None, :])


class Convolutions(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.tanh(nn.Conv(4, (3, 3), strides=2)(x))
        return x.reshape(x.shape[0], -1)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        tokens = nn.Dense(8)(x)
        tokens = tokens + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(tokens))
        return jnp.mean(nn.tanh(nn.Dense(8)(tokens)), axis=1)


def distance(found):
    gaps = jax.tree.map(
        lambda a, b: np.sum((a - b) ** 2), found.params, {**found.center, "v": found.params["v"]}
    )
    return np.sqrt(sum(jax.tree.leaves(gaps)))


def check(found, apply_fn, x, y, radius):
    assert found.status == "estimate", found.message
    assert found.loss < 1e-16
    assert distance(found) <= radius
    with jax.enable_x64(True):
        outputs = apply_fn(jax.tree.map(jnp.asarray, found.params), jnp.asarray(x, jnp.float64))
    assert np.allclose(np.reshape(outputs, np.shape(y)), y, atol=1e-7)


@pytest.mark.parametrize("radius", [0.01, 0.1, np.inf])
def test_a_function(radius):
    found = nj.solvers.interpolate(sine, W, X, Y, radius, progress=False)
    check(found, nj.models.pairwise(sine), X, Y, radius)


def test_several_outputs_and_an_outer_layer_of_ones_own():
    y = np.random.default_rng(2).normal(size=(12, 2))
    v = np.random.default_rng(3).normal(size=(6, 2))
    found = nj.solvers.interpolate(sine, W, X, y, 0.5, v=v, progress=False)
    check(found, nj.models.pairwise(sine), X, y, 0.5)
    assert np.array_equal(found.params["v"], found.scale * v)


def test_it_agrees_with_memorize():
    start = nj.initializers.mirrored_lecun(jax.random.key(4), inputs=4, width=12, dtype=jnp.float32)
    w = {"w": start["w"][:, :6]}
    found = nj.solvers.interpolate(
        lambda w, x: jnp.tanh(x @ w["w"]), w, X, Y, 0.1, v=start["v"], progress=False
    )
    params = {
        "w": np.concatenate([found.params["plus"]["w"], found.params["minus"]["w"]], axis=1),
        "v": found.params["v"],
    }
    assert nj.certificates.memorization(params, np.tile(np.float64(w["w"]), 2), X, Y, radius=0.1).holds


@pytest.mark.parametrize("model", [Convolutions(), Attention()], ids=lambda m: type(m).__name__)
def test_a_linen_module(model):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(10, 8, 8, 2) if isinstance(model, Convolutions) else (10, 5, 3))
    w = model.init(jax.random.key(0), x[:1].astype(np.float32))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as Flax's layers want it
        found = nj.solvers.interpolate(model, w, x, Y[:10], 0.1, progress=False)
        check(found, nj.models.pairwise(model), x, Y[:10], 0.1)


def test_more_equations_than_the_model_has_directions():
    x = np.tile(X[0], (12, 1)) * np.arange(1.0, 13.0)[:, None]
    found = nj.solvers.interpolate(lambda w, x: x @ w["kernel"], W, x, Y, 0.1, progress=False)
    assert found.status == "rank_deficient"
    assert "12 equations" in found.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": 0.0}, "radius is 0"),
        ({"radius": -1.0}, "radius is -1.0"),
        ({"y": Y[:5]}, "expected one row a sample in both"),
        ({"y": np.append(Y[:11], np.nan)}, "y has 1 non-finite"),
        ({"features": lambda w, x: jnp.sum(x @ w["kernel"], axis=1)}, "expected \\(n, h\\)"),
        (
            {"features": lambda w, x: sine(w, x) - jnp.mean(sine(w, x), axis=0, keepdims=True)},
            "couples samples",
        ),
        ({"v": np.ones((5, 1))}, "v has shape"),
        ({"steps": 0}, "steps is 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(change, message):
    given = {"features": sine, "w": W, "x": X, "y": Y, "radius": 0.1} | change
    with pytest.raises(ValueError, match=message):
        nj.solvers.interpolate(**given, progress=False)


def test_labels_that_are_no_floating_numbers_are_refused():
    with pytest.raises(TypeError, match="y has dtype int64"):
        nj.solvers.interpolate(sine, W, X, np.arange(12), progress=False)


def test_equal_samples_count_once_and_clash_by_name():
    w, x = (
        {"kernel": np.random.default_rng(0).normal(size=(3, 8))},
        np.random.default_rng(1).normal(size=(4, 3)),
    )
    twice = np.concatenate([x, x[:1]])

    def features(w, x):
        return jnp.tanh(x @ w["kernel"])

    found = nj.solvers.interpolate(features, w, twice, [1.0, -1, 1, 1, 1], radius=1.0)
    assert found.status == "estimate"
    assert found.residual.shape == (5, 1)
    assert np.abs(found.residual).max() < 1e-8
    with pytest.raises(ValueError, match="samples 0 and 4 are equal"):
        nj.solvers.interpolate(features, w, twice, [1.0, -1, 1, 1, -1], radius=1.0)


@pytest.mark.parametrize("leaf", [np.int32(3), np.array([True, False]), np.array([1 + 2j])])
def test_leaves_that_cannot_be_trained_are_named(leaf):
    w = {"kernel": np.ones((3, 8)), "other": leaf}
    with pytest.raises(TypeError, match="the leaf 'other' of w is"):
        nj.solvers.interpolate(lambda w, x: jnp.tanh(x @ w["kernel"]), w, np.eye(3), np.ones(3), radius=1.0)


def test_features_that_are_not_finite_and_a_v_of_other_outputs_are_named():
    w, x = {"kernel": np.ones((3, 8))}, np.eye(3)
    with pytest.raises(ValueError, match="not finite at the start"):
        nj.solvers.interpolate(lambda w, x: jnp.log(x @ w["kernel"] - 1), w, x, np.ones(3), radius=1.0)
    with pytest.raises(ValueError, match="expected a column of v for each of y"):
        nj.solvers.interpolate(
            lambda w, x: jnp.tanh(x @ w["kernel"]), w, x, np.ones(3), radius=1.0, v=np.ones((8, 2))
        )


def test_what_it_finds_can_be_applied_where_x64_is_off():
    w = {"kernel": np.random.default_rng(0).normal(size=(3, 8))}
    x, y = np.random.default_rng(1).normal(size=(4, 3)), np.array([1.0, -1, 1, 1])

    def features(w, x):
        return jnp.tanh(x @ w["kernel"])

    found = nj.solvers.interpolate(features, w, x, y, radius=1.0)
    f = nj.models.pairwise(features)(found.params, x.astype("float32"))
    np.testing.assert_allclose(f[:, 0], y, atol=1e-3)


def test_a_module_needs_all_of_its_variables():
    module = nn.Dense(5)
    x = np.random.default_rng(0).normal(size=(6, 4))
    variables = module.init(jax.random.key(0), x)
    with pytest.raises(
        ValueError,
        match=r"w is (kernel, bias|bias, kernel); expected the variables of Dense, \{\"params\": …\}",
    ):
        nj.solvers.interpolate(module, {**variables["params"]}, x, x[:, 0], radius=0.1)
