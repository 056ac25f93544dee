"""The deep pairwise net: against NumPy layer by layer, its gradients, its module, and what it refuses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import narrow_jax as nj
from narrow_jax.initializers import mirrored_mlp
from narrow_jax.models import (
    PairwiseMLP,
    pairwise_apply,
    pairwise_mlp_apply,
    pairwise_mlp_layers,
)

# float64 sums of at most 40 products of numbers of order 1, in another order; measured 2e-15
SUM_ORDER = 5e-14
NUMPY = {
    "tanh": np.tanh,
    "sin": np.sin,
    "relu": lambda z: np.maximum(z, 0),
    "softplus": lambda z: np.logaddexp(z, 0),
}
ERF = np.vectorize(math.erf)
NUMPY["gelu"] = lambda z: z * (1 + ERF(z / math.sqrt(2))) / 2


def draw(seed, n, d, widths, k, dtype=np.float64):
    """Return params whose halves have nothing in common, and data."""
    rng = np.random.default_rng(seed)

    def half():
        sizes = zip((d, *widths), widths, strict=False)
        return {
            f"w{layer}": rng.normal(size=s).astype(dtype) / s[0] ** 0.5
            for layer, s in enumerate(sizes, start=1)
        }

    params = {"plus": half(), "minus": half(), "v": rng.normal(size=(widths[-1], k)).astype(dtype)}
    return params, rng.normal(size=(n, d)).astype(dtype)


def formula(params, x, sigmas, functions=NUMPY, matmul=np.matmul):
    """Return (φ(x; plus) − φ(x; minus)) V, each half layer by layer."""
    phi = []
    for half in (params["plus"], params["minus"]):
        a = x
        for layer, sigma in enumerate(sigmas, start=1):
            a = functions[sigma](matmul(a, half[f"w{layer}"]))
        phi.append(a)
    return matmul(phi[0] - phi[1], params["v"])


NETS = {
    "one layer": ((4,), "tanh", 1),
    "a bottleneck": ((6, 1, 5), "sin", 2),
    "relu": ((6, 4), "relu", 3),
    "one activation a layer": ((6, 4, 3), ("gelu", "softplus", "tanh"), 2),
}
each_net = pytest.mark.parametrize(("widths", "activation", "outputs"), NETS.values(), ids=NETS.keys())


def sequence(activation, widths):
    return [activation] * len(widths) if isinstance(activation, str) else activation


@each_net
def test_value_is_the_difference_of_two_nets(widths, activation, outputs, x64):
    params, x = draw(0, 5, 3, widths, outputs)
    found = jax.jit(lambda p, x: pairwise_mlp_apply(p, x, activation))(params, x)
    expected = formula(params, x, sequence(activation, widths))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=SUM_ORDER)


@each_net
@pytest.mark.parametrize("mirrored", [False, True])
def test_gradients_are_those_of_the_formula(widths, activation, outputs, mirrored, x64):
    params, x = draw(1, 5, 3, widths, outputs)
    if mirrored:
        params["minus"] = params["plus"]
    sigmas, weights = sequence(activation, widths), np.random.default_rng(2).normal(size=(5, outputs))
    plain = {name: nj.activations.get(name).fn for name in NUMPY}
    found = jax.grad(lambda p, x: jnp.sum(weights * pairwise_mlp_apply(p, x, activation)), (0, 1))(params, x)
    expected = jax.grad(lambda p, x: jnp.sum(weights * formula(p, x, sigmas, plain, jnp.matmul)), (0, 1))(
        params, x
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=SUM_ORDER), found, expected)
    assert max(np.abs(g).max() for g in jax.tree.leaves(found[0]["plus"])) > 0.1


def test_gradient_of_a_smooth_net_is_that_of_differences(x64):
    params, x = draw(3, 4, 3, (5, 4), 2)
    check_grads(jax.jit(lambda p: pairwise_mlp_apply(p, x, "tanh")), (params,), order=2, modes=["rev"])


def test_one_layer_is_the_pairwise_net(x64):
    params, x = draw(4, 6, 70, (8,), 2)
    w = np.concatenate([params["plus"]["w1"], params["minus"]["w1"]], axis=1)
    for rows in (70, 5):  # both layouts of the one-hidden-layer net
        params = params | {half: {"w1": params[half]["w1"][:rows]} for half in ("plus", "minus")}
        np.testing.assert_allclose(
            pairwise_mlp_apply(params, x[:, :rows], "sin"),
            pairwise_apply({"w": w[:rows], "v": params["v"]}, x[:, :rows], "sin"),
            rtol=0,
            atol=SUM_ORDER,
        )


@pytest.mark.parametrize("eps", [1e-2, 1e-5])
def test_near_the_mirror_the_error_is_that_of_the_activation(eps):
    params = mirrored_mlp(jax.random.key(0), inputs=20, widths=(30, 30, 30))
    moved = jax.tree.map(lambda w: w + eps * jax.random.normal(jax.random.key(1), w.shape), params["plus"])
    params, x = params | {"plus": moved}, jax.random.normal(jax.random.key(2), (50, 20))
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    expected = formula(wide, np.asarray(x, np.float64), ["tanh"] * 3)
    v = float(jnp.linalg.norm(params["v"]))
    assert np.abs(expected).max() > eps / 10
    # half an ulp of σ(z) ≤ 1 a half and unit, three layers; measured 0.4
    assert np.abs(pairwise_mlp_apply(params, x) - expected).max() < 2 * v * float(jnp.finfo(jnp.float32).eps)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtype_is_kept(dtype, x64):
    params = mirrored_mlp(jax.random.key(0), inputs=3, widths=(4, 3), dtype=dtype)
    assert pairwise_mlp_apply(params, jnp.ones((5, 3), dtype)).dtype == dtype


def test_vmap_over_params_is_net_by_net():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    draws = [draw(seed, 5, 3, (4, 3), 2, np.float32)[0] for seed in range(3)]
    together = jax.jit(jax.vmap(pairwise_mlp_apply, (0, None)))(
        jax.tree.map(lambda *a: np.stack(a), *draws), x
    )
    for params, outputs in zip(draws, together, strict=True):
        np.testing.assert_allclose(outputs, formula(params, x, ["tanh"] * 2), rtol=0, atol=1e-5)


def test_layers_come_in_order():
    params, _ = draw(0, 1, 2, (1,) * 11, 1)
    plus, minus, v = pairwise_mlp_layers(params)
    assert [float(w[0, 0]) for w in plus] == [
        float(params["plus"][f"w{layer}"][0, 0]) for layer in range(1, 12)
    ]
    assert minus[10] is params["minus"]["w11"]
    assert v is params["v"]


def matrices(*shapes):
    return {f"w{layer}": jnp.ones(shape) for layer, shape in enumerate(shapes, start=1)}


GOOD = {"plus": matrices((3, 4), (4, 2)), "minus": matrices((3, 4), (4, 2)), "v": jnp.ones((2, 1))}
BAD = {
    "no dict": ([1.0], TypeError, r'params is a list; expected {"plus": w, "minus": w, "v": \(h, k\)}'),
    "a one-hidden net": (
        {"w": jnp.ones((3, 4)), "v": jnp.ones((2, 1))},
        ValueError,
        "params have the keys w, v; expected",
    ),
    "nothing": ({}, ValueError, "params have the keys none; expected"),
    "a bias beside": (
        GOOD | {"b": jnp.ones(1)},
        ValueError,
        "params have the keys plus, minus, v, b; expected",
    ),
    "depth 0": (GOOD | {"plus": {}, "minus": {}}, ValueError, "plus has no leaf; expected the weights"),
    "biases": (
        GOOD | {half: GOOD[half] | {"b1": jnp.ones(4)} for half in ("plus", "minus")},
        ValueError,
        "the half 'plus': params have the leaves b1, w1, w2; expected w1, w2, … of a net without biases",
    ),
    "one array a half": (
        GOOD | dict.fromkeys(("plus", "minus"), jnp.ones((3, 2))),
        TypeError,
        "the half 'plus': params is a",
    ),
    "no chain": (
        GOOD | dict.fromkeys(("plus", "minus"), matrices((3, 4), (5, 2))),
        ValueError,
        r"the half 'plus': the weights have shapes \[\(3, 4\), \(5, 2\)\]",
    ),
    "other widths": (
        GOOD | {"minus": matrices((3, 5), (5, 2))},
        ValueError,
        r"minus is not like plus at 'w1' \(float32\[3, 4\] expected, float32\[3, 5\] found\); expected two copies",
    ),
    "another depth": (
        GOOD | {"minus": matrices((3, 2))},
        ValueError,
        r"minus is not like plus at 'w1' \(float32\[3, 4\] expected, float32\[3, 2\] found\)",
    ),
    "a layer less": (
        GOOD | {"minus": matrices((3, 4))},
        ValueError,
        r"minus is not like plus at 'w2' \(float32\[4, 2\] expected, nothing found\)",
    ),
    "another dtype": (
        GOOD | {"minus": jax.tree.map(lambda w: w.astype(jnp.bfloat16), GOOD["minus"])},
        ValueError,
        "bfloat16.* found",
    ),
    "v of another height": (
        GOOD | {"v": jnp.ones((4, 1))},
        ValueError,
        r"v has shape \(4, 1\); expected \(h, k\) with h = 2",
    ),
    "v is a vector": (
        GOOD | {"v": jnp.ones(2)},
        ValueError,
        r"v has shape \(2,\); expected \(h, k\) with h = 2",
    ),
    "v is a list": (GOOD | {"v": [[1.0], [1.0]]}, TypeError, "v is a list; expected an array of numbers"),
}


@pytest.mark.parametrize(("params", "error", "message"), BAD.values(), ids=BAD.keys())
def test_params_of_another_form_are_refused(params, error, message, unchecked):
    with pytest.raises(error, match=message):
        pairwise_mlp_apply(params, jnp.ones((5, 3)))


@pytest.mark.parametrize("shape", [(5, 4), (3,)])
def test_data_of_another_width_are_refused(shape, unchecked):
    with pytest.raises(ValueError, match=r"x has shape .*; expected \(n, 3\) for these params"):
        pairwise_mlp_apply(GOOD, jnp.ones(shape))


def test_activations_of_another_number_are_refused():
    with pytest.raises(ValueError, match="activation has 3 entries; expected 2, one a hidden layer"):
        pairwise_mlp_apply(GOOD, jnp.ones((5, 3)), ("tanh", "tanh", "tanh"))


# the module


@pytest.mark.parametrize(("outputs", "dtype"), [(1, "float32"), (3, "bfloat16")])
def test_module_declares_the_tree_of_the_draw(outputs, dtype):
    module = PairwiseMLP(widths=(6, 2), outputs=outputs, param_dtype=dtype)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((5, 4), dtype))
    half = {"w1": ((4, 6), dtype), "w2": ((6, 2), dtype)}
    shapes = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), variables)
    assert shapes == {"params": {"plus": half, "minus": half, "v": ((2, outputs), dtype)}}


def test_module_starts_mirrored_feasible_and_at_zero():
    module, x = PairwiseMLP(outputs=2), jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
    init = jax.jit(module.init)
    first, again, other = (init(jax.random.key(seed), x)["params"] for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    jax.tree.map(np.testing.assert_array_equal, first["plus"], first["minus"])
    assert not np.array_equal(first["plus"]["w2"], other["plus"]["w2"])
    assert not np.array_equal(first["v"], other["v"])
    assert first["plus"]["w2"].shape == (30, 30)
    assert np.abs(first["v"]).min() >= np.float32(1e-3)
    np.testing.assert_array_equal(jax.jit(module.apply)({"params": first}, x), np.zeros((5, 2)))


def test_module_applies_the_pure_function():
    params, x = draw(0, 5, 3, (4, 3), 2, np.float32)
    module = PairwiseMLP(widths=(4, 3), outputs=2, activation=("sin", "relu"))
    np.testing.assert_array_equal(
        module.apply({"params": params}, x), pairwise_mlp_apply(params, x, ("sin", "relu"))
    )


def test_module_of_depth_zero_is_refused():
    with pytest.raises(ValueError, match="a net of depth 0 has none"):
        PairwiseMLP(widths=()).init(jax.random.key(0), jnp.ones((2, 3)))
