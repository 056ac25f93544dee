"""What ``autodiff`` says it encloses is what was computed: anything below float64 is an estimate."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.jacobian import autodiff

RNG = np.random.default_rng(1)
X = RNG.normal(size=(4, 3)).astype(np.float32)
TOKENS = RNG.integers(0, 5, size=(4, 2))
W = {"w": RNG.normal(size=(3, 6)).astype(np.float32), "v": RNG.normal(size=(6, 1)).astype(np.float32)}
TABLE = {**W, "w": RNG.normal(size=(10, 6)).astype(np.float32)}


def net(p, x, act=jnp.tanh):
    return act(x @ p["w"]) @ p["v"]


def lowered(dtype):
    """A function that computes in a dtype and answers in that of its argument."""
    return lambda z: jnp.tanh(z.astype(dtype)).astype(z.dtype)


@jax.custom_vjp
def half_backward(z):
    return jnp.tanh(z)


half_backward.defvjp(
    lambda z: (jnp.tanh(z), z),
    lambda z, g: (g * (1 - jnp.tanh(z.astype(jnp.bfloat16)) ** 2).astype(g.dtype),),
)


@jax.custom_jvp
def half_forward(z):
    return jnp.tanh(z)


half_forward.defjvp(
    lambda z, t: (jnp.tanh(z[0]), t[0] * (1 - jnp.tanh(z[0].astype(jnp.bfloat16)) ** 2).astype(t[0].dtype))
)


def scanned(act, z):
    return jax.lax.scan(lambda c, _: (act(c), None), z, None, 2)[0]


def looped(act, z):
    return jax.lax.fori_loop(0, 2, lambda _, c: act(c), z)


def chosen(act, z):
    return jax.lax.cond(jnp.sum(z) > 0, act, lambda z: z, z)


def product(p, x, **options):
    return jax.lax.dot(jnp.tanh(x @ p["w"]), p["v"], **options)


def with_act(act):
    return functools.partial(net, act=act)


DENSE = nn.Sequential([nn.Dense(6, dtype=jnp.bfloat16), jnp.tanh, nn.Dense(1, dtype=jnp.bfloat16)])
VARIABLES = DENSE.init(jax.random.key(0), X)
HALF = lowered(jnp.bfloat16)
LOWER = {
    "a layer": (DENSE.apply, VARIABLES, "bfloat16"),
    "nj.precision": (nj.precision.bfloat16(net), W, "bfloat16"),
    "float32": (with_act(lowered(jnp.float32)), W, "float32"),
    "float16": (with_act(lowered(jnp.float16)), W, "float16"),
    "jit": (with_act(jax.jit(HALF)), W, "bfloat16"),
    "scan": (with_act(functools.partial(scanned, HALF)), W, "bfloat16"),
    "loop": (with_act(functools.partial(looped, HALF)), W, "bfloat16"),
    "cond": (with_act(functools.partial(chosen, HALF)), W, "bfloat16"),
    "remat": (with_act(jax.checkpoint(HALF)), W, "bfloat16"),
    "derivative of custom_jvp": (with_act(half_forward), W, "bfloat16"),
    "derivative of custom_vjp": (with_act(half_backward), W, "bfloat16"),
    "reduce_precision": (
        with_act(lambda z: jax.lax.reduce_precision(jnp.tanh(z), exponent_bits=8, mantissa_bits=7)),
        W,
        "bfloat16",
    ),
    "stopped gradient": (
        with_act(lambda z: z * jax.lax.stop_gradient(z.astype(jnp.float32)).astype(z.dtype)),
        W,
        "float32",
    ),
    "product": (
        functools.partial(product, preferred_element_type=jnp.float32),
        W,
        "float32",
    ),
    "algorithm": (
        functools.partial(product, precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32),
        W,
        "bfloat16",
    ),
    "output": (lambda p, x: net(p, x).astype(jnp.float32), W, "float32"),
    "complex": (with_act(lambda z: jnp.real(z.astype(jnp.complex64) ** 2).astype(z.dtype)), W, "float32"),
}


@pytest.mark.parametrize("case", LOWER)
def test_nothing_is_certified_that_is_computed_in_less(case):
    apply_fn, params, precision = LOWER[case]
    mode = "forward" if case in ("loop", "derivative of custom_jvp", "scan") else "reverse"
    J = autodiff(apply_fn, params, X[:1], mode=mode)
    assert J.encloses == f"the Jacobian as computed in {precision}"


@pytest.mark.parametrize("case", ["a layer", "float32"])
def test_two_modes_give_no_two_certified_intervals(case):
    apply_fn, params, precision = LOWER[case]
    found = [nj.sigma_min(autodiff(apply_fn, params, X, mode=mode)) for mode in ("reverse", "forward")]
    assert found[0].value == pytest.approx(found[1].value, rel=0.1)
    for s in found:
        assert s.status == "estimate"
        assert not s.certified
        assert (float(s.lower), float(s.upper)) == (0.0, np.inf)
        assert s.encloses == f"the Jacobian as computed in {precision}"
        assert float(autodiff(apply_fn, params, X).perturbation()) == np.inf


def embedded(p, x):
    return jnp.tanh(p["w"][x].reshape(len(x), -1)) @ jnp.tile(p["v"], (2, 1))


def one_hot(p, x):
    hot = jax.nn.one_hot(x, 5, dtype=jnp.float32).reshape(len(x), -1)
    return net(p, hot.astype(p["w"].dtype))


MASK = jnp.asarray([[1.0, 0.0, 1.0, 1.0, 0.5, 1.0]], jnp.float32)
POSITIONS = jnp.sin(jnp.arange(6, dtype=jnp.float32))[None]
FULL = {
    "net": (net, W, X),
    "layer": (nn.Dense(2).apply, nn.Dense(2).init(jax.random.key(0), X), X),
    "jit": (jax.jit(net), W, X),
    "tokens": (embedded, TABLE, TOKENS),
    "one hot": (one_hot, TABLE, TOKENS),
    "booleans": (with_act(lambda z: z * (z > 0).astype(jnp.float32).astype(z.dtype)), W, X),
    "constants": (with_act(lambda z: z * MASK.astype(z.dtype) + jnp.sin(POSITIONS).astype(z.dtype)), W, X),
    "constants in jit": (
        jax.jit(with_act(lambda z: z + jnp.sin(jnp.arange(6, dtype=jnp.float32))[None].astype(z.dtype))),
        W,
        X,
    ),
    "scalar": (with_act(lambda z: z * jnp.asarray(np.float32(0.5), z.dtype)), W, X),
    "float64 algorithm": (functools.partial(product, precision=jax.lax.DotAlgorithmPreset.F64_F64_F64), W, X),
    "highest": (functools.partial(product, precision="highest"), W, X),
    "relu": (with_act(jax.nn.relu), W, X),
    "gelu": (with_act(jax.nn.gelu), W, X),
    "custom_vjp": (with_act(nj.activations.get("mish")), W, X),
}


@pytest.mark.parametrize("case", FULL)
def test_float64_is_float64(case):
    apply_fn, params, x = FULL[case]
    for mode in ("reverse", "forward"):
        assert autodiff(apply_fn, params, x[:1], mode=mode).encloses == "the Jacobian as computed in float64"


def test_callbacks_compute_in_unknown_precision():
    @jax.custom_jvp
    def outside(z):
        return jax.pure_callback(
            np.tanh, jax.ShapeDtypeStruct(z.shape, z.dtype), z, vmap_method="expand_dims"
        )

    outside.defjvp(lambda z, t: (outside(z[0]), t[0] * (1 - outside(z[0]) ** 2)))
    J = autodiff(with_act(outside), W, X)
    assert J.encloses == "the Jacobian as computed in unknown precision"
    assert nj.sigma_min(J).status == "estimate"


def test_the_same_within_a_traced_program():
    @jax.jit
    def traced(params, x):
        return nj.sigma_min(autodiff(LOWER["float32"][0], params, x))

    s = traced(W, X)
    assert s.status == "estimate"
    assert s.encloses == "the Jacobian as computed in float32"
    assert (float(s.lower), float(s.upper)) == (0.0, np.inf)
