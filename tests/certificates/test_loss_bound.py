"""The monitor of what the loss can be at most by the distance from a KKT point, against ``kkt`` and the loss."""

import jax
import numpy as np
import optax
import pytest

import narrow_jax as nj

X = np.random.default_rng(0).normal(size=(8, 4))
Y = np.sin(X[:, :1])
RADIUS = 0.02


def start(kind, dtype="float64"):
    """A start, scaled so that loss 0 lies within the ball."""
    key = jax.random.key(0)
    if kind == "one":
        drawn = nj.initializers.mirrored_lecun(key, inputs=4, width=32, dtype=dtype)
    else:
        drawn = nj.initializers.mirrored_mlp(key, inputs=4, widths=(16, 16), scale=1.5, dtype=dtype)
    return {**drawn, "v": 100 * drawn["v"]}


APPLY = {"one": nj.models.pairwise_apply, "deep": nj.models.pairwise_mlp_apply}


@pytest.mark.parametrize("kind", ["one", "deep"])
def test_the_loss_is_below_the_bound_and_the_bound_near_that_of_kkt(kind, x64):
    center = start(kind)
    watch = nj.certificates.LossBound(center, X, Y, RADIUS)
    tx = nj.constraints.regime(optax.sgd(1e-3), radius=RADIUS)
    run = nj.fit(APPLY[kind], center, tx, (X, Y), steps=400, every=40, monitors=[watch])
    assert (run.history["loss_bound"] < np.inf).all()
    # the loss of fit is ½‖f − y‖²
    assert (run.history["loss"] <= run.history["loss_bound"]).all()
    assert run.history["loss_bound"][-1] < run.history["loss_bound"][1]
    end = nj.certificates.kkt(run.params, center, X, Y, RADIUS)
    # that has L on the ball of radius D, which is smaller
    bound = run.history["loss_bound"][-1]
    assert bound == pytest.approx(end.loss_bound, rel=1e-3 if kind == "one" else 0.2)


@pytest.mark.parametrize("kind", ["one", "deep"])
def test_at_the_start_it_is_that_of_the_gradient(kind, x64):
    center = start(kind)
    watch = nj.certificates.LossBound(center, X, Y, RADIUS)
    value = watch.update(watch.init(center, X), center, X)[1]
    expected = nj.certificates.gradient_bound(center, X, Y)
    assert float(value) == pytest.approx(expected.bound, rel=1e-3)


def test_float32():
    center, x, y = start("one", "float32"), X.astype("float32"), Y.astype("float32")
    watch = nj.certificates.LossBound(center, x, y, RADIUS)
    tx = nj.constraints.regime(optax.sgd(1e-3), radius=RADIUS)
    run = nj.fit(APPLY["one"], center, tx, (x, y), steps=400, every=40, monitors=[watch])
    assert run.history["loss_bound"].dtype == np.float32
    assert (run.history["loss"] <= run.history["loss_bound"]).all()


def test_it_is_infinite_beyond_the_ball(x64):
    center = start("one")
    watch = nj.certificates.LossBound(center, X, Y, 1e-3)
    state = watch.init(center, X)
    for size, known in ((0.9e-3, True), (1.1e-3, False)):
        step = np.random.default_rng(1).normal(size=center["w"].shape)
        moved = {**center, "w": center["w"] + size * step / np.linalg.norm(step)}
        assert (watch.update(state, moved, X)[1] < np.inf) == known


def test_the_bound_grows_with_v(x64):
    """J and L are linear in v, the gradient too: with f − y as it was, the bound of the residual stays."""
    center = start("one")
    watch = nj.certificates.LossBound(center, X, Y, RADIUS)
    step = np.random.default_rng(1).normal(size=center["w"].shape)
    moved = {**center, "w": center["w"] + 0.01 * step / np.linalg.norm(step)}
    doubled = {**moved, "v": 2 * moved["v"]}
    zero = np.zeros_like(Y)
    quiet = nj.certificates.LossBound(center, X, zero, RADIUS)
    once = quiet.update(quiet.init(center, X), moved, X)[1]
    twice = quiet.update(quiet.init(center, X), doubled, X)[1]
    assert float(twice) == pytest.approx(4 * float(once), rel=1e-6)
    assert watch.name == "loss_bound"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"center": {"w": np.ones((4, 4)), "v": np.ones((4, 1))}}, "not mirrored"),
        ({"center": nj.initializers.lecun(jax.random.key(0), inputs=4, width=4)}, "not mirrored"),
        ({"radius": -1.0}, "radius is -1"),
        ({"x": X[:, :3]}, "x has shape"),
        ({"y": Y[:3]}, "y has"),
        ({"y": np.ones((8, 2))}, "y has 2 columns"),
        ({"activation": "relu"}, "σ' of relu jumps"),
        ({"center": start("deep", "float32"), "radius": np.inf}, "expected a ball"),
    ],
)
def test_bad_input(options, said):
    arguments = {"center": start("one", "float32"), "x": X, "y": Y, "radius": RADIUS} | options
    with pytest.raises(ValueError, match=said):
        nj.certificates.LossBound(**arguments)
