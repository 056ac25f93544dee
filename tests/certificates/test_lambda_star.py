"""λ_*: three routes against each other, 30 digits and samples; Hermite coefficients; Khatri–Rao powers."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyramids import SIGMA, sphere
from scipy import special

import narrow_jax as nj
from narrow_jax.certificates import hermite_coefficients, hermite_tail, khatri_rao_sigma_min, lambda_star

SMOOTH = nj.activations.smooth_leaky_relu
EVERY = [*nj.activations.names(), SIGMA, SMOOTH(0.2, 5.0)]


def points(samples=6, inputs=4, seed=0):
    return sphere(np.random.default_rng(seed), samples, inputs)


def test_exact_entries_equal_the_double_integral():
    """Over (xᵀw, x'ᵀw) by the trapezoidal rule, exact to rounding here, for rows of different norms."""
    x = np.array([[1.0, 1.0], [0.6, -1.2]])
    gram = lambda_star(x, SIGMA).gram
    z = np.linspace(-10, 10, 401)
    weight = np.exp(-(z**2) / 2) * 0.05 / math.sqrt(2 * math.pi)
    tau = 0.5 / math.sqrt(2 * math.pi)

    def sigma(t):
        bump = tau * np.expm1(-((t / tau) ** 2) / 2) / math.sqrt(2 * math.pi)
        return 0.5 * t + 0.5 * (t * special.ndtr(t / tau) + bump)

    a, b = (math.sqrt(row @ row / 2) for row in x)
    k = x[0] @ x[1] / (2 * a * b)
    both = sigma(a * z)[:, None] * sigma(b * (k * z[:, None] + math.sqrt(1 - k**2) * z[None, :]))
    assert gram[0, 1] == pytest.approx(float(weight @ both @ weight), abs=1e-14)
    assert gram[0, 0] == pytest.approx(float(weight @ sigma(a * z) ** 2), abs=1e-14)


def test_formula_of_the_sphere():
    """G_ij as the closed form for rows of norm √d has it."""
    x, gamma, beta = points(), 0.3, 2.0
    tau, c = (1 - gamma) / (beta * math.sqrt(2 * math.pi)), (1 - gamma) ** 2 / (2 * math.pi * beta)
    rho, s = x @ x.T / x.shape[1], math.sqrt(1 + tau**2)
    expected = (
        gamma * rho
        + (1 - gamma) ** 2 * (np.sqrt(s**4 - rho**2) + rho * (np.pi - np.arccos(rho / s**2))) / (2 * np.pi)
        - 2 * c * (1 - gamma) * s / math.sqrt(2 * np.pi)
        + c**2
    )
    np.testing.assert_allclose(lambda_star(x, SMOOTH(gamma, beta)).gram, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("activation", "tolerance"), [("tanh", 1e-8), (SIGMA, 1e-8), (SMOOTH(0.5, 0.5), 1e-8)]
)
def test_routes_agree(activation, tolerance):
    x = points()
    routes = ("quadrature", "hermite") if activation == "tanh" else ("exact", "quadrature", "hermite")
    found = [lambda_star(x, activation, method) for method in routes]
    for a, b in itertools.combinations(found, 2):
        np.testing.assert_allclose(a.gram, b.gram, rtol=0, atol=tolerance)
        assert abs(a.value - b.value) <= min(tolerance, a.error + b.error)


@pytest.mark.parametrize("activation", ["relu", "abs", SMOOTH(0.5, 100.0)])
def test_series_agrees_to_its_tail(activation):
    x = points()
    exact, series = (lambda_star(x, activation, method) for method in ("exact", "hermite"))
    assert 1e-12 < series.error < 1e-2
    assert 0 <= exact.value - series.value + 1e-13 <= series.error  # what is left out is positive


def test_gram_is_the_mean_over_samples():
    x = points()
    w = np.random.default_rng(1).normal(size=(4, 200_000)) / 2
    features = np.tanh(x @ w)
    # each entry's deviation is below 1/√200,000
    np.testing.assert_allclose(lambda_star(x, "tanh").gram, features @ features.T / w.shape[1], atol=0.01)


@given(st.integers(0, 10_000), st.integers(1, 30), st.floats(0.05, 0.95), st.floats(0.05, 50))
def test_lies_between_0_and_1_on_the_sphere(seed, samples, gamma, beta):
    found = lambda_star(points(samples, 5, seed), SMOOTH(gamma, beta))
    assert 0 <= found.value <= 1
    assert np.trace(found.gram) <= samples


def test_equal_rows_give_zero():
    x = points()
    found = lambda_star(np.concatenate([x, x[:1]]), SIGMA)
    assert found.value <= found.error < 1e-12


@pytest.mark.parametrize("activation", EVERY, ids=lambda a: getattr(a, "name", a))
def test_coefficients_equal_the_plain_rule(activation):
    sigma = nj.activations.get(activation)
    mine = hermite_coefficients(sigma, 8)
    nodes = np.linspace(-12, 12, 240_001)  # the plain rule, with the kink on a node
    with jax.enable_x64(True):
        values = np.asarray(sigma(jnp.asarray(nodes)))
    for r in range(8):
        polynomial = np.polynomial.hermite_e.hermeval(nodes, [0] * r + [1]) / math.sqrt(math.factorial(r))
        plain = np.trapezoid(values * polynomial * np.exp(-(nodes**2) / 2), nodes) / math.sqrt(2 * np.pi)
        assert mine[r] == pytest.approx(plain, abs=2e-9)


def test_high_coefficients_of_the_smoothed_leaky_relu():
    """μ_r = E[σ''He_{r−2}]/√(r(r−1)(r−2)!): σ'' is a Gaussian density, the moment is known."""
    tau = 0.5 / math.sqrt(2 * math.pi)
    s2 = 1 + tau**2
    mine = hermite_coefficients(SIGMA, 301)
    for r in (2, 10, 100, 300):
        m = r - 2
        log_moment = math.lgamma(m + 1) - m / 2 * math.log(2) - math.lgamma(m / 2 + 1) - m / 2 * math.log(s2)
        exact = 0.5 / math.sqrt(2 * math.pi * s2) * math.exp(log_moment - math.lgamma(r + 1) / 2)
        assert mine[r] == pytest.approx((-1) ** (m // 2) * exact, abs=1e-14)
    assert np.abs(mine[3::2]).max() < 1e-14
    assert mine[1] == pytest.approx(0.75, abs=1e-14)


def test_tail_is_what_is_missing():
    mine = hermite_coefficients("relu", 60)
    assert hermite_tail("relu", mine[:20]) == pytest.approx(
        np.sum(mine[20:] ** 2) + hermite_tail("relu", mine)
    )
    assert np.sum(mine[:20] ** 2) + hermite_tail("relu", mine[:20]) == pytest.approx(0.5)  # E[relu²]


@pytest.mark.parametrize("power", [1, 2, 3])
def test_khatri_rao_equals_the_matrix_itself(power):
    x = points(4, 5)
    rows = [x[i] for i in range(4)]
    product = rows
    for _ in range(power - 1):
        product = [np.kron(a, b) for a, b in zip(product, rows, strict=True)]
    expected = np.linalg.svd(np.stack(product), compute_uv=False)[-1]
    assert khatri_rao_sigma_min(x, power) == pytest.approx(expected, rel=1e-10)


def test_khatri_rao_is_zero_beyond_the_monomials():
    x = points(samples=11, inputs=4)
    assert khatri_rao_sigma_min(x[:10], 2) > 0  # C(5, 2) = 10
    assert khatri_rao_sigma_min(x, 2) == 0
    assert khatri_rao_sigma_min(np.concatenate([x[:2], x[:1]]), 3) == 0  # equal rows


def test_lemma_3_4_holds_for_few_samples():
    x = points(samples=30, inputs=40)
    for power in (2, 3):
        assert khatri_rao_sigma_min(x, power) >= 40 ** (power / 2) / 2


BAD = {
    "method": (points(), SIGMA, "exat", ValueError, "unknown method 'exat': did you mean 'exact'"),
    "no closed form": (
        points(),
        "tanh",
        "exact",
        ValueError,
        "tanh has no closed form; use method='quadrature'",
    ),
    "sphere": (
        2 * points(),
        SIGMA,
        "hermite",
        ValueError,
        r"norm 4; the series \(16\) needs rows of norm √d = 2",
    ),
    "empty": (points()[:0], SIGMA, None, ValueError, r"x has shape \(0, 4\)"),
    "integers": (np.ones((2, 2), int), SIGMA, None, TypeError, "x has dtype int64"),
    "not finite": (np.full((2, 2), np.nan), SIGMA, None, ValueError, "x has 4 non-finite entries"),
}


@pytest.mark.parametrize(("x", "activation", "method", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused(x, activation, method, error, message):
    with pytest.raises(error, match=message):
        lambda_star(x, activation, method)


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="count is 0; expected an integer ≥ 1"):
        hermite_coefficients("tanh", 0)
    with pytest.raises(ValueError, match="power is 0; expected an integer ≥ 1"):
        khatri_rao_sigma_min(points(), 0)
