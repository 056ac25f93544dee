"""Theorem 1 as a solver: exact nets in small balls, certified, or the reason why not."""

import jax
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import narrow_jax as nj
from narrow_jax.certificates import bounds
from narrow_jax.certificates.samples import distinct

KEY = jax.random.key(0)
N, D, WIDTH = 24, 5, 12


def gaussian(n=N, d=D, k=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, k))


def start(width=WIDTH):
    return jax.tree.map(np.asarray, nj.initializers.mirrored_lecun(KEY, inputs=D, width=width))


def jacobian(w, v, x):
    """∂f/∂w of the pairwise tanh net, rows (i, c), columns (a, j)."""
    d = (1 - np.tanh(x @ w) ** 2)[:, None, :] * np.concatenate([v, -v]).T
    return (x[:, None, :, None] * d[:, :, None, :]).reshape(len(x) * v.shape[1], -1)


@pytest.fixture
def found():
    """Data and what is found for them in a ball of radius ½."""
    x, y = gaussian()
    return x, y, nj.memorize(KEY, x, y, width=WIDTH, radius=0.5)


def exact_residual(w, v, x, y):
    """y − f in mpmath, rows (i, c)."""
    h, k = v.shape
    residual = []
    for row, labels in zip(x.tolist(), y.tolist(), strict=True):
        s = [mpmath.tanh(mpmath.fdot(row, w[:, j])) for j in range(2 * h)]
        pairs = [plus - minus for plus, minus in zip(s[:h], s[h:], strict=True)]
        residual += [labels[c] - mpmath.fdot(v[:, c].tolist(), pairs) for c in range(k)]
    return residual


def exact_loss(params, x, y):
    """½‖y − f‖² in 50-digit arithmetic."""
    with mpmath.workdps(50):
        return mpmath.norm(exact_residual(params["w"], params["v"], x, y)) ** 2 / 2


@pytest.mark.parametrize("radius", [0.01, 0.1, 1.0, np.inf])
@pytest.mark.parametrize("seed", range(2))
def test_gaussian_labels_are_learned_exactly_inside_the_ball(seed, radius):
    x, y = gaussian(seed=seed)
    m = nj.memorize(jax.random.key(seed), x, y, width=WIDTH, radius=radius)
    assert m.status == "solved"
    assert m.loss <= 1e-16
    assert np.linalg.norm(m.params["w"] - m.center["w"]) <= radius
    assert m.certificate.holds
    assert m.certificate.distance + m.certificate.rho <= radius
    assert float(exact_loss(m.params, x, y)) <= 1e-16
    np.testing.assert_array_equal(m.params["v"], m.scale * m.center["v"])
    assert (m.params["v"] >= 1e-3).all()


def test_loss_in_history_falls_quadratically():
    x, y = gaussian()
    loss = nj.memorize(KEY, x, y, width=WIDTH, radius=0.1).history["loss"]
    assert loss[0] == pytest.approx(np.sum(y**2) / 2)
    assert len(loss) <= 6
    assert (np.diff(np.log(loss)) < -5).all()


@pytest.mark.parametrize("options", [{"method": "cg"}, {"dtype": "float32"}], ids=["cg", "float32"])
def test_methods_agree(found, options):
    x, y, m = found
    other = nj.memorize(KEY, x, y, width=WIDTH, radius=0.5, certify=False, **options)
    assert m.status == other.status == "solved"
    # the same Newton path, up to the tolerance of the linear solves
    np.testing.assert_allclose(other.params["w"], m.params["w"], atol=1e-6)


