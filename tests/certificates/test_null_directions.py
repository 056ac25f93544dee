"""Weights that may move without moving the outputs: all of them, and no others."""

import numpy as np
import pytest
from descent import jacobian
from homogeneous_nets import problem

from narrow_jax.activations import leaky_relu
from narrow_jax.certificates.depth_width import ranges
from narrow_jax.certificates.depth_width.tangent import tangent

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("name", ["tall", "tall, one output", "narrow end", "a unit each"])
def test_null_directions_are_one_a_hidden_unit_and_all_there_are(name):
    params, x, _, activation = problem(name, seed=1)
    d = tangent(params, x, activation)
    live = [unit for slopes in d.slopes for unit in slopes.T if unit.any()]
    vectors = ranges.null_directions(d)
    products = np.stack([d.mv(v) for v in vectors.T], axis=1)
    assert np.abs(products).max() <= 1e-13 * np.abs(vectors).max()
    null = ranges.NullSpace(d)
    s = np.linalg.svd(jacobian(params, x, activation), compute_uv=False)
    assert null.size == int(np.sum(s > 1e-11 * s[0]))
    patterns = [len(np.unique(slopes, axis=1).T) for slopes in d.slopes]
    if patterns == [slopes.shape[1] for slopes in d.slopes]:
        assert null.count == len(live)


LINEAR = {  # inputs, units, outputs, ranks of the weights into and out of the units
    "one output": (4, 6, 1, 4, 1),
    "wide": (2, 5, 8, 2, 5),
    "bottleneck": (6, 3, 4, 3, 3),
    "low ranks": (4, 5, 3, 2, 2),
    "nothing out": (3, 4, 2, 3, 0),
}


def linear(inputs, units, outputs, into, out):
    """Weights of these ranks."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(inputs, into)) @ rng.normal(size=(into, units))
    return {"w1": first, "w2": rng.normal(size=(units, out)) @ rng.normal(size=(out, outputs))}


@pytest.mark.parametrize("sizes", LINEAR.values(), ids=LINEAR.keys())
def test_units_of_equal_patterns_have_all_their_null_directions(sizes):
    """(Ẇ_in, Ẇ_out) ↦ Ẇ_in W_out + W_in Ẇ_out has rank d·s + r·k − r·s where W_in has rank r and W_out rank s."""
    inputs, _, outputs, r, s = sizes
    params, x = linear(*sizes), np.random.default_rng(1).normal(size=(20, inputs))
    d = tangent(params, x, leaky_relu(1.0))
    rank = inputs * s + r * outputs - r * s
    D = jacobian(params, x, leaky_relu(1.0))
    assert np.linalg.matrix_rank(D, tol=1e-10) == ranges.NullSpace(d).size == rank
    vectors = ranges.null_directions(d)
    assert vectors.shape[1] == ranges.null_count(d) == d.columns - rank
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1)
    assert max(np.abs(d.mv(v)).max() for v in vectors.T) < 1e-12


@pytest.mark.parametrize("name", ["tall", "four layers"])
def test_dead_units_add_no_null_directions(name):
    params, x, _, _ = problem(name)
    x = np.abs(x)
    alive = ranges.null_directions(tangent(params, x, "relu"))
    dead = -np.ones((x.shape[1], 50)), np.ones((50, params["w2"].shape[1]))
    more = params | {
        "w1": np.concatenate([params["w1"], dead[0]], axis=1),
        "w2": np.concatenate([params["w2"], dead[1]]),
    }
    d = tangent(more, x, "relu")
    assert ranges.null_directions(d).shape[1] == alive.shape[1]
    assert ranges.NullSpace(d).size == ranges.NullSpace(tangent(params, x, "relu")).size
