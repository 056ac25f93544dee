"""Sets of the user's by their projection, and radii of their own for each layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import adam

import narrow_jax as nj
from narrow_jax.constraints import Set, by_path, project, regime, report, within

RNG = np.random.default_rng(0)
PARAMS = {
    "a": jnp.asarray(RNG.normal(size=(3, 4)).astype(np.float32)),
    "b": {"w": jnp.asarray(RNG.normal(size=(4, 2)).astype(np.float32)), "mix": jnp.full(3, 1 / 3)},
}
simplex = optax.projections.projection_simplex


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion: optax's own projections promote."""


def ran(tx, steps=30, params=PARAMS):
    """Params and state after steps along random gradients."""
    state = tx.init(params)
    update = jax.jit(tx.update)
    for key in jax.random.split(jax.random.key(0), steps):
        grads = jax.tree.map(lambda leaf, key=key: jax.random.normal(key, leaf.shape), params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_leaves_stay_in_the_set_and_others_are_left_alone():
    params, state = ran(optax.chain(adam(0.3), within(simplex, "b/mix")))
    free, _ = ran(adam(0.3))
    mix = np.asarray(params["b"]["mix"])
    assert (mix >= 0).all()
    assert mix.sum() == pytest.approx(1, abs=1e-6)
    assert not np.allclose(mix, free["b"]["mix"], atol=1e-2)  # the negative control
    assert bool(state[1].active)
    np.testing.assert_array_equal(params["a"], free["a"])
    np.testing.assert_array_equal(params["b"]["w"], free["b"]["w"])


def test_inside_of_the_set_updates_pass_to_the_bit():
    box = within(lambda tree: jax.tree.map(lambda leaf: leaf.clip(-100, 100), tree), ["a", "b"])
    params, state = ran(optax.chain(adam(0.3), box))
    free, _ = ran(adam(0.3))
    jax.tree.map(np.testing.assert_array_equal, params, free)
    assert not bool(state[1].active)


def test_a_start_outside_is_led_in_and_nan_stays():
    tx = within(simplex, "mix")
    params = {"mix": jnp.array([3.0, 3.0])}
    updates, _ = tx.update({"mix": jnp.zeros(2)}, tx.init(params), params)
    np.testing.assert_allclose(optax.apply_updates(params, updates)["mix"], [0.5, 0.5], rtol=1e-6)
    updates, _ = tx.update({"mix": jnp.array([jnp.nan, 0.0])}, tx.init(params), params)
    assert np.isnan(updates["mix"]).any()


def test_beside_the_regime_in_training():
    x = RNG.normal(size=(20, 5)).astype(np.float32)
    y = np.sign(x[:, :1])
    start = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8) | {"scale": jnp.ones(1)}

    def net(params, x):
        return params["scale"][None] * nj.models.pairwise_apply({"w": params["w"], "v": params["v"]}, x)

    box = within(lambda tree: jax.tree.map(lambda leaf: leaf.clip(0.9, 1.1), tree), "scale")
    tx = optax.chain(regime(adam(0.05), radius=0.5), box)
    result = nj.fit(net, start, tx, (x, y), steps=100, callbacks=[])
    assert 0.9 <= float(result.params["scale"][0]) <= 1.1 + 1e-6
    assert result.history["relative_distance"][-1] <= 1 + 1e-5
    assert result.history["loss"][-1] < result.history["loss"][0]
    free = nj.fit(net, start, regime(adam(0.05), radius=0.5), (x, y), steps=100, callbacks=[])
    assert float(free.params["scale"][0]) > 1.2  # the set was needed


def of_training(told, **options):
    """The history of a run whose output weights stay in a box that reports."""
    x = RNG.normal(size=(20, 5)).astype(np.float32)
    start = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8)
    box = Set(lambda tree: jax.tree.map(lambda leaf: leaf.clip(-0.5, 0.5), tree), told)
    tx = optax.chain(regime(adam(0.5), radius=0.5, zeta=None), within(box, "v"))
    options = {"steps": 20, "every": 5, "callbacks": []} | options
    return nj.fit(nj.models.pairwise_apply, start, tx, (x, np.sign(x[:, :1])), **options)