def test_several_outputs():
    x, _ = gaussian(N // 2)
    y = np.eye(2)[np.random.default_rng(1).integers(2, size=N // 2)]
    m = nj.memorize(KEY, x, y, width=WIDTH, radius=0.2)
    assert m.certificate.holds
    assert m.params["v"].shape == (WIDTH // 2, 2)
    assert m.certificate.rows == N
    assert float(exact_loss(m.params, x, y)) < 1e-16


def test_width_is_found_from_the_rank():
    x, y = gaussian()
    assert nj.jacobian.admissible_width(x) == 10
    x[:, 4] = x[:, 3]  # rank 4
    m = nj.memorize(KEY, x, y, radius=0.1)
    assert m.params["w"].shape[1] == WIDTH == nj.jacobian.admissible_width(x)
    assert m.certificate.holds


@pytest.mark.parametrize("seed", range(3))
def test_theorem_1_inside_the_nice_region(seed):
    x, y = gaussian(seed=seed)
    m = nj.memorize(jax.random.key(seed), x, y, width=WIDTH)
    region = nj.certificates.nice_region(m.center, x)
    assert region.holds
    assert m.radius_used == region.radius
    assert m.status == "solved"
    assert m.certificate.holds


def test_nice_region_keeps_full_rank():
    x, _ = gaussian()
    center = start()
    region = nj.certificates.nice_region(center, x)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = rng.normal(size=center["w"].shape)
        w = center["w"] + 0.999 * region.radius * step / np.linalg.norm(step)
        v = rng.uniform(0.1, 10, size=center["v"].shape) * rng.choice([-1, 1], size=center["v"].shape)
        assert np.linalg.matrix_rank(jacobian(w, v, x)) == N


def test_lipschitz_bound_holds_and_is_not_vacuous():
    x, _ = gaussian(15, 5)
    sigma = nj.activations.get("tanh")
    rng = np.random.default_rng(0)
    v = rng.normal(size=(4, 2))
    L = bounds.lipschitz(v, bounds.input_norm(x), sigma)
    ratios = []
    for _ in range(50):
        w = 0.3 * rng.normal(size=(5, 8))
        step = 1e-3 * rng.normal(size=(5, 8))
        change = jacobian(w + step, v, x) - jacobian(w, v, x)
        ratios.append(np.linalg.norm(change, 2) / np.linalg.norm(step))
    assert max(ratios) <= L
    assert max(ratios) >= 0.005 * L


@pytest.mark.parametrize("shape", [(3, 9), (9, 3), (1, 1), (30, 30)])
@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_input_norm_is_a_tight_upper_bound(shape, scale):
    x = np.random.default_rng(0).normal(size=shape)
    exact = np.linalg.norm(np.linalg.norm(x, axis=1, keepdims=True) * x, 2)
    bound = bounds.input_norm(scale * x) / scale / scale
    assert exact * (1 - 1e-14) <= bound <= exact * (1 + 1e-6)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "sin"])
def test_value_error_is_honest(activation):
    sigma = nj.activations.get(activation)
    reference = {
        "tanh": mpmath.tanh,
        "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
        "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
        "sin": mpmath.sin,
    }[activation]
    z = np.concatenate([np.linspace(-8, 8, 401), [1e-300, -1e-9, 0.0, 40.0, -40.0, 700.0, -700.0]])
    with jax.enable_x64(True):
        computed = np.asarray(sigma.value(jax.numpy.asarray(z)))
    with mpmath.workdps(50):
        for at, value in zip(z.tolist(), computed.tolist(), strict=True):
            assert abs(mpmath.mpf(value) - reference(mpmath.mpf(at))) <= sigma.value_error * 2.0**-53 * (
                1 + abs(at)
            )


@pytest.mark.parametrize("radius", [1e-3, 1.0])
def test_residual_bound_is_honest(radius):
    x, y = gaussian(N // 2, k=2)
    m = nj.memorize(KEY, x, y, width=WIDTH, radius=radius)
    with jax.enable_x64(True):
        computed, rounding = bounds.residual(m.params, x, y, nj.activations.get("tanh"))
    exact = mpmath.sqrt(2 * exact_loss(m.params, x, y))
    assert abs(exact - computed) <= rounding
    assert rounding < 1e-6


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.5, 5.0]), st.floats(0, 1e-3))
def test_a_certified_zero_is_there(seed, radius, noise):
    """Newton's method with residuals in 50 digits stays within ρ of a certified point and ends at a zero."""
    x, y = gaussian(seed=seed)
    m = nj.memorize(jax.random.key(seed), x, y, width=WIDTH, radius=radius, certify=False)
    rng = np.random.default_rng(seed)
    params = {**m.params, "w": m.params["w"] + noise * rng.normal(size=m.params["w"].shape)}
    certificate = nj.certificates.memorization(params, m.center, x, y, radius)
    if not certificate.holds:
        return
    with mpmath.workdps(50):
        given_w, v = np.array(mpmath.matrix(params["w"].tolist()).tolist()), params["v"]
        w, residual = given_w, exact_residual(given_w, v, x, y)
        for _ in range(12):
            # the step itself needs no more digits than the residual gains by it
            J = jacobian(w.astype(float), v, x)
            w = w + np.linalg.lstsq(J, np.array(residual, float))[0].reshape(w.shape)
            residual = exact_residual(w, v, x, y)
        assert mpmath.norm(residual) < mpmath.mpf(10) ** -35
        assert mpmath.norm((w - given_w).ravel()) <= certificate.rho
        assert mpmath.norm((w - m.center["w"]).ravel()) <= radius


