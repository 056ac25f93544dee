"""The one rule by which bounds are rounded."""

import jax.numpy as jnp
import numpy as np
import pytest

from narrow_jax.linalg import rounding as fl

U = 2.0**-1022


@pytest.mark.parametrize("value", [0.0, 2.0**-1074, U / 2, U, 2 * U, 1.0, np.inf])
def test_at_least_normal_lifts_what_underflowed_and_nothing_else(value, x64):
    expected = max(value, U)
    assert fl.at_least_normal(value) == expected
    np.testing.assert_array_equal(fl.at_least_normal(np.array([value, 0.5])), [expected, 0.5])
    np.testing.assert_array_equal(fl.at_least_normal(jnp.array([value, 0.5])), [expected, 0.5])


def test_at_least_normal_keeps_what_is_not_a_number():
    assert np.isnan(fl.at_least_normal(np.nan))
