"""Activations: derivatives and constants against autodiff and 50-digit arithmetic, and the look-up."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from narrow_jax import activations
from narrow_jax.activations import Activation
from narrow_jax.models import pairwise_apply

UNIT = 2.0**-53
# float64: autodiff and the closed form differ by a few roundings of numbers ≤ 2; measured 4e-16
AUTODIFF = 4e-15
# a grid of 240,001 points on [-12, 12] misses an extremum by at most (1e-4)²/8 · |σ''''| ≤ 1e-8
TIGHT = 1e-6
# rounding of autodiff's second derivatives, which are sums of numbers of order 1
ROUNDING = 1e-14

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


def relative_error(value: float, exact: mpmath.mpf) -> float:
    if exact == 0:
        return float(abs(value))
    return float(abs((mpmath.mpf(value) - exact) / exact))


@pytest.mark.parametrize("name", activations.names())
def test_derivative_is_the_one_autodiff_finds(name, x64):
    sigma = activations.get(name)
    z = jnp.asarray(np.random.default_rng(0).uniform(-8, 8, 2000))
    np.testing.assert_allclose(
        sigma.derivative(z), jax.vmap(jax.grad(sigma.fn))(z), rtol=0, atol=AUTODIFF, err_msg=name
    )


@pytest.mark.parametrize("name", activations.names())
def test_derivative_has_relative_accuracy_at_extreme_arguments(name, x64):
    derivative = activations.get(name).derivative
    with mpmath.workdps(50):
        for z in EXTREMES:
            error = relative_error(float(derivative(jnp.asarray(z))), EXACT_DERIVATIVES[name](mpmath.mpf(z)))
            assert error <= ALLOWED_UNITS[name] * UNIT, (name, z, error / UNIT)


def test_one_minus_tanh_squared_has_no_such_accuracy(x64):
    with mpmath.workdps(50):
        exact = EXACT_DERIVATIVES["tanh"](mpmath.mpf(15))
    naive = 1 - float(jnp.tanh(jnp.asarray(15.0))) ** 2
    assert relative_error(naive, exact) > 1e10 * UNIT


@pytest.mark.parametrize(
    "name", [n for n in activations.names() if activations.get(n).derivative_error is not None]
)
def test_stated_derivative_error_holds(name, x64):
    sigma = activations.get(name)
    rng = np.random.default_rng(1)
    z = np.concatenate(
        [rng.uniform(-20, 20, 400), rng.uniform(-340, 340, 100), rng.uniform(-1e-3, 1e-3, 100)]
    )
    values = np.asarray(jax.jit(sigma.derivative)(jnp.asarray(z)))
    with mpmath.workdps(350):
        worst = max(
            relative_error(float(value), EXACT_DERIVATIVES[name](mpmath.mpf(float(t))))
            for t, value in zip(z, values, strict=True)
        )
    assert worst <= sigma.derivative_error * UNIT


@pytest.fixture(scope="module")
def grid():
    return np.linspace(-12.0, 12.0, 240_001)


@pytest.mark.parametrize("name", activations.names())
def test_lipschitz_and_min_derivative_are_tight(name, grid, x64):
    sigma = activations.get(name)
    slopes = jax.vmap(jax.grad(sigma.fn))(jnp.asarray(grid))
    largest, smallest = float(jnp.max(jnp.abs(slopes))), float(jnp.min(slopes))
    assert sigma.lipschitz - TIGHT <= largest <= sigma.lipschitz + ROUNDING
    # tanh' and the like reach 0 only at infinity: at z = 12 they are below 1e-5
    assert sigma.min_derivative - ROUNDING <= smallest <= sigma.min_derivative + max(TIGHT, math.exp(-12.0))


@pytest.mark.parametrize("name", SMOOTH)
def test_sup_second_derivative_is_tight(name, grid, x64):
    sigma = activations.get(name)
    curvature = jax.vmap(jax.grad(jax.grad(sigma.fn)))(jnp.asarray(grid))
    largest = float(jnp.max(jnp.abs(curvature)))
    assert sigma.sup_second_derivative - TIGHT <= largest <= sigma.sup_second_derivative + ROUNDING


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


# a zero away from 0, or a value at 0, that disproves "zero only at zero"
WITNESSES = {"sigmoid": 0.0, "softplus": 0.0, "sin": math.pi, "relu": -1.0}


@pytest.mark.parametrize("name", activations.names())
def test_zero_only_at_zero_is_told_truly(name, x64):
    sigma = activations.get(name)
    if sigma.zero_only_at_zero:
        z = jnp.linspace(1e-6, 8, 4001)
        assert sigma(jnp.zeros(())) == 0
        assert jnp.all(sigma(z) > 0)
        assert jnp.all(sigma(-z) < 0)
    elif WITNESSES[name] == 0:
        assert sigma(jnp.zeros(())) > 0.4
    else:
        assert abs(sigma(jnp.asarray(WITNESSES[name]))) < 2 * UNIT


@pytest.mark.parametrize("name", activations.names())
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtype_is_kept(name, dtype, x64):
    sigma, z = activations.get(name), jnp.asarray([-2.0, 0.0, 0.5], dtype)
    assert sigma(z).dtype == sigma.derivative(z).dtype == z.dtype


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


@pytest.mark.parametrize("wrong", [jnp.tanh, None, 3])
def test_neither_name_nor_activation_is_a_type_error(wrong):
    with pytest.raises(TypeError, match=r"expected a name \(tanh, .*\) or an nj.activations.Activation"):
        activations.get(wrong)
