"""What a user states of an activation: refused where samples refute it, accepted where it is honest."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax import activations
from narrow_jax.activations import Activation, checking

INF = math.inf
TANH, RELU, SIGMOID, SIN, SOFTPLUS = map(activations.get, ("tanh", "relu", "sigmoid", "sin", "softplus"))
SMOOTH = activations.smooth_leaky_relu(0.5, 1.0)


def stating(sigma, **fields):
    return dataclasses.replace(sigma, **fields)


def within(sigma, radius, instead):
    """The derivative, replaced by a number beyond a radius."""
    return lambda z: jnp.where(jnp.abs(z) <= radius, sigma.derivative(z), instead)


def kinked(jump):
    return Activation(
        "kinked",
        lambda z: jnp.tanh(z) + jump * jnp.maximum(z - 3.7, 0),
        lambda z: TANH.derivative(z) + jnp.where(z > 3.7, jump, 0.0),
        lipschitz=1 + jump,
        min_derivative=0.0,
        sup_second_derivative=1.0,
        derivative_error=9.0,
    )


@jax.custom_jvp
def claimed(z):
    return jnp.tanh(z)


claimed.defjvp(lambda z, t: (jnp.tanh(z[0]), jnp.cos(z[0]) * t[0]))

# the field that is wrong, and part of what is said of it
LIES = {
    "another derivative": (stating(TANH, derivative=jnp.cos), "derivative", "differences of fn give"),
    "a rule of autodiff that lies": (
        stating(SIN, fn=claimed, derivative=jnp.cos, value=None),
        "derivative",
        "differences of fn give",
    ),
    "a derivative off by 1e-9": (
        stating(TANH, derivative=lambda z: TANH.derivative(z) + 1e-9),
        "derivative",
        "autodiff of fn gives",
    ),
    "a derivative in float32": (
        stating(TANH, derivative=lambda z: TANH.derivative(z.astype(jnp.float32)).astype(z.dtype)),
        "derivative",
        "autodiff of fn gives",
    ),
    "right up to 10": (stating(TANH, derivative=within(TANH, 10, 0.0)), "derivative", "autodiff of fn gives"),
    "right up to 25": (stating(TANH, derivative=within(TANH, 25, 0.0)), "log_derivative_lipschitz", "near"),
    "right up to 100": (stating(SOFTPLUS, derivative=within(SOFTPLUS, 100, 0.5)), "derivative", "give"),
    "NaN far out": (
        stating(SIGMOID, derivative=lambda z: jnp.exp(-z) / (1 + jnp.exp(-z)) ** 2),
        "derivative = nan",
        "autodiff of fn gives",
    ),
    "S₂ too small": (stating(TANH, sup_second_derivative=0.1), "sup_second_derivative = 0.1", "near 0.7"),
    "S₂ too small by 1 %": (
        stating(TANH, sup_second_derivative=0.762),
        "sup_second_derivative",
        "near 0.769",
    ),
    "S₂ with a kink": (kinked(1.0), "sup_second_derivative = 1", "at z = 3.7"),
    "S₂ with a small kink": (kinked(1e-3), "sup_second_derivative = 1", "at z = 3.7"),
    "Lipschitz": (stating(TANH, lipschitz=0.99), "lipschitz = 0.99", "σ' is 1 at"),
    "inf σ'": (stating(SMOOTH, min_derivative=0.51, smoothing=None), "min_derivative = 0.51", "σ' is 0.5 at"),
    "log σ'": (stating(TANH, log_derivative_lipschitz=1.9), "log_derivative_lipschitz = 1.9", "near 1.99"),
    "value off by 1e-10": (
        stating(TANH, value=lambda z: TANH.value(z) + 1e-10),
        "value = 1e-10",
        "fn gives",
    ),
    "σ(0) = 1e-60": (
        stating(TANH, fn=lambda z: jnp.tanh(z) + 1e-60, value=None),
        "zero_only_at_zero = True",
        "fn gives 1e-60 at z = 0",
    ),
    "a zero at 1": (
        Activation(
            "double",
            lambda z: z * (z - 1) ** 2,
            lambda z: (z - 1) * (3 * z - 1),
            INF,
            -1.0,
            INF,
            zero_only_at_zero=True,
        ),
        "zero_only_at_zero = True",
        "fn gives 0 at z = 1",
    ),
    "a change of sign": (stating(SIN, zero_only_at_zero=True), "zero_only_at_zero", "fn changes its sign"),
    "zero on a side": (stating(RELU, zero_only_at_zero=True), "zero_only_at_zero", "fn gives -?0 at z = -"),
    "not homogeneous": (stating(TANH, homogeneous=True), "homogeneous = True", r"fn\(2z\)/2 differs"),
    "not smoothed": (stating(TANH, smoothing=1.0), "smoothing = 1", "differs from that of s"),
    "smoothed by less": (stating(SMOOTH, smoothing=0.3), "smoothing = 0.3", "differs from that of s"),
    "a kink": (
        stating(RELU, fn=jax.nn.relu, derivative=lambda z: jnp.where(z > 0, 1.0, 0.0), analytic=True),
        "analytic = True",
        "fn is linear or",
    ),
    "a polynomial": (
        Activation("square", jnp.square, lambda z: 2 * z, INF, -INF, 2.0, analytic=True),
        "analytic = True",
        "a polynomial of degree",
    ),
    "in a unit": (
        activations.per_unit(["abs", stating(TANH, lipschitz=0.5)]),
        "lipschitz = 0.5",
        "σ' is 1 at",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_samples_refute_is_refused(lie):
    sigma, stated, found = LIES[lie]
    with pytest.raises(ValueError, match=rf"activation '.*' states {stated}.*, but .*{found}.*: correct it"):
        activations.check(sigma)


HONEST = {
    "cube": Activation("cube", lambda z: z**3, lambda z: 3 * z**2, INF, 0.0, INF),
    "square": Activation("square", jnp.square, lambda z: 2 * z, INF, -INF, 2.0),
    "exp": Activation("exp", jnp.exp, jnp.exp, INF, 0.0, INF, analytic=True),
    "elu": Activation(
        "elu", jax.nn.elu, lambda z: jnp.where(z > 0, 1.0, jnp.exp(jnp.minimum(z, 0.0))), 1.0, 0.0, 1.0
    ),
    "hard tanh": Activation(
        "hard", lambda z: jnp.clip(z, -1.0, 1.0), lambda z: jnp.where(jnp.abs(z) < 1, 1.0, 0.0), 1.0, 0.0, INF
    ),
    "fast": Activation("fast", lambda z: jnp.sin(1e5 * z) / 1e5, lambda z: jnp.cos(1e5 * z), 1.0, -1.0, 1e5),
    "arctan": Activation(
        "arctan", jnp.arctan, lambda z: 1 / (1 + z * z), 1.0, 0.0, 0.6496, 3.0, analytic=True
    ),
    "loose bounds": stating(TANH, lipschitz=3.0, sup_second_derivative=9.0, min_derivative=-1.0),
    "without reverse mode": stating(
        TANH,
        fn=lambda z: jax.lax.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, jnp.tanh(c[1])), (0, z))[1],
    ),
    "float32 that claims nothing": Activation(
        "single",
        lambda z: jnp.tanh(z.astype(jnp.float32)).astype(z.dtype),
        lambda z: TANH.derivative(z.astype(jnp.float32)).astype(z.dtype),
        1.0,
        0.0,
        0.77,
    ),
    "linear": activations.leaky_relu(1.0),
    "leaky": activations.leaky_relu(-0.3),
    "bent narrowly": activations.smooth_leaky_relu(1e-3, 1e6),
    "bent widely": activations.smooth_leaky_relu(0.9, 1e-6),
    "units": activations.per_unit(["abs", "tanh", activations.leaky_relu(0.2)]),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_activations_pass(name):
    assert activations.check(HONEST[name]) is HONEST[name]


@pytest.mark.parametrize("name", activations.names())
def test_stock_activations_would_pass(name):
    checking.examine(activations.get(name))


def test_the_same_check_inside_a_traced_function():
    liar = stating(TANH, lipschitz=0.9)

    def traced(x):
        with pytest.raises(ValueError, match="lipschitz"):
            activations.check(liar)
        activations.check(stating(TANH, lipschitz=2.0))
        return x

    jax.jit(jax.vmap(jax.grad(traced)))(jnp.ones(3))


def test_a_name_and_a_second_call_cost_nothing(monkeypatch):
    sigma = stating(TANH, lipschitz=2.5)
    activations.check(sigma)
    monkeypatch.setattr(checking, "_grid", None)
    assert activations.check(sigma) is sigma
    assert activations.check("tanh") is TANH


@pytest.fixture
def unchecked():
    """Switch the suite's type checks off: they would speak before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"lipschitz": math.nan}, ValueError, r"states lipschitz = nan; expected a number ≥ 0: sup \|σ'\|"),
        ({"lipschitz": -1.0}, ValueError, "states lipschitz = -1.0; expected a number ≥ 0"),
        ({"min_derivative": math.nan}, ValueError, "states min_derivative = nan; expected a number: inf σ'"),
        (
            {"min_derivative": 2.0},
            ValueError,
            "states min_derivative = 2.0 and lipschitz = 1.0; expected inf σ' ≤",
        ),
        (
            {"sup_second_derivative": -0.1},
            ValueError,
            "states sup_second_derivative = -0.1; expected a number ≥ 0",
        ),
        ({"sup_second_derivative": math.nan}, ValueError, "states sup_second_derivative = nan"),
        ({"log_derivative_lipschitz": math.nan}, ValueError, "states log_derivative_lipschitz = nan"),
        ({"derivative_error": -1.0}, ValueError, "states derivative_error = -1.0; .*roundings of derivative"),
        ({"derivative_range": math.nan}, ValueError, "states derivative_range = nan"),
        ({"value_error": -1.0}, ValueError, "states value_error = -1.0"),
        ({"smoothing": math.nan}, ValueError, "states smoothing = nan"),
        ({"lipschitz": None}, TypeError, "states lipschitz = None; expected a number"),
        ({"lipschitz": "1"}, TypeError, "states lipschitz = '1'; expected a number"),
        ({"analytic": "yes"}, TypeError, "states analytic = 'yes'; expected True or False"),
        ({"fn": 3}, TypeError, "states fn = 3; expected a function"),
        ({"derivative": None}, TypeError, "states derivative = None; expected a function"),
        ({"value": 1.0}, TypeError, "states value = 1.0; expected a function"),
    ],
)
def test_constants_that_no_function_has_are_refused_at_once(fields, error, message, unchecked):
    with pytest.raises(error, match=rf"activation 'tanh' {message}"):
        stating(TANH, **fields)


LIAR = stating(TANH, name="liar", derivative=jnp.cos)
PARAMS = {"w": np.ones((2, 4)), "v": np.ones((2, 1))}


@pytest.mark.parametrize(
    "relying",
    [
        lambda sigma, x: nj.jacobian.pairwise(PARAMS, x, sigma),
        lambda sigma, x: nj.jacobian.standard({**PARAMS, "v": np.ones((4, 1))}, x, sigma),
    ],
)
def test_what_relies_on_the_constants_asks_for_the_check(relying):
    x = np.random.default_rng(0).normal(size=(3, 2))
    with pytest.raises(ValueError, match="activation 'liar' states derivative"):
        relying(LIAR, x)
    with pytest.raises(ValueError, match="activation 'liar' states derivative"):
        jax.jit(lambda x: nj.sigma_min(relying(LIAR, x)).value)(x)
