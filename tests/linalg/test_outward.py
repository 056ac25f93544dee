"""Arithmetic that is rounded outward, and spectral norms, against 50 digits at any scale."""

import itertools
import math

import mpmath
import numpy as np
import pytest

from narrow_jax.linalg import outward, spectral_norm
from narrow_jax.linalg import rounding as fl

NUMBERS = [0.0, fl.NORMAL, 1e-200, 1 / 3, 1.0, 7e150, 1.7e308]
NEAR = 1 + 1e-12


@pytest.mark.parametrize(("a", "b"), list(itertools.product(NUMBERS, repeat=2)))
def test_operations_are_upper_bounds_and_near(a, b):
    with mpmath.workdps(50):
        x, y = mpmath.mpf(a), mpmath.mpf(b)
        for found, exact in (
            (outward.times(a, b), x * y),
            (outward.plus(a, b), x + y),
            (outward.hypot(a, b), mpmath.sqrt(x * x + y * y)),
        ):
            assert found >= exact
            assert (found == 0) == (exact == 0)
            assert found <= max(exact, fl.NORMAL) * NEAR or exact > 1e308


def test_infinity_is_an_unknown_number():
    assert outward.times(0.0, math.inf) == 0
    assert (
        outward.times(fl.NORMAL, math.inf)
        == outward.plus(0.0, math.inf)
        == outward.hypot(0.0, math.inf)
        == math.inf
    )
    np.testing.assert_array_equal(outward.times(np.array([0.0, 2.0]), math.inf), [0.0, math.inf])
    assert outward.row_norms(np.array([[1e300, math.inf]])) == [math.inf]
    assert outward.weighted_norm(np.array([math.inf]), np.zeros((1, 1))) == math.inf


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1.0, 1e150, 1e300])
@pytest.mark.parametrize("spread", [1.0, 1e-170])
def test_norms_are_upper_bounds_and_near(scale, spread):
    a = scale * np.random.default_rng(0).normal(size=(5, 3))
    weights = np.array([spread, 0.0, 2.0, 1.0, 3 * spread]) / max(scale, 1.0)
    a[2:4] *= spread
    with mpmath.workdps(50):
        exact = [mpmath.norm(row) for row in a.tolist()]
        assert all(
            low <= bound <= max(low * NEAR, 2 * fl.NORMAL)
            for low, bound in zip(exact, outward.row_norms(a), strict=True)
        )
        weighted = mpmath.diag(weights.tolist()) * mpmath.matrix(a.tolist())
        largest = max(mpmath.svd_r(weighted, compute_uv=False))
        assert largest <= outward.weighted_norm(weights, a) <= max(largest * (1 + 1e-6), 2 * fl.NORMAL)


@pytest.mark.parametrize("shape", [(1, 1), (3, 8), (8, 3), (1, 6), (40, 40)])
def test_spectral_norm_is_a_tight_upper_bound(shape):
    a = np.random.default_rng(1).normal(size=shape)
    a = a / np.max(np.abs(a))
    exact = np.linalg.norm(a, 2)
    assert exact * (1 - 1e-14) <= spectral_norm(a) <= exact * (1 + 1e-6)
    assert spectral_norm(a, exponent=-2000) == fl.NORMAL
    assert spectral_norm(0 * a) == 0
    assert spectral_norm(a, terms=1000) > spectral_norm(a)
