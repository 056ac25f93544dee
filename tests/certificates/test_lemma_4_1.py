"""Lemma 4.1 of the pyramidal nets: closed-form gradients and Jacobians of the deep net, and its PL-type bound."""

import functools
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyramids import WIDTHS, autodiff, problem, sigma

ROUNDING = 1e-12  # relative to the size of products of matrices below 100 × 100


def start(layers, seed=0):
    params, x, y = problem(WIDTHS[layers], seed=seed, targets=1.0)
    rng = np.random.default_rng(seed + 1)
    return {name: rng.normal(size=w.shape) for name, w in params.items()}, x, y


def vec(a):
    """Columns one below the other."""
    return a.T.ravel()


def closed_forms(params, x, y):
    """F, Σ and A_p = Σ_{p−1}(W_p ⊗ I_N) of the lemma, by Kronecker products."""
    weights = [params[f"w{i}"] for i in range(1, len(params) + 1)]
    layers, sigmas = [x], []
    for w in weights[:-1]:
        with jax.enable_x64(True):
            values, slopes = sigma(layers[-1] @ w)
            layers.append(np.asarray(values))
            sigmas.append(np.diag(vec(np.asarray(slopes))))
    steps = [
        slopes @ np.kron(w, np.eye(len(x))) for slopes, w in zip(sigmas, weights[1:], strict=True)
    ]  # A_2 … A_L
    return weights, layers, sigmas, steps, vec(layers[-1] @ weights[-1] - y)


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_gradients_and_jacobians_are_the_closed_forms(layers, x64):
    params, x, y = start(layers)
    output, gradient, jacobian = autodiff(params, x, y)
    weights, features, _, steps, residual = closed_forms(params, x, y)
    np.testing.assert_allclose(vec(np.asarray(output) - y), residual, atol=ROUNDING)
    for layer, w in enumerate(weights, start=1):
        front = np.kron(np.eye(w.shape[1]), features[layer - 1].T)
        product = functools.reduce(np.matmul, steps[layer - 1 :], np.eye(len(x) * w.shape[1]))
        scale = np.linalg.norm(front @ product)
        np.testing.assert_allclose(
            vec(np.asarray(gradient[f"w{layer}"])), front @ product @ residual, atol=ROUNDING * scale
        )
        # rows in the order of vec(F_L), columns in that of vec(W_l)
        mine = np.asarray(jacobian[f"w{layer}"]).transpose(1, 0, 3, 2).reshape(residual.size, -1)
        np.testing.assert_allclose(mine, (front @ product).T, atol=ROUNDING * scale)


@given(st.integers(0, 10_000), st.sampled_from([2, 3, 5]))
def test_gradient_of_the_second_layer_has_the_lower_bound(seed, layers):
    params, x, y = start(layers, seed)
    with jax.enable_x64(True):
        gradient = np.asarray(autodiff(params, x, y)[1]["w2"])
    weights, features, sigmas, _, residual = closed_forms(params, x, y)

    def smallest(a):
        return np.linalg.svd(a, compute_uv=False)[-1]

    bound = smallest(features[1]) * np.linalg.norm(residual)
    bound *= math.prod(
        smallest(slopes) * smallest(w) for slopes, w in zip(sigmas[1:], weights[2:], strict=True)
    )
    assert bound > 0
    assert np.linalg.norm(gradient) >= bound * (1 - ROUNDING)


def test_bound_fails_for_a_net_that_widens():
    """Without the pyramid the product has a null space, and the gradient can vanish."""
    params, x, y = problem((8, 1, 3), targets=1.0)
    params["w2"] = np.random.default_rng(1).normal(size=(8, 1))
    params["w3"] = np.array([[1.0, 0.0, 0.0]])
    with jax.enable_x64(True):
        output = np.asarray(autodiff(params, x, y)[0])
        y = output + np.array([[0.0, 1.0, 1.0]])  # the error is orthogonal to what W_2 can reach
        gradient = np.asarray(autodiff(params, x, y)[1]["w2"])
    assert np.linalg.norm(gradient) < ROUNDING
