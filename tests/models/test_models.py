"""The one-hidden-layer nets against a loop over samples and units, and the Flax modules around them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrow_jax as nj
from narrow_jax import activations, models

# a float64 sum of at most 60 products of numbers of order 1, taken in another order; measured 4e-15
SUM_ORDER = 5e-14
# units in the last place lost in x @ w, in σ (slope ≤ 1) and in the sum over units, for numbers of order 1
ULPS = 16
# gradients in float32 through products of numbers of order 1
FLOAT32 = 2e-5

ACTIVATIONS = {
    "tanh": math.tanh,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "softplus": lambda z: math.log1p(math.exp(z)),
    "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
    "sin": math.sin,
    "erf": math.erf,
    "relu": lambda z: max(z, 0.0),
    "abs": abs,
    "swish": lambda z: z / (1 + math.exp(-z)),
    "silu": lambda z: z / (1 + math.exp(-z)),
    "mish": lambda z: z * math.tanh(math.log1p(math.exp(z))),
    "gelu_tanh": lambda z: z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2,
}


def loop(params, x, sigma, pairwise):
    """Return f(x) one product at a time, in float64."""
    w, v, x = (np.asarray(a, float) for a in (params["w"], params["v"], x))
    h, outputs = v.shape
    f = np.zeros((len(x), outputs))
    for i, row in enumerate(x):
        for j in range(h):
            unit = sigma(sum(a * b for a, b in zip(row, w[:, j], strict=True)))
            if pairwise:
                unit -= sigma(sum(a * b for a, b in zip(row, w[:, h + j], strict=True)))
            for c in range(outputs):
                f[i, c] += v[j, c] * unit
    return f


def draw(seed, n, d, m, k, rows, dtype=np.float64):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(d, m)) / math.sqrt(d)
    v = rng.normal(size=(rows, k)) / math.sqrt(m)
    return {"w": jnp.asarray(w, dtype), "v": jnp.asarray(v, dtype)}, jnp.asarray(
        rng.normal(size=(n, d)), dtype
    )


NETS = {"pairwise": (models.pairwise_apply, 2), "standard": (models.standard_apply, 1)}
JITTED = {net: jax.jit(apply, static_argnums=2) for net, (apply, _) in NETS.items()}
each_net = pytest.mark.parametrize("net", NETS)


@each_net
@pytest.mark.parametrize(
    ("activation", "n", "d", "m", "k"),
    [("tanh", 1, 1, 2, 1), *((name, 3, 7, 10, 4) for name in activations.names())],
)
def test_value_is_the_sum_over_units(net, activation, n, d, m, k, x64):
    params, x = draw(0, n, d, m, k, m // NETS[net][1])
    expected = loop(params, x, ACTIVATIONS[activation], net == "pairwise")
    np.testing.assert_allclose(JITTED[net](params, x, activation), expected, rtol=0, atol=SUM_ORDER)


@each_net
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtype_is_kept_and_error_is_a_few_of_its_ulps(net, dtype, x64):
    params, x = draw(1, 3, 7, 10, 4, 10 // NETS[net][1], dtype)
    outputs = JITTED[net](params, x, "tanh")
    assert outputs.dtype == jnp.dtype(dtype)
    error = np.abs(np.asarray(outputs, float) - loop(params, x, math.tanh, net == "pairwise")).max()
    assert error <= ULPS * float(jnp.finfo(dtype).eps)


@each_net
def test_default_activation_is_tanh(net):
    apply = JITTED[net]
    params, x = draw(2, 3, 7, 10, 4, 10 // NETS[net][1], np.float32)
    np.testing.assert_array_equal(apply(params, x), apply(params, x, "tanh"))
    assert not np.array_equal(apply(params, x), apply(params, x, "sin"))


@each_net
def test_jit_and_vmap_over_params_agree_with_single_calls(net, x64):
    apply, per_row = NETS[net]
    draws = [draw(seed, 5, 3, 6, 2, 6 // per_row) for seed in range(3)]
    x = draws[0][1]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(params for params, _ in draws))
    together = jax.jit(jax.vmap(apply, (0, None)))(stacked, x)
    for (params, _), outputs in zip(draws, together, strict=True):
        np.testing.assert_allclose(outputs, loop(params, x, math.tanh, net == "pairwise"), atol=SUM_ORDER)


GRADIENT = jax.jit(jax.grad(lambda p, x, r: jnp.sum(r * models.pairwise_apply(p, x))))


@pytest.mark.parametrize("mirrored", [True, False])
def test_gradient_in_w_and_v_is_that_of_the_formula(mirrored):
    params, x = draw(0, 6, 5, 8, 2, 4, np.float32)
    if mirrored:
        params["w"] = jnp.asarray(np.tile(np.asarray(params["w"])[:, :4], 2))
    weights = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)
    found = GRADIENT(params, x, weights)

    w, v, rows, r = (np.asarray(a, float) for a in (params["w"], params["v"], x, weights))
    z, signed = rows @ w, np.concatenate([v, -v])
    np.testing.assert_allclose(found["w"], rows.T @ ((r @ signed.T) / np.cosh(z) ** 2), atol=FLOAT32)
    np.testing.assert_allclose(found["v"], (np.tanh(z[:, :4]) - np.tanh(z[:, 4:])).T @ r, atol=FLOAT32)


SHAPES = [(1, 1, 2), (200, 784, 130), (17, 33, 98)]


@pytest.mark.parametrize(("n", "d", "m"), SHAPES)
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_output_is_exactly_zero_at_the_mirrored_start(n, d, m, jitted):
    params, x = draw(0, n, d, m, 2, m // 2, np.float32)
    params["w"] = jnp.asarray(np.tile(np.asarray(params["w"])[:, : m // 2], 2))
    apply = JITTED["pairwise"] if jitted else models.pairwise_apply
    np.testing.assert_array_equal(apply(params, x, "tanh"), np.zeros((n, 2)))
    # the zero is the mirror's: one perturbed entry, and it is gone
    w = np.array(params["w"])
    w[0, 0] += 0.1
    assert np.abs(apply(params | {"w": jnp.asarray(w)}, x, "tanh")).max() > 1e-5


@given(st.permutations(range(5)), st.integers(0, 1000))
def test_permuting_pairs_leaves_the_output_unchanged(order, seed):
    with jax.enable_x64(True):
        params, x = draw(seed, 4, 3, 10, 2, 5)
        order = np.array(order)
        w, v = (np.asarray(params[name]) for name in ("w", "v"))
        permuted = {"w": w[:, np.concatenate([order, 5 + order])], "v": v[order]}
        np.testing.assert_allclose(
            JITTED["pairwise"](permuted, x, "tanh"),
            JITTED["pairwise"](params, x, "tanh"),
            rtol=0,
            atol=SUM_ORDER,
        )


def test_permuting_only_one_half_changes_the_output(x64):
    params, x = draw(0, 4, 3, 10, 2, 5)
    apply, w = JITTED["pairwise"], np.asarray(params["w"])
    wrong = apply(params | {"w": w[:, [1, 0, 2, 3, 4, 5, 6, 7, 8, 9]]}, x, "tanh")
    assert np.abs(np.asarray(wrong) - apply(params, x, "tanh")).max() > 1e-3


def test_swapping_the_halves_changes_the_sign(x64):
    params, x = draw(0, 4, 3, 10, 2, 5)
    apply, swapped = JITTED["pairwise"], params | {"w": np.roll(params["w"], 5, axis=1)}
    np.testing.assert_allclose(
        apply(swapped, x, "tanh"), -np.asarray(apply(params, x, "tanh")), rtol=0, atol=SUM_ORDER
    )


WRONG_SHAPES = {
    "pairwise": [((3, 5), (2, 1), (4, 3)), ((3, 4), (4, 1), (4, 3)), ((3, 4), (2, 1), (4, 2))],
    "standard": [((3, 4), (2, 1), (4, 3)), ((3, 4), (4, 1), (4, 2))],
}
for rows, shapes in ((2, WRONG_SHAPES["pairwise"]), (4, WRONG_SHAPES["standard"])):
    shapes += [((3, 4), (rows,), (4, 3)), ((3, 4), (), (4, 3)), ((3,), (rows, 1), (4, 3))]


@pytest.mark.parametrize(
    ("net", "w", "v", "x"), [(net, *shapes) for net, cases in WRONG_SHAPES.items() for shapes in cases]
)
def test_wrong_shapes_are_named_with_the_expected_ones(net, w, v, x):
    expected = {"pairwise": r"w \(d, 2h\), v \(h, k\)", "standard": r"w \(d, m\), v \(m, k\)"}[net]
    with pytest.raises(
        ValueError, match=rf"expected x \(n, d\) and, for the {net} net: {expected}"
    ) as raised:
        NETS[net][0]({"w": jnp.ones(w), "v": jnp.ones(v)}, jnp.ones(x))
    assert f"x has shape {x}, w {w}, v {v}" in str(raised.value)


MODULES = {"pairwise": models.PairwiseNet, "standard": models.StandardNet}


@each_net
@pytest.mark.parametrize(("outputs", "dtype"), [(1, "float32"), (3, "bfloat16")])
def test_module_declares_exactly_w_and_v(net, outputs, dtype):
    module = MODULES[net](width=6, outputs=outputs, param_dtype=dtype)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((5, 4), dtype))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), variables)
    assert shapes == {"params": {"w": ((4, 6), dtype), "v": ((6 // NETS[net][1], outputs), dtype)}}


@each_net
def test_module_applies_the_pure_function(net):
    params, x = draw(0, 5, 4, 6, 3, 6 // NETS[net][1], np.float32)
    module = MODULES[net](width=6, outputs=3, activation="sin")
    np.testing.assert_array_equal(jax.jit(module.apply)({"params": params}, x), JITTED[net](params, x, "sin"))


@each_net
def test_module_draw_is_mirrored_feasible_and_zero_for_the_pairwise_net_only(net):
    module, x = MODULES[net](width=200, outputs=2), jnp.ones((5, 4))
    init = jax.jit(module.init)
    first, again, other = (init(jax.random.key(seed), x)["params"] for seed in (0, 0, 1))
    for name in ("w", "v"):
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
    pairwise = net == "pairwise"
    w, v = np.asarray(first["w"]), np.asarray(first["v"])
    assert np.array_equal(w[:, :100], w[:, 100:]) == pairwise
    assert (np.abs(v).min() >= np.float32(1e-3)) == pairwise
    assert (np.abs(module.apply({"params": first}, x)).max() == 0) == pairwise


def test_pairwise_module_refuses_an_odd_width():
    with pytest.raises(ValueError, match=r"width is 5; expected an even number.*use 4 or 6"):
        models.PairwiseNet(width=5).init(jax.random.key(0), jnp.ones((2, 3)))


@pytest.mark.parametrize("module", MODULES.values())
def test_module_refuses_an_unknown_activation(module):
    with pytest.raises(ValueError, match="unknown activation 'tahn': did you mean 'tanh'"):
        jax.eval_shape(module(width=4, activation="tahn").init, jax.random.key(0), jnp.ones((2, 3)))


@pytest.mark.parametrize("inputs", [3, 70])
@pytest.mark.parametrize("samples", [2, 4])
def test_units_that_differ_are_those_of_the_columns(inputs, samples):
    """Also for as many samples as units, and for short inputs, whose units lie along the rows of the products."""
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(inputs, 4)), "v": rng.normal(size=(4, 1))}
    x = rng.normal(size=(samples, inputs))
    z = x @ params["w"]
    expected = np.stack([np.tanh(z[:, 0]), np.sin(z[:, 1]), np.tanh(z[:, 2]), np.sin(z[:, 3])], axis=1)
    sigma = activations.per_unit(["tanh", "sin", "tanh", "sin"])
    found = models.standard_apply(params, x, sigma)
    np.testing.assert_allclose(found, expected @ params["v"], rtol=1e-5)


def test_the_units_of_a_pairwise_net_share_one_activation():
    sigma = activations.per_unit(["tanh", "sin"])
    params = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=3, width=4)
    x, y = np.ones((2, 3)), np.ones(2)
    for call in (
        lambda: nj.models.pairwise_apply(params, x, sigma),
        lambda: nj.jacobian.pairwise(params, x, sigma),
        lambda: nj.certificates.kkt(params, params, x, y, 0.1, activation=sigma),
        lambda: nj.certificates.gradient_descent(params, x, y, sigma),
        lambda: nj.memorize(jax.random.key(0), x, y, radius=0.1, activation=sigma),
        lambda: nj.solvers.solve_kkt(jax.random.key(0), x, y, radius=0.1, width=4, activation=sigma),
    ):
        with pytest.raises(
            ValueError, match=r"per_unit\(tanh, sin\); the units of a pairwise net .* share one"
        ):
            call()
