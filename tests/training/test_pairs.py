"""Training of deep pairwise nets: one ball around both halves, the cone for v, by default labels and by path."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import adam

import narrow_jax as nj
from narrow_jax.constraints import by_path, project, regime
from narrow_jax.labels import by_name

ROUNDING = 1e-5  # float32, 30 steps: batched and single products round differently
RADIUS, ZETA = 0.3, 1e-2
X = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
Y = np.sign(np.random.default_rng(1).normal(size=(12, 1))).astype(np.float32)


def start(seed=0):
    return nj.initializers.mirrored_mlp(jax.random.key(seed), inputs=5, widths=(8, 6), zeta=ZETA)


def distance(params, center):
    away = jax.tree.map(lambda a, b: np.asarray(a, float) - np.asarray(b, float), params, center)
    return np.sqrt(sum((leaf**2).sum() for half in ("plus", "minus") for leaf in jax.tree.leaves(away[half])))


# labels


def test_default_labels_are_the_ball_on_both_halves_and_the_cone_on_v():
    half = {"w1": "w", "w2": "w"}
    expected = {"plus": half, "minus": half, "v": "v"}
    assert by_name(start()) == expected
    assert by_path(w=("plus", "minus"), v="v")(start()) == expected
    assert by_name({"params": start()}) == {"params": expected}


def test_leaves_named_v_in_a_copy_are_in_the_ball():
    copy = {"attention": {"v": 0.0, "bias": 0.0}}
    marks = by_name({"plus": copy, "minus": copy, "v": 0.0})
    assert set(jax.tree.leaves([marks["plus"], marks["minus"]])) == {"w"}


@pytest.mark.parametrize(
    "params",
    [
        {"plus": {"a": 0.0}, "minus": {"a": 0.0}},
        {"plus": {"a": 0.0}, "v": 0.0},
        {"plus": {"a": 0.0}, "minus": {"a": 0.0}, "v": 0.0, "stem": 0.0},
    ],
)
def test_other_trees_keep_the_labels_of_their_names(params):
    marks = by_name(params)
    assert set(jax.tree.leaves([marks[key] for key in params if key != "v"])) == {"free"}


def test_masked_halves_are_labelled_too():
    mask = {"plus": True, "minus": True, "v": False}
    tx = optax.masked(regime(optax.sgd(0.1), RADIUS), mask)
    state = tx.init(start())
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, start()), state, start())
    assert float(np.abs(updates["plus"]["w1"]).max()) < RADIUS
    np.testing.assert_array_equal(updates["v"], np.ones((6, 1)))


# the ball is one for both halves


def test_the_ball_is_one_around_both_halves():
    params, tx = start(), project(radius=RADIUS, zeta=ZETA)
    updates, state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    assert distance(moved, params) == pytest.approx(RADIUS, rel=1e-5)
    # 176 weights moved by the same amount: RADIUS/√176 each, not RADIUS/√88
    np.testing.assert_allclose(updates["minus"]["w2"], RADIUS / 176**0.5, rtol=1e-3)
    assert state.relative_distance == pytest.approx(1, rel=1e-5)


@functools.cache
def mlp_run(seed=0):
    tx = regime(adam(0.02), radius=RADIUS, zeta=ZETA)
    return nj.fit(nj.models.pairwise_mlp_apply, start(seed), tx, (X, Y), steps=300, every=50)


def test_fit_learns_the_labels_inside_the_ball_and_the_cone():
    result = mlp_run()
    assert result.history["loss"][0] == pytest.approx(6.0, rel=1e-6)  # f = 0 at the start: ½Σy²
    assert result.history["accuracy"][-1] == 1
    assert result.history["loss"][-1] < 1e-2
    assert distance(result.params, start()) <= RADIUS * (1 + 1e-5)
    assert result.history["relative_distance"].max() <= 1 + 1e-5
    assert (result.params["v"] >= ZETA * (1 - 1e-6)).all()
    assert not np.array_equal(result.params["plus"]["w1"], result.params["minus"]["w1"])


def test_fit_takes_the_module_and_its_variables():
    module = nj.models.PairwiseMLP(widths=(8, 6))
    tx = regime(adam(0.02), radius=RADIUS)
    result = nj.fit(module.apply, {"params": start()}, tx, (X, Y), steps=300, every=50)
    assert result.history["accuracy"][-1] == 1
    assert distance(result.params["params"], start()) <= RADIUS * (1 + 1e-5)


def test_fit_takes_two_copies_of_any_features():
    apply = nj.models.pairwise(lambda w, x: jnp.tanh(jnp.tanh(x @ w["w1"]) @ w["w2"]))
    half = start()["plus"]
    params = {"plus": half, "minus": half, "v": start()["v"]}  # the same arrays twice
    tx = regime(adam(0.02), radius=RADIUS, zeta=ZETA)
    result = nj.fit(apply, params, tx, (X, Y), steps=300, every=50)
    assert result.history["loss"][0] == pytest.approx(6.0, rel=1e-6)
    # the same path while rounding has not grown: later Adam overshoots near 0, wherever it is
    np.testing.assert_allclose(result.history["loss"][:3], mlp_run().history["loss"][:3], rtol=0.01)
    assert distance(result.params, start()) <= RADIUS * (1 + 1e-5)


def test_sweep_equals_single_runs():
    def setup(radius, seed):
        return start(seed), regime(optax.sgd(0.01), radius=radius, zeta=ZETA)

    grid = {"radius": [0.1, jnp.inf], "seed": [0, 1]}
    swept = nj.sweep(nj.models.pairwise_mlp_apply, setup, (X, Y), grid=grid, steps=30, every=10)
    for i, j in np.ndindex(2, 2):
        params, tx = setup(grid["radius"][i], grid["seed"][j])
        single = nj.fit(nj.models.pairwise_mlp_apply, params, tx, (X, Y), steps=30, every=10)
        jax.tree.map(
            lambda many, one, at=(i, j): np.testing.assert_allclose(
                many[at], one, rtol=ROUNDING, atol=ROUNDING
            ),
            swept.params,
            single.params,
        )
