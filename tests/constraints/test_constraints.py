"""The optax constraints: feasibility, state, reparametrisation, labels, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrow_jax import projections
from narrow_jax.constraints import ball_coordinates, project, regime, report
from narrow_jax.labels import by_name

# units in the last place of the params lost in p + (q − p) and in the projection itself; measured 2
ULPS = 8

RADIUS, ZETA, KAPPA = 0.5, 0.1, 5.0
START = {
    "hidden": {"w": np.linspace(-1, 2, 12).reshape(3, 4), "bias": np.ones(4)},
    "v": np.array([[0.2, -0.3], [0.5, 0.9], [0.7, -1.2]]),
}


START_32 = jax.tree.map(np.float32, START)


def params_of(dtype=None):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), START)


def random_like(tree, seed, scale):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), tree)


def both(a, b):
    """Add in the dtype of the leaves, on the host: one rounding, no compilation."""
    return jax.tree.map(lambda x, y: np.asarray(x) + np.asarray(y), a, b)


@functools.cache
def full():
    """Return both constraints' jitted update, the state at START and the exact projections, compiled once."""
    tx = project(**FULL)
    return (
        jax.jit(tx.update),
        tx.init(params_of()),
        jax.jit(projections.l2_ball),
        jax.jit(projections.ratio_cone),
    )


def distance_of(params):
    return np.linalg.norm(np.asarray(params["hidden"]["w"], float) - START["hidden"]["w"])


def require_feasible(params, dtype=np.float32):
    eps = float(jnp.finfo(dtype).eps)
    slack = ULPS * eps * float(np.linalg.norm(START["hidden"]["w"]) + RADIUS)
    assert distance_of(params) <= RADIUS + slack
    magnitudes = np.asarray(params["v"], float) * np.sign(START["v"])
    slack = ULPS * eps * float(np.abs(magnitudes).max() + np.abs(START["v"]).max())
    assert magnitudes.min() >= ZETA - slack
    assert (magnitudes.max(axis=0) <= KAPPA * (magnitudes.min(axis=0) + slack)).all()


FULL = {"radius": RADIUS, "zeta": ZETA, "kappa": KAPPA}


@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.3, 3.0]), st.sampled_from([0.0, 1.0]))
def test_params_after_the_update_are_the_exact_projection_and_feasible(seed, scale, away):
    update, state, l2_ball, ratio_cone = full()
    p = both(START_32, random_like(START_32, seed + 1, away))  # infeasible params are brought back too
    u = random_like(p, seed, scale)
    emitted, state = update(u, state, p)
    arrived = both(p, emitted)
    require_feasible(arrived)
    signs = np.sign(START["v"]).astype(np.float32)
    ahead, center = both(p, u), START["hidden"]["w"].astype(np.float32)
    slack = ULPS * 2.0**-23 * (4 + scale + away) * 3
    w = l2_ball(*map(jnp.asarray, (ahead["hidden"]["w"], center)), RADIUS)
    np.testing.assert_allclose(arrived["hidden"]["w"], w, rtol=0, atol=slack)
    v = ratio_cone(jnp.asarray(ahead["v"]), ZETA, KAPPA, jnp.asarray(signs))
    np.testing.assert_allclose(arrived["v"], v, rtol=0, atol=slack)
    np.testing.assert_array_equal(emitted["hidden"]["bias"], u["hidden"]["bias"])
    # the report, recomputed from scratch in float64
    told = jax.tree.map(float, report(state))
    assert told["distance"] == pytest.approx(distance_of(arrived), abs=slack)
    assert told["relative_distance"] == pytest.approx(distance_of(arrived) / RADIUS, abs=2 * slack)
    assert told["ball_active"] == (distance_of(ahead) > RADIUS)
    assert told["cone_active"] == bool((np.asarray(v) != ahead["v"]).any())


@given(st.integers(0, 10_000))
def test_update_that_stays_inside_passes_bit_for_bit(seed):
    update, state, *_ = full()
    u = random_like(START_32, seed, 0.01)  # the cone is 0.05 away
    emitted, state = update(u, state, START_32)
    jax.tree.map(np.testing.assert_array_equal, emitted, u)
    assert not report(state)["ball_active"]
    assert not report(state)["cone_active"]


def test_small_ball_far_from_the_origin_keeps_its_precision(x64):
    center = {"w": jnp.full(10, 1e6)}
    tx = project(radius=1e-6)
    u = {"w": jnp.full(10, 1e-7 / 3)}
    emitted, state = jax.jit(tx.update)(u, tx.init(center), center)
    # (p + u) − w⁰ would carry an error of 1e-10·√10, three digits of the distance
    assert float(state.distance) == pytest.approx(1e-7 / 3 * np.sqrt(10), rel=1e-14)
    np.testing.assert_array_equal(emitted["w"], u["w"])


