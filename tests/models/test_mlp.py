"""The deep net: against NumPy layer by layer, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from narrow_jax.models import MLP, mlp_apply, mlp_layers


def test_equals_the_layers_one_by_one():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    net = MLP(widths=(7, 4, 2), activation="tanh")
    variables = net.init(jax.random.key(1), x)
    w1, w2, w3 = (np.asarray(variables["params"][name], np.float64) for name in ("w1", "w2", "w3"))
    expected = np.tanh(np.tanh(x @ w1) @ w2) @ w3
    np.testing.assert_allclose(net.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_one_layer_is_linear():
    params = {"w1": jnp.array([[1.0], [-2.0]])}
    np.testing.assert_array_equal(mlp_apply(params, jnp.array([[3.0, 1.0]])), [[1.0]])


def test_draw_has_variance_one_over_inputs():
    variables = MLP(widths=(400, 300)).init(jax.random.key(0), jnp.ones((1, 100)))
    for name, inputs in (("w1", 100), ("w2", 400)):
        # 40,000 and more entries: the deviation of the sample variance is below 0.7 %
        assert float(variables["params"][name].var()) * inputs == pytest.approx(1, abs=0.03)


def test_ten_layers_keep_their_order():
    params = {f"w{layer}": jnp.full((1, 1), 1.0 + (layer == 10)) for layer in range(1, 11)}
    assert float(mlp_layers(params)[-1][0, 0]) == 2.0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"w1": np.ones((2, 3)), "b1": np.ones(3)}, "leaves b1, w1; expected w1, w2"),
        ({}, "leaves none"),
        ({"w1": np.ones((2, 3)), "w2": np.ones((4, 1))}, r"shapes \[\(2, 3\), \(4, 1\)\]"),
        ({"w1": np.ones(3)}, r"shapes \[\(3,\)\]"),
    ],
)
def test_params_that_do_not_chain_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        mlp_layers(params)


def test_data_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"x has shape \(5, 4\); expected \(n, 3\)"):
        mlp_apply({"w1": jnp.ones((3, 1))}, jnp.ones((5, 4)))
