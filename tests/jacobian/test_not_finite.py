"""Models whose predictions or derivatives are not finite: refused by name, and never certified."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj

RNG = np.random.default_rng(0)
WEIGHTS = {"a": RNG.normal(size=(5, 20)), "b": RNG.normal(size=(20, 1))}
X = RNG.normal(size=(30, 5))


def logarithm(w, x):
    """log u, whose derivative 1/u is finite where u < 0 and log u is not."""
    return jnp.log(jnp.tanh(x @ w["a"]) @ w["b"])


def root(w, x):
    """√0, finite, with a derivative that is not."""
    return jnp.sqrt(jnp.sum((x @ w["a"]) * 0, 1))


def overflowing(w, x):
    return jnp.exp(1e4 * x @ w["a"])


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize(
    ("apply_fn", "message"),
    [
        (logarithm, r"row \d+ of apply_fn\(params, x\) is nan in float64; expected finite predictions"),
        (root, r"the derivative of row 0 of apply_fn\(params, x\) is nan"),
        (overflowing, r"is inf in float64"),
    ],
)
def test_what_is_not_finite_is_refused(apply_fn, message, mode):
    with pytest.raises(ValueError, match=message):
        nj.jacobian.autodiff(apply_fn, WEIGHTS, X, mode=mode)


def test_one_sample_too():
    row = X[np.isnan(np.asarray(logarithm(WEIGHTS, X))[:, 0])][:1]
    J = nj.jacobian.autodiff(logarithm, WEIGHTS, row)
    for answer in (nj.sigma_min, nj.singular_values, nj.condition_number, nj.effective_rank):
        with pytest.raises(ValueError, match="J has entries that are not finite"):
            answer(J)


def test_a_token_out_of_range_is_refused():
    embed = nn.Embed(50, 4)
    tokens = np.array([[1], [49], [50]])
    params = embed.init(jax.random.key(0), tokens)
    assert nj.jacobian.autodiff(embed.apply, params, tokens[:2]).shape == (8, 200)
    with pytest.raises(ValueError, match=r"row 2 of apply_fn\(params, x\) is nan.* embedding's range"):
        nj.jacobian.autodiff(embed.apply, params, tokens)


def test_in_a_program_nothing_is_certified():
    s = jax.jit(lambda w, x: nj.sigma_min(nj.jacobian.autodiff(logarithm, w, x)))
    sound = X[~np.isnan(np.asarray(logarithm(WEIGHTS, X))[:, 0])]
    assert s(WEIGHTS, sound).status == "certified"
    assert s(WEIGHTS, X).status == "not_converged"
    assert np.isnan(s(WEIGHTS, X).value)
