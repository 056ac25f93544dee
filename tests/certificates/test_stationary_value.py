"""Theorem 1: against automatic differentiation and brute force, at stationary points and away from them."""

import tracemalloc

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from descent import jacobian, outputs, to_stationarity
from homogeneous_nets import NETS, problem
from hypothesis import given, settings
from hypothesis import strategies as st

import narrow_jax as nj
from narrow_jax.activations import leaky_relu, per_unit
from narrow_jax.certificates import stationary_value
from narrow_jax.certificates.depth_width import factorizations, ranges
from narrow_jax.certificates.depth_width import theorem1_stationary_value as theorem1
from narrow_jax.certificates.depth_width.tangent import tangent
from narrow_jax.linalg import householder

pytestmark = pytest.mark.usefixtures("x64")
FACTORISATIONS = ("dense", "qr", "cholesky")


def projected(matrix, y):
    """½‖(I − P)y‖², by least squares with a cutoff between rounding and the smallest value of these nets."""
    return float(np.sum((y - matrix @ np.linalg.lstsq(matrix, y, rcond=1e-11)[0]) ** 2)) / 2


@pytest.mark.parametrize("name", NETS)
def test_every_method_equals_least_squares_on_the_autodiff_jacobian(name):
    params, x, y, activation = problem(name)
    D = jacobian(params, x, activation)
    error = outputs(params, x, activation) - y
    values = np.linalg.svd(D, compute_uv=False)
    rank = int(np.sum(values > 1e-11 * values[0]))
    for method in (*FACTORISATIONS, "lsmr"):
        s = stationary_value(params, x, y, activation, method=method)
        assert s.shape == D.shape
        assert s.loss == pytest.approx(float(jnp.sum(error**2)) / 2, rel=1e-13)
        assert s.value == pytest.approx(projected(D, y.ravel()), abs=1e-9 * s.baseline)
        assert s.gradient_norm == pytest.approx(np.linalg.norm(D.T @ np.ravel(error)), rel=1e-12)
        if method != "lsmr":
            assert s.ranks["nr"] == rank
            assert (s.sigma_max, s.sigma_r) == pytest.approx((values[0], values[rank - 1]), rel=1e-8)


@pytest.mark.parametrize("slab", [1, 2**22])
@pytest.mark.parametrize("name", NETS)
def test_gram_of_the_columns_by_factors_is_that_of_the_columns(name, slab, monkeypatch):
    params, x, _, activation = problem(name)
    monkeypatch.setattr("narrow_jax.certificates.depth_width.tangent.SLAB", slab)
    d = tangent(params, x, activation)
    D = np.concatenate(list(d.column_slabs()), axis=1)
    np.testing.assert_allclose(d.column_gram(), np.triu(D.T @ D), atol=1e-13 * np.sum(D**2))


def test_many_outputs_of_closed_pixels_and_dead_units():
    """Columns that are 0, and more outputs than the shorter way to DᵀD needs."""
    rng = np.random.default_rng(5)
    params = {"w1": rng.normal(size=(4, 5)), "w2": rng.normal(size=(5, 3)), "w3": rng.normal(size=(3, 6))}
    params["w2"][:, 1] = -np.abs(params["w2"][:, 1])
    x, y = rng.normal(size=(40, 4)), rng.normal(size=(40, 6))
    x[:, 2] = 0
    dense, qr, cholesky = (stationary_value(params, x, y, method=method) for method in FACTORISATIONS)
    for one in (qr, cholesky):
        assert (one.ranks, one.status) == (dense.ranks, "resolved")
        assert one.sigma_r == pytest.approx(dense.sigma_r, rel=1e-9)
        assert one.value == pytest.approx(dense.value, rel=1e-12)
        np.testing.assert_allclose(one.layers, dense.layers, atol=1e-9 * dense.baseline)


