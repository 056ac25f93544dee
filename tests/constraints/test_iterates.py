"""What the history says of the ball is true of the params; runs go on; averaged iterates lie in the sets."""

import chex
import jax
import numpy as np
import optax
import pytest
from optimizers import adam, unstrict

import narrow_jax as nj
from narrow_jax.constraints import ball_coordinates, eval_params, project, regime, report

RADIUS, ZETA = 0.05, 1e-3
# float32: ‖w − w⁰‖ of params of order 1, in units of the radius
ROUNDING = 1e-4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype(np.float32)
Y = np.sign(X[:, :1])


@pytest.fixture(scope="module")
def start():
    return nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8)


def fit(start, tx, **options):
    return nj.fit(nj.models.pairwise_apply, start, tx, (X, Y), **({"steps": 30, "every": 10} | options))


def distance(params, start):
    return float(np.linalg.norm(np.asarray(params["w"], float) - np.asarray(start["w"], float)))


def loss(params):
    return float(nj.losses.squared(nj.models.pairwise_apply(params, X), Y))


MASK = {"w": True, "v": True}
WRAPPED = {
    "ema after": lambda tx: optax.chain(tx, unstrict(optax.ema(0.9))),
    "scaled after": lambda tx: optax.chain(tx, optax.scale(3.0)),
    "masked": lambda tx: optax.chain(optax.masked(tx, MASK), optax.scale(3.0)),
    "partition": lambda tx: optax.chain(
        optax.partition({"a": tx, "b": optax.sgd(0.1)}, {"w": "a", "v": "b"}), optax.scale(3.0)
    ),
    "apply_if_finite": lambda tx: optax.chain(optax.apply_if_finite(tx, 3), optax.scale(3.0)),
    "coordinates around": lambda tx: ball_coordinates(optax.chain(optax.sgd(0.1), project(0.4)), 0.1),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_distance_is_that_of_the_params(start, name):
    result = fit(start, WRAPPED[name](regime(adam(0.05), RADIUS)), every=1)
    told, true = result.history["distance"][-1], distance(result.params, start)
    unit = 0.1 if name == "coordinates around" else 1.0  # there the projection sees ŵ
    assert told * unit == pytest.approx(true, rel=ROUNDING)
    if name != "coordinates around":
        assert result.history["relative_distance"][-1] == pytest.approx(true / RADIUS, rel=ROUNDING)
        # the negative control: the projection itself says at most 1
        assert result.history["relative_distance"].max() > 1.01
        assert float(report(result.opt_state)["relative_distance"]) < 1 + ROUNDING
        assert float(report(result.opt_state, result.params)["distance"]) == pytest.approx(true, rel=ROUNDING)


def test_sweep_measures_the_params_too(start):
    def setup(radius):
        return start, optax.chain(regime(adam(0.05), radius), optax.scale(3.0))

    grid = {"radius": [RADIUS, 2 * RADIUS, np.inf]}
    swept = nj.sweep(nj.models.pairwise_apply, setup, (X, Y), grid=grid, steps=30, every=10)
    for i, radius in enumerate(grid["radius"]):
        true = distance(jax.tree.map(lambda leaf, i=i: leaf[i], swept.params), start)
        assert swept.history["distance"][i, -1] == pytest.approx(true, rel=ROUNDING)
        assert swept.history["relative_distance"][i, -1] == pytest.approx(true / radius, rel=ROUNDING)


def test_scheduled_ball_is_that_of_the_last_update(start):
    tx = regime(adam(0.05), lambda step: 0.1 / (1.0 + step.astype(float)))
    result = fit(start, tx)
    assert result.history["distance"][-1] == pytest.approx(0.1 / 30, rel=1e-3)
    assert result.history["relative_distance"][-1] == pytest.approx(1, rel=1e-3)


def test_a_run_goes_on_from_another_to_the_bit(start):
    tx = regime(adam(optax.cosine_decay_schedule(0.05, 40)), RADIUS)
    whole, first = fit(start, tx, steps=40), fit(start, tx, steps=20)
    second = fit(first.params, tx, steps=20, opt_state=first.opt_state)
    chex.assert_trees_all_equal((whole.params, whole.opt_state), (second.params, second.opt_state))
    for name in ("loss", "distance", "relative_distance"):
        np.testing.assert_array_equal(
            whole.history[name], np.concatenate([first.history[name], second.history[name][1:]]), name
        )
    # the negative control: without the state the ball is around the first run's end
    other = fit(first.params, tx, steps=20)
    assert other.history["distance"][0] == 0


def test_going_on_survives_a_checkpoint(start, tmp_path):
    tx = regime(adam(0.05), RADIUS)
    first = fit(start, tx)
    going_on = {"opt_state": first.opt_state}
    whole = fit(first.params, tx, callbacks=[nj.callbacks.Checkpoint(tmp_path)], **going_on)
    resumed = [nj.callbacks.Checkpoint(tmp_path, resume=True)]
    again = fit(first.params, tx, callbacks=resumed, **going_on)
    chex.assert_trees_all_equal(whole.params, again.params)
    with pytest.raises(nj.checkpoints.CheckpointError, match="another config or data set: start"):
        fit(first.params, tx, callbacks=resumed)


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (optax.sgd(0.1), r"at '0/count' \(nothing expected, int32\[\] found\)"),
        (regime(optax.adam(0.1), 1.0), r"opt_state does not fit tx and params: at '0/"),
    ],
)
def test_state_of_another_optimizer_is_refused(start, tx, message):
    state = optax.adam(0.1).init(start)
    with pytest.raises(ValueError, match=f"{message}.*pass result.opt_state with result.params"):
        fit(start, tx, opt_state=state)


