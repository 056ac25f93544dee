"""`sweep`: many runs in one call equal the same runs one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import narrow_jax as nj

GRID = {"radius": [0.1, 1.0, jnp.inf], "learning_rate": [0.003, 0.01], "seed": [0, 1]}
ROUNDING = 1e-5  # float32, 30 steps: batched and single products round differently


@pytest.fixture(scope="module")
def data():
    key_x, key_y = jax.random.split(jax.random.key(0))
    return jax.random.normal(key_x, (12, 5)), jax.random.normal(key_y, (12, 1))


def setup(radius, learning_rate, seed):
    params = nj.initializers.mirrored_lecun(jax.random.key(seed), inputs=5, width=8)
    return params, nj.constraints.regime(optax.sgd(learning_rate), radius=radius)


def test_equals_single_runs(data):
    swept = nj.sweep(nj.models.pairwise_apply, setup, data, grid=GRID, steps=30, every=10)
    assert swept.history["loss"].shape == (3, 2, 2, 4)
    assert swept.history["step"].tolist() == [0, 10, 20, 30]
    assert swept.params["w"].shape == (3, 2, 2, 5, 8)
    for i, j, k in [(0, 0, 0), (1, 1, 1), (2, 0, 1)]:
        radius, rate, seed = GRID["radius"][i], GRID["learning_rate"][j], GRID["seed"][k]
        params, tx = setup(radius, rate, seed)
        single = nj.fit(nj.models.pairwise_apply, params, tx, data, steps=30, every=10)
        np.testing.assert_allclose(
            swept.params["w"][i, j, k], single.params["w"], rtol=ROUNDING, atol=ROUNDING
        )
        np.testing.assert_allclose(
            swept.history["relative_distance"][i, j, k],
            single.history["relative_distance"],
            rtol=1e-3,
            atol=1e-6,
        )


def test_one_compilation(data):
    traced = []

    def apply_fn(params, x):
        traced.append(x.shape)
        return nj.models.pairwise_apply(params, x)

    nj.sweep(apply_fn, setup, data, grid=GRID, steps=300, every=3)
    nj.sweep(apply_fn, setup, data, grid={**GRID, "radius": [0.2, 0.3, 0.4]}, steps=200, every=2)
    # first call: one look at the output's shape, then one trace of a step and one of a record
    assert len(traced) <= 5


def test_runs_draw_their_own_batches(data):
    def same_start(seed):
        params = nj.initializers.mirrored_lecun(jax.random.key(7), inputs=5, width=8)
        return params, optax.sgd(0.1)

    swept = nj.sweep(
        nj.models.pairwise_apply,
        same_start,
        data,
        grid={"seed": [0, 1]},
        steps=5,
        batch_size=4,
        key=jax.random.key(0),
    )
    assert not np.allclose(swept.params["w"][0], swept.params["w"][1])


def test_one_diverged_run_leaves_the_others_alone(data):
    def plain(learning_rate):
        params = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8)
        return params, optax.sgd(learning_rate)

    swept = nj.sweep(
        nj.models.pairwise_apply, plain, data, grid={"learning_rate": [0.01, 1e4]}, steps=200, every=5
    )
    assert swept.diverged.tolist() == [False, True]
    assert swept.steps_taken[0] == 200
    assert swept.steps_taken[1] < 200
    assert np.isfinite(swept.history["loss"][0]).all()
    assert np.isnan(swept.history["loss"][1, -1])
    assert np.isfinite(swept.params["w"]).all()
    single = nj.fit(nj.models.pairwise_apply, *plain(0.01), data, steps=200, every=5)
    np.testing.assert_allclose(swept.history["loss"][0], single.history["loss"], rtol=ROUNDING)


def test_bad_value_anywhere_on_an_axis_is_refused(data):
    with pytest.raises(ValueError, match="radius is -1"):
        nj.sweep(nj.models.pairwise_apply, setup, data, grid={**GRID, "radius": [0.1, -1.0]}, steps=3)


@pytest.mark.parametrize("axis", [[], 0.1, [[0.1]]])
def test_axis_must_be_a_list(data, axis):
    with pytest.raises(ValueError, match="grid axis 'radius' has shape"):
        nj.sweep(nj.models.pairwise_apply, setup, data, grid={**GRID, "radius": axis}, steps=3)


def test_one_run_is_taken_out_with_its_model(data, tmp_path):
    grid = {"radius": [0.1, 1.0], "seed": [0, 1]}

    def at_rate(radius, seed):
        return setup(radius, 0.01, seed)

    swept = nj.sweep(nj.models.pairwise_apply, at_rate, data, grid=grid, steps=30, every=10)
    single = swept.at(1, 0)
    np.testing.assert_array_equal(single.params["w"], swept.params["w"][1, 0])
    np.testing.assert_array_equal(single.history["loss"], swept.history["loss"][1, 0])
    assert (single.steps_taken, single.diverged) == (30, False)
    expected = nj.models.pairwise_apply(single.params, data[0])[:, 0]
    np.testing.assert_allclose(single.model.predict(data[0]), expected, rtol=1e-6)
    kept = nj.load(nj.save(tmp_path, single.model))
    np.testing.assert_array_equal(kept.predict(data[0]), single.model.predict(data[0]))
    tx = at_rate(1.0, 0)[1]
    more = nj.fit(
        nj.models.pairwise_apply, single.params, tx, data, steps=5, opt_state=single.opt_state, callbacks=[]
    )
    assert more.history["distance"][0] == pytest.approx(float(single.history["distance"][-1]), rel=1e-5)
    for index in ((0,), (0, 0, 0), (2, 0)):
        with pytest.raises(IndexError, match=r"the grid has the shape \(2, 2\)"):
            swept.at(*index)


def test_what_diverged_has_its_finite_records(data):
    def line(params, x):
        return x @ params["w"]

    def at_rate(rate):
        return {"w": jnp.zeros((5, 1))}, optax.sgd(rate)

    swept = nj.sweep(line, at_rate, data, grid={"rate": [0.01, 1e3]}, steps=40, every=2)
    broken = swept.at(1)
    assert broken.diverged
    assert np.isfinite(broken.history["loss"]).all()
    assert broken.history["step"][-1] == broken.steps_taken
