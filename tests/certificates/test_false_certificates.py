"""Problems with which a certificate once said what is false: f(0) ≠ 0, layers that are computed as 0, L(0) = 0."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets.residuals import norms
from narrow_jax.jacobian.nets import vanishes

MIDDLE = ("tanh", "sigmoid", "tanh")  # a_2(0) = ½, so that f(0) depends on the weights


def one(value):
    return np.array([[float(value)]])


def pair(plus, minus, v=1.0):
    halves = [{f"w{i}": one(w) for i, w in enumerate(half, start=1)} for half in (plus, minus)]
    return {"plus": halves[0], "minus": halves[1], "v": one(v)}


def affine(name, at_zero, **stated):
    return Activation(
        name,
        lambda z: z + at_zero,
        jnp.ones_like,
        lipschitz=1.0,
        min_derivative=1.0,
        sup_second_derivative=0.0,
        derivative_error=0.0,
        value=lambda z: z + at_zero,
        value_error=1.0,
        **stated,
    )


@pytest.mark.parametrize(
    ("names", "paired", "known"),
    [
        (MIDDLE, True, False),
        (("tanh", "tanh", "sigmoid"), True, True),
        (("tanh", "tanh", "sigmoid"), False, False),
        (("sigmoid",), True, True),
        (("sigmoid",), False, False),
        (("sin", "relu", "tanh"), False, True),
        (("softplus", "tanh"), True, False),
    ],
)
def test_where_the_net_is_0_at_0(names, paired, known):
    sigmas = tuple(map(nj.activations.get, names))
    assert vanishes(sigmas, paired) == known
    assert nj.activations.per_unit(names).vanishes == vanishes(sigmas, False)


@pytest.mark.parametrize(
    "name", ["tanh", "sin", "relu", "abs", "gelu", "swish", "sigmoid", "softplus", "cos"]
)
def test_what_vanishes_is_0_at_0(name):
    if name != "cos":
        sigma = nj.activations.get(name)
        assert sigma.vanishes == (float(sigma(jnp.zeros(()))) == 0)


def test_a_computed_zero_is_not_believed():
    """softplus(z) − log 2 is 0 at 0 as computed, and ln 2 − fl(ln 2) in truth."""
    softplus = nj.activations.get("softplus")
    shifted = Activation(
        "shifted",
        lambda z: softplus(z) - np.log(2),
        softplus.derivative,
        1.0,
        0.0,
        0.25,
        derivative_error=softplus.derivative_error,
    )
    with jax.enable_x64(True):
        assert float(shifted(jnp.zeros(()))) == 0
    assert not shifted.vanishes


def test_a_zero_sample_that_the_middle_layer_lifts():
    """Three layers: the sample x = 0 with label 0 has to be learnt, and is."""
    x = np.random.default_rng(0).normal(size=(3, 2))
    x[2] = 0
    y = np.array([0.3, -0.2, 0.0])
    m = nj.memorize(jax.random.key(0), x, y, widths=(4, 4, 4), radius=0.05, activation=MIDDLE)
    with jax.enable_x64(True):
        f = nj.models.pairwise_mlp_apply(m.params, x, MIDDLE)
    assert m.certificate.holds
    assert np.abs(np.ravel(f) - y).max() < 1e-9


def test_no_region_around_a_stationary_point_of_positive_loss():
    params = pair((1.3, 2.1, 1.7), (-0.6, 0.8, 0.9))
    x = np.array([[0.7], [-1.1], [2.0], [-2.7], [4.0], [-0.3], [0.0]])
    with jax.enable_x64(True):
        hidden = {half: params[half] for half in ("plus", "minus")}
        flat, unravel = jax.flatten_util.ravel_pytree(hidden)

        def f(w):
            return nj.models.pairwise_mlp_apply({**unravel(w), "v": params["v"]}, x, MIDDLE).reshape(-1)

        J, start = np.asarray(jax.jacobian(f)(flat)), np.asarray(f(flat))
        # r with Jᵀr = 0, whose last entry is f(0), so that the label of x = 0 is 0
        rest = -np.linalg.solve(J[:-1].T, J[-1] * start[-1])
        y = start - np.append(rest, start[-1])
    y[-1] = 0.0
    assert np.linalg.norm(J.T @ (start - y)) < 1e-12
    assert np.linalg.norm(start - y) > 0.5
    assert not nj.certificates.nice_region(params, x, MIDDLE, y=y).holds


def test_a_layer_that_is_computed_as_0():
    """tanh(1e-20) is computed as 0, which W_2's columns are multiples of: they are the largest in truth."""
    params = {"w1": one(1), "w2": one(1e-6), "w3": one(1)}
    x = one(1e-20)
    J = nj.jacobian.mlp(params, x, "tanh", wrt=["w1", "w2"])
    s = nj.sigma_min(J)
    with mpmath.workdps(60):
        a = mpmath.tanh(mpmath.mpf(1e-20))
        truth = float(mpmath.hypot(a, a * mpmath.mpf(1e-6)))
    assert s.lower <= truth <= s.upper
    assert norms(J).jacobian >= truth
    bound = nj.certificates.gradient_bound(params, x, np.array([1.0]), "tanh", wrt=["w1", "w2"])
    assert bound.gradient_norm >= truth


def test_a_step_that_diverges_is_not_certified():
    """‖J‖ = 1e-20·V lies in the columns of W_2, computed as 0."""
    half = (1.0, 1e-6)
    params = pair(half, half, v=2.0**120)
    c = nj.certificates.gradient_descent(params, one(1e-20), np.array([1.0]))
    assert c.beta >= 1e-20 * 2.0**120
    assert not c.holds or c.learning_rate < 2 / (2 * (1e-20 * 2.0**120) ** 2)


def test_no_lipschitz_constant_at_the_centre_is_none_in_the_ball():
    """W = 0: L(0) = 0. At (1, −1, 0) the gradient is 0, and the loss ½ for y = 1."""
    identity, lifted = affine("z", 0.0, zero_only_at_zero=True), affine("z + 1", 1.0)
    sigmas = (identity, lifted, identity)
    zero = {"w1": one(0), "w2": one(0), "w3": one(0), "w4": one(1)}
    region = nj.certificates.nice_region(zero, one(1), sigmas)
    assert region.radius < np.sqrt(2)
    assert region.lipschitz > 0 or not region.holds


def test_samples_that_are_all_0_leave_nothing_to_learn():
    params = {"w1": np.ones((2, 2)), "w2": np.ones((2, 2)), "w3": np.ones((2, 1))}
    c = nj.certificates.gradient_descent(params, np.zeros((2, 2)), np.zeros(2))
    assert c.holds
    assert "nothing to learn" in c.reason


def test_a_large_kappa_does_not_overflow():
    params = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=2, width=4)
    c = nj.certificates.gradient_descent(params, np.eye(2), np.ones(2), wrt="all", zeta=1e-3, kappa=1e200)
    assert c.reason


@pytest.mark.parametrize("name", ["nice_region", "memorization", "kkt", "gradient_descent"])
def test_a_net_without_hidden_layer_is_named(name):
    params, x, y = {"w1": np.ones((2, 1))}, np.ones((2, 2)), np.ones(2)
    arguments = {
        "nice_region": (params, x),
        "memorization": (params, params, x, y),
        "kkt": (params, params, x, y, 0.1),
        "gradient_descent": (params, x, y),
    }[name]
    with pytest.raises(ValueError, match="hidden layer"):
        getattr(nj.certificates, name)(*arguments)
