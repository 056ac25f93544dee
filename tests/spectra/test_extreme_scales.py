"""Where scaling, casting and the range of numbers could make a proven interval wrong."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.linalg import DEVICE, context
from narrow_jax.spectra import enclosure

U = 2.0**-1022
"""The smallest normal number: entries below are flushed to 0."""


def orthogonal(rows, columns, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, columns)))[0]


def test_a_coupling_is_not_dropped_where_the_matrix_is_huge(x64):
    """β above 2²⁰⁰ is a matter of scale, not a sign of a missing complement."""
    j = nj.jacobian.explicit(np.diag([1.0, 1.5])).evaluate()
    u = jnp.array([np.cos(0.3), np.sin(0.3)])
    pair = enclosure.measure(j, u)
    beta = float(np.sum((np.asarray(j.matrix) @ np.array([np.sin(0.3), -np.cos(0.3)])) ** 2))
    scale = 2.0**101
    huge = pair._replace(nu=pair.nu * scale, b=pair.b * scale, c=pair.c * scale)
    lower = float(enclosure.lower_bound(huge, jnp.asarray(beta * scale**2 * (1 - 1e-15))))
    sigma = float(np.min(np.diag(j.matrix)))
    assert 0.9 * sigma < lower / scale <= sigma


def linear(params, x):
    return x @ params["w"]


@pytest.mark.parametrize("scale", [1e-170, 1e-80, 1.0, 2.0**110, 1e170])
def test_recomputed_blocks_are_scaled(scale, x64):
    matrix = orthogonal(30, 30) @ np.diag(np.linspace(1, 2, 30)) @ orthogonal(40, 30, 1).T * scale
    J = nj.jacobian.autodiff(linear, {"w": np.ones((40, 1))}, matrix, memory_budget=18_000)
    assert not J.plan.stored
    s = nj.sigma_min(J)
    assert s.certified
    assert s.lower / scale <= 1 + 1e-12
    assert s.upper / scale >= 1 - 1e-12
    assert (s.upper - s.lower) / scale < 1e-11


def test_denormal_entries_are_not_certified():
    matrix = np.full((5, 5), -0.9 * U)
    np.fill_diagonal(matrix, 4 * U)
    J = nj.jacobian.explicit(matrix)
    s = nj.sigma_min(J)
    assert not s.certified
    assert s.lower == 0
    assert not np.any(np.isfinite(nj.singular_values(J).error))


def test_a_matrix_of_denormals_alone_is_an_estimate():
    s = nj.sigma_min(nj.jacobian.explicit(np.full((1, 400), 0.9 * U)))
    assert not s.certified
    assert s.upper >= 0.9 * U * 20


@pytest.mark.parametrize(("x", "w", "v"), [(1e-310, 1.0, 1.0), (1.0, 1e-310, 1.0), (1e300, 1e-300, 1e-310)])
def test_denormal_params_and_data_are_not_certified(x, w, v):
    params = {"w": np.full((2, 4), w), "v": np.full((2, 1), v)}
    s = nj.sigma_min(nj.jacobian.pairwise(params, np.full((1, 2), x)))
    assert not s.certified
    assert s.upper == np.inf


def test_numpy_float64_data_stay_float64_inside_jit():
    """With x64 off: the Jacobian is that of the data as given, not of their float32 rounding."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4))
    x[1] = x[0] + 1e-4 * rng.standard_normal(4)
    params = {"w": rng.standard_normal((4, 6)).astype(np.float32), "v": np.ones((3, 1), np.float32)}
    exact = nj.sigma_min(nj.jacobian.pairwise(params, x))

    @jax.jit
    def solve(params):
        J = nj.jacobian.pairwise(params, x)
        return nj.sigma_min(J, "gram"), nj.singular_values(J)

    s, values = solve(params)
    assert s.value.dtype == jnp.float32
    assert s.certified
    assert float(s.lower) <= exact.upper
    assert exact.lower <= float(s.upper)
    assert float(s.value) == pytest.approx(float(exact.value), rel=1e-6)
    assert abs(float(values.values[-1]) - exact.value) <= float(values.error[-1])


def test_concrete_operators_off_the_host_keep_float64(monkeypatch):
    """The path of an accelerator, here on the CPU."""
    monkeypatch.setattr(context, "on_cpu", lambda J: False)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4))
    x[1] = x[0] + 1e-6 * rng.standard_normal(4)
    params = {"w": rng.standard_normal((4, 6)), "v": np.ones((3, 1))}
    s = nj.sigma_min(nj.jacobian.pairwise(params, x))
    monkeypatch.undo()
    exact = nj.sigma_min(nj.jacobian.pairwise(params, x))
    assert s.value.dtype == s.lower.dtype == np.float64
    assert s.lower <= exact.upper
    assert exact.lower <= s.upper
    assert (s.upper - s.lower) / s.value < 1e-5


