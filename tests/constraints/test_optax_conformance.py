"""Every transformation inside every optax wrapper, and ball_coordinates against the problem it stands for."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import adam, unstrict

import narrow_jax as nj
from narrow_jax.constraints import ball_coordinates, project, regime, report

# units in the last place of the params lost in p + (q − p) and in the projection itself; measured 3
ULPS = 8
RECOMPILED = 2e-6  # one float32 step against another compilation of it, for updates of order 1
# float64 trajectories of 12 steps through the same formulas in another order; measured 4e-15
TRAJECTORY = 1e-12
# a zoom line search branches on comparisons and L-BFGS amplifies roundings; measured 1e-11
LINE_SEARCH = 1e-8

RADIUS, ZETA, KAPPA = 0.5, 0.1, 5.0
START = {
    "hidden": {"w": np.linspace(-1, 2, 12).reshape(3, 4), "bias": np.ones((1, 2))},
    "v": np.array([[0.25, -0.375], [0.5, 0.875], [0.75, -1.25]]),
}
BALL, CONE = {"radius": RADIUS}, {"zeta": ZETA, "kappa": KAPPA}

# name: factory, its hyper-parameters, and what it keeps: "w" in the ball, "v" in the cone
TRANSFORMATIONS = {
    "project ball": (project, BALL, "w"),
    "project cone": (project, CONE, "v"),
    "project both": (project, BALL | CONE, "wv"),
    "regime adam": (functools.partial(regime, adam(0.1)), BALL | CONE, "wv"),
    "ball_coordinates": (functools.partial(ball_coordinates, adam(0.1)), BALL, ""),
}


def constrained(mask):
    return lambda params: {"hidden": {"w": mask[0], "bias": mask[1]}, "v": mask[0]}


WRAPPERS = {
    "bare": lambda make, options: make(**options),
    "chain": lambda make, options: optax.chain(optax.clip(10.0), optax.scale(-1.0), make(**options)),
    "masked": lambda make, options: optax.masked(make(**options), constrained((True, False))),
    "partition": lambda make, options: optax.partition(
        {"narrow": make(**options), "rest": optax.sgd(0.1)}, constrained(("narrow", "rest"))
    ),
    "MultiSteps": lambda make, options: optax.MultiSteps(
        unstrict(make(**options)), 2
    ).gradient_transformation(),
    "apply_if_finite": lambda make, options: optax.apply_if_finite(make(**options), 3),
    "inject_hyperparams": lambda make, options: optax.inject_hyperparams(make)(**options),
}
each = pytest.mark.parametrize("name", TRANSFORMATIONS)
# a compilation each: every wrapper around all of it at once, the parts where a wrapper could tell them apart
PAIRS = [(name, "bare") for name in TRANSFORMATIONS]
PAIRS += [("regime adam", wrapper) for wrapper in WRAPPERS if wrapper != "bare"]
PAIRS += [("project both", "inject_hyperparams")]
PAIRS += [("ball_coordinates", wrapper) for wrapper in ("masked", "inject_hyperparams")]
# optax's MultiSteps itself promotes int32 and float32
STRICT = {wrapper: wrapper != "MultiSteps" for wrapper in WRAPPERS}


def start(dtype=jnp.float32):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), START)


def gradients(steps, dtype=jnp.float32, seed=0):
    """Return a stack of gradients: small ones that stay inside the sets and large ones that leave them."""
    rng = np.random.default_rng(seed)
    scale = np.resize([0.02, 5.0, 1.0], steps)
    return jax.tree.map(
        lambda leaf: np.asarray(
            scale.reshape(-1, *[1] * leaf.ndim) * rng.normal(size=(steps, *leaf.shape)), dtype
        ),
        START,
    )


def at(stack, i):
    return jax.tree.map(lambda leaf: leaf[i], stack)


def runner(name, wrapper):
    """Return init and a scan that feeds the transformation and applies what it emits."""
    make, options, _ = TRANSFORMATIONS[name]
    tx = WRAPPERS[wrapper](make, options)
    tx = tx if STRICT[wrapper] else unstrict(tx)

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (jax.tree.map(jnp.add, params, updates), state), updates

    return tx.init, functools.partial(jax.lax.scan, step)


STEPS = 6


@functools.cache
def jitted(name, wrapper):
    """Return init and the scan over STEPS gradients that all tests share, its carry donated."""
    init, run = runner(name, wrapper)
    return init, jax.jit(run, donate_argnums=0)


def path(params, emitted):
    """Yield the params after each update, added up on the host."""
    moved = jax.tree.map(np.asarray, params)
    for i in range(STEPS):
        moved = jax.tree.map(lambda p, u, i=i: p + np.asarray(u[i]), moved, emitted)
        yield moved


def require_kept(name, params, dtype=jnp.float32):
    eps, kept = float(jnp.finfo(dtype).eps), TRANSFORMATIONS[name][2]
    w, v = (np.asarray(leaf, float) for leaf in (params["hidden"]["w"], params["v"]))
    assert np.isfinite(w).all()
    assert np.isfinite(v).all()
    if "w" in kept:
        assert np.linalg.norm(w - START["hidden"]["w"]) <= RADIUS + ULPS * eps * np.linalg.norm(w)
    if "v" in kept:
        magnitudes = v * np.sign(START["v"])
        slack = ULPS * eps * np.abs(v).max()
        assert magnitudes.min() >= ZETA - slack
        assert (magnitudes.max(axis=0) <= KAPPA * (magnitudes.min(axis=0) + slack)).all()


def require_wrapped(wrapper, inputs, emitted):
    """Require what the wrapper itself promises: leaves it keeps away, steps it waits or skips."""
    if wrapper in ("masked", "partition"):
        factor = {"masked": 1.0, "partition": -0.1}[wrapper]
        np.testing.assert_allclose(emitted["hidden"]["bias"], factor * inputs["hidden"]["bias"], rtol=1e-6)
    silent = {"MultiSteps": [0, 2, 4], "apply_if_finite": [3]}.get(wrapper, [])
    for i in range(STEPS):
        assert (i in silent) == all((np.asarray(leaf[i]) == 0).all() for leaf in jax.tree.leaves(emitted))


def discard(donated):
    """Delete the buffers that donation left: which ones it takes is not promised."""
    for leaf in jax.tree.leaves(donated):
        leaf.delete()


@pytest.mark.parametrize(("name", "wrapper"), PAIRS)
def test_params_stay_feasible_in_every_wrapper_and_in_a_scan(name, wrapper):
    init, run = jitted(name, wrapper)
    before, inputs = (start(), init(start())), gradients(STEPS)
    if wrapper == "apply_if_finite":
        inputs["hidden"]["w"][3, 0, 0] = np.nan
    (params, state), emitted = run(before, inputs)
    require_wrapped(wrapper, inputs, emitted)
    for moved in path(start(), emitted):
        require_kept(name, moved)
    # the updates are no zeros, and a scan accepts the state: structure, shapes and dtypes are stable
    assert np.abs(moved["v"] - START["v"]).max() > 0.01
    chex.assert_trees_all_equal_shapes_and_dtypes(state, before[1])
    chex.assert_trees_all_close(moved, params, atol=RECOMPILED)
    told, kept = report(state), TRANSFORMATIONS[name][2]
    assert told or not kept
    assert not (told and name == "ball_coordinates")
    if "w" in kept:
        distance = np.linalg.norm(moved["hidden"]["w"] - START["hidden"]["w"])
        assert float(told["distance"]) == pytest.approx(distance, abs=RECOMPILED)
    # it outlives what was donated, is donated in turn, and nothing is compiled anew
    programs = run._cache_size()
    discard(before)
    (again, _), _ = run((params, state), inputs)
    discard((params, state))
    assert run._cache_size() == programs
    require_kept(name, again)


def test_feasibility_check_notices_the_plain_update():
    u = at(gradients(2), 1)
    for name in ("project ball", "project cone"):
        with pytest.raises(AssertionError):
            require_kept(name, jax.tree.map(np.add, start(), u))


@each
@pytest.mark.parametrize("name_of_bad", ["w", "v"])
def test_infeasible_params_are_brought_back_by_the_next_update(name, name_of_bad):
    init, run = jitted(name, "bare")
    params = start()
    if name_of_bad == "w":
        params["hidden"]["w"] = params["hidden"]["w"] + 3
    else:
        params["v"] = -params["v"] * jnp.array([[1.0], [9.0], [0.1]])
    before = jax.tree.map(np.array, params)
    _, emitted = run((params, init(start())), gradients(STEPS))
    for moved in path(before, emitted):
        require_kept(name, moved)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("regime adam", "bfloat16"), ("regime adam", "float64"), ("ball_coordinates", "bfloat16")],
)
def test_dtype_is_kept_and_ulps_are_those_of_the_dtype(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        init, run = jitted(name, "bare")
        (params, _), emitted = run((start(dtype), init(start(dtype))), gradients(STEPS, dtype))
        for moved in path(start(dtype), emitted):
            require_kept(name, moved, dtype)
        require_kept(name, params, dtype)
        assert {str(leaf.dtype) for leaf in jax.tree.leaves((emitted, params))} == {dtype}


@pytest.mark.parametrize("name", ["regime adam", "ball_coordinates"])
def test_vmap_over_params_and_state_equals_single_runs(name):
    init, run = jitted(name, "bare")
    starts = jax.tree.map(lambda leaf: np.float32([leaf, 0.9 * leaf]), START)
    # the cone's signs and the ball's centre differ from run to run
    states = jax.jit(jax.vmap(init))(starts)
    inputs = gradients(STEPS)
    (many, _), _ = jax.jit(jax.vmap(runner(name, "bare")[1], (0, None)))((starts, states), inputs)
    for i in range(2):
        single = jax.tree.map(jnp.asarray, at(starts, i))
        (single, _), _ = run((single, init(single)), inputs)
        chex.assert_trees_all_close(at(many, i), single, atol=RECOMPILED)


@pytest.mark.parametrize(
    ("name", "wrapper"), [("regime adam", "inject_hyperparams"), ("ball_coordinates", "bare")]
)
def test_donated_scan_leaves_the_same_params(name, wrapper):
    init, donated = jitted(name, wrapper)
    plain = jax.jit(runner(name, wrapper)[1])
    found, expected = (run((start(), init(start())), gradients(STEPS))[0] for run in (donated, plain))
    chex.assert_trees_all_close(found, expected, atol=RECOMPILED)


@pytest.mark.parametrize("name", [name for name in TRANSFORMATIONS if name != "project cone"])
def test_nan_gradient_stays_visible(name):
    bad = gradients(STEPS)
    bad["hidden"]["w"][0, 0, 0] = np.nan
    init, run = jitted(name, "bare")
    _, emitted = run((start(), init(start())), bad)
    assert np.isnan(emitted["hidden"]["w"][0, 0, 0])


# what nj.fit passes by name, alone and together: masked trees are where their structures differ
EXTRA = {
    "none": (),
    "grad": ("grad",),
    "value_fn": ("value", "value_fn"),
    "all": ("value", "grad", "value_fn", "obj_fn"),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_extra_arguments_change_nothing_where_they_are_not_needed(wrapper):
    make, options, _ = TRANSFORMATIONS["regime adam"]
    tx = optax.with_extra_args_support(WRAPPERS[wrapper](make, options))
    grad = jax.tree.map(jnp.asarray, at(gradients(1), 0))
    given = {"value": jnp.ones(()), "grad": grad, "value_fn": loss, "obj_fn": loss}
    chosen = [(), *EXTRA.values()]

    @jax.jit
    def updates(gradient, params):
        state = tx.init(params)
        with jax.numpy_dtype_promotion("standard"):
            return [
                tx.update(gradient, state, params, **{name: given[name] for name in names})[0]
                for names in chosen
            ]

    plain, *others = updates(at(gradients(1), 0), start())
    for other in others:
        chex.assert_trees_all_close(other, plain, atol=RECOMPILED)


LINE_SEARCHES = {
    "masked": lambda tx: optax.chain(
        optax.masked(tx, constrained((True, False))),
        optax.masked(optax.set_to_zero(), constrained((False, True))),
    ),
    "partition": lambda tx: optax.partition(
        {"narrow": tx, "rest": optax.set_to_zero()}, constrained(("narrow", "rest"))
    ),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1),
}


@pytest.mark.parametrize("wrapper", LINE_SEARCHES)
def test_line_search_in_a_wrapper_sees_the_whole_problem(wrapper):
    """Backtracking accepts steps of this loss only if it evaluates it, masked leaves filled in."""
    search = unstrict(optax.chain(optax.sgd(0.5), optax.scale_by_backtracking_linesearch(20)))
    tx = LINE_SEARCHES[wrapper](regime(search, RADIUS))
    x, y = np.asarray(X, np.float32), np.asarray(TARGET, np.float32)

    def apply_fn(p, x):
        return jnp.tanh(x @ p["hidden"]["w"])[:, :3] @ p["v"] + p["hidden"]["bias"]

    with jax.numpy_dtype_promotion("standard"):
        result = nj.fit(apply_fn, start(), tx, (x, y), steps=4, every=1)
    told = result.history["loss"]
    assert (np.diff(told) <= 0).all()
    assert told[-1] < 0.9 * told[0]


def test_masked_line_search_without_the_rest_is_said():
    tx = optax.masked(
        regime(optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(3)), 0.5),
        constrained((True, False)),
    )
    params = start()
    with (
        jax.numpy_dtype_promotion("standard"),
        pytest.raises(ValueError, match=r"the objective with params of which some are masked.*by_path"),
    ):
        tx.update(params, tx.init(params), params, value=1.0, grad=params, value_fn=loss)


def test_multisteps_projects_the_mean_of_the_gradients():
    stack = gradients(STEPS)
    means = jax.tree.map(lambda leaf: (leaf[0::2] + leaf[1::2]) / 2, stack)
    padded = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), means)
    emitted = []
    for wrapper, inputs in (("MultiSteps", stack), ("bare", padded)):
        init, run = jitted("regime adam", wrapper)
        emitted.append(run((start(), init(start())), inputs)[1])
    found, expected = (jax.tree.map(np.asarray, updates) for updates in emitted)
    for i in range(STEPS // 2):
        chex.assert_trees_all_close(at(found, 2 * i + 1), at(expected, i), atol=RECOMPILED)


# ball_coordinates against the reparametrised problem, written out

TARGET, X = np.random.default_rng(1).normal(size=(7, 2)), np.random.default_rng(2).normal(size=(7, 3))


def loss(p):
    outputs = jnp.tanh(X @ p["hidden"]["w"])[:, :3] @ p["v"] + p["hidden"]["bias"]
    return jnp.sum((outputs - TARGET) ** 2) / 2


def to_ball(p, center, s):
    w = (p["hidden"]["w"] - center) / s
    return {"hidden": {"w": w, "bias": p["hidden"]["bias"]}, "v": p["v"] * s}


def from_ball(hat, center, s):
    w = center + s * hat["hidden"]["w"]
    return {"hidden": {"w": w, "bias": hat["hidden"]["bias"]}, "v": hat["v"] / s}


def train(tx, objective, params, steps=12):
    tx = optax.with_extra_args_support(tx)

    def step(carry, _):
        p, state = carry
        value, gradient = jax.value_and_grad(objective)(p)
        u, state = tx.update(gradient, state, p, value=value, grad=gradient, value_fn=objective)
        return (jax.tree.map(jnp.add, p, u), state), None

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.lax.scan(step, (params, tx.init(params)), None, steps)[0][0]


@functools.partial(jax.jit, static_argnames="inner")
def in_coordinates(inner, params, radius):
    return train(ball_coordinates(INNER[inner](), radius), loss, params)


@functools.partial(jax.jit, static_argnames="inner")
def written_out(inner, params, center, s):
    hat = to_ball(params, center, s)
    return from_ball(train(INNER[inner](), lambda hat: loss(from_ball(hat, center, s)), hat), center, s)


INNER = {
    "momentum": lambda: optax.sgd(1e-3, momentum=0.9, nesterov=True),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.3),
    "lbfgs": lambda: optax.lbfgs(memory_size=4),
}
# s = min(ε, 1), and 1 for ε = 0; adamw with s = 1 still differs from plain adamw: it decays to the centre
CASES = [(inner, 0.3, 0.3) for inner in INNER] + [("adamw", r, 1.0) for r in (1000.0, 0.0, np.inf)]


@pytest.mark.parametrize(("inner", "radius", "s"), CASES)
def test_ball_coordinates_is_the_optimizer_on_the_reparametrised_problem(inner, radius, s, x64):
    found = in_coordinates(inner, START, radius)
    expected = written_out(inner, START, START["hidden"]["w"], s)
    assert np.abs(np.asarray(found["v"]) - START["v"]).max() > 1e-3
    tolerance = LINE_SEARCH if inner == "lbfgs" else TRAJECTORY
    chex.assert_trees_all_close(found, expected, rtol=0, atol=tolerance)


def test_weight_decay_pulls_to_the_centre_and_not_to_zero(x64):
    found, w = in_coordinates("adamw", START, 1000.0), START["hidden"]["w"]
    plain = written_out("adamw", START, np.zeros_like(w), 1.0)
    assert np.abs(np.asarray(found["hidden"]["w"]) - plain["hidden"]["w"]).max() > 1e-2
