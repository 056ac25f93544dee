"""The two halves of a step of ``solve_kkt``, each alone: directions, and which of their points are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.certificates.narrow_nets import problem7
from narrow_jax.solvers import kkt
from narrow_jax.solvers.descent import Descent, Trial, _Subproblem
from narrow_jax.solvers.kkt import Iterate, Search

N, D, WIDTH = 20, 4, 4


# --- Descent: what it offers is feasible, and optimal for its model ----------------------------------------


def descent(model, radius):
    """From a point inside of the ball."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, D)), rng.normal(size=(N, 1))
    draw = nj.initializers.mirrored_lecun if model == "pairwise" else nj.initializers.lecun
    center = draw(jax.random.key(0), inputs=D, width=WIDTH, dtype=jnp.float64)
    zeta = 1e-3 if model == "pairwise" else None
    problem = problem7.constrained(center, x, y, radius, zeta, np.inf, nj.activations.get("tanh"))
    start = problem.point(center)
    inner = jnp.asarray(rng.normal(size=start.shape)) * problem.reach / (4 * start.size)
    return Descent.at(problem, problem.project(start + inner))


@pytest.mark.parametrize("reach", [0.01, 100.0])
def test_a_round_model_has_its_minimum_at_a_projection(reach, x64):
    d = descent("pairwise", 1.0)
    B = 7 * jnp.eye(d.point.size)
    expected = d.problem.project(d.point - d.slope / 7, reach)
    found = _Subproblem(d.problem, d.point, d.slope, B, d.top, jnp.asarray(reach)).minimiser()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert reach == 100 or np.linalg.norm(d.problem.split(found)[0]) == pytest.approx(reach)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("model", ["pairwise", "standard"])
def test_damped_points_are_feasible_and_lower(model, exact, x64):
    d = descent(model, 0.5)
    trial = d.damped(0.1, exact)
    assert trial.damping >= 0.1
    np.testing.assert_allclose(d.problem.project(trial.point), trial.point, atol=1e-14)
    assert d.problem.loss(trial.point) < d.problem.loss(d.point)


def test_large_damping_leads_down_the_scaled_gradient(x64):
    d = descent("standard", 1000.0)
    move = d.damped(1e8, False).point - d.point
    np.testing.assert_allclose(move * 1e8, -d.slope / d.scale, rtol=1e-3)


def test_without_damping_enough_is_taken_for_a_definite_matrix(x64):
    """The exact Hessian of a pairwise net is indefinite."""
    d = descent("pairwise", 1.0)
    assert np.linalg.eigvalsh(d.exact.matrix)[0] < 0
    trial = d.damped(1e-15, True)
    assert trial.damping > 1e-15
    assert np.linalg.eigvalsh(d.exact.matrix + trial.damping * jnp.diag(d.scale))[0] > 0
    assert trial.predicted > 0


def test_the_prediction_is_the_decrease_of_a_short_step_less_the_damping(x64):
    d = descent("pairwise", 1.0)
    trial = d.damped(1e3, True)
    drop = d.problem.loss(d.point) - d.problem.loss(trial.point)
    cost = trial.damping * d.scale @ (trial.point - d.point) ** 2 / 2
    assert float(drop - cost) == pytest.approx(float(trial.predicted), rel=1e-2)


def test_newton_is_quadratic_near_a_kkt_point(x64):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, D)), rng.normal(size=N)
    s = nj.solvers.solve_kkt(jax.random.key(0), x, y, WIDTH, 0.5, model="standard", tolerance=1e-12)
    tanh = nj.activations.get("tanh")
    problem = problem7.constrained(s.center, x, y[:, None], 0.5, None, np.inf, tanh)
    point = problem.point(s.params)
    away = problem.project(point + 1e-4 * rng.normal(size=point.shape))
    trial = Descent.at(problem, away).newton(1e-14)
    before, after = (float(np.linalg.norm(problem7.natural(problem, at)[2])) for at in (away, trial.point))
    assert after < before**2


# --- Search: fakes in one dimension, whose loss is that of the point ----------------------------------------

HERE = Iterate(jnp.zeros(1), 1.0, 1.0)


def trial(at, predicted=0.0, mu=0.0):
    return Trial(jnp.full(1, at), predicted, mu)


def searching(table, **state):
    """A search for which the point p has the loss and the residual table[p]."""
    return Search(lambda point: Iterate(point, *table[float(point[0])]), 0.0, **state)


def never(*_):
    raise AssertionError("asked in vain")


def test_damping_grows_until_a_tenth_of_the_prediction_comes_true():
    losses = {1.0: (0.95, 1.0), 2.0: (0.7, 1.0)}
    asked = []

    def damped(mu, exact):
        asked.append(float(mu))
        return trial(1.0 if len(asked) < 3 else 2.0, 1.0, mu)

    found, mus = searching(losses).damped(damped, HERE)
    assert found.loss == 0.7
    assert asked[:3] == pytest.approx([1e-3, 6e-3, 36e-3])
    assert len(asked) == 4  # more μ than the first: the model with JᵀJ is asked, too
    assert mus == pytest.approx((36e-3, 1e-3))


