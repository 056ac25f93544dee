"""Jacobians of deep nets and pairs: sums of Khatri–Rao products against dense autodiff, and their bad inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import narrow_jax as nj
from narrow_jax.jacobian import mlp, pairwise_mlp

SLR = nj.activations.smooth_leaky_relu(0.5, 1.0)
CASES = [  # widths, k, σ
    ((4,), 1, "tanh"),
    ((5, 6), 3, "tanh"),
    ((4, 3, 5), 1, "softplus"),
    ((3, 4, 3, 4), 2, "sin"),
    ((6, 5), 1, SLR),
    ((4, 4, 4, 4, 4), 1, "tanh"),
    ((3, 3, 3, 3, 3, 3), 3, "softplus"),
    ((6, 7), 2, "relu"),
    ((5, 4, 3), 1, "relu"),
    ((), 2, "tanh"),
]
IDS = [f"{len(widths)} layers, {k} outputs, {getattr(s, 'name', s)}" for widths, k, s in CASES]
N, D = 7, 4
TOLERANCE = 1e-12  # times κ; measured: at most 2e-14


def net(widths, k, seed=0):
    rng = np.random.default_rng(seed)
    sizes = (D, *widths, k)
    return {
        f"w{layer + 1}": 1.5 * rng.normal(size=sizes[layer : layer + 2]) / np.sqrt(sizes[layer])
        for layer in range(len(sizes) - 1)
    }


def pair(widths, k, mirrored=False):
    first, second = net(widths, k), net(widths, k, seed=0 if mirrored else 1)
    v = first.pop(f"w{len(widths) + 1}")
    del second[f"w{len(widths) + 1}"]
    return {"plus": first, "minus": second, "v": v}


def data(n=N):
    return np.random.default_rng(5).normal(size=(n, D))


def dense(apply_fn, params, x, wrt=None):
    """∂f/∂θ by reverse mode, columns as ``ravel_pytree`` orders the leaves; of some leaves only where named."""
    with jax.enable_x64(True):
        chosen = {name: leaf for name, leaf in params.items() if wrt is None or name in wrt}
        chosen = jax.tree.map(jnp.asarray, chosen)
        flat, back = ravel_pytree(chosen)
        return np.asarray(jax.jacrev(lambda t: apply_fn({**params, **back(t)}, x).reshape(-1))(flat))


def check(J, reference):
    rng = np.random.default_rng(9)
    p, u = rng.normal(size=reference.shape[1]), rng.normal(size=reference.shape[0])
    values = np.linalg.svd(reference, compute_uv=False)
    size = values[0]
    with jax.enable_x64(True):
        assert J.shape == reference.shape
        np.testing.assert_allclose(J.dense(), reference, atol=TOLERANCE * size, rtol=0)
        np.testing.assert_allclose(J.gram(), reference @ reference.T, atol=TOLERANCE * size**2, rtol=0)
        np.testing.assert_allclose(J.mv(p), reference @ p, atol=TOLERANCE * size * np.linalg.norm(p), rtol=0)
        np.testing.assert_allclose(
            J.rmv(u), reference.T @ u, atol=TOLERANCE * size * np.linalg.norm(u), rtol=0
        )
        assert float(J.bilinear(u, p)) == pytest.approx(u @ reference @ p, abs=1e-11 * size)
    s = nj.sigma_min(J)
    smallest = values[-1] if reference.shape[0] <= reference.shape[1] else 0.0
    assert abs(s.value - smallest) <= TOLERANCE * size
    assert s.lower <= smallest * (1 + TOLERANCE)
    assert smallest * (1 - TOLERANCE) <= s.upper + TOLERANCE * size


@pytest.mark.parametrize(("widths", "k", "activation"), CASES, ids=IDS)
def test_a_net_against_reverse_mode(widths, k, activation):
    params, x = net(widths, k), data()
    reference = dense(lambda p, x: nj.models.mlp_apply(p, x, activation), params, x)
    check(mlp(params, x, activation), reference)


@pytest.mark.parametrize(("widths", "k", "activation"), CASES[1:6], ids=IDS[1:6])
def test_a_pair_against_reverse_mode(widths, k, activation):
    params, x = pair(widths, k), data()
    reference = dense(
        lambda p, x: nj.models.pairwise_mlp_apply(p, x, activation), params, x, wrt=("plus", "minus")
    )
    check(pairwise_mlp(params, x, activation), reference)


@pytest.mark.parametrize("wrt", ["w1", "w3", ["w1", "w2"], ["w3", "w2"]])
def test_some_layers(wrt):
    params, x = net((4, 5), 2), data()
    names = [wrt] if isinstance(wrt, str) else wrt
    reference = dense(lambda p, x: nj.models.mlp_apply(p, x, "tanh"), params, x, wrt=names)
    check(mlp(params, x, wrt=wrt), reference)


def test_the_columns_of_ten_layers_are_those_of_the_flattened_leaves():
    params, x = net((2,) * 10, 1), data(3)  # "w10" and "w11" come before "w2"
    reference = dense(lambda p, x: nj.models.mlp_apply(p, x, "sin"), params, x)
    with jax.enable_x64(True):
        np.testing.assert_allclose(mlp(params, x, "sin").dense(), reference, atol=1e-12, rtol=0)


def test_each_layer_has_its_activation():
    params, x = net((4, 5), 1), data()
    reference = dense(lambda p, x: nj.models.mlp_apply(p, x, ("sin", "tanh")), params, x)
    check(mlp(params, x, ("sin", "tanh")), reference)


def test_one_hidden_layer_is_the_same_operator():
    rng = np.random.default_rng(3)
    w, v, x = rng.normal(size=(D, 6)), rng.normal(size=(6, 2)), data()
    with jax.enable_x64(True):
        one = nj.jacobian.standard({"w": w, "v": v}, x)
        deep = mlp({"w1": w, "w2": v}, x, wrt="w1")
        assert np.array_equal(one.dense(), deep.dense())
        assert np.array_equal(one.gram(), deep.gram())
    assert nj.sigma_min(one).upper == nj.sigma_min(deep).upper


def test_at_a_mirrored_start_sigma_min_is_root_two_of_one_net():
    params, x = pair((5, 4), 1, mirrored=True), data()
    one = nj.sigma_min(mlp({**params["plus"], "w3": params["v"]}, x, wrt=["w1", "w2"]))
    two = nj.sigma_min(pairwise_mlp(params, x))
    assert two.value == pytest.approx(np.sqrt(2) * one.value, rel=1e-10)


def test_it_is_the_empirical_tangent_kernel():
    params, x = net((30, 30), 1), data()
    J, s = mlp(params, x), nj.sigma_min(mlp(params, x))
    with jax.enable_x64(True):
        kernel = np.linalg.eigvalsh(np.asarray(J.gram()))
    assert s.certified
    assert kernel[0] == pytest.approx(s.value**2, rel=1e-9)


def test_relu_is_proven_away_from_its_kinks_and_not_at_them():
    params, x = net((8, 8), 1), data(3)
    assert nj.sigma_min(mlp(params, x, "relu")).certified
    x[0] = 0.0  # every unit of the first layer is at its kink
    s = nj.sigma_min(mlp(params, x, "relu"))
    assert not s.certified
    assert s.lower == 0


def test_traced_with_and_without_x64():
    params, x = net((6, 5), 1), data(5).astype(np.float32)
    params = jax.tree.map(lambda w: w.astype(np.float32), params)

    def smallest(params):
        return nj.sigma_min(mlp(params, x)).value

    plain = smallest(params)
    traced, slope = jax.jit(jax.value_and_grad(smallest))(params)
    assert traced.dtype == jnp.float32
    assert traced == pytest.approx(plain, rel=1e-5)
    stepped = {**params, "w2": params["w2"].copy()}
    stepped["w2"][1, 2] += np.float32(2.0**-9)
    change = float(smallest(stepped) - plain) / 2.0**-9
    assert float(slope["w2"][1, 2]) == pytest.approx(change, rel=0.05, abs=1e-3)


def test_the_other_spectra_take_it():
    J = pairwise_mlp(pair((5, 5), 1), data())
    with jax.enable_x64(True):
        values = np.linalg.svd(np.asarray(J.dense()), compute_uv=False)
    assert np.allclose(nj.singular_values(J).values, values, rtol=1e-9)
    assert nj.condition_number(J) == pytest.approx(values[0] / values[-1], rel=1e-6)


BAD = {
    "biases": (lambda: mlp({"w1": np.ones((D, 3)), "b1": np.ones(3)}, data()), "b1"),
    "no chain": (lambda: mlp({"w1": np.ones((D, 3)), "w2": np.ones((4, 1))}, data()), "chain"),
    "another width of x": (lambda: mlp(net((3,), 1), np.ones((N, D + 1))), "expected \\(n, 4\\)"),
    "no sample": (lambda: mlp(net((3,), 1), np.ones((0, D))), "no sample"),
    "not finite": (
        lambda: mlp(net((3,), 1) | {"w2": np.full((3, 1), np.nan)}, data()),
        "w2 has 3 non-finite",
    ),
    "an unknown layer": (lambda: mlp(net((3,), 1), data(), wrt="w3"), "unknown wrt layer 'w3'"),
    "no layer": (lambda: mlp(net((3,), 1), data(), wrt=[]), "wrt is empty"),
    "activations of another number": (lambda: mlp(net((3,), 1), data(), ("tanh", "sin")), "2 entries"),
    "an unknown activation": (lambda: mlp(net((3,), 1), data(), "tahn"), "unknown activation 'tahn'"),
    "a net instead of a pair": (lambda: pairwise_mlp(net((3,), 1), data()), "plus"),
    "depth 0": (lambda: pairwise_mlp({"plus": {}, "minus": {}, "v": np.ones((D, 1))}, data()), "plus"),
    "halves of unlike width": (
        lambda: pairwise_mlp(
            {"plus": {"w1": np.ones((D, 3))}, "minus": {"w1": np.ones((D, 2))}, "v": np.ones((3, 1))}, data()
        ),
        "minus is not like plus",
    ),
    "a v of another height": (
        lambda: pairwise_mlp(pair((3,), 1) | {"v": np.ones((2, 1))}, data()),
        "v has shape",
    ),
    "an empty layer": (
        lambda: mlp({"w1": np.ones((D, 0)), "w2": np.ones((0, 1))}, data()),
        "at least one input and one unit",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_are_refused():
    with pytest.raises(TypeError, match="w1 has dtype int64"):
        mlp({"w1": np.ones((D, 1), np.int64)}, data())