def test_certificate_fails_away_from_a_zero(found):
    x, y, m = found
    rng = np.random.default_rng(0)
    moved = {**m.params, "w": m.params["w"] + 0.1 * rng.normal(size=m.params["w"].shape)}
    verdict = nj.certificates.memorization(moved, m.center, x, y)
    assert not verdict.holds
    assert "g = " in verdict.reason
    assert not np.isfinite(verdict.rho)


def test_certificate_fails_outside_the_ball(found):
    x, y, m = found
    verdict = nj.certificates.memorization(m.params, m.center, x, y, radius=0.01)
    assert not verdict.holds
    assert "outside the ball" in verdict.reason


@pytest.mark.parametrize(("radius", "holds"), [(0.5, False), (2.0, True), (np.inf, True)])
def test_zero_samples_alone_are_learned_by_any_net_in_the_ball(radius, holds):
    params = start()
    moved = {**params, "w": params["w"] + 1 / np.sqrt(params["w"].size)}
    verdict = nj.certificates.memorization(moved, params, np.zeros((3, D)), np.zeros(3), radius)
    assert verdict.distance == pytest.approx(1)
    assert (verdict.holds, verdict.rho) == (holds, 0.0)
    outside = "the zero within 0 may lie outside the ball: ‖w − w⁰‖ = 1, ε = 0.5"
    assert verdict.reason == ("nothing to learn" if holds else outside)
    assert nj.certificates.memorization(params, params, np.zeros((3, D)), np.zeros(3), 0.0).holds


def test_certificate_of_a_rank_deficient_problem_fails():
    x, y = gaussian()
    x[:, 3:] = 0  # a mirrored start has rank 3 · WIDTH/2 at most
    verdict = nj.certificates.memorization(start(), start(), x, y)
    assert not verdict.holds
    assert "σ_min(J) > 0 is not proven" in verdict.reason


def test_certificate_of_contradictory_labels_fails(found):
    x, y, m = found
    x, y = np.concatenate([x, x[4:5]]), np.concatenate([y, y[4:5] + 1])
    verdict = nj.certificates.memorization(m.params, m.center, x, y)
    assert not verdict.holds
    assert f"samples 4 and {N} are equal" in verdict.reason


# --- Bad input -------------------------------------------------------------------------------------------


def test_no_sample():
    with pytest.raises(ValueError, match="there is no sample"):
        nj.memorize(KEY, np.zeros((0, 3)), np.zeros(0))


def test_one_sample():
    m = nj.memorize(KEY, np.ones((1, 3)), np.ones(1), radius=0.1)
    assert m.certificate.holds
    assert m.params["w"].shape == (3, 2)


def test_constant_labels():
    x, _ = gaussian()
    assert nj.memorize(KEY, x, np.full(N, 3.0), width=WIDTH, radius=0.1).certificate.holds
    zero = nj.memorize(KEY, x, np.zeros(N), width=WIDTH, radius=0.1)
    assert (zero.status, zero.loss, len(zero.history["loss"])) == ("solved", 0.0, 1)
    assert zero.certificate.holds


def test_zero_sample():
    x, y = gaussian(N + 1)
    x[3] = 0
    with pytest.raises(ValueError, match="sample 3 is 0 and its label is not"):
        nj.memorize(KEY, x, y, width=WIDTH, radius=0.1)
    y[3] = 0
    m = nj.memorize(KEY, x, y, width=WIDTH, radius=0.1)
    assert m.certificate.holds
    assert m.certificate.rows == N
    with pytest.raises(ValueError, match="every sample is 0"):
        nj.memorize(KEY, np.zeros((4, 3)), np.zeros(4))


def test_duplicates():
    x, y = gaussian(N + 1)
    x[7] = x[2]
    with pytest.raises(ValueError, match="samples 2 and 7 are equal and their labels"):
        nj.memorize(KEY, x, y, width=WIDTH, radius=0.1)
    y[7] = y[2]
    m = nj.memorize(KEY, x, y, width=WIDTH, radius=0.1)
    assert m.certificate.holds
    assert np.abs(m.residual).max() < 1e-9


def test_parallel_samples():
    x, y = gaussian()
    x[7] = 2 * x[2]  # tanh tells them apart
    assert nj.memorize(KEY, x, y, width=WIDTH, radius=0.1).certificate.holds
    x[7] = -x[2]  # an odd net cannot
    m = nj.memorize(KEY, x, y, width=WIDTH, radius=0.1)
    assert m.status == "rank_deficient"
    assert "samples [2, 7] depend on each other" in m.message
    assert np.isfinite(m.params["w"]).all()
    assert not nj.certificates.memorization(m.params, m.center, x, y).holds


