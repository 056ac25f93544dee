"""Theorems 1 (iv) and 2 for nets of any depth: the nice region, KKT points of loss 0, and the loss at any point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.certificates.narrow_nets.theorem2_loss_bound import residual_bound
from narrow_jax.jacobian import Net

SHAPES = [  # samples, inputs, outputs, units of the layers of a half, activation
    (2, 2, 1, (3, 2), "tanh"),
    (1, 1, 1, (1, 1), "sin"),
    (2, 3, 2, (3,), "sigmoid"),
    (1, 2, 1, (1, 1, 1), "sin"),
    (3, 2, 1, "one hidden layer", "tanh"),
    (1, 1, 1, "one hidden layer", "sin"),
]
POINTS = 170


def start(shape, seed, scale=1.0):
    _, d, k, widths, _ = shape
    key, cone = jax.random.key(seed), {"inputs": d, "outputs": k, "dtype": jnp.float64}
    with jax.enable_x64(True):
        if isinstance(widths, str):
            center = nj.initializers.mirrored_lecun(key, width=4 * d + 2, **cone)
            center["w"] = scale * center["w"]
        else:
            center = nj.initializers.mirrored_mlp(key, widths=widths, scale=scale, **cone)
        return jax.tree.map(np.asarray, center)


def values(params, x, activation):
    apply = nj.models.pairwise_apply if "w" in params else nj.models.pairwise_mlp_apply
    with jax.enable_x64(True):
        return np.asarray(apply(params, x, activation))


def moved(center, rng, distance):
    """The hidden weights at that distance in a random direction, v scaled and perturbed."""
    hidden = {name: leaf for name, leaf in center.items() if name != "v"}
    step = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), hidden)
    size = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(step)))
    w = jax.tree.map(lambda leaf, change: leaf + change * distance / size, hidden, step)
    growth = rng.choice([1.0, 1 / min(distance, 1.0)]) * 10 ** rng.uniform(-1, 1)
    return {**w, "v": center["v"] * growth * np.exp(0.3 * rng.normal(size=center["v"].shape))}


def adversarial(shape, seed):
    """Weights, start, data, and labels: any, near what the net gives, or beyond it, where v and w push outward."""
    rng = np.random.default_rng(seed)
    n, d, k, _, activation = shape
    center = start(shape, seed % 7, scale=10 ** rng.uniform(-0.5, 0.7))
    x = rng.normal(size=(n, d)) * 10 ** rng.uniform(-1, 1)
    params = moved(center, rng, 10 ** rng.uniform(-10, 1))
    f = values(params, x, activation)
    noise = rng.normal(size=(n, k))
    y = [noise, f + noise * 10 ** rng.uniform(-8, 0), f * (1 + 10 ** rng.uniform(-8, 0))][rng.integers(3)]
    return params, center, x, y


def parts(params, center, x, y, activation):
    """σ_min by the dense SVD, the net, the start with the same v, and ‖f − y‖."""
    net = Net.of(params, activation)
    first = Net.of({**center, "v": params["v"]}, activation)
    with jax.enable_x64(True):
        J = np.asarray(net.jacobian(x).dense())
    values_of_J = np.linalg.svd(J, compute_uv=False)
    sigma = values_of_J[-1] - 1e-13 * values_of_J[0] if J.shape[0] <= J.shape[1] else 0.0
    return net, first, sigma, np.linalg.norm(values(params, x, activation) - y)


def distance(net, first):
    return np.sqrt(
        sum(
            np.sum((a - b) ** 2)
            for half, other in zip(net.halves, first.halves, strict=True)
            for a, b in zip(half, other, strict=True)
        )
    )


def ratios(shape, points, weaker=1.0):
    """‖f − y‖ over its bound where there is one; L divided by ``weaker``."""
    found = []
    for seed in range(points):
        params, center, x, y = adversarial(shape, seed)
        net, first, sigma, size = parts(params, center, x, y, shape[-1])
        slope = lipschitz(first, x, distance(net, first) * (1 + 1e-9)) / weaker
        bound = residual_bound(net, first, x, y, sigma, slope)
        found += [size / bound] if np.isfinite(bound) else []
    return np.array(found)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_loss_is_above_its_bound(shape):
    found = ratios(shape, POINTS)
    assert len(found) > POINTS / 3
    assert found.max() <= 1
