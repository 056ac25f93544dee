"""What looks at values says so by name when it is traced, and computes as before when it is not."""

import jax
import numpy as np
import optax
import pytest

import narrow_jax as nj

C, S = nj.certificates, nj.solvers
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 4))
Y = np.sign(X[:, 0])
PAIR = nj.initializers.mirrored_lecun(KEY, inputs=4, width=16)
DEEP = nj.initializers.pyramidal(KEY, inputs=4, widths=(8, 1))
LEAKY = nj.activations.smooth_leaky_relu(0.5, 1.0)
CALLS = {
    "memorize": lambda x, y: nj.memorize(KEY, x, y, radius=0.1),
    "solve_kkt": lambda x, y: S.solve_kkt(KEY, x, y, radius=0.1, width=8),
    "interpolate": lambda x, y: S.interpolate(lambda w, x: x @ w, np.ones((4, 5)), x, y, 0.1),
    "pyramidal_start": lambda x, y: S.pyramidal_start(KEY, x, y[:, None], (8, 1), LEAKY),
    "memorization": lambda x, y: C.memorization(PAIR, PAIR, x, y, 0.1),
    "nice_region": lambda x, y: C.nice_region(PAIR, x),
    "kkt": lambda x, y: C.kkt(PAIR, PAIR, x, y, 0.1),
    "natural_residual": lambda x, y: C.natural_residual(PAIR, PAIR, x, y, 0.1),
    "gradient_descent": lambda x, y: C.gradient_descent(PAIR, x, y),
    "gradient_bound": lambda x, y: C.gradient_bound(PAIR, x, y),
    "assumptions": lambda x, y: C.assumptions(x, y, 16),
    "stationary_value": lambda x, y: C.stationary_value(DEEP, x, y[:, None], "relu"),
    "linear_units": lambda x, y: C.linear_units(DEEP, x, "relu"),
    "pyramidal": lambda x, y: C.pyramidal(DEEP, x, y[:, None], LEAKY),
    "lambda_star": lambda x, y: C.lambda_star(x, "tanh"),
    "khatri_rao_sigma_min": lambda x, y: C.khatri_rao_sigma_min(x, 2),
    "hermite_coefficients": lambda x, y: C.hermite_coefficients("tanh", 3),
    "check_width": lambda x, y: nj.jacobian.check_width(x, 8, 1),
    "check_widths": lambda x, y: nj.jacobian.check_widths(x, (8, 8), 1),
    "fit": lambda x, y: nj.fit(nj.models.pairwise_apply, PAIR, optax.sgd(0.1), (x, y), steps=2),
    "whiten": lambda x, y: nj.data.whiten(x),
    "standardize": lambda x, y: nj.data.standardize(x),
    "scale": lambda x, y: nj.data.scale(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_traced_call_is_refused_by_name(name):
    with pytest.raises(TypeError, match=rf"^{name} looks at values and cannot be traced"):
        jax.jit(lambda x, y: CALLS[name](x, y))(X, Y)


def test_other_transformations_are_refused_too():
    def value(x):
        return C.lambda_star(x, "tanh").value

    for call in (lambda: jax.vmap(value)(X[None]), lambda: jax.grad(value)(X.astype(np.float32))):
        with pytest.raises(TypeError, match="lambda_star looks at values"):
            call()


def test_concrete_arrays_inside_jit_are_refused_as_well():
    """Under jit whatever JAX computes is traced, even from constants."""
    with pytest.raises(TypeError, match="nice_region looks at values"):
        jax.jit(lambda: C.nice_region(PAIR, X).radius)()


def test_outside_they_run():
    assert CALLS["nice_region"](X, Y).radius >= 0
    assert CALLS["whiten"](X, Y).apply(X).shape == X.shape