def test_bad_width():
    x, y = gaussian()
    with pytest.raises(ValueError, match="expected an even number"):
        nj.memorize(KEY, x, y, width=11)
    with pytest.raises(ValueError, match="smallest admissible width is 10"):
        nj.memorize(KEY, x, y, width=8)


@pytest.mark.parametrize(("scale_x", "scale_y"), [(1.0, 1e12), (1.0, 1e-5), (1e-2, 1.0)])
def test_scales_that_are_carried(scale_x, scale_y):
    x, y = gaussian()
    m = nj.memorize(KEY, scale_x * x, scale_y * y, width=WIDTH, radius=0.1)
    assert m.status == "solved"
    assert m.loss <= 1e-14 * np.sum((scale_y * y) ** 2)


def test_labels_below_the_digits_of_w_are_diagnosed():
    x, y = gaussian()
    m = nj.memorize(KEY, x, 1e-12 * y, width=WIDTH, radius=0.1)
    assert m.status == "not_converged"
    assert "scale x and y" in m.message
    assert m.certificate is None


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scales_without_rank_are_diagnosed(scale):
    """tanh is linear at 0 and constant far out: either way the samples cannot be told apart."""
    x, y = gaussian()
    m = nj.memorize(KEY, scale * x, y, width=WIDTH, radius=0.1)
    assert m.status == "rank_deficient"
    assert "scale x to entries of size one" in m.message
    assert np.isfinite(m.params["w"]).all()


def test_relu_runs_and_says_what_is_missing():
    x, y = gaussian(seed=2)  # with this start of full rank
    with pytest.raises(ValueError, match="gives no ε₀: σ' of relu jumps"):
        nj.memorize(jax.random.key(2), x, y, width=WIDTH, activation="relu")
    m = nj.memorize(jax.random.key(2), x, y, width=WIDTH, radius=0.5, activation="relu")
    assert m.status == "solved"
    assert not m.certificate.holds
    assert "σ' of relu jumps" in m.certificate.reason


BAD = {
    "radius 0": ({"radius": 0.0}, "radius is 0, which freezes w"),
    "negative radius": ({"radius": -1.0}, "expected a number ≥ 0"),
    "method": ({"method": "chol"}, "did you mean 'cholesky'"),
    "dtype": ({"dtype": "float16"}, "Expected one of float64, float32"),
    "steps": ({"steps": 0}, "steps is 0"),
    "activation": ({"activation": "tahn"}, "did you mean 'tanh'"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_options(options, message):
    x, y = gaussian()
    with pytest.raises(ValueError, match=message):
        nj.memorize(KEY, x, y, width=WIDTH, **options)


def test_bad_values():
    x, y = gaussian()
    y[3] = np.nan
    with pytest.raises(ValueError, match="y has 1 non-finite entries"):
        nj.memorize(KEY, x, y)
    with pytest.raises(TypeError, match="expected real floating numbers"):
        nj.memorize(KEY, x, np.ones(N, int))


def test_a_plain_start_is_no_zero():
    """Without the mirror scaling v does not help: the residual of f(w⁰) is what a small ball cannot mend."""
    x, y = gaussian()
    plain = jax.tree.map(np.asarray, nj.initializers.lecun(KEY, inputs=D, width=WIDTH))
    assert np.linalg.norm(np.tanh(x @ plain["w"]) @ plain["v"]) > 0.1
    mirrored = nj.memorize(KEY, x, y, width=WIDTH, radius=1e-3)
    assert mirrored.certificate.holds


def test_distinct_keeps_order_and_names_pairs():
    x = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, -0.0], [2.0, 0.0]])
    found = distinct(x, np.array([[1.0], [0.0], [1.0], [0.0]]))
    assert found.kept.tolist() == [0, 3]
    assert found.repeated == ((2, 0),)
    assert found.zero == (1,)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda w, v, x: nj.certificates.memorization({"w": w}, w, x, x[:, 0]),
            r"params is \['w'\]; expected a dict",
        ),
        (
            lambda w, v, x: nj.certificates.memorization([w, v], w, x, x[:, 0]),
            "params is list; expected a dict",
        ),
        (
            lambda w, v, x: nj.certificates.memorization({"w": w, "v": v}, {"v": v}, x, x[:, 0]),
            r"center is \['v'\]; expected w⁰",
        ),
        (lambda w, v, x: nj.certificates.nice_region({"w": w}, x), r"center is \['w'\]; expected a dict"),
        (lambda w, v, x: nj.certificates.nice_region(w, x), "center is ndarray; expected a dict"),
    ],
)
def test_trees_without_the_leaves(check, message):
    with pytest.raises(ValueError, match=message):
        check(np.ones((4, 4)), np.ones((2, 1)), np.eye(6, 4))
