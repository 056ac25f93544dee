"""Gradient descent in fact never leaves what is proven of it, and where nothing can be proven nothing is."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descended_nets import STEPS, dense, drawn, provable, rounding, run, value

import narrow_jax as nj
from narrow_jax.certificates import gradient_descent
from narrow_jax.certificates.narrow_nets import descent_balls
from narrow_jax.certificates.narrow_nets.descent_balls import Ball, Start

CASES = [
    ("pairwise", 1, 1, "w", "tanh"),
    ("pairwise", 1, 3, "all", "sin"),
    ("standard", 1, 1, "all", "sigmoid"),
    ("pair", 2, 1, "w", "tanh"),
    ("split pair", 2, 1, "all", "tanh"),
    ("pair", 2, 3, "all", "softplus"),
    ("mlp", 2, 3, "w", "tanh"),
    ("mlp", 3, 1, "all", "tanh"),
]


@pytest.fixture(scope="module", params=enumerate(CASES), ids=lambda case: "-".join(map(str, case[1])))
def proven(request):
    """A start of which convergence is proven."""
    seed, (kind, depth, k, wrt, name) = request.param
    params, x, y = drawn(kind, depth, k, seed)
    params, y, c = provable(params, x, y, name, wrt)
    return params, x, y, c, name, wrt


def test_no_step_breaks_the_bounds_and_ten_times_the_step_breaks_both(proven):
    params, x, y, c, name, wrt = proven
    floor = rounding(params, y)
    largest = gradient_descent(params, x, y, name, wrt=wrt, learning_rate=c.max_learning_rate)
    for found in (c, largest):
        assert found.holds, found.reason
        norms, lengths, _ = run(params, x, y, found.learning_rate, name, wrt)
        bounds = np.sqrt(2 * found.loss_bound(np.arange(STEPS)))
        assert (norms <= bounds + floor).all()
        assert lengths[-1] <= found.distance_bound() * (1 + 1e-9)
    refused = gradient_descent(params, x, y, name, wrt=wrt, learning_rate=10 * c.max_learning_rate)
    assert not refused.holds
    assert "not proven to converge" in refused.reason
    assert refused.steps_to(1e-9) == refused.loss_bound(3) == refused.distance_bound() == math.inf
    norms, lengths, _ = run(params, x, y, 10 * c.max_learning_rate, name, wrt)
    assert not (norms <= np.sqrt(2 * c.loss_bound(np.arange(STEPS)))).all()
    assert not lengths[-1] <= c.distance_bound()


def test_constants_enclose_those_of_the_dense_jacobian_along_the_path(proven):
    params, x, y, c, name, wrt = proven
    start = dense(params, x, name, wrt)
    first = np.linalg.svd(start, compute_uv=False)
    assert c.sigma <= first[-1] * (1 + 1e-9)
    assert c.sigma >= (0.999 if wrt == "w" or "minus" not in params else 0.3) * first[-1]
    _, lengths, last = run(params, x, y, c.learning_rate, name, wrt)
    there = dense(last, x, name, wrt)
    values = np.linalg.svd(there, compute_uv=False)
    assert c.alpha <= values[-1] <= values[0] <= c.beta
    assert c.beta <= 3 * first[0]
    assert np.linalg.norm(there - start, 2) <= c.lipschitz * lengths[-1] * (1 + 1e-9) + 1e-9
    f = value(params, x, name)
    assert abs(c.residual - np.linalg.norm(f - y)) <= 1e-12 * c.residual + 4 * c.rounding
    assert c.initial_loss == pytest.approx(c.residual**2 / 2)


def test_loss_falls_as_fast_as_is_promised():
    params, x, y = drawn("pairwise", 1, 1, 20)
    params, y, _ = provable(params, x, y, "tanh", "w")
    c = gradient_descent({**params, "v": 64 * params["v"]}, x, y)
    target = 1e-2 * c.initial_loss
    steps = int(c.steps_to(target))
    assert steps < 30_000
    norms, _, _ = run({**params, "v": 64 * params["v"]}, x, y, c.learning_rate, steps=steps + 1)
    assert norms[-1] ** 2 / 2 <= target
    assert (norms <= np.sqrt(2 * c.loss_bound(np.arange(steps + 1)))).all()


def test_closed_form_follows_the_recursion():
    params, x, y = drawn("pairwise", 1, 1, 21)
    params, y, c = provable(params, x, y, "tanh", "w")
    assert c.late_rate > c.first_rate > 0
    norm, worst = c.residual, 1.0
    for step in range(2000):
        bound = math.sqrt(2 * c.loss_bound(step))
        first = c.residual * (1 - c.first_rate) ** step
        worst = max(worst, min(bound, first) / norm)
        assert bound >= min(norm, first) * (1 - 1e-12)
        norm *= 1 - c.late_rate * (1 - c.lipschitz * c.learning_rate * norm / 2)
    assert worst < 1.2


@pytest.mark.parametrize("target", [1e-1, 1e-6, 1e-30])
def test_steps_to_is_the_first_step_of_the_bound(target):
    params, x, y = drawn("pairwise", 1, 1, 22)
    _, _, c = provable(params, x, y, "tanh", "w")
    steps = c.steps_to(target)
    assert c.loss_bound(int(steps)) <= target * (1 + 1e-9)
    assert c.loss_bound(int(steps) - 1) >= target * (1 - 1e-6)
    assert c.steps_to(c.initial_loss) == 0
    assert c.steps_to(0.0) == math.inf


def test_bounds_take_a_number_or_an_array():
    params, x, y = drawn("pairwise", 1, 1, 23)
    _, _, c = provable(params, x, y, "tanh", "w")
    assert isinstance(c.loss_bound(3), float)
    many = c.loss_bound(np.array([[0, 3], [7, 10**9]]))
    assert many.shape == (2, 2)
    assert many[0, 1] == c.loss_bound(3)
    assert many[0, 0] == c.initial_loss
    assert many[1, 1] > 0
    assert (np.diff(c.loss_bound(np.arange(50))) <= 0).all()


@pytest.mark.parametrize(("wrt", "radius"), [("w", math.inf), ("w", 1e-3), ("all", math.inf), ("all", 1e-3)])
@pytest.mark.parametrize("kind", ["pairwise", "pair"])
def test_the_scale_that_is_named_is_enough_for_any_labels_and_ball(kind, wrt, radius):
    params, x, y = drawn(kind, 1 if kind == "pairwise" else 2, 1, 24)
    before = gradient_descent(params, x, 10 * y, wrt=wrt, radius=radius)
    assert not before.holds
    assert f"multiply V by {before.scale:g}" in before.reason
    assert math.log2(before.scale).is_integer()
    after = gradient_descent({**params, "v": before.scale * params["v"]}, x, 10 * y, wrt=wrt, radius=radius)
    assert after.holds
    assert after.scale == 1
    assert after.distance_bound() <= radius
    less = gradient_descent(
        {**params, "v": before.scale / 64 * params["v"]}, x, 10 * y, wrt=wrt, radius=radius
    )
    assert not less.holds


def test_descent_with_projections_is_the_same_inside_the_proven_ball():
    params, x, y = drawn("pairwise", 1, 1, 25)
    params = {**params, "v": np.abs(params["v"]) + 0.1}
    asked = {"wrt": "all", "radius": 0.05, "zeta": 1e-3, "kappa": 50.0}
    scale = gradient_descent(params, x, y, **asked).scale
    params["v"] = scale * params["v"]
    c = gradient_descent(params, x, y, **asked)
    assert c.holds
    sgd = optax.sgd(c.learning_rate)
    kept = optax.chain(sgd, nj.constraints.project(radius=0.05, zeta=1e-3, kappa=50.0))
    with jax.enable_x64(True):
        start, *data = jax.tree.map(jnp.asarray, (params, x, y))
        plain, projected = (
            nj.fit(nj.models.pairwise_apply, start, tx, tuple(data), steps=30, loss="squared")
            for tx in (sgd, kept)
        )
    for name in ("w", "v"):
        np.testing.assert_allclose(plain.params[name], projected.params[name], rtol=1e-12)


def test_a_cone_that_v_would_touch_proves_nothing():
    params, x, y = drawn("pairwise", 1, 1, 26)
    params, y, c = provable(params, x, y, "tanh", "all")
    least = float(np.min(np.abs(params["v"])))
    assert gradient_descent(params, x, y, wrt="all", zeta=least / 2).holds
    near = gradient_descent(params, x, y, wrt="all", zeta=least - c.radius / 100)
    assert not near.holds
    assert "cone of V" in near.reason
    assert near.scale > 1
    assert not gradient_descent(params, x, y, wrt="all", kappa=1.0).holds
    assert gradient_descent(params, x, y, wrt="all", kappa=1.0).scale is None


def test_what_a_bounded_net_cannot_reach_is_never_proven():
    params, x, y = drawn("pairwise", 1, 1, 27)
    for scale in (2.0**-6, 1.0, 2.0**10):
        v = scale * params["v"]
        labels = y * 2.01 * np.sum(np.abs(v)) / np.max(np.abs(y))
        for step in (None, 1e-12):
            assert not gradient_descent({**params, "v": v}, x, labels, learning_rate=step).holds


def test_repeated_samples_count_as_often_as_they_come():
    params, x, y = drawn("pairwise", 1, 1, 28)
    x, y = np.concatenate([x, x[:2]]), np.concatenate([y, y[:2]])
    params, y, c = provable(params, x, y, "tanh", "w")
    assert (c.holds, c.rows) == (True, 5)
    norms, lengths, _ = run(params, x, y, c.max_learning_rate)
    assert (norms <= np.sqrt(2 * c.loss_bound(np.arange(STEPS))) + rounding(params, y)).all()
    assert lengths[-1] <= c.radius


def test_a_zero_sample_says_nothing_of_a_net_that_is_not_zero_there():
    params, x, y = drawn("standard", 1, 1, 29)
    x[0] = 0
    _, y, c = provable(params, x, y, "sigmoid", "all")
    assert (c.holds, c.rows) == (True, 5)
    refused = gradient_descent(params, x, y, "tanh", wrt="all")
    assert "sample 0 is 0" in refused.reason


@pytest.mark.parametrize("labels", [0.0, 1.0])
def test_zero_data(labels):
    params, x, y = drawn("pairwise", 1, 1, 30)
    c = gradient_descent(params, 0 * x, np.full_like(y, labels))
    assert c.holds == (labels == 0)
    assert ("nothing to learn" if c.holds else "sample 0 is 0") in c.reason
    assert c.loss_bound(5) == (0.0 if c.holds else math.inf)
    assert c.steps_to(0.0) == (0.0 if c.holds else math.inf)


def test_one_sample():
    params, x, y = drawn("pairwise", 1, 1, 31)
    params, y, c = provable(params, x[:1], y[:1], "tanh", "w")
    norms, _, _ = run(params, x[:1], y, c.learning_rate)
    assert (norms <= np.sqrt(2 * c.loss_bound(np.arange(STEPS))) + rounding(params, y)).all()


@pytest.mark.parametrize("size", [1e-120, 1e120])
def test_extreme_sizes_prove_nothing_wrong(size):
    params, x, y = drawn("pairwise", 1, 1, 32)
    for labels, data, outputs_scale in ((size * y, x, 1), (y, size * x, 1), (y, x, size)):
        c = gradient_descent({**params, "v": outputs_scale * params["v"]}, data, labels)
        if c.holds:
            assert 0 < c.learning_rate <= c.max_learning_rate
            assert 0 < c.radius < math.inf
    assert gradient_descent(params, x, 1e-120 * y).holds


def test_float32_params_are_widened():
    params, x, y = drawn("pairwise", 1, 1, 33)
    narrow = {"w": params["w"].astype(np.float32), "v": (2**12 * params["v"]).astype(np.float32)}
    found = gradient_descent(narrow, x, y)
    assert found.holds
    assert found == gradient_descent(jax.tree.map(lambda leaf: leaf.astype(float), narrow), x, y)


def test_contradictory_labels_and_kinks_are_named():
    params, x, y = drawn("pairwise", 1, 1, 34)
    x[1] = x[0]
    assert "no network can learn both" in gradient_descent(params, x, y).reason
    params, x, y = drawn("mlp", 2, 1, 34)
    found = gradient_descent(params, x, y, "relu")
    assert not found.holds
    assert "relu jumps" in found.reason


def test_too_few_weights_are_named():
    params, x, y = drawn("pairwise", 1, 1, 35)
    x, y = np.tile(x, (20, 1)) + np.random.default_rng(0).normal(size=(100, 4)), np.tile(y, (20, 1))
    found = gradient_descent(params, x, y)
    assert "widen the network" in found.reason
    assert found.scale is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning rate is 0.0; expected a finite number > 0"),
        ({"learning_rate": -1.0}, "learning rate is -1.0; expected a finite number > 0"),
        ({"wrt": "weights"}, "unknown wrt 'weights'"),
        ({"radius": -1.0}, "radius is -1.0; expected a number ≥ 0"),
        ({"zeta": 1e-3}, "V does not move"),
        ({"wrt": "all", "zeta": 0.0}, "zeta is 0.0"),
        ({"wrt": "all", "kappa": 0.5}, "kappa is 0.5"),
    ],
)
def test_bad_arguments(changes, message):
    params, x, y = drawn("pairwise", 1, 1, 36)
    with pytest.raises(ValueError, match=message):
        gradient_descent(params, x, y, **changes)


def test_bad_data():
    params, x, y = drawn("pairwise", 1, 1, 37)
    with pytest.raises(ValueError, match="y has 2 columns and the net 1 outputs"):
        gradient_descent(params, x, np.concatenate([y, y], axis=1))
    with pytest.raises(ValueError, match=r"no hidden layer, only w1; expected w1 and w2 at least"):
        gradient_descent({"w1": np.ones((4, 1))}, x, y)
    with pytest.raises(ValueError, match="expected one row of y a sample"):
        gradient_descent(params, x, y[:3])


def test_radius_zero_freezes_the_weights():
    params, x, y = drawn("pairwise", 1, 1, 38)
    assert "freezes" in gradient_descent(params, x, y, radius=0.0).reason


def test_every_ball_promises_what_descent_on_a_quadratic_of_the_same_constants_keeps():
    # f(θ) = (1 + θ)²/2·σ − …: one weight, J = σ − Lθ falls as fast as is allowed
    sigma, lipschitz, y = 1.0, 0.5, 0.8
    start = Start(sigma, sigma, y, math.inf, lambda radius: lipschitz)
    ball = descent_balls.best_ball(start, y / sigma, functools.partial(descent_balls.largest_step, start))
    for eta in np.linspace(0.02, 1, 25) * descent_balls.largest_step(start, ball):
        course = descent_balls.settled(start, ball, eta)
        theta, norm, path = 0.0, y, 0.0
        for _ in range(200):
            r = sigma * theta - lipschitz * theta**2 / 2 - y
            step = -eta * (sigma - lipschitz * theta) * r
            assert abs(r) <= norm * (1 + 1e-12)
            theta, path, norm = theta + step, path + abs(step), norm * (1 - course.first_rate)
        assert path <= course.radius
    beyond = Ball(1.0, 0.7)
    assert descent_balls.course(start, beyond, 10.0) is None


def test_a_net_that_is_no_pair_is_told_what_would_serve():
    params, x, y = drawn("standard", 1, 1, 39)
    assert "start from a mirrored pair" in gradient_descent(params, x, 1e3 * y).reason
