"""Proposition 2: prediction against simulation, and the conditions that can only be refuted."""

import jax
import numpy as np
import pytest

from narrow_jax.certificates import white_noise_loss

N, DRAWS = 40, {"trials": 60, "subsets": 20}


def patterns(m):
    """Slopes in general position: with 0 and 1 a unit that few samples reach lowers the rank."""
    return np.random.default_rng(0).uniform(0.2, 1.0, (N, m))


def test_unit_that_few_samples_reach_lowers_the_rank():
    slopes = np.ones((N, 2))
    slopes[4:, 1] = 0
    result = white_noise_loss(jax.random.key(0), slopes, 5, **DRAWS)
    assert set(result.ranks) == {9}  # 5 + 4 of 10
    assert not result.holds


@pytest.mark.parametrize("m", [1, 3, 12])
@pytest.mark.parametrize("d", [2, 5])
def test_mean_and_rank_are_as_predicted(d, m):
    result = white_noise_loss(jax.random.key(N + d + m), patterns(m), d, **DRAWS)
    rank = min(N, d * m)
    assert result.rank == rank
    assert set(result.ranks) == {rank}
    assert result.mean == (N - rank) / 2
    assert abs(result.simulated_mean - result.mean) <= 3 * result.standard_error + 1e-9
    assert result.holds
    assert result.exceeded <= result.allowed
    # L/(½‖Y‖²) is Beta((n−r)/2, r/2): the deviation of L from χ² over n − r degrees of freedom
    expected = np.sqrt((N - rank) / 2 / 60)
    assert result.standard_error == pytest.approx(expected, rel=0.4)


def test_equal_patterns_refute_the_condition_and_the_rank():
    repeated = np.repeat(patterns(1), 4, axis=1)
    result = white_noise_loss(jax.random.key(0), repeated, 2, **DRAWS)
    assert result.pattern_condition == "refuted"
    assert result.smallest_singular_value < 1e-12
    assert not result.holds
    assert set(result.ranks) == {2}
    assert "rank 8 in 0 of 60 trials" in result.reason


def test_good_patterns_are_not_verified():
    result = white_noise_loss(jax.random.key(0), patterns(3), 2, delta=0.01, **DRAWS)
    assert result.pattern_condition == "not verified"
    assert result.smallest_singular_value >= 0.01


def test_size_condition():
    small = white_noise_loss(jax.random.key(0), patterns(2), 2, **DRAWS)
    assert not small.size_condition
    one = np.ones((20_000, 1))
    large = white_noise_loss(jax.random.key(0), one, 1, delta=1.0, trials=2, subsets=1)
    assert large.size_condition  # 64 ln²(20,000) = 6,277
    medium = white_noise_loss(jax.random.key(0), one[:4000], 1, delta=1.0, trials=2, subsets=1)
    assert not medium.size_condition  # 64 ln²(4,000) = 4,403


@pytest.mark.parametrize(("d", "holds"), [(3, False), (4, True)])
def test_size_condition_of_wide_nets(d, holds):
    """dm = 2d against 2n ln²(nm/δ) = 4 ln² 4 = 7.7, and d against ln²(nm) = 1.9."""
    result = white_noise_loss(jax.random.key(0), np.eye(2), d, delta=1.0, trials=2, subsets=1)
    assert result.size_condition == holds


@pytest.mark.parametrize(("slope", "verdict"), [(-1.0, "not verified"), (1.1, "refuted")])
def test_proof_needs_slopes_of_size_one_at_most(slope, verdict):
    result = white_noise_loss(jax.random.key(0), np.diag([1.0, slope]), 4, delta=0.1, trials=2, subsets=1)
    assert result.pattern_condition == verdict
    assert result.smallest_singular_value >= 0.1


def test_factor_follows_the_proposition():
    result = white_noise_loss(jax.random.key(0), patterns(2), 5, t=2.5, **DRAWS)
    assert result.factor == pytest.approx((1 + 6 * (2.5 / 40) ** 0.5) * 30 / 40)
    wide = white_noise_loss(jax.random.key(0), patterns(12), 5, **DRAWS)
    assert (wide.factor, wide.mean) == (0.0, 0.0)
    assert abs(wide.simulated_mean) < 1e-12


BAD = {
    "inputs": (ValueError, {"inputs": 0}, "inputs is 0"),
    "trials": (ValueError, {"trials": 1}, "trials is 1; expected an integer ≥ 2"),
    "delta": (ValueError, {"delta": 0.0}, "delta is 0.0"),
    "t": (ValueError, {"t": -1.0}, "t is -1.0"),
    "nan": (ValueError, {"patterns": np.full((3, 2), np.nan)}, "patterns has 6 non-finite"),
    "integers": (TypeError, {"patterns": np.ones((3, 2), int)}, "patterns has dtype int64"),
    "flat": (ValueError, {"patterns": np.ones(3)}, "expected a matrix"),
}


@pytest.mark.parametrize(("error", "change", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input(error, change, message):
    good = {"patterns": np.ones((3, 2)), "inputs": 2, "trials": 5, "subsets": 3}
    with pytest.raises(error, match=message):
        white_noise_loss(jax.random.key(0), **(good | change))