@settings(max_examples=15)
@given(st.sampled_from(list(NETS)), st.integers(1, 10**6), st.sampled_from(FACTORISATIONS))
def test_value_is_at_most_the_loss_and_the_gap_is_their_difference(name, seed, method):
    params, x, y, activation = problem(name, seed)
    s = stationary_value(params, x, y, activation, method=method)
    assert s.value <= s.loss + 1e-12 * s.baseline
    assert s.gap == pytest.approx(s.loss - s.value, abs=1e-11 * (s.baseline + s.loss))
    assert s.gap <= s.gap_bound * (1 + 1e-9)
    assert s.layers.sum() == pytest.approx(s.baseline - s.value, abs=1e-10 * s.baseline)
    assert all((unit >= 0).all() for unit in s.units)


@pytest.mark.parametrize("method", FACTORISATIONS)
@pytest.mark.parametrize("name", ["tall", "wide", "a unit each"])
def test_contributions_are_those_of_growing_sets_of_columns(name, method):
    params, x, y, activation = problem(name)
    s = stationary_value(params, x, y, activation, method=method)
    whole, start, matrix, before = jacobian(params, x, activation), 0, np.zeros((y.size, 0)), s.baseline
    for layer, w in enumerate(params.values()):
        columns = whole[:, start : start + w.size].reshape(y.size, *w.shape)
        start += w.size
        blocks = [columns[:, :, b] for b in range(w.shape[1])]
        if layer == len(params) - 1:
            blocks = [np.concatenate(blocks, axis=1)]
        assert len(s.units[layer]) == len(blocks)
        for block, term in zip(blocks, s.units[layer], strict=True):
            matrix = np.concatenate([matrix, block], axis=1)
            after = projected(matrix, y.ravel())
            assert term == pytest.approx(before - after, abs=1e-9 * s.baseline)
            before = after
    np.testing.assert_allclose(s.layers, [unit.sum() for unit in s.units])


def test_fifty_digits():
    params, x, y, _ = problem("tall, one output", seed=3)
    D = jacobian(params, x, "abs")
    with mpmath.workdps(50):
        # the null directions are known: one column of each unit is a combination of the others
        kept = mpmath.matrix(D[:, : D.shape[1] - 6].tolist())
        target = mpmath.matrix(y.tolist())
        weights = mpmath.lu_solve(kept.T * kept, kept.T * target)
        value = mpmath.norm(target - kept * weights) ** 2 / 2
    for method in FACTORISATIONS:
        s = stationary_value(params, x, y, "abs", method=method)
        assert abs(s.value - float(value)) <= 1e-13 * s.baseline


def stationary_problem(name):
    """A net and targets whose error is orthogonal to every column of D: θ is stationary."""
    params, x, noise, activation = problem(name)
    D = jacobian(params, x, activation)
    error = noise.ravel() - D @ np.linalg.lstsq(D, noise.ravel(), rcond=1e-11)[0]
    return (
        params,
        x,
        np.asarray(outputs(params, x, activation)) + error.reshape(noise.shape),
        activation,
    )


@pytest.mark.parametrize("name", ["tall", "tall, one output", "narrow end", "four layers", "a unit each"])
def test_at_a_stationary_point_the_loss_is_the_value(name):
    params, x, y, activation = stationary_problem(name)
    s = stationary_value(params, x, y, activation)
    assert s.gap <= 1e-25 * s.baseline
    assert s.value > 1e-3 * s.baseline
    assert s.holds
    assert "the loss is that of a stationary point" in s.reason
    moved = {key: w * (1 + 0.01 * (key == "w1")) for key, w in params.items()}
    away = stationary_value(moved, x, y, activation)
    assert away.gap > 1e-6 * away.baseline
    assert not away.holds
    assert "not that of a stationary point" in away.reason


@pytest.mark.parametrize("name", ["tall, one output", "narrow end"])
def test_driven_to_a_stationary_point(name):
    params, x, y, activation = stationary_problem(name)
    y = 0.9 * np.asarray(outputs(params, x, activation)) + 0.1 * y  # a minimum, not a saddle
    rng = np.random.default_rng(1)
    start = {key: w + 1e-4 * rng.normal(size=w.shape) for key, w in params.items()}
    before = stationary_value(start, x, y, activation, tolerance=1e-9)
    assert not before.holds
    after = stationary_value(to_stationarity(start, x, y, activation), x, y, activation, tolerance=1e-9)
    assert after.gradient_norm < 1e-8
    assert after.gap <= after.gap_bound * (1 + 1e-9)
    assert after.gap_bound <= 1e-14 * after.baseline
    assert after.holds