def test_damping_shrinks_where_half_of_the_prediction_comes_true():
    found, mus = searching({1.0: (0.4, 1.0)}).damped(lambda mu, exact: trial(1.0, 1.0, mu), HERE)
    assert found.loss == 0.4
    assert mus == (1e-3 / 4, 1e-3)
    _, mus = searching({1.0: (0.4, 1.0)}, mu=(1e-15, 1.0)).damped(lambda mu, exact: trial(1.0, 1.0, mu), HERE)
    assert mus == (kkt.LEAST_MU, 1.0)


@pytest.mark.parametrize(("loss", "predicted"), [(1.1, 1.0), (0.5, -1.0), (np.nan, 1.0), (0.5, np.nan)])
def test_no_damping_helps(loss, predicted):
    asked = []

    def damped(mu, exact):
        asked.append(exact)
        return trial(1.0, predicted, mu)

    assert searching({1.0: (loss, 1.0)}).damped(damped, HERE) == (None, (kkt.FIRST_MU, kkt.FIRST_MU))
    assert asked == [True] * kkt.TRIALS + [False] * kkt.TRIALS


def test_the_lower_of_both_models_is_kept():
    table = {1.0: (0.8, 1.0), 2.0: (0.6, 1.0)}
    search = searching(table)
    found, mus = search.damped(lambda mu, exact: trial(1.0 if exact else 2.0, 1.0, mu + exact), HERE)
    assert found.loss == 0.6
    assert mus == (1.001, 1e-3)


NEWTON = {
    "halves the residual": ((1.0, 0.4), 0.0, True),
    "does not halve it": ((1.0, 0.6), 0.0, False),
    "halves it, raises the loss": ((1.001, 0.4), 0.0, False),
    "lowers the loss as predicted": ((0.9, 2.0), 0.5, True),
    "lowers it less": ((0.99, 2.0), 0.5, False),
    "lowers it against the prediction": ((0.9, 2.0), -0.5, False),
    "rounding": ((1 - 1e-13, 2.0), 1e-13, False),
}


@pytest.mark.parametrize(("measured", "predicted", "kept"), NEWTON.values(), ids=NEWTON.keys())
def test_what_is_kept_of_newton(measured, predicted, kept):
    found = searching({1.0: measured}).newton(lambda shift: trial(1.0, predicted), HERE)
    assert (found is not None) == kept
    assert not kept or found.newton


def test_newton_of_least_residual_before_one_that_lowers_the_loss():
    table = {1.0: (0.1, 2.0), 2.0: (1.0, 0.4), 3.0: (1.0, 0.1), 4.0: (1.0, 0.06)}
    points, shifts = iter((1.0, 2.0, 3.0, 4.0)), []

    def offer(shift):
        shifts.append(shift)
        return trial(next(points), 0.5)

    assert searching(table).newton(offer, HERE).residual == 0.1  # 0.06 is not half of it
    assert shifts == [shift * kkt.LARGEST_SHIFT for shift in kkt.SHIFTS]


def test_order_of_the_descents():
    good = {1.0: (0.4, 0.9), 2.0: (0.7, 0.4), 3.0: (0.9, 0.9)}
    damped, halving, lower = (
        lambda mu, exact: trial(1.0, 1.0, mu),
        lambda shift: trial(2.0, 0.1),
        lambda shift: trial(3.0, 0.1),
    )
    assert searching(good).step(damped, never, HERE, False)[0].loss == 0.4  # fast: Newton is not asked
    found, following = searching(good).step(never, halving, HERE, True)
    assert (found.residual, found.newton, following.mu) == (0.4, True, (1e-3, 1e-3))
    found, following = searching(good).step(damped, lower, HERE, True)
    assert (found.loss, found.newton, following.mu) == (0.4, False, (1e-3 / 4, 1e-3))
    stuck = {1.0: (2.0, 1.0), 2.0: (0.7, 0.4)}
    assert searching(stuck).step(damped, halving, HERE, False)[0].newton  # the last resort
    assert searching({1.0: (2.0, 1.0)}).step(damped, lambda shift: trial(1.0), HERE, True)[0] is None


def test_newton_that_fails_is_asked_again_after_two_four_and_eight_steps():
    state, asked = searching({1.0: (0.5, 1.0), 2.0: (2.0, 2.0)}), []

    def newton(shift):
        asked.append(step)
        return trial(2.0)

    for step in range(32):  # noqa: B007
        _, state = state.step(lambda mu, exact: trial(1.0, 1.0, mu), newton, HERE, True)
    assert sorted(set(asked)) == [0, 3, 8, 17, 26]