@pytest.mark.parametrize("leaf", ["w", "v"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_update_never_looks_feasible(leaf, bad):
    update, state, *_ = full()
    u = random_like(START_32, 0, 0.1)
    (u["hidden"] if leaf == "w" else u)[leaf][0, 0] = bad
    emitted, state = update(u, state, START_32)
    assert not np.isfinite(np.asarray((emitted["hidden"] if leaf == "w" else emitted)[leaf])[0, 0])
    assert leaf == "v" or not np.isfinite(state.distance)


@pytest.mark.parametrize("name", ["project", "regime", "ball_coordinates"])
def test_radius_zero_freezes_w_where_a_ball_is_kept_and_infinity_is_no_ball(name):
    make = {
        "project": lambda r: optax.chain(optax.sgd(1.0), project(radius=r)),
        "regime": lambda r: regime(optax.sgd(1.0), r, zeta=None),
        "ball_coordinates": lambda r: ball_coordinates(optax.sgd(1.0), r),
    }[name]
    p = params_of()
    gradient = random_like(p, 0, 100.0)
    for radius in (0.0, np.inf):
        tx = make(radius)
        emitted, state = jax.jit(tx.update)(gradient, tx.init(p), p)
        frozen = radius == 0 and name != "ball_coordinates"  # which is scaling only, with s = 1
        expected = np.zeros((3, 4)) if frozen else -gradient["hidden"]["w"]
        np.testing.assert_array_equal(emitted["hidden"]["w"], expected)
        np.testing.assert_array_equal(emitted["v"], -gradient["v"])
        if name != "ball_coordinates":
            assert float(report(state)["relative_distance"]) == 0
    assert float(report(project(radius=1.0).init(p))["distance"]) == 0


def test_schedule_moves_the_ball_with_the_step():
    tx = project(radius=lambda step: jnp.array([0.5, 2.0, 0.25])[step])
    update, p = jax.jit(tx.update), {"w": jnp.zeros(2)}
    state = tx.init(p)
    for radius in (0.5, 2.0, 0.25):
        emitted, state = update({"w": jnp.array([3.0, 4.0])}, state, p)
        p = both(p, emitted)
        assert float(np.linalg.norm(p["w"])) == pytest.approx(radius, rel=1e-6)
        assert float(state.relative_distance) == pytest.approx(1.0)


def test_hyperparameters_may_be_injected_and_traced():
    tx = optax.inject_hyperparams(project)(**FULL)
    update, p = jax.jit(tx.update), params_of()
    start, u = tx.init(p), random_like(p, 0, 5.0)
    require_feasible(both(p, update(u, start, p)[0]))
    loose = start._replace(
        hyperparams=start.hyperparams | {"radius": jnp.float32(np.inf), "kappa": jnp.float32(np.inf)}
    )
    emitted, _ = update(u, loose, p)
    np.testing.assert_array_equal(emitted["hidden"]["w"], u["hidden"]["w"])
    signs = np.sign(START["v"])
    np.testing.assert_allclose(
        np.asarray(both(p, emitted)["v"]) * signs,
        np.maximum(np.asarray(both(p, u)["v"]) * signs, ZETA),
        atol=1e-6,
    )
    poisoned = start._replace(hyperparams=start.hyperparams | {"radius": jnp.float32(-1.0)})
    assert np.isnan(update(u, poisoned, p)[0]["hidden"]["w"]).all()


def test_centre_is_a_copy_that_survives_donation():
    tx = regime(optax.sgd(0.5), RADIUS, ZETA, KAPPA)
    p = params_of()
    state = tx.init(p)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(p, state, gradient):
        u, state = tx.update(gradient, state, p)
        return jax.tree.map(jnp.add, p, u), state

    for i in range(20):
        old = p, state
        p, state = step(*old, random_like(params_of(), i, 1.0))
        for leaf in jax.tree.leaves(old):  # which buffers donation takes is not promised
            leaf.delete()
    require_feasible(p)
    assert float(report(state)["distance"]) == pytest.approx(distance_of(p), abs=1e-5)


# labels


def test_by_name_looks_at_the_last_name_only():
    tree = {"w": {"kernel": 0}, "head": [{"w": 0}, {"v": 0}], "v": 0, "vw": 0}
    expected = {"w": {"kernel": "free"}, "head": [{"w": "w"}, {"v": "v"}], "v": "v", "vw": "free"}
    assert by_name(tree) == expected
    assert by_name(0) == "free"


@pytest.mark.parametrize("kind", ["tree", "function"])
def test_labels_choose_the_leaves_and_leave_the_others_alone(kind):
    labels = {"hidden": {"w": "free", "bias": "w"}, "v": "free", "head": "v"}
    p = params_of() | {"head": jnp.full(3, 0.5)}
    tx = project(RADIUS, ZETA, KAPPA, labels if kind == "tree" else lambda _: labels)
    u = random_like(p, 0, 9.0)
    emitted, _ = jax.jit(tx.update)(u, tx.init(p), p)
    np.testing.assert_array_equal(emitted["hidden"]["w"], u["hidden"]["w"])
    np.testing.assert_array_equal(emitted["v"], u["v"])
    assert (np.asarray(p["head"] + emitted["head"]) >= ZETA - 1e-6).all()
    assert float(np.linalg.norm(emitted["hidden"]["bias"])) == pytest.approx(RADIUS, rel=1e-5)


def test_one_ball_is_shared_by_all_w_leaves():
    p = {"a": {"w": jnp.zeros(2)}, "b": {"w": jnp.zeros(1)}}
    tx = project(radius=6.5)
    u = {"a": {"w": jnp.array([3.0, 4.0])}, "b": {"w": jnp.array([12.0])}}
    emitted, _ = jax.jit(tx.update)(u, tx.init(p), p)
    np.testing.assert_allclose(emitted["a"]["w"], [1.5, 2.0], rtol=1e-6)
    np.testing.assert_allclose(emitted["b"]["w"], [6.0], rtol=1e-6)


def test_report_is_empty_without_a_projection_and_the_worst_of_several():
    assert report(optax.adam(1e-2).init(params_of())) == {}
    state = project(radius=1.0).init({"w": jnp.zeros(2)})
    other = state._replace(distance=jnp.float32(3.0), ball_active=jnp.array(True))
    told = report({"first": state, "others": (other, optax.EmptyState())})
    assert (float(told["distance"]), bool(told["ball_active"]), bool(told["cone_active"])) == (
        3.0,
        True,
        False,
    )


# bad input

MAKERS = [
    lambda **o: project(**o),
    lambda **o: ball_coordinates(optax.sgd(1.0), **o),
    lambda **o: regime(optax.sgd(1.0), **o),
]
each_maker = pytest.mark.parametrize("make", MAKERS, ids=["project", "ball_coordinates", "regime"])


@each_maker
@pytest.mark.parametrize("radius", [-1.0, np.nan])
def test_bad_radius_is_refused(make, radius):
    with pytest.raises(ValueError, match=f"radius is {radius}; expected a number ≥ 0"):
        make(radius=radius)
    with pytest.raises(ValueError, match=r"radius has shape \(2,\); expected one number"):
        make(radius=np.ones(2))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"zeta": 0.0}, "zeta is 0.0"),
        ({"zeta": np.nan}, "zeta is nan"),
        ({"zeta": 1.0, "kappa": 0.5}, "kappa is 0.5"),
    ],
)
@pytest.mark.parametrize("make", [MAKERS[0], MAKERS[2]], ids=["project", "regime"])
def test_bad_zeta_and_kappa_are_refused(make, bad, message):
    with pytest.raises(ValueError, match=f"{message}; expected"):
        make(radius=1.0, **bad)