@pytest.mark.parametrize("contributions", [True, False])
@pytest.mark.parametrize("scale", [1e-2, 1e-4])
@pytest.mark.parametrize("name", ["tall", "many outputs"])
def test_methods_agree_on_ill_conditioned_nets(name, scale, contributions):
    params, x, y, _ = problem(name)
    x = x * np.array([1.0, 1.0, scale])  # one direction of the data is nearly absent
    results = [stationary_value(params, x, y, method=m, contributions=contributions) for m in FACTORISATIONS]
    assert results[0].sigma_r < 2 * scale * results[0].sigma_max
    assert results[0].sigma_r > 1e-6 * results[0].sigma_max
    for s in results[1:]:
        assert s.value == pytest.approx(results[0].value, abs=1e-11 * s.baseline)
        assert s.sigma_r == pytest.approx(results[0].sigma_r, rel=1e-7)
        assert (s.ranks, s.status) == (results[0].ranks, results[0].status)
    assert results[0].status == "resolved"


def test_a_shift_grows_until_the_factor_exists():
    """A Gram matrix whose products rounded by more than the first shift, 30 eps."""
    gram = np.asfortranarray(np.diag([1.0, 0.5, -1e-12]))
    assert 30 * factorizations.EPS < 1e-12
    factor, condition = factorizations._shifted_cholesky(gram)
    assert condition == 0
    np.testing.assert_allclose(factor.T @ factor, gram, atol=1e-11)
    with pytest.raises(np.linalg.LinAlgError, match="not finite"):
        factorizations._shifted_cholesky(np.asfortranarray(np.diag([1.0, np.nan])))


@pytest.mark.parametrize(
    ("values", "rank", "resolved"),
    [
        ([1.0, 0.5, 0.4, 1e-15], 3, True),  # the last is rounding, above the cutoffs
        ([1.0, 0.5, 1e-11, 1e-11], 3, False),  # but what is no larger may be, too
        ([1.0, 0.5, 1e-16, 1e-16], 2, True),
    ],
)
def test_values_beyond_the_rank_by_structure_are_rounding(values, rank, resolved):
    found = factorizations.Cutoffs(4, 4, 1.0, 1.0).spectrum(np.array(values), "lapack", 3)
    assert (found.ranks["lapack"], found.resolved) == (rank, resolved)


def test_plain_gram_matrix_would_not_see_it():
    """The control for the passes of CholeskyQR: one alone leaves R wrong, three give it to rounding."""
    rng = np.random.default_rng(0)
    a = np.linalg.qr(rng.normal(size=(200, 20)))[0] * np.logspace(0, -12, 20)
    a = a @ np.linalg.qr(rng.normal(size=(20, 20)))[0]
    truth = np.linalg.svd(a, compute_uv=False)

    def slabs():
        return (np.array(part.T, order="F") for part in np.array_split(a, 3))

    several = np.linalg.svd(
        factorizations.cholesky_qr(slabs, 20, factorizations.ORTHOGONAL), compute_uv=False
    )
    exact = np.linalg.svd(householder(slabs(), 20), compute_uv=False)
    gram = np.sqrt(np.abs(np.linalg.eigvalsh(a.T @ a)))[::-1]
    np.testing.assert_allclose(several, truth, rtol=1e-3, atol=2e-15)
    np.testing.assert_allclose(exact, truth, rtol=1e-3, atol=2e-15)
    assert abs(gram[-1] / truth[-1] - 1) > 1


def test_slabs_of_every_size_give_the_same(monkeypatch):
    for name in ("tall", "wide"):
        params, x, y, _ = problem(name)
        whole = stationary_value(params, x, y, method="cholesky")
        monkeypatch.setattr("narrow_jax.certificates.depth_width.tangent.SLAB", 100)
        parts = stationary_value(params, x, y, method="cholesky")
        assert parts.value == pytest.approx(whole.value, rel=1e-11)
        np.testing.assert_allclose(parts.layers, whole.layers, atol=1e-10)
        monkeypatch.undo()


