"""The certificate of memorization: its bounds hold, what it certifies is there, and it fails where nothing is."""

import jax
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memorizing import KEY, WIDTH, D, N, exact_loss, exact_residual, gaussian, jacobian, start

import narrow_jax as nj
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.certificates.narrow_nets.residuals import residuals
from narrow_jax.jacobian import Net


@pytest.fixture
def found():
    """Data and what is found for them in a ball of radius ½."""
    x, y = gaussian()
    return x, y, nj.memorize(KEY, x, y, width=WIDTH, radius=0.5)


def test_lipschitz_bound_holds_and_is_not_vacuous():
    x, _ = gaussian(15, 5)
    rng = np.random.default_rng(0)
    v = rng.normal(size=(4, 2))
    L = lipschitz(Net.of({"w": rng.normal(size=(5, 8)), "v": v}, "tanh"), x, np.inf)
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
    bound = constants.input_norm(scale * x) / scale / scale
    assert exact * (1 - 1e-14) <= bound <= exact * (1 + 1e-6)


@pytest.mark.parametrize("module", [np, jax.numpy], ids=["NumPy", "JAX"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "sin"])
def test_value_error_is_honest(activation, module):
    sigma = nj.activations.get(activation)
    reference = {
        "tanh": mpmath.tanh,
        "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
        "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
        "sin": mpmath.sin,
    }[activation]
    z = np.concatenate([np.linspace(-8, 8, 401), [1e-300, -1e-9, 0.0, 40.0, -40.0, 700.0, -700.0]])
    with jax.enable_x64(True):
        computed = np.asarray(sigma.value(module.asarray(z)))
    with mpmath.workdps(50):
        for at, value in zip(z.tolist(), computed.tolist(), strict=True):
            assert abs(mpmath.mpf(value) - reference(mpmath.mpf(at))) <= sigma.value_error * 2.0**-53 * (
                1 + abs(at)
            )


@pytest.mark.parametrize("radius", [1e-3, 1.0])
def test_residual_bound_is_honest(radius):
    x, y = gaussian(N // 2, k=2)
    m = nj.memorize(KEY, x, y, width=WIDTH, radius=radius)
    found = residuals(Net.of(m.params, "tanh"), x, y)
    exact = mpmath.sqrt(2 * exact_loss(m.params, x, y))
    assert abs(exact - found.norm) <= found.rounding
    assert found.rounding < 1e-6


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
