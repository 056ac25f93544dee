"""Every rank is that of the problem, whatever the scale of samples, inputs, units and layers."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import narrow_jax as nj
from narrow_jax.activations import leaky_relu
from narrow_jax.certificates import stationary_value
from narrow_jax.certificates.depth_width import ranges
from narrow_jax.certificates.depth_width.tangent import tangent
from narrow_jax.certificates.depth_width.theorem1_stationary_value import Status
from narrow_jax.jacobian.khatri_rao import Factors, KhatriRao
from narrow_jax.linalg.rank import numerical_rank
from narrow_jax.solvers import newton

METHODS = ("dense", "qr", "cholesky", "lsmr")
SCALES = st.integers(-40, 40)
NETS = {  # inputs, widths, samples, activation: depths 1 to 5, tall and wide, one output and several
    "shallow": (4, (4, 1), 40, "relu"),
    "deep": (3, (3, 3, 2, 3, 4, 2), 50, leaky_relu(0.3)),
    "wide": (4, (6, 5, 3), 6, "abs"),
    "few reach": (3, (3, 3, 1), 7, "relu"),
    "linear": (3, (3, 2, 2), 20, leaky_relu(1.0)),
}


def problem(name, seed=0):
    inputs, widths, samples, activation = NETS[name]
    rng = np.random.default_rng((seed, sum(map(ord, name))))
    sizes = (inputs, *widths)
    params = {f"w{i}": rng.normal(size=sizes[i - 1 : i + 1]) for i in range(1, len(sizes))}
    return params, rng.normal(size=(samples, inputs)), rng.normal(size=(samples, widths[-1])), activation


def rescaled(params, exponents):
    """The same function, exactly: unit j multiplied by 2^e_j on the way in, divided by it on the way out."""
    scaled = {}
    for layer, w in enumerate(params.values(), start=1):
        below = exponents[layer - 1] if layer > 1 else np.zeros(len(w), int)
        above = exponents[layer] if layer < len(params) else np.zeros(w.shape[1], int)
        scaled[f"w{layer}"] = np.ldexp(w, above[None, :] - below[:, None])
    return scaled


def unit_scales(params, seed):
    rng = np.random.default_rng(seed)
    return {
        layer: rng.integers(-40, 41, size=params[f"w{layer}"].shape[1]) for layer in range(1, len(params))
    }


def exact_gram_schmidt(columns, y):
    """Rank and ½‖(I − P)y‖² in rational numbers."""
    rest, basis = [Fraction(v) for v in y.tolist()], []
    for column in columns.T.tolist():
        vector = [Fraction(v) for v in column]
        for other, square in basis:
            part = sum(map(Fraction.__mul__, vector, other)) / square
            vector = [a - part * b for a, b in zip(vector, other, strict=True)]
        square = sum(v * v for v in vector)
        if square:
            basis.append((vector, square))
            part = sum(map(Fraction.__mul__, rest, vector)) / square
            rest = [a - part * b for a, b in zip(rest, vector, strict=True)]
    return len(basis), float(sum(v * v for v in rest)) / 2


def integers(seed, samples, inputs, rank):
    """A matrix of small integers, exactly of at most this rank."""
    rng = np.random.default_rng(seed)
    left, right = rng.integers(-4, 5, size=(samples, rank)), rng.integers(-4, 5, size=(rank, inputs))
    return (left @ right).astype(float)


# --- Matrices ----------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 8), st.integers(1, 6))
def test_rank_of_a_matrix_is_exact_at_any_scale_of_rows_and_columns(seed, samples, inputs, rank):
    x = integers(seed, samples, inputs, rank)
    rng = np.random.default_rng(seed)
    x *= rng.random(x.shape) < rng.choice([0.4, 1.0])
    true, _ = exact_gram_schmidt(x, np.zeros(samples))
    rows, columns = rng.integers(-40, 41, size=(samples, 1)), rng.integers(-40, 41, size=(1, inputs))
    assert numerical_rank(x) == numerical_rank(np.ldexp(x, rows + columns)) == true


@pytest.mark.parametrize(("end", "degree"), [(1, 12), (1, 14), (1000, 10), (1e-3, 10), (-1, 14)])
def test_polynomial_features_are_independent_in_any_unit(end, degree):
    """t⁰ … tᵏ at more than k points: by columns of length one every singular value is above rounding."""
    t = np.linspace(min(end, 0.0), max(end, 0.0) if end > 0 else 1.0, 100)
    x = np.vander(t, degree + 1)
    assert np.linalg.matrix_rank(x / np.linalg.norm(x, axis=0)) == degree + 1
    exponents = np.random.default_rng(0).integers(-100, 100, size=(len(x), 1))
    assert numerical_rank(x) == numerical_rank(np.ldexp(x, exponents)) == degree + 1
    assert nj.jacobian.admissible_width(x) == 2 * -(-100 // (degree + 1))


def test_rank_of_extreme_and_empty_matrices():
    assert numerical_rank(np.zeros((3, 2))) == numerical_rank(np.zeros((0, 2))) == 0
    assert numerical_rank(np.diag([1e300, 1.0, 1e-300])) == 3
    assert numerical_rank(np.array([[1e300, 1e-300]] * 2)) == 1


@pytest.mark.parametrize("scale", ["rows", "columns"])
def test_width_and_assumptions_see_inputs_in_any_unit(scale):
    units = np.array([1e-12, 1e6, 1.0, 1e-3, 1.0])
    x = np.random.default_rng(0).normal(size=(20, 5))
    x = x * (units if scale == "columns" else np.tile(units, 4)[:, None])
    assert nj.certificates.assumptions(x, x[:, 0], width=8).rank == 5
    assert nj.jacobian.admissible_width(x) == 8
    nj.jacobian.check_width(x, 8, strict=True)
    x[:, 4] = 3 * x[:, 3]  # the control: a unit is no rank
    assert nj.certificates.assumptions(x, x[:, 0], width=8).rank == 4
    assert nj.jacobian.admissible_width(x) == 10


def test_whitening_keeps_columns_in_any_unit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5)) * np.array([1e-12, 1e6, 1.0, 1e-5, 1e3])
    z = nj.data.whiten(x).apply(x).astype(float)
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(5), atol=1e-5)
    dependent = np.column_stack([x, 1e9 * x[:, 0] - 1e-9 * x[:, 1]])
    assert nj.data.whiten(dependent).factor.shape == (6, 5)


@pytest.mark.parametrize("units", [[1e-200, 1e-250, 1e-299], [1e-200, 1.0, 1e140], [1e-155, 1e-290, 1e10]])
@pytest.mark.parametrize("fit", [nj.data.standardize, nj.data.whiten])
def test_columns_whose_squares_underflow_are_not_constant(fit, units):
    x = np.random.default_rng(0).normal(size=(50, 3)) * np.array(units)
    z = fit(x).apply(x).astype(float)
    covariance = np.cov(z.T, bias=True)
    np.testing.assert_allclose(np.diag(covariance), np.ones(3), atol=1e-5)
    if fit is nj.data.whiten:
        np.testing.assert_allclose(covariance, np.eye(3), atol=1e-5)


@pytest.mark.parametrize("fit", [nj.data.standardize, nj.data.whiten, nj.data.scale])
def test_what_counts_as_equal_is_said(fit):
    for x in (2**60 + np.arange(12).reshape(4, 3), 5e-324 * np.arange(12).reshape(4, 3)):
        with pytest.raises(ValueError, match="to 1e-12 of their size or to 1e-"):
            fit(x)


@pytest.mark.parametrize("power", [1, 2])
def test_khatri_rao_power_of_rows_of_unlike_scale(power):
    x = np.random.default_rng(0).normal(size=(3, 3)) * np.array([[1.0], [2.0**-40], [2.0**30]])
    matrix = x if power == 1 else np.stack([np.kron(row, row) for row in x])
    with mpmath.workdps(80):
        truth = float(min(mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False)))
    assert nj.certificates.khatri_rao_sigma_min(x, power) == pytest.approx(truth, rel=1e-12, abs=0)


# --- Deep nets ---------------------------------------------------------------------------------------------


def assert_equal(a, b):
    """All that tells of the function and not of its parametrisation, bit by bit."""
    own = {"sigma_max", "sigma_r", "gradient_norm"}
    for name in set(a._fields) - own:
        first, second = getattr(a, name), getattr(b, name)
        if isinstance(first, tuple):
            assert all(map(np.array_equal, first, second)), name
        else:
            assert np.array_equal(first, second), name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_stationary_value_is_that_of_the_function(name, method):
    params, x, y, activation = problem(name)
    reference = stationary_value(params, x, y, activation, method=method)
    for exponent in (-40, 1, 27, 250):
        whole = {1: np.full(params["w1"].shape[1], exponent)}
        whole |= {layer: 0 * e for layer, e in unit_scales(params, 0).items() if layer > 1}
        assert_equal(reference, stationary_value(rescaled(params, whole), x, y, activation, method=method))
    units = rescaled(params, unit_scales(params, exponent))
    assert_equal(reference, stationary_value(units, x, y, activation, method=method))


@pytest.mark.parametrize("scale", [1.0, 2.0**27, 2.0**-40])
def test_output_weights_by_least_squares_are_not_all_that_counts(scale):
    """With one cutoff for D as it is, 2²⁷ left the block of w2 alone, at whose best values θ looks stationary."""
    rng = np.random.default_rng(0)
    x, w1, y = rng.normal(size=(40, 4)), rng.normal(size=(4, 4)), rng.normal(size=(40, 1))
    w2 = np.linalg.lstsq(np.maximum(x @ w1, 0), y)[0]
    s = stationary_value({"w1": w1 * scale, "w2": w2 / scale}, x, y)
    assert (s.holds, s.status, set(s.ranks.values())) == (False, "resolved", {14})
    assert s.gap > 0.1 * s.baseline
    d = tangent({"w1": w1 * scale, "w2": w2 / scale}, x, "relu")
    raw = np.ldexp(np.concatenate(list(d.column_slabs()), axis=1), d.exponents[None, :])
    if scale > 1:  # the control: what one cutoff makes of D as it is
        assert np.linalg.matrix_rank(raw) < 14


@pytest.mark.parametrize("name", ["shallow", "wide", "linear"])
def test_range_does_not_change_with_inputs_and_weak_units(name):
    """Scales that change the function, but not the range of D: of the inputs, and of a unit's influence."""
    params, x, y, activation = problem(name)
    reference = stationary_value(params, x, y, activation)
    e = np.array([-40, 30, 0, 20][: x.shape[1]])
    other = stationary_value(
        params | {"w1": np.ldexp(params["w1"], -e[:, None])}, np.ldexp(x, e), y, activation
    )
    assert (other.value, other.ranks, other.status) == (reference.value, reference.ranks, reference.status)
    last = f"w{len(params)}"
    weak = {last: np.ldexp(params[last], -30)}
    other = stationary_value(params | weak, x, y, activation)
    assert (other.value, other.ranks) == (reference.value, reference.ranks)


