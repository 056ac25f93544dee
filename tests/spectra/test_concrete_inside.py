"""What is known stays known inside of jit, grad and vmap of something else; integers stop no derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype(np.float32)
TOKENS = RNG.integers(0, 4, size=(5, 6))
PARAMS = {"w": RNG.normal(size=(4, 3)).astype(np.float32), "v": RNG.normal(size=(3, 1)).astype(np.float32)}
HIDDEN = {f"w{i + 1}": RNG.normal(size=size) for i, size in enumerate([(4, 5), (5, 5), (5, 1)])}


def net(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def embedding(params, tokens):
    return jnp.tanh(params["w"][tokens].sum(axis=1)) @ params["v"]


OPERATORS = {
    "autodiff": lambda: nj.jacobian.autodiff(net, PARAMS, X),
    "standard": lambda: nj.jacobian.standard(PARAMS, X),
    "mlp": lambda: nj.jacobian.mlp(HIDDEN, X),
    "tall": lambda: nj.jacobian.explicit(np.outer(np.arange(6.0), [1.0, 2.0])),
}
NUMBERS = {
    "sigma_min": lambda J: nj.sigma_min(J).value,
    "sigma_max": lambda J: nj.sigma_min(J, "qr").sigma_max,
    "singular_values": lambda J: nj.singular_values(J).values[0],
    "effective_rank": nj.effective_rank,
    "mv": lambda J: J.mv(np.ones(J.shape[1], np.float32))[0],
}
AROUND = {
    "jit": lambda number: jax.jit(lambda s: s * number())(np.float32(2)) / 2,
    "grad": lambda number: jax.grad(lambda s: s * number())(np.float32(2)),
    "vmap": lambda number: jax.vmap(lambda s: s * number())(jnp.full(2, 2, np.float32))[1] / 2,
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_known_operator_is_a_constant(operator, number, around):
    def found():
        return jnp.float32(NUMBERS[number](OPERATORS[operator]()))

    np.testing.assert_allclose(AROUND[around](found), found(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", ["sigma_min", "singular_values", "effective_rank"])
def test_gradients_with_integers_among_the_data(number):
    def f(params):
        return NUMBERS[number](nj.jacobian.autodiff(embedding, params, TOKENS))

    slope, step = jax.grad(f)(PARAMS), 2.0**-7
    direction = jax.tree.map(lambda leaf: np.float32(RNG.normal(size=leaf.shape)), PARAMS)
    ends = [
        f(jax.tree.map(lambda a, b, s=s: a + np.float32(s) * b, PARAMS, direction)) for s in (-step, step)
    ]
    along = sum(jax.tree.leaves(jax.tree.map(lambda a, b: np.sum(a * b), slope, direction)))
    assert along == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=2e-2, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_known_bounds_stay_bounds_in_float32(seed):
    """Both would be rounded to the nearest, and so to one number beside the truth."""
    J = nj.jacobian.explicit(np.random.default_rng(seed).normal(size=(4, 9)))
    exact, values = nj.sigma_min(J), nj.singular_values(J)

    @jax.jit
    def inside(scale):
        s, found = nj.sigma_min(J), nj.singular_values(J)
        return scale * s.lower, scale * s.upper, s.status_code, scale * found.values, found.bounds

    lower, upper, code, found, bounds = map(np.asarray, inside(np.float32(1)))
    assert code == exact.status_code
    assert lower.dtype == np.float32
    assert float(lower) <= float(exact.lower) < float(exact.upper) <= float(upper)
    assert (np.abs(found.astype(float) - values.values) <= bounds).all()
