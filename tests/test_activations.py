"""Activations: derivatives and constants against autodiff and 50-digit arithmetic, and the look-up."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import mpmath
import numpy as np
import pytest

from narrow_jax import activations
from narrow_jax.activations import Activation
from narrow_jax.models import pairwise_apply

UNIT = 2.0**-53
# float64: autodiff and the closed form differ by a few roundings of numbers ≤ 2; measured 4e-16
AUTODIFF = 4e-15
# a grid of 240,001 points on [-20, 20] misses an extremum by (8e-5)²/2·|σ''''| ≤ 1e-8, a limit by exp(-20)
TIGHT = 1e-6
# rounding of autodiff's second derivatives, which are sums of numbers of order 1
ROUNDING = 1e-14

STATED = [name for name in activations.names() if activations.get(name).derivative_error is not None]
SMOOTH = [name for name in activations.names() if name != "relu"]


def sigmoid(z: mpmath.mpf) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-z))


EXACT_DERIVATIVES = {
    "tanh": lambda z: 1 - mpmath.tanh(z) ** 2,
    "sigmoid": lambda z: sigmoid(z) * (1 - sigmoid(z)),
    "softplus": sigmoid,
    "gelu": lambda z: mpmath.diff(lambda t: t * mpmath.ncdf(t), z),
    "sin": mpmath.cos,
    "erf": lambda z: mpmath.diff(mpmath.erf, z),
    "relu": lambda z: mpmath.mpf(z > 0),
}
# relative errors of σ' in units of 2⁻⁵³ at the points below; measured 3, 3, 2, 74, 1, 194.
# exp(−z²) carries the rounding of z², z² units of it: 225 at z = 15
ALLOWED_UNITS = {"tanh": 9, "sigmoid": 9, "softplus": 9, "gelu": 250, "sin": 2, "erf": 460, "relu": 0}
EXTREMES = [-15.0, -8.0, -3.25, -1.5, -0.3, -1e-9, 1e-9, 0.3, 1.5, 3.25, 8.0, 15.0]


GRID = np.linspace(-20.0, 20.0, 240_001)
SCATTERED = np.concatenate([np.random.default_rng(1).uniform(-r, r, 150) for r in (1e-3, 1.5, 20.0, 800.0)])


class Table(NamedTuple):
    """σ and derivatives at GRID, then EXTREMES, then SCATTERED: stated ones first, then by autodiff."""

    value: np.ndarray
    stated: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    stated_curvature: np.ndarray


@functools.cache
def table(name: str) -> Table:
    sigma = activations.get(name)

    def row(z):
        slope, curvature = jax.grad(sigma.fn), jax.grad(jax.grad(sigma.fn))
        derivative = sigma.derivative
        return Table(sigma.fn(z), derivative(z), slope(z), curvature(z), jax.grad(derivative)(z))

    with jax.enable_x64(True):
        points = jnp.asarray(np.concatenate([GRID, EXTREMES, SCATTERED]))
        return Table(*map(np.asarray, jax.jit(jax.vmap(row))(points)))


def on_grid(values: np.ndarray) -> np.ndarray:
    return values[: GRID.size]


def relative_error(value: float, exact: mpmath.mpf) -> float:
    return float(abs((mpmath.mpf(float(value)) - exact) / exact)) if exact else float(abs(value))


@pytest.mark.parametrize("name", activations.names())
def test_derivative_is_the_one_autodiff_finds(name):
    found = table(name)
    np.testing.assert_allclose(found.stated, found.slope, rtol=0, atol=AUTODIFF)


@pytest.mark.parametrize("name", activations.names())
def test_derivative_has_relative_accuracy_at_extreme_arguments(name):
    stated = table(name).stated[GRID.size :]
    with mpmath.workdps(50):
        for z, value in zip(EXTREMES, stated[: len(EXTREMES)], strict=True):
            error = relative_error(value, EXACT_DERIVATIVES[name](mpmath.mpf(z)))
            assert error <= ALLOWED_UNITS[name] * UNIT, (z, error / UNIT)


def test_one_minus_tanh_squared_has_no_such_accuracy():
    with mpmath.workdps(50):
        exact = EXACT_DERIVATIVES["tanh"](mpmath.mpf(15))
    assert relative_error(1 - math.tanh(15.0) ** 2, exact) > 1e10 * UNIT


@pytest.mark.parametrize("name", STATED)
def test_stated_derivative_error_holds(name):
    sigma = activations.get(name)
    assert sigma.derivative_range > 800
    with mpmath.workdps(750):
        for z, value in zip(SCATTERED, table(name).stated[-SCATTERED.size :], strict=True):
            exact = EXACT_DERIVATIVES[name](mpmath.mpf(float(z)))
            allowed = sigma.derivative_error * UNIT * abs(exact) + mpmath.mpf(2) ** -90
            assert abs(mpmath.mpf(float(value)) - exact) <= allowed, z


@pytest.mark.parametrize("name", activations.names())
def test_lipschitz_and_min_derivative_are_tight(name):
    sigma, slopes = activations.get(name), on_grid(table(name).slope)
    assert sigma.lipschitz - TIGHT <= np.abs(slopes).max() <= sigma.lipschitz + ROUNDING
    assert sigma.min_derivative - ROUNDING <= slopes.min() <= sigma.min_derivative + TIGHT


@pytest.mark.parametrize("name", SMOOTH)
def test_sup_second_derivative_is_tight(name):
    stated, largest = (
        activations.get(name).sup_second_derivative,
        np.abs(on_grid(table(name).curvature)).max(),
    )
    assert stated - TIGHT <= largest <= stated + ROUNDING


@pytest.mark.parametrize("name", SMOOTH)
def test_log_derivative_lipschitz_is_tight(name):
    stated = activations.get(name).log_derivative_lipschitz
    found = table(name)
    largest = np.abs(on_grid(found.stated_curvature) / on_grid(found.stated)).max()
    if stated == math.inf:
        assert largest > 30  # grows like |z|, or σ' vanishes and σ'' does not
    else:
        assert stated - TIGHT <= largest <= stated + ROUNDING


def test_relu_is_marked_as_outside_the_theory():
    relu = activations.get("relu")
    assert not relu.analytic
    assert not relu.zero_only_at_zero
    assert relu.sup_second_derivative == math.inf


@pytest.mark.parametrize("name", SMOOTH)
def test_analytic_activations_have_a_taylor_series(name):
    with mpmath.workdps(50):
        fn = {
            "tanh": mpmath.tanh,
            "sigmoid": sigmoid,
            "softplus": lambda z: mpmath.log(1 + mpmath.exp(z)),
            "gelu": lambda z: z * mpmath.ncdf(z),
            "sin": mpmath.sin,
            "erf": mpmath.erf,
        }[name]
        series = mpmath.taylor(fn, 0, 12)
        exact = sum(c * mpmath.mpf("0.1") ** i for i, c in enumerate(series))
    assert activations.get(name).analytic
    assert sum(abs(c) > mpmath.mpf(10) ** -20 for c in series[6:]) >= 3
    # the library's function is that series' function: float32 has 24 bits
    assert float(activations.get(name)(jnp.float32(0.1))) == pytest.approx(float(exact), rel=2e-7)


# where σ is 0 away from 0, or is not 0 at 0: what disproves "zero only at zero"
WITNESSES = {
    "sigmoid": (0.0, 0.5),
    "softplus": (0.0, math.log(2)),
    "sin": (math.pi, 0.0),
    "relu": (-1.0, 0.0),
}


@pytest.mark.parametrize("name", activations.names())
def test_zero_only_at_zero_is_told_truly(name, x64):
    sigma = activations.get(name)
    assert sigma.zero_only_at_zero == (name not in WITNESSES)
    if sigma.zero_only_at_zero:
        np.testing.assert_array_equal(np.sign(on_grid(table(name).value)), np.sign(GRID))
    else:
        z, value = WITNESSES[name]
        assert float(sigma(jnp.asarray(z))) == pytest.approx(value, abs=2 * UNIT)


@pytest.mark.parametrize("name", activations.names())
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtype_is_kept(name, dtype, x64):
    sigma = activations.get(name)
    value, slope = jax.eval_shape(lambda z: (sigma(z), sigma.derivative(z)), jnp.zeros(3, dtype))
    assert value.dtype == slope.dtype == dtype


CUBE = Activation("cube", lambda z: z**3, lambda z: 3 * z**2, math.inf, 0.0, math.inf)


def test_users_own_activation_goes_wherever_a_name_does():
    assert activations.get(CUBE) is CUBE
    assert CUBE.derivative_error is None
    params = {"w": jnp.array([[1.0, 2.0, -1.0, 3.0]]), "v": jnp.array([[2.0], [5.0]])}
    # 2·(1³ − (−1)³) + 5·(2³ − 3³) = 4 − 95, at x = 2 times 2³
    np.testing.assert_allclose(
        pairwise_apply(params, jnp.array([[1.0], [2.0]]), activation=CUBE), [[-91.0], [-728.0]], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("wrong", "close"), [("tahn", "'tanh'"), ("sigmod", "'sigmoid'"), ("Relu", "'relu'")]
)
def test_unknown_name_names_close_matches(wrong, close):
    with pytest.raises(ValueError, match=rf"unknown activation '{wrong}': did you mean .*{close}") as raised:
        activations.get(wrong)
    assert all(name in str(raised.value) for name in activations.names())


def test_unknown_name_far_from_all_lists_them_without_a_guess():
    with pytest.raises(ValueError, match=r"unknown activation 'xyzzy': Expected one of tanh, "):
        activations.get("xyzzy")


@pytest.fixture
def unchecked():
    """Switch the suite's type checks off: they would speak before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("wrong", [jnp.tanh, None, 3])
def test_neither_name_nor_activation_is_a_type_error(wrong, unchecked):
    with pytest.raises(TypeError, match=r"expected a name \(tanh, .*\) or an nj.activations.Activation"):
        activations.get(wrong)