def schedule_free(rate=0.05):
    return unstrict(optax.contrib.schedule_free_adamw(rate))


INSIDE = {
    "regime around it": lambda tx: regime(tx, RADIUS, ZETA),
    "in a chain": lambda tx: optax.chain(optax.clip(10.0), regime(optax.chain(tx), RADIUS, ZETA)),
    "masked": lambda tx: optax.masked(regime(tx, RADIUS, ZETA), MASK),
    "masked inside": lambda tx: regime(optax.masked(tx, MASK), RADIUS, ZETA),
    "around regime": lambda tx: unstrict(
        optax.contrib.schedule_free(regime(unstrict(optax.adam(0.05, b1=0.0)), RADIUS, ZETA), 0.05)
    ),
}


@pytest.mark.parametrize("name", INSIDE)
def test_averaged_iterate_is_inside_and_as_good_as_the_params(start, name):
    result = fit(start, INSIDE[name](schedule_free()), steps=300, every=100)
    average = eval_params(result.opt_state, result.params)
    chex.assert_trees_all_equal_shapes_and_dtypes(average, start)
    assert distance(average, start) <= RADIUS * (1 + ROUNDING)
    assert float(average["v"].min()) >= ZETA * (1 - ROUNDING)
    assert distance(average, result.params) > 1e-4  # it is another point
    assert loss(average) < 1.2 * loss(result.params) < 0.9 * loss(start)


def test_coordinates_mixed_as_optax_does_are_no_such_point(start):
    """The negative control: what a user would get without ``eval_params``."""
    result = fit(start, regime(schedule_free(), RADIUS, ZETA), steps=300, every=100)
    with jax.numpy_dtype_promotion("standard"):
        mixed = optax.contrib.schedule_free_eval_params(result.opt_state[0].inner, result.params)
    assert distance(mixed, start) > 1.2 * RADIUS


def test_without_a_second_iterate_there_is_nothing_to_evaluate(start):
    with pytest.raises(ValueError, match=r"eval_params: .* no second iterate; expected .*schedule_free"):
        eval_params(regime(optax.adam(0.1), 1.0).init(start), start)
