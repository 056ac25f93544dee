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

GAMMA, BETA = 0.5, 1.0
EXAMPLES = {name: activations.get(name) for name in activations.names()} | {
    "leaky relu": activations.leaky_relu(0.3),
    "smooth leaky relu": activations.smooth_leaky_relu(GAMMA, BETA),
}
KINKED = ("relu", "abs", "leaky relu")
STATED = [name for name, sigma in EXAMPLES.items() if sigma.derivative_error is not None]
SMOOTH = [name for name in EXAMPLES if name not in KINKED]


def sigmoid(z: mpmath.mpf) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-z))


def smoothing() -> mpmath.mpf:
    return (1 - GAMMA) / (BETA * mpmath.sqrt(2 * mpmath.pi))


def smooth_leaky_relu(z: mpmath.mpf) -> mpmath.mpf:
    """Equation (2) as the text has it: the leaky ReLU averaged over a Gaussian, shifted to σ(0) = 0."""
    shift = (1 - GAMMA) ** 2 / (2 * mpmath.pi * BETA)
    weight = lambda u: max(GAMMA * u, u) * mpmath.npdf(u, z, smoothing())  # noqa: E731
    return mpmath.quad(weight, [z - 4, -1, 0, 1, z + 4] if abs(z) < 2 else [z - 4, z, z + 4]) - shift


def mish(z: mpmath.mpf) -> mpmath.mpf:
    return z * mpmath.tanh(mpmath.log(1 + mpmath.exp(z)))


def gelu_tanh(z: mpmath.mpf) -> mpmath.mpf:
    return z / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf("0.044715") * z**3)))


EXACT_DERIVATIVES = {
    "swish": lambda z: sigmoid(z) * (1 + z * sigmoid(-z)),
    "silu": lambda z: mpmath.diff(lambda t: t * sigmoid(t), z),
    "mish": lambda z: mpmath.diff(mish, z),
    "gelu_tanh": lambda z: mpmath.diff(gelu_tanh, z),
    "tanh": lambda z: 1 - mpmath.tanh(z) ** 2,
    "sigmoid": lambda z: sigmoid(z) * (1 - sigmoid(z)),
    "softplus": sigmoid,
    "gelu": lambda z: mpmath.diff(lambda t: t * mpmath.ncdf(t), z),
    "sin": mpmath.cos,
    "erf": lambda z: mpmath.diff(mpmath.erf, z),
    "relu": lambda z: mpmath.mpf(z > 0),
    "abs": mpmath.sign,
    "leaky relu": lambda z: mpmath.mpf(1) if z > 0 else mpmath.mpf(0.3),
    "smooth leaky relu": lambda z: GAMMA + (1 - GAMMA) * mpmath.ncdf(z / smoothing()),
}
# relative errors of σ' in units of 2⁻⁵³ at the points below; measured 3, 3, 2, 74, 1, 194, 2, 2, 10, 6 (mish at −1.5,
# where its two terms nearly cancel and XLA as shipped contracts them: 3 under the suite's flags).
# exp(−z²) carries the rounding of z², z² units of it: 225 at z = 15
ALLOWED_UNITS = {
    "tanh": 9,
    "sigmoid": 9,
    "softplus": 9,
    "gelu": 250,
    "sin": 2,
    "erf": 460,
    "swish": 4,
    "silu": 4,
    "mish": 12,
    "gelu_tanh": 12,
}
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
    sigma = EXAMPLES[name]

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


@pytest.mark.parametrize("name", EXAMPLES)
def test_derivative_is_the_one_autodiff_finds(name):
    found = table(name)
    np.testing.assert_allclose(found.stated, found.slope, rtol=0, atol=AUTODIFF)


@pytest.mark.parametrize("name", EXAMPLES)
def test_derivative_has_relative_accuracy_at_extreme_arguments(name):
    stated = table(name).stated[GRID.size :]
    with mpmath.workdps(50):
        for z, value in zip(EXTREMES, stated[: len(EXTREMES)], strict=True):
            error = relative_error(value, EXACT_DERIVATIVES[name](mpmath.mpf(z)))
            assert error <= ALLOWED_UNITS.get(name, 1) * UNIT, (z, error / UNIT)


def test_one_minus_tanh_squared_has_no_such_accuracy():
    with mpmath.workdps(50):
        exact = EXACT_DERIVATIVES["tanh"](mpmath.mpf(15))
    assert relative_error(1 - math.tanh(15.0) ** 2, exact) > 1e10 * UNIT


@pytest.mark.parametrize("by", ["JAX", "NumPy"])
@pytest.mark.parametrize("name", STATED)
def test_stated_derivative_error_holds(name, by):
    sigma = EXAMPLES[name]
    assert sigma.derivative_range > 800
    by_numpy = sigma.derivative(SCATTERED)
    assert isinstance(by_numpy, np.ndarray)
    stated = table(name).stated[-SCATTERED.size :] if by == "JAX" else by_numpy
    with mpmath.workdps(750):
        for z, value in zip(SCATTERED, stated, strict=True):
            exact = EXACT_DERIVATIVES[name](mpmath.mpf(float(z)))
            allowed = sigma.derivative_error * UNIT * abs(exact) + mpmath.mpf(2) ** -90
            assert abs(mpmath.mpf(float(value)) - exact) <= allowed, z