@settings(max_examples=10)
@given(st.sampled_from(list(NETS)), st.integers(1, 10**6))
def test_known_null_space_is_that_of_the_function(name, seed):
    params, x, _, activation = problem(name)
    spaces = []
    for weights in (params, rescaled(params, unit_scales(params, seed))):
        d = tangent(weights, x, activation)
        null = ranges.null_directions(d)
        products = np.stack([d.mv(v) for v in null.T], axis=1)
        assert np.abs(products).max() <= 1e-12
        spaces.append(null)
        assert ranges.NullSpace(d).certain
    np.testing.assert_array_equal(*spaces)


@settings(max_examples=10)
@given(st.integers(1, 10**6))
def test_regression_and_its_bound_are_those_of_the_function(seed):
    x = np.abs(np.random.default_rng(0).normal(size=(20, 3)))
    y = np.random.default_rng(1).normal(size=(20, 1))
    params = nj.certificates.separated_params(jax.random.key(0), x, (4, 3, 1), 0)
    other = rescaled(params, unit_scales(params, seed))
    for layers in ([0], [1, 2], [0, 1, 2]):
        values = [nj.certificates.regression_value(p, x, y, layers) for p in (params, other)]
        assert values[0] == values[1]
    bounds = [nj.certificates.basis_function_bound(p, x, y, [0, 1, 2], 0) for p in (params, other)]
    assert bounds[0].bound == bounds[1].bound
    assert bounds[0].units.reason == bounds[1].units.reason
    assert all(map(np.array_equal, bounds[0].units.sets, bounds[1].units.sets))