def test_float32_params_are_cast_first():
    params, x, y, _ = problem("tall")
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    double = jax.tree.map(lambda a: np.asarray(a, np.float64), single)
    x32 = x.astype(np.float32)
    with jax.enable_x64(False):
        s = stationary_value(single, x32, y.astype(np.float32))
    t = stationary_value(double, x32.astype(float), y.astype(np.float32).astype(float))
    assert (s.loss, s.value, s.gap) == (t.loss, t.value, t.gap)


@pytest.mark.parametrize("samples", [6, 60])
def test_dead_net_has_the_value_of_no_net(samples):
    x, y = np.abs(np.random.default_rng(0).normal(size=(samples, 2))), np.ones((samples, 1))
    params = {"w1": -np.ones((2, 3)), "w2": np.ones((3, 2)), "w3": np.ones((2, 1))}
    for method in theorem1.METHODS:
        s = stationary_value(params, x, y, method=method)
        assert (s.loss, s.value, s.baseline, s.gap) == (samples / 2, samples / 2, samples / 2, 0.0)
        assert s.zeros == 2 * samples  # all of the second layer, which stays at 0 around θ
        assert s.differentiable
        if method in FACTORISATIONS:
            assert (s.ranks["nr"], s.sigma_max, s.gap_bound) == (0, 0.0, 0.0)
            assert not s.layers.any()


def test_zero_preactivations_are_counted():
    params = {"w1": np.array([[1.0, 1.0], [-1.0, 1.0]]), "w2": np.ones((2, 1))}
    x = np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0], [1.0, 3.0]])
    s = stationary_value(params, x, np.ones((4, 1)))
    assert (s.zeros, s.kinks, s.differentiable, s.holds) == (4, 2, False, False)
    assert "2 pre-activations are exactly 0 at a kink" in s.reason
    linear = stationary_value(params, x, np.ones((4, 1)), leaky_relu(1.0))
    assert (linear.zeros, linear.kinks, linear.differentiable) == (4, 0, True)


def test_cutoff_that_matters_is_said():
    params, x, y, _ = problem("tall")
    x[:, 2] = x[:, 1] * (1 + 4e-16 * np.arange(len(x)))  # a direction at the level of rounding
    s = stationary_value(params, x, y, method="dense")
    assert s.status == ("resolved" if len(set(s.ranks.values())) == 1 else "cutoff_dependent")
    values = np.linalg.svd(jacobian(params, x), compute_uv=False)
    bounds = {"nr": values[0] * 2**-53 * np.sqrt(sum(s.shape) + 1), "lapack": values[0] * 2**-52}
    bounds["golub-van-loan"] = np.abs(jacobian(params, x)).sum(axis=1).max() * 2**-53
    d = tangent(params, x, "relu")
    assert ranges.cutoffs(d).bounds(s.sigma_max) == pytest.approx(bounds, rel=1e-12)


@pytest.mark.parametrize("method", FACTORISATIONS)
@pytest.mark.parametrize("name", ["tall", "wide"])
def test_stated_memory_is_enough(name, method):
    inputs, widths, _, _ = NETS[name]
    sizes, samples = (inputs, 12, 10, widths[-1]), 400 if name == "tall" else 40
    rng = np.random.default_rng(0)
    params = {f"w{i}": rng.normal(size=sizes[i - 1 : i + 1]) for i in (1, 2, 3)}
    x, y = rng.normal(size=(samples, inputs)), rng.normal(size=(samples, widths[-1]))
    assert_stated_memory_is_enough(params, x, y, "relu", method)


