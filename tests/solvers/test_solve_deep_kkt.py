"""Problem (7) for deep pairs, and by products: KKT points, derivatives in the coordinates, small balls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.certificates.narrow_nets import problem7
from narrow_jax.solvers import kkt
from narrow_jax.solvers.descent import Descent
from narrow_jax.solvers.descent_by_products import ProductDescent, _conjugate_gradients, _Model

N, D, WIDTHS = 6, 3, (4, 4)


def data(samples=N):
    rng = np.random.default_rng(0)
    return rng.normal(size=(samples, D)), rng.normal(size=samples)


def solve(radius, samples=N, **options):
    x, y = data(samples)
    options = {"widths": WIDTHS, "progress": False} | options
    return x, y, nj.solvers.solve_kkt(jax.random.key(0), x, y, radius=radius, **options)


def distance(s):
    hidden = [{half: tree[half] for half in ("plus", "minus")} for tree in (s.params, s.center)]
    steps = jax.tree.leaves(jax.tree.map(np.subtract, *hidden))
    return np.sqrt(sum(np.sum(step**2) for step in steps))


@pytest.fixture
def products(monkeypatch):
    """No matrix of all weights, however few they are."""
    monkeypatch.setattr(kkt, "DENSE", 0)
    monkeypatch.setattr(kkt, "DENSE_DEEP", 0)


def check(x, y, s, radius, kappa=np.inf):
    assert s.converged
    assert s.residual <= 1e-8
    check_feasible(s, radius, kappa)
    # w⁰ + sŵ is rounded: in a small ball that costs the digits that the coordinates have
    assert nj.certificates.natural_residual(s.params, s.center, x, y, radius, kappa=kappa) <= 1e-6


def check_feasible(s, radius, kappa):
    assert distance(s) <= radius * (1 + 1e-9)
    v = s.params["v"]
    assert (v >= 1e-3 * (1 - 1e-12)).all()
    assert v.max() <= kappa * v.min() * (1 + 1e-12)


@pytest.mark.parametrize("radius", [1e-3, 0.3, 100.0])
def test_wide_enough_ends_at_loss_zero(radius):
    x, y, s = solve(radius)
    check(x, y, s, radius)
    assert s.loss <= 1e-14


def test_too_narrow_ends_at_a_kkt_point_on_the_sphere():
    """Thirty random labels, which 20 hidden weights do not fit."""
    x, y, s = solve(3.0, samples=30, kappa=2.0, widths=(2, 2))
    check(x, y, s, 3.0, kappa=2.0)
    assert s.loss == pytest.approx(6.4755, rel=1e-4)
    assert distance(s) == pytest.approx(3.0)


@pytest.mark.parametrize("radius", [0.1, 10.0])
def test_products_alone_end_at_loss_zero(radius, products):
    x, y, s = solve(radius)
    check(x, y, s, radius)
    assert s.loss <= 1e-14


def test_products_alone_come_to_the_same_point_on_the_sphere(products):
    """Conjugate gradients may leave a residual where the Hessian is nearly singular, as here: not the loss."""
    *_, s = solve(3.0, samples=30, kappa=2.0, widths=(2, 2))
    check_feasible(s, 3.0, 2.0)
    assert s.residual <= 1e-2
    assert distance(s) == pytest.approx(3.0)
    assert s.loss == pytest.approx(6.4755, rel=1e-4)  # as with matrices: test_too_narrow_…


def test_products_alone_with_one_hidden_layer(products):
    x, y = data(20)
    s = nj.solvers.solve_kkt(jax.random.key(0), x, y, 4, 0.5, model="standard", progress=False)
    assert s.converged
    assert np.linalg.norm(s.params["w"] - s.center["w"]) == pytest.approx(0.5)
    assert nj.certificates.natural_residual(s.params, s.center, x, y, 0.5, zeta=None) <= 2e-8


def problem(radius=0.5, samples=N):
    x, y = data(samples)
    center = nj.initializers.mirrored_mlp(jax.random.key(0), inputs=D, widths=WIDTHS, dtype=jnp.float64)
    p = problem7.constrained(center, x, y, radius, 1e-3, np.inf, "tanh")
    rng = np.random.default_rng(1)
    start = p.point(center)
    return p, p.project(start + jnp.asarray(rng.normal(size=start.shape)) / start.size)


def test_points_and_params_are_inverse(x64):
    p, point = problem()
    np.testing.assert_allclose(p.point(p.params(point)), point, atol=1e-14)
    f = nj.models.pairwise_mlp_apply(p.params(point), p.x, "tanh")
    np.testing.assert_allclose(p.residuals(point), (f - p.y).reshape(-1), atol=1e-13)


def test_a_small_ball_loses_no_digits(x64):
    """With ε = 1e-9 and v = 1e9, against 50 digits; the params themselves, w⁰ + sŵ in float64, have lost half."""
    mp = pytest.importorskip("mpmath").mp.clone()
    mp.dps = 50
    p, _ = problem(1e-9)
    rng = np.random.default_rng(2)
    point = p.project(jnp.asarray(rng.normal(size=p.point(p.start).shape)))
    moved, v = p.split(point)
    exact = mp.matrix([0] * N)
    for sign, half in ((1, "plus"), (-1, "minus")):
        a = mp.matrix(p.x.tolist())
        for name in ("w1", "w2"):
            start, step = (mp.matrix(tree[half][name].tolist()) for tree in (p.w0, moved))
            a = (a * (start + mp.mpf(float(p.scale)) * step)).apply(mp.tanh)
        exact += sign * a * mp.matrix(v.tolist()) / mp.mpf(float(p.scale))
    truth = np.array([float(e) for e in exact])
    computed = np.asarray(p.residuals(point) + p.y.reshape(-1))
    assert np.abs(truth).max() > 1e-2
    np.testing.assert_allclose(computed, truth, atol=1e-13)
    rounded = nj.models.pairwise_mlp_apply(p.params(point), p.x, "tanh")[:, 0]
    assert np.abs(rounded - truth).max() > 1e-9


def test_the_hessian_of_a_deep_pair(x64):
    """Against central differences of the gradient: their error is of order step² = 1e-10."""
    p, point = problem()
    steps = 1e-5 * np.eye(point.size)
    ahead, behind = (
        np.array([problem7.natural(p, point + sign * step)[1] for step in steps]) for sign in (1, -1)
    )
    expected = (ahead - behind) / 2e-5
    np.testing.assert_allclose(Descent.at(p, point).exact.hessian, expected, atol=1e-7)


def test_both_descents_offer_the_same_points(x64):
    p, point = problem(10.0)
    dense, products = Descent.at(p, point), ProductDescent.at(p, point)
    np.testing.assert_allclose(products.slope, dense.slope, atol=1e-13)
    assert float(products.top) == pytest.approx(float(dense.top), rel=0.1)
    inside = Descent.at(p, point), ProductDescent.at(p, point)
    for exact in (True, False):
        for descent in inside:
            trial = descent.damped(10.0, exact)
            assert p.loss(trial.point) < p.loss(point)
            assert trial.predicted > 0
            np.testing.assert_allclose(p.project(trial.point), trial.point, atol=1e-14)
    solved = p.point(nj.solvers.solve_kkt(jax.random.key(0), *data(), radius=10.0, widths=WIDTHS).params)
    near = p.project(solved + 1e-5 * point)
    before = np.linalg.norm(problem7.natural(p, near)[2])
    for descent in (Descent.at(p, near), ProductDescent.at(p, near)):
        after = np.linalg.norm(problem7.natural(p, descent.newton(1e-9).point)[2])
        assert after < before / 100


def test_a_round_model_has_its_minimum_at_a_projection(x64):
    p, point = problem(0.2)
    slope = jnp.asarray(np.random.default_rng(3).normal(size=point.shape))
    scale = jnp.full_like(point, 7.0)
    found = _Model(p, point, slope, lambda z: 7 * z, scale, p.reach).minimiser()
    np.testing.assert_allclose(found, p.project(point - slope / 7), atol=1e-12)


def test_conjugate_gradients_solve_and_end_at_negative_curvature(x64):
    rng = np.random.default_rng(4)
    a = rng.normal(size=(9, 9))
    a, right, scale = jnp.asarray(a @ a.T + np.eye(9)), jnp.asarray(rng.normal(size=9)), 1 + jnp.arange(9.0)
    found = _conjugate_gradients(lambda z: a @ z, right, scale)
    np.testing.assert_allclose(a @ found, right, atol=1e-8)
    np.testing.assert_array_equal(_conjugate_gradients(lambda z: -z, right, scale), right / scale)