@pytest.mark.parametrize(
    ("v", "message"),
    [
        (
            [[0.05], [1.0]],
            r"start is outside the cone: \|v\| at leaf \['v'\] goes from 0.05 to 1 with zeta 0.1 and kappa 5",
        ),
        ([[0.15], [1.0]], r"goes from 0.15 to 1 .*mirrored_lecun.*ratio_cone, or pass zeta=None"),
        ([[[0.5]]], r"leaf \['v'\] is labelled 'v' and has shape \(1, 1, 1\); expected \(h,\) or \(h, k\)"),
    ],
)
def test_start_outside_the_cone_is_refused(v, message):
    p = {"w": jnp.ones(2), "v": jnp.array(v)}
    with pytest.raises(ValueError, match=message):
        project(**FULL).init(p)
    project(radius=RADIUS, zeta=None).init(p)


@each_maker
def test_update_refuses_missing_params_and_others_than_at_init(make):
    tx, p = make(radius=1.0), params_of()
    state = tx.init(p)
    with pytest.raises(ValueError, match=r"needs the params: call tx.update\(grads, state, params\)"):
        tx.update(p, state)
    fewer = {"hidden": {"w": p["hidden"]["w"]}, "v": p["v"]}
    for updates, params, name in ((p, fewer, "params"), (fewer, p, "updates")):
        with pytest.raises(
            ValueError, match=f": {name} have the structure .*, at init it was .*call tx.init again"
        ):
            tx.update(updates, state, params)
    wider = {"hidden": p["hidden"] | {"w": jnp.ones((3, 6))}, "v": p["v"]}
    half = {"hidden": p["hidden"] | {"w": jnp.ones((3, 4), jnp.bfloat16)}, "v": p["v"]}
    for updates, params, shown in (
        (wider, wider, r"float32\(3, 6\)"),
        (p, half, r"bfloat16\(3, 4\)"),
        (wider, p, r"updates float32\(3, 6\)"),
    ):
        with pytest.raises(
            ValueError,
            match=rf"at leaf \['hidden'\]\['w'\] params are .*{shown}.*at init params were float32\(3, 4\)",
        ):
            tx.update(updates, state, params)


@each_maker
def test_bad_labels_are_refused(make):
    unknown = {"hidden": {"w": "ball", "bias": "free"}, "v": "v"}
    with pytest.raises(
        ValueError, match=r"leaf \['hidden'\]\['w'\] has the label 'ball'; expected 'w', 'v' or 'free'"
    ):
        make(radius=1.0, labels=unknown).init(params_of())
    with pytest.raises(
        ValueError, match=r"labels have the structure .*, params .*; expected one label a leaf"
    ):
        make(radius=1.0, labels={"hidden": "w", "v": "v"}).init(params_of())