@pytest.mark.parametrize("activation", [leaky_relu(1.0), "relu"], ids=["linear", "dead"])
def test_stated_memory_is_enough_for_many_units_of_equal_patterns(activation):
    """Their mixtures, a vector a pair, would be 3,600 of length 180."""
    rng = np.random.default_rng(0)
    params = {"w1": -np.abs(rng.normal(size=(2, 60))), "w2": rng.normal(size=(60, 1))}
    params["w1"][:, 0] *= -1
    x, y = np.abs(rng.normal(size=(240, 2))), rng.normal(size=(240, 1))
    assert_stated_memory_is_enough(params, x, y, activation, "cholesky")


def assert_stated_memory_is_enough(params, x, y, activation, method):
    stationary_value(params, x, y, activation, method=method)
    tracemalloc.start()
    stationary_value(params, x, y, activation, method=method)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.1 * theorem1.plan(tangent(params, x, activation))[method] + 2**17


def test_small_budget_names_what_fits():
    params, x, y, _ = problem("tall")
    needs = theorem1.plan(tangent(params, x, "relu"))
    budget = needs["lsmr"] + 1000
    with pytest.raises(
        nj.MemoryBudgetError, match=rf"'dense' needs {needs['dense']:,} bytes.*would fit: 'lsmr'"
    ):
        stationary_value(params, x, y, method="dense", memory_budget=budget)
    with pytest.raises(nj.MemoryBudgetError, match="nothing fits below"):
        stationary_value(params, x, y, memory_budget=10)
    s = stationary_value(params, x, y, memory_budget=budget)
    assert (s.method, s.status, s.ranks, s.layers) == ("lsmr", "estimate", None, None)
    assert s.residual < 1e-9
    assert s.value == pytest.approx(stationary_value(params, x, y).value, rel=1e-8)


ONE = np.ones((4, 1))
GOOD = {"w1": np.ones((3, 2)), "w2": np.ones((2, 1))}
BAD = {
    "H = 0": (ValueError, {"params": {"w1": np.ones((3, 1))}}, "one layer, H = 0"),
    "tanh": (ValueError, {"activation": "tanh"}, "'tanh' is not positively homogeneous"),
    "smooth": (
        ValueError,
        {"activation": nj.activations.smooth_leaky_relu(0.5, 1.0)},
        "not positively homog",
    ),
    "biases": (ValueError, {"params": GOOD | {"b1": np.ones(2)}}, "b1, w1, w2; expected .* without biases"),
    "layers": (ValueError, {"activation": ["relu", "abs"]}, "has 2 entries; expected 1"),
    "units": (ValueError, {"activation": per_unit(["relu"] * 3)}, "expected 3 columns"),
    "cutoff": (ValueError, {"cutoff": "lapak"}, "did you mean 'lapack'"),
    "method": (ValueError, {"method": "cholesky_qr"}, "did you mean 'cholesky'"),
    "budget": (ValueError, {"memory_budget": -1}, "memory_budget is -1"),
    "x": (ValueError, {"x": np.full((4, 3), np.nan)}, "x has 12 non-finite entries"),
    "y": (ValueError, {"y": ONE * np.inf}, "y has 4 non-finite entries"),
    "w": (ValueError, {"params": GOOD | {"w2": np.full((2, 1), np.nan)}}, "w2 has 2 non-finite"),
    "width of x": (ValueError, {"x": np.ones((4, 2))}, r"x has shape \(4, 2\); expected \(n, 3\)"),
    "rows of y": (ValueError, {"y": np.ones((3, 1))}, r"y has shape \(3, 1\); expected \(4, 1\)"),
    "columns of y": (ValueError, {"y": np.ones((4, 2))}, r"y has shape \(4, 2\); expected \(4, 1\)"),
    "flat y": (ValueError, {"y": np.ones(4)}, r"y has shape \(4,\); expected a matrix"),
    "labels": (TypeError, {"y": np.ones((4, 1), int)}, "y has dtype int64"),
    "tolerance": (ValueError, {"tolerance": 0.0}, "tolerance is 0.0"),
}


@pytest.mark.parametrize(("error", "change", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input(error, change, message):
    good = {"params": GOOD, "x": np.ones((4, 3)), "y": ONE, "activation": "relu"}
    stationary_value(**good)
    with pytest.raises(error, match=message):
        stationary_value(**(good | change))