@pytest.mark.parametrize("name", EXAMPLES)
def test_lipschitz_and_min_derivative_are_tight(name):
    sigma, slopes = EXAMPLES[name], on_grid(table(name).slope)
    assert sigma.lipschitz - TIGHT <= np.abs(slopes).max() <= sigma.lipschitz + ROUNDING
    assert sigma.min_derivative - ROUNDING <= slopes.min() <= sigma.min_derivative + TIGHT


@pytest.mark.parametrize("name", SMOOTH)
def test_sup_second_derivative_is_tight(name):
    stated, largest = (
        EXAMPLES[name].sup_second_derivative,
        np.abs(on_grid(table(name).curvature)).max(),
    )
    assert stated - TIGHT <= largest <= stated + ROUNDING


@pytest.mark.parametrize("name", SMOOTH)
def test_log_derivative_lipschitz_is_tight(name):
    stated = EXAMPLES[name].log_derivative_lipschitz
    found = table(name)
    largest = np.abs(on_grid(found.stated_curvature) / on_grid(found.stated)).max()
    if stated == math.inf:
        assert largest > 30  # grows like |z|, or σ' vanishes and σ'' does not
    else:
        # β/γ for the smooth leaky ReLU bounds σ'' and 1/σ' apart, where they are not extreme together
        lower = 0 if name == "smooth leaky relu" else stated - TIGHT
        assert lower <= largest <= stated + ROUNDING


def test_smooth_leaky_relu_is_the_gaussian_average_of_the_leaky_relu(x64):
    sigma = EXAMPLES["smooth leaky relu"]
    points = [-5.0, -0.7, -1e-3, 0.0, 0.2, 1.9, 6.0]
    np.testing.assert_allclose(
        [float(sigma(jnp.asarray(z))) for z in points],
        [float(smooth_leaky_relu(mpmath.mpf(z))) for z in points],
        rtol=1e-13,
        atol=1e-15,
    )


def test_smooth_leaky_relu_goes_to_the_leaky_relu_as_beta_grows(x64):
    leaky, z = activations.leaky_relu(GAMMA), jnp.asarray(GRID)
    gaps = [
        float(jnp.abs(activations.smooth_leaky_relu(GAMMA, beta)(z) - leaky(z)).max())
        for beta in (1, 10, 100)
    ]
    # at most the shift (1 − γ)²/(2πβ)
    np.testing.assert_array_less(gaps, (1 - GAMMA) ** 2 / (2 * np.pi * np.array([1, 10, 100])) * (1 + 1e-9))


@pytest.mark.parametrize("name", KINKED)
def test_homogeneous_activations_are(name):
    z = jnp.linspace(-3.0, 3.0, 25)
    assert EXAMPLES[name].homogeneous
    np.testing.assert_allclose(EXAMPLES[name](4.0 * z), 4.0 * EXAMPLES[name](z))


@pytest.mark.parametrize("slope", [-1.01, 1.5, math.nan])
def test_bad_slope_is_refused(slope):
    with pytest.raises(ValueError, match=r"slope is .*; expected a number in \[-1, 1\]"):
        activations.leaky_relu(slope)


@pytest.mark.parametrize(
    ("gamma", "beta", "message"),
    [
        (0.0, 1.0, "gamma is 0.0"),
        (1.0, 1.0, "gamma is 1.0"),
        (math.nan, 1.0, "gamma is nan"),
        (0.5, 0.0, "beta is 0"),
    ],
)
def test_bad_smoothing_is_refused(gamma, beta, message):
    with pytest.raises(ValueError, match=message):
        activations.smooth_leaky_relu(gamma, beta)


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
            "swish": lambda z: z * sigmoid(z),
            "silu": lambda z: z * sigmoid(z),
            "mish": mish,
            "gelu_tanh": gelu_tanh,
            "smooth leaky relu": lambda z: (
                GAMMA * z
                + (1 - GAMMA)
                * (
                    z * mpmath.ncdf(z / smoothing())
                    + smoothing() * (mpmath.npdf(z / smoothing()) - mpmath.npdf(0))
                )
            ),
        }[name]
        series = mpmath.taylor(fn, 0, 12)
        exact = sum(c * mpmath.mpf("0.1") ** i for i, c in enumerate(series))
    assert EXAMPLES[name].analytic
    assert sum(abs(c) > mpmath.mpf(10) ** -20 for c in series[6:]) >= 3
    # the library's function is that series' function: float32 has 24 bits
    assert float(EXAMPLES[name](jnp.float32(0.1))) == pytest.approx(float(exact), rel=2e-7)


# where σ is 0 away from 0, or is not 0 at 0: what disproves "zero only at zero"
WITNESSES = {
    "sigmoid": (0.0, 0.5),
    "softplus": (0.0, math.log(2)),
    "sin": (math.pi, 0.0),
    "relu": (-1.0, 0.0),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_zero_only_at_zero_is_told_truly(name, x64):
    sigma = EXAMPLES[name]
    assert sigma.zero_only_at_zero == (name not in WITNESSES)
    if sigma.zero_only_at_zero:
        np.testing.assert_array_equal(on_grid(table(name).value) == 0, GRID == 0)
    else:
        z, value = WITNESSES[name]
        assert float(sigma(jnp.asarray(z))) == pytest.approx(value, abs=2 * UNIT)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtype_is_kept(name, dtype, x64):
    sigma = EXAMPLES[name]
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