# --- Near deficiency ---------------------------------------------------------------------------------------


def near(exponent, seed, activation):
    """Integers but for one input, which is another one and 2^−exponent times integers: exact, and nearly deficient."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 5, size=(12, 3)).astype(float)
    x[:, 2] = x[:, 1] + (np.ldexp(rng.integers(-4, 5, size=12), -exponent) if exponent else 0)
    params = {"w1": rng.integers(-3, 4, size=(3, 3)) + 0.0, "w2": rng.integers(1, 4, size=(3, 1)) + 0.0}
    y = rng.integers(-5, 6, size=(12, 1)).astype(float)
    matrix = np.concatenate(list(tangent(params, x, activation).column_slabs()), axis=1)
    return params, x, y, exact_gram_schmidt(matrix, y[:, 0])


@pytest.mark.parametrize("method", METHODS[:3])
@pytest.mark.parametrize("exponent", [0, 20, 27, 36, 40, 43, 46])
def test_resolved_ranks_and_values_are_the_exact_ones(exponent, method):
    statuses = set()
    for seed, activation in enumerate(["relu", "abs"] * 3):
        params, x, y, (rank, value) = near(exponent, seed, activation)
        s = stationary_value(params, x, y, activation, method=method)
        statuses.add(s.status)
        if s.status == "resolved":
            assert set(s.ranks.values()) == {rank}
            # rounding turns the range by eps·σ_max/σ_r
            assert abs(s.value - value) <= 4 * 2.0 ** (exponent - 52) * s.baseline
    assert ("resolved" in statuses) == (exponent <= 36)
    if exponent > 27:
        assert statuses & {"no_gap", "cutoff_dependent"}


@pytest.mark.parametrize("method", METHODS[:3])
def test_samples_too_small_to_be_seen_leave_no_rank_resolved(method):
    """Rows of D are no columns: a scale of samples does change its range, and here a block falls below all cutoffs."""
    params, x, y, activation = problem("few reach")
    x[3:] = np.ldexp(x[3:], -60)
    s = stationary_value(params, x, y, activation, method=method)
    assert s.status != "resolved"


def test_status_says_what_it_means():
    assert set(Status.__members__) == {"resolved", "no_gap", "cutoff_dependent", "estimate"}
    assert "no gap shows it" in Status.no_gap.value


# --- White noise and Newton's factor -----------------------------------------------------------------------


def test_white_noise_sees_patterns_of_any_scale():
    slopes = np.random.default_rng(0).uniform(0.2, 1.0, (30, 3))
    for scale in (np.ones(3), np.array([1.0, 2.0**-40, 2.0**-60])):
        found = nj.certificates.white_noise_loss(jax.random.key(0), slopes * scale, 2, trials=9, subsets=3)
        assert set(found.ranks) == {6}


def test_white_noise_takes_the_largest_delta_that_the_patterns_leave():
    ones = np.random.default_rng(0).integers(0, 2, (2000, 2)).astype(float)
    options = {"inputs": 1, "trials": 2, "subsets": 5}
    found = nj.certificates.white_noise_loss(jax.random.key(0), ones, **options)
    assert found.delta == found.smallest_singular_value > 10
    assert (found.size_condition, found.pattern_condition) == (True, "not verified")
    small = nj.certificates.white_noise_loss(jax.random.key(0), ones, delta=0.1, **options)
    assert (small.delta, small.size_condition) == (0.1, False)
    equal = nj.certificates.white_noise_loss(jax.random.key(0), ones[:, [0, 0]], **options)
    assert (equal.delta, equal.size_condition, equal.pattern_condition) == (0.0, False, "refuted")
    assert equal.allowed == 1.0


@pytest.mark.parametrize(
    ("shape", "inputs", "rows", "order"),
    [
        ((20, 12), 1, 10, 12),
        ((20, 10), 1, 10, 10),
        ((20, 3), 2, 10, 3),
        ((6, 8), 2, 4, 4),
        ((3, 20), 1, 3, 3),
    ],
)
def test_white_noise_asks_for_injective_patterns(shape, inputs, rows, order):
    """‖Λ_I V‖ ≥ δ‖V‖ for d·m < n: no Λ_I of fewer rows than columns has it, whatever its other singular values."""
    patterns = np.random.default_rng(0).uniform(size=shape)
    found = nj.certificates.white_noise_loss(jax.random.key(0), patterns, inputs, trials=2, subsets=4)
    assert (found.pattern_condition == "refuted") == (order > rows)
    assert (found.smallest_singular_value > 0) == (order <= rows)
    assert (found.delta, found.size_condition) == (found.smallest_singular_value, False)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_pivots_do_not_change_with_the_scale_of_samples_and_output_weights(dtype):
    rng = np.random.default_rng(0)
    x, d = rng.normal(size=(6, 4)), rng.normal(size=(6, 1, 4))
    scale = np.ldexp(1.0, rng.integers(-20, 21, size=(6, 1)))

    def jacobian(a, b):
        return KhatriRao((Factors(jnp.asarray(a), jnp.asarray(b), None),), jnp.zeros((), jnp.int32))

    pivots = [
        float(newton.Factor.of(jacobian(a, b), dtype).pivot)
        for a, b in ((x, d), (x * scale, d), (x, 2.0**-20 * d))
    ]
    assert pivots[0] == pivots[1] == pivots[2] > 0