def test_a_set_reports_in_the_history():
    def norms(tree):
        return {"largest v": jnp.max(jnp.abs(tree["v"])), "size": jnp.sum(jnp.abs(tree["v"]))}

    result = of_training(norms)
    v = np.asarray(result.params["v"])
    assert result.history["largest v"].shape == result.history["step"].shape
    start = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8)["v"]
    assert result.history["largest v"][0] == np.abs(start).max()
    np.testing.assert_allclose(result.history["largest v"][-1], np.abs(v).max(), rtol=1e-6)
    np.testing.assert_allclose(result.history["size"][-1], np.abs(v).sum(), rtol=1e-6)
    assert result.history["set_active"].tolist()[:2] == [False, True]
    assert set(of_training(None).history) == set(result.history) - {"largest v", "size"}
    swept = nj.sweep(
        nj.models.pairwise_apply,
        lambda seed: (
            nj.initializers.mirrored_lecun(jax.random.key(seed), inputs=5, width=8),
            optax.chain(optax.sgd(0.1), within(Set(lambda tree: tree, norms), "v")),
        ),
        (np.eye(5, dtype=np.float32), np.ones((5, 1), np.float32)),
        grid={"seed": [0, 1]},
        steps=2,
    )
    assert swept.history["size"].shape == (2, 3)


BAD_REPORTS = {
    "no numbers by name": (
        lambda tree: 3,
        ValueError,
        "the report of the set is 3; expected numbers by name",
    ),
    "many numbers": (
        lambda tree: {"v": tree["v"]},
        ValueError,
        r"has 'v' as float32\[4, 1\]; expected one real number",
    ),
    "taken": (lambda tree: {"loss": 0.0}, ValueError, "a set reports 'loss', which the history has already"),
    "taken by the ball": (
        lambda tree: {"distance": 0.0},
        ValueError,
        "a set reports 'distance', as another constraint does",
    ),
    "no function": (3, TypeError, "report is the number 3"),
}


@pytest.mark.parametrize(("told", "error", "message"), BAD_REPORTS.values(), ids=BAD_REPORTS.keys())
@pytest.mark.usefixtures("unchecked")
def test_bad_reports(told, error, message):
    with pytest.raises(error, match=message):
        of_training(told)


def test_muon_inside_of_the_regime():
    x = RNG.normal(size=(30, 5)).astype(np.float32)
    start = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=12)
    options = {"steps": 200, "every": 20, "callbacks": []}
    muon = optax.contrib.muon(0.02)
    result = nj.fit(nj.models.pairwise_apply, start, regime(muon, 0.3), (x, np.sign(x[:, :1])), **options)
    assert result.history["loss"][-1] < 0.5 * result.history["loss"][0]
    assert result.history["relative_distance"].max() <= 1 + 1e-5
    assert (np.asarray(result.params["v"]) >= 1e-3).all()
    free = nj.fit(nj.models.pairwise_apply, start, muon, (x, np.sign(x[:, :1])), **options)
    moved = np.linalg.norm(np.asarray(free.params["w"]) - np.asarray(start["w"]))
    assert moved > 2 * 0.3  # the ball was needed


def test_regimes_inside_each_other_have_radii_of_their_own():
    inner = regime(adam(0.3), 0.1, zeta=None, labels=by_path(w="a"))
    params, state = ran(regime(inner, 2.0, zeta=None, labels=by_path(w="b/w")))
    free, _ = ran(adam(0.3))
    for leaf, radius in ((lambda p: p["a"], 0.1), (lambda p: p["b"]["w"], 2.0)):
        distance = np.linalg.norm(leaf(params) - leaf(PARAMS))
        assert distance == pytest.approx(radius, rel=1e-5)
        assert np.linalg.norm(leaf(free) - leaf(PARAMS)) > 1.1 * radius  # the negative control
    assert float(report(state, params)["relative_distance"]) == pytest.approx(1, rel=1e-5)
    plain = optax.chain(adam(0.3), project(0.1, labels=by_path(w="a")), project(2.0, labels=by_path(w="b/w")))
    params, _ = ran(plain)
    assert np.linalg.norm(params["a"] - PARAMS["a"]) <= 0.1 * (1 + 1e-5)


@pytest.mark.usefixtures("unchecked")
def test_bad_input():
    with pytest.raises(ValueError, match="unknown leaf 'b/mx': did you mean 'b/mix'"):
        within(simplex, "b/mx").init(PARAMS)
    with pytest.raises(ValueError, match="no leaf is named; expected some of a, b/mix, b/w"):
        within(simplex, []).init(PARAMS)
    with pytest.raises(
        ValueError, match=r"the projection changes the leaves: at 'b/mix' .*expected the same shapes"
    ):
        within(lambda tree: jax.tree.map(jnp.sum, tree), "b/mix").init(PARAMS)
    with pytest.raises(TypeError, match="projection is the number 3"):
        within(3, "a")
    tx = within(simplex, "b/mix")
    with pytest.raises(ValueError, match="within needs the params"):
        tx.update(PARAMS, tx.init(PARAMS))