def test_float32_results_near_underflow():
    params = {"w": np.array([[1.0, 2.0]]), "v": np.full((2, 1), 1e-20)}
    J = nj.jacobian.standard(params, np.full((1, 1), 1e-20))
    exact = nj.sigma_min(J)
    s, values = jax.jit(lambda J: (nj.sigma_min(J, "gram"), nj.singular_values(J)))(J)
    assert exact.certified
    assert float(s.lower) <= exact.value <= float(s.upper)
    assert bool(s.certified) == (float(s.lower) > 0)
    assert abs(float(values.values[0]) - exact.value) <= float(values.error[0])


def test_values_beyond_the_largest_number():
    params = {"w": np.array([[1e-250, -1e-250]]), "v": np.full((1, 1), 1e150)}
    J = nj.jacobian.pairwise(params, np.full((1, 1), 1e250))
    s = nj.sigma_min(J)
    sigma = mp.mpf(10) ** 400 * mp.sqrt(2) * mp.sech(1) ** 2
    assert mp.mpf(float(s.lower)) <= sigma
    assert np.isfinite(s.lower)
    assert s.upper == np.inf
    assert nj.singular_values(J).error[0] == np.inf


SCALES = [1e-320, 1e-308, 1e-300, 1e-160, 1e-150, 1e150, 1e160, 1e300]


@pytest.mark.parametrize("scale", SCALES)
def test_every_bound_is_on_its_side_at_every_scale(scale):
    """Upper bounds at least the smallest normal number, lower bounds never rounded up, nothing below the truth."""
    matrix = np.random.default_rng(0).normal(size=(3, 4)) * scale
    with mp.workdps(40):
        exact = sorted(mp.svd_r(mp.matrix(matrix.T.tolist()), compute_uv=False))
    low, high = nj.spectra.extremes(matrix)
    s, values = nj.sigma_min(nj.jacobian.explicit(matrix)), nj.singular_values(nj.jacobian.explicit(matrix))
    for lower, upper, true in ((s.lower, s.upper, exact[0]), (low, np.inf, exact[0]), (0.0, high, exact[-1])):
        assert mp.mpf(float(lower)) <= true <= mp.mpf(float(upper))
        assert upper >= U
        assert lower == 0 or lower >= U
        assert np.isfinite(lower)
    for value, error, true in zip(values.values, values.error, reversed(exact), strict=True):
        assert error >= U
        assert error == np.inf or abs(mp.mpf(float(value)) - true) <= mp.mpf(float(error))


def test_extremes_of_zero_are_exactly_zero():
    assert nj.spectra.extremes(np.zeros((2, 3))) == (0, 0)


@pytest.mark.parametrize("scale", [1e-160, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("on", [False, True])
def test_bounds_of_operators_are_rounded_up(scale, on):
    params = {"w": np.ones((2, 4)), "v": np.full((2, 1), scale)}
    J = nj.jacobian.pairwise(params, np.array([[1.0, 2.0], [0.5, 0.25]]) * scale)
    with jax.enable_x64(True):
        j = context.floats(J, jnp.asarray).evaluate()  # by JAX, as the products
        gram, exponent = j.gram(DEVICE).bounds, int(j.exponent)
        exact = [mp.ldexp(float(gram.perturbation), exponent), mp.ldexp(float(gram.error), 2 * exponent)]
    with jax.enable_x64(on):
        found = J.perturbation(), J.gram_error()
    tiny = float(jnp.finfo(found[0].dtype).tiny)
    for bound, true in zip(found, exact, strict=True):
        assert mp.mpf(float(bound)) >= true
        assert float(bound) >= tiny
    assert nj.jacobian.explicit(np.ones((2, 2))).perturbation() == 0, "Ĵ is J itself"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("how", ["eager", "jit", "jit of vmap"])
def test_denormals_of_a_narrower_dtype_are_not_lost_in_a_cast(dtype, how):
    a = jnp.asarray(np.random.default_rng(5).normal(size=(1, 4, 6)) * 2.0**-126, dtype)
    exact = np.asarray(a[0]).astype(np.float64)
    assert (np.abs(exact) < np.finfo(np.float32).tiny).any()
    truth = np.linalg.svd(exact, compute_uv=False)[-1]

    def sigma(a):
        return nj.sigma_min(nj.jacobian.explicit(a))

    s = (
        jax.jit(jax.vmap(sigma))(a)
        if how == "jit of vmap"
        else (jax.jit(sigma) if how == "jit" else sigma)(a[0])
    )
    assert float(s.lower.squeeze()) <= truth * (1 + 1e-12)
    assert truth * (1 - 1e-12) <= float(s.upper.squeeze())
