"""Gradient descent in the coordinates (w − w⁰)/s and sV of ``regime``: proven, run and compared in both."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descended_nets import dense, drawn, outer, outputs, rounding, value

import narrow_jax as nj
from narrow_jax.certificates import gradient_descent
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.jacobian import Net

STEPS = 300
CASES = [
    ("pairwise", 1, 1, "all", "tanh"),
    ("pairwise", 1, 3, "w", "sin"),
    ("pair", 2, 3, "all", "softplus"),
    ("split pair", 2, 1, "all", "tanh"),
    ("standard", 1, 1, "all", "sigmoid"),
    ("mlp", 2, 3, "all", "tanh"),
    ("mlp", 3, 1, "w", "tanh"),
]


def proved(params, x, y, name, **asked):
    """Scale V of a mirrored pair, or move the labels of another net near its outputs, until the theorem holds."""
    c = gradient_descent(params, x, y, name, **asked)
    if c.scale is not None:
        params = {**params, "v": c.scale * params["v"]}
        return params, y, gradient_descent(params, x, y, name, **asked)
    f = value(params, x, name)
    while not c.holds:
        y = f + (y - f) / 8
        c = gradient_descent(params, x, y, name, **asked)
    return params, y, c


def factors(params, s, wrt):
    """What a step of 1 is of each leaf: s² of w, 1/s² of V."""
    square = dict.fromkeys(params, s**2) | {outer(params): s**-2 if wrt == "all" else 0.0}
    return {name: jax.tree.map(lambda leaf, name=name: square[name], params[name]) for name in params}


@functools.partial(jax.jit, static_argnames=("name", "steps"))
def descended(start, x, y, eta, units, name, steps=STEPS):
    """Norms of the residuals, lengths of the path in ball coordinates, and the last point."""

    def loss(params):
        return jnp.sum((outputs(params, x, name) - y) ** 2) / 2

    def step(state, _):
        params, length = state
        found, gradient = jax.value_and_grad(loss)(params)
        squares = jax.tree.map(lambda g, unit: unit * jnp.sum(g**2), gradient, units)
        params = jax.tree.map(lambda p, g, unit: p - eta * unit * g, params, gradient, units)
        return (params, length + eta * jnp.sqrt(sum(jax.tree.leaves(squares)))), (jnp.sqrt(2 * found), length)

    (last, _), (norms, lengths) = jax.lax.scan(step, (start, jnp.zeros(())), length=steps)
    return norms, lengths, last


def run(params, x, y, eta, s, name, wrt):
    with jax.enable_x64(True):
        arrays = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), (params, x, y))
        found = descended(*arrays, jnp.asarray(eta), factors(params, s, wrt), name)
        return jax.tree.map(np.asarray, found)


def in_ball_coordinates(params, x, s, name, wrt):
    """The whole Jacobian by reverse mode, [sJ_w, J_V/s]."""
    j, v = dense(params, x, name, "all"), params[outer(params)].size
    columns = (
        np.roll(j, -v, axis=1) if min(params) == outer(params) else j
    )  # leaves come in the order of their names
    hidden, last = columns[:, :-v], columns[:, -v:]
    return s * hidden if wrt == "w" else np.concatenate([s * hidden, last / s], axis=1)


@pytest.fixture(scope="module", params=enumerate(CASES), ids=lambda case: "-".join(map(str, case[1])))
def proven(request):
    seed, (kind, depth, k, wrt, name) = request.param
    params, x, y = drawn(kind, depth, k, 100 + seed)
    params, y, c = proved(params, x, y, name, wrt=wrt, radius=0.2, coordinates="ball")
    return params, x, y, c, name, wrt


def test_no_step_breaks_the_bounds_and_much_larger_ones_do(proven):
    params, x, y, c, name, wrt = proven
    assert (c.holds, c.unit, c.wrt) == (True, 0.2, wrt)
    asked = {"wrt": wrt, "radius": 0.2, "coordinates": "ball"}
    for eta in (c.learning_rate, c.max_learning_rate):
        found = gradient_descent(params, x, y, name, learning_rate=eta, **asked)
        assert found.holds, found.reason
        norms, lengths, last = run(params, x, y, eta, 0.2, name, wrt)
        assert (norms <= np.sqrt(2 * found.loss_bound(np.arange(STEPS))) + rounding(params, y)).all()
        assert lengths[-1] <= found.radius * (1 + 1e-9)
        moved = jax.tree.map(lambda a, b: np.sum((a - b) ** 2), params, last)
        hidden = sum(jax.tree.leaves({key: each for key, each in moved.items() if key != outer(params)}))
        assert np.sqrt(hidden) <= 0.2
        assert np.sqrt(sum(jax.tree.leaves(moved))) <= found.distance_bound()
    assert not gradient_descent(params, x, y, name, learning_rate=10 * c.max_learning_rate, **asked).holds
    norms, _, _ = run(params, x, y, 100 * c.max_learning_rate, 0.2, name, wrt)
    assert not (norms <= np.sqrt(2 * c.loss_bound(np.arange(STEPS)))).all()


def test_constants_enclose_those_of_the_dense_jacobian_in_these_coordinates(proven):
    params, x, y, c, name, wrt = proven
    start = in_ball_coordinates(params, x, 0.2, name, wrt)
    first = np.linalg.svd(start, compute_uv=False)
    assert c.sigma <= first[-1] * (1 + 1e-9)
    _, lengths, last = run(params, x, y, c.learning_rate, 0.2, name, wrt)
    there = in_ball_coordinates(last, x, 0.2, name, wrt)
    values = np.linalg.svd(there, compute_uv=False)
    assert c.alpha <= values[-1] <= values[0] <= c.beta
    assert np.linalg.norm(there - start, 2) <= c.lipschitz * lengths[-1] * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(
    ("kind", "depth", "wrt"), [("pairwise", 1, "all"), ("pair", 2, "all"), ("mlp", 2, "all"), ("mlp", 2, "w")]
)
@pytest.mark.parametrize("s", [0.03, 0.6])
def test_slopes_between_points_of_the_ball_stay_below_the_constant(kind, depth, wrt, s):
    rng = np.random.default_rng(7)
    params, x, _ = drawn(kind, depth, 2, 200)
    bound = lipschitz(Net.of(params, "tanh"), x, 0.5, wrt == "all", s)

    def point(length):
        steps = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
        if wrt == "w":
            steps[outer(params)] *= 0
        norm = np.sqrt(sum(np.sum(step**2) for step in jax.tree.leaves(steps)))
        unit = {name: 1 / s if name == outer(params) else s for name in params}
        scaled = {
            name: jax.tree.map(
                lambda p, d, name=name: p + unit[name] * length * d / norm, params[name], steps[name]
            )
            for name in params
        }
        return scaled, jax.tree.map(lambda d: length * d / norm, steps)

    ratios = []
    for _ in range(40):
        (one, at), (other, there) = point(0.5 * rng.uniform()), point(0.5 * rng.uniform())
        apart = np.sqrt(
            sum(np.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (at, there)), strict=True))
        )
        change = in_ball_coordinates(one, x, s, "tanh", wrt) - in_ball_coordinates(other, x, s, "tanh", wrt)
        ratios.append(np.linalg.norm(change, 2) / apart)
    assert 1e-3 * bound <= max(ratios) <= bound


def test_at_a_mirrored_start_of_one_layer_it_is_the_formula_of_the_proof():
    params, x, _ = drawn("pairwise", 1, 1, 201)
    net, s = Net.of(params, "tanh"), 0.1
    g = lipschitz(net, x, 0.0)
    # C² = Σ‖x‖² spectrally: V = 0 leaves ½√(8C²) = √2C
    c = lipschitz(net._replace(v=0 * net.v), x, 0.0, outer=True) / math.sqrt(2)
    wanted = (s**2 * g + math.sqrt(s**4 * g**2 + 8 * c**2)) / 2
    assert lipschitz(net, x, 0.0, outer=True, unit=s) == pytest.approx(wanted, rel=1e-6)


def test_where_the_unit_is_1_the_coordinates_are_plain():
    params, x, y = drawn("pairwise", 1, 1, 202)
    for radius in (2.0, math.inf):
        plain, ball = (
            gradient_descent(params, x, y, wrt="all", radius=radius, coordinates=name)
            for name in ("plain", "ball")
        )
        assert plain == ball
    assert "freezes" in gradient_descent(params, x, y, radius=0.0, coordinates="ball").reason


def test_frozen_v_is_plain_descent_with_a_step_of_s_squared():
    params, x, y = drawn("pairwise", 1, 1, 203)
    params, y, c = proved(params, x, y, "tanh", wrt="w", radius=0.1, coordinates="ball")
    plain = gradient_descent(params, x, y, radius=0.1, learning_rate=c.learning_rate * 0.1**2)
    assert plain.holds
    assert plain.radius == pytest.approx(0.1 * c.radius, rel=1e-4)
    assert plain.rate == pytest.approx(c.rate, rel=1e-4)
    assert plain.distance_bound() == pytest.approx(c.distance_bound(), rel=1e-4)


def test_regime_runs_inside_what_is_proven_and_its_projections_never_act():
    params, x, y = drawn("pairwise", 1, 1, 204)
    params = {**params, "v": np.abs(params["v"]) + 0.1}
    asked = {"wrt": "all", "radius": 0.05, "zeta": 1e-3, "kappa": 50.0, "coordinates": "ball"}
    params, y, c = proved(params, x, y, "tanh", **asked)
    assert c.holds
    sgd = optax.sgd(c.learning_rate)
    kept = nj.constraints.regime(sgd, radius=0.05, zeta=1e-3, kappa=50.0)
    free = nj.constraints.ball_coordinates(sgd, radius=0.05)
    watch = nj.certificates.GradientDescentBound(c, y)
    with jax.enable_x64(True):
        start, *data = jax.tree.map(jnp.asarray, (params, x, y))
        projected, plain = (
            nj.fit(
                nj.models.pairwise_apply,
                start,
                tx,
                tuple(data),
                steps=200,
                loss="squared",
                every=1,
                monitors=[watch],
            )
            for tx in (kept, free)
        )
    assert watch.first_broken(projected.history) is None
    assert (projected.history["loss"] <= c.loss_bound(projected.history["step"]) * (1 + 1e-12)).all()
    assert projected.history["loss"][-1] < 0.9 * projected.history["loss"][0]
    for name in ("w", "v"):
        np.testing.assert_allclose(plain.params[name], projected.params[name], rtol=1e-9)


def test_the_monitor_sees_a_run_that_leaves():
    params, x, y = drawn("pairwise", 1, 1, 205)
    params, y, c = proved(params, x, y, "tanh", wrt="all", radius=0.1, coordinates="ball")
    watch = nj.certificates.GradientDescentBound(c, y)
    tx = nj.constraints.ball_coordinates(optax.sgd(20 * c.max_learning_rate), radius=0.1)
    with jax.enable_x64(True):
        start, *data = jax.tree.map(jnp.asarray, (params, x, y))
        result = nj.fit(
            nj.models.pairwise_apply,
            start,
            tx,
            tuple(data),
            steps=50,
            loss="squared",
            every=1,
            monitors=[watch],
        )
    assert watch.first_broken(result.history) is not None


def test_a_cone_that_v_would_touch_proves_nothing():
    params, x, y = drawn("pairwise", 1, 1, 206)
    asked = {"wrt": "all", "radius": 0.1, "coordinates": "ball"}
    params, y, c = proved(params, x, y, "tanh", **asked)
    least = float(np.min(np.abs(params["v"])))
    reached = c.radius / c.unit  # of V, in plain units
    assert gradient_descent(params, x, y, zeta=least / 2, **asked).holds == (least / 2 > reached)
    near = gradient_descent(params, x, y, zeta=least - reached / 100, **asked)
    assert not near.holds
    assert near.scale > 1
    edge = gradient_descent(params, x, y, kappa=1.0, **asked)
    assert not edge.holds
    assert "freeze V, or widen the cone" in edge.reason
    assert "outside the cone" in gradient_descent(params, x, y, zeta=2 * least, **asked).reason


def test_unknown_coordinates():
    params, x, y = drawn("pairwise", 1, 1, 207)
    with pytest.raises(ValueError, match="unknown coordinates 'polar': did you mean 'plain'"):
        gradient_descent(params, x, y, coordinates="polar")


def test_steps_that_float32_loses_are_not_proven():
    params, x, y = drawn("pairwise", 1, 1, 208)
    assert "take plain coordinates" in gradient_descent(params, x, y, radius=1e-30, coordinates="ball").reason


def test_frozen_weights_leave_the_distance_no_room():
    """V is large and does not move: what it weighs is no rounding of the distance of w."""
    params, x, y = drawn("pairwise", 1, 1, 209)
    params = {**params, "v": 2.0**30 * params["v"]}
    c = gradient_descent(params, x, y)
    watch = nj.certificates.GradientDescentBound(c, y)
    with jax.enable_x64(True):
        state = watch.init(jax.tree.map(jnp.asarray, params), x)
        far = {**params, "w": params["w"] + 2 * c.radius}
        assert int(watch.update(state, far, x)[1]) == 1
