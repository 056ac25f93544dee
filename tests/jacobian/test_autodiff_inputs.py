"""What ``autodiff`` takes beside arrays of floats, what it refuses, and derivatives in the mode that was asked for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from flax import nnx

import narrow_jax as nj
from narrow_jax.jacobian import autodiff

RNG = np.random.default_rng(2)
X = RNG.normal(size=(4, 3)).astype(np.float32)
TOKENS = RNG.integers(0, 5, size=(4, 2))
W = {"w": RNG.normal(size=(3, 5)).astype(np.float32), "v": RNG.normal(size=(5, 1)).astype(np.float32)}


@pytest.fixture
def unchecked():
    """Switch the suite's type checks off: they would speak before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def net(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]


def embedded(p, x):
    return jnp.tanh(p["table"][x].reshape(len(x), -1) @ p["w"])


TABLE = {"table": RNG.normal(size=(5, 3)).astype(np.float32), "w": RNG.normal(size=(6, 1)).astype(np.float32)}


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_tokens_are_data(dtype):
    J = autodiff(embedded, TABLE, TOKENS.astype(dtype))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), TABLE)
        leaves = jax.jacrev(embedded)(wide, TOKENS)
        expected = np.concatenate([leaf.reshape(4, -1) for leaf in jax.tree.leaves(leaves)], axis=1)
    s = nj.sigma_min(J)
    assert s.certified
    assert s.value == pytest.approx(np.linalg.svd(expected)[1][-1], rel=1e-12)
    gradient = jax.grad(lambda p: nj.sigma_min(autodiff(embedded, p, TOKENS)).value)(TABLE)
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_booleans_are_data():
    J = autodiff(lambda p, x: jnp.where(x, p["w"][0, :3], p["w"][1, :3]) @ p["v"][:3], W, X > 0)
    assert J.shape == (4, 20)


BESIDE = {
    **W,
    "key": jax.random.key(0),
    "step": np.int32(3),
    "flag": np.array(True),
    "n": 2,
    "raw": jax.random.PRNGKey(1),
}


def noisy(p, x):
    return net(p, x) + jax.random.normal(p["key"], (1, 1), x.dtype) * p["step"].astype(x.dtype)


def test_leaves_that_are_not_chosen_may_be_anything():
    J = autodiff(noisy, BESIDE, X, wrt=("w", "v"))
    assert nj.sigma_min(J).value == pytest.approx(float(nj.sigma_min(autodiff(net, W, X)).value), rel=1e-12)
    gradient = jax.grad(lambda w: nj.sigma_min(autodiff(noisy, {**BESIDE, "w": w}, X, wrt=("w", "v"))).value)
    expected = jax.grad(lambda w: nj.sigma_min(autodiff(net, {**W, "w": w}, X)).value)
    np.testing.assert_allclose(gradient(W["w"]), expected(W["w"]), rtol=1e-4, atol=1e-6)


def test_flax_statistics_are_not_differentiated():
    model = nn.Sequential([nn.Dense(4), nn.BatchNorm(use_running_average=True), nn.Dense(1)])
    variables = model.init(jax.random.key(0), X)
    J = autodiff(model.apply, variables, X)
    assert J.shape[1] == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert autodiff(model.apply, variables, X, wrt=("params", "batch_stats")).shape[1] == J.shape[1] + 8


def test_an_nnx_module_is_split():
    graphdef, state = nnx.split(nnx.Linear(3, 1, rngs=nnx.Rngs(0)))
    assert autodiff(lambda state, x: nnx.merge(graphdef, state)(x), state, X).shape == (4, 4)


@pytest.mark.parametrize(
    ("apply_fn", "params", "x", "error", "message"),
    [
        (net, W, {}, ValueError, "x is a dict without arrays"),
        (net, W, {"a": X, "b": "text"}, TypeError, r"the leaf 'b' of x is a str \('text'\)"),
        (net, W, (X, X[:1]), ValueError, r"leaves of x have \[1, 4\] samples; .*: 0 \(4, 3\), 1 \(1, 3\)"),
        (net, W, (X, X[:0]), ValueError, r"the leaf '1' of x has shape \(0, 3\): there is no sample"),
        (net, W, None, TypeError, "x is None"),
        (net, W, "abc", TypeError, r"x is a str \('abc'\)"),
        (net, W, np.array([["a"]]), TypeError, "x is an array of dtype <U1; .*encode categories"),
        (
            net,
            W,
            X.astype(complex),
            TypeError,
            "x has dtype complex128; expected real numbers: pass real and",
        ),
        (
            net,
            W,
            X.astype(int),
            TypeError,
            "x has dtype int64, and apply_fn does not take it: .*convert it first",
        ),
        (net, {**W, "n": "a"}, X, TypeError, r"params leaf 'n' is a str \('a'\)"),
        (
            net,
            {**W, "n": 3},
            X,
            TypeError,
            "params leaf 'n' has dtype int.*expected real floating.*leave it out of wrt",
        ),
        (net, {**W, "k": jax.random.key(0)}, X, TypeError, "params leaf 'k' is a random key"),
        (net, {**W, "c": np.ones(2, complex)}, X, TypeError, "params leaf 'c' has dtype complex128"),
        (
            nnx.Linear(3, 1, rngs=nnx.Rngs(0)),
            W,
            X,
            TypeError,
            r"apply_fn is an nnx.Module; .*nnx.split\(model\)",
        ),
        (
            nn.Dense(1),
            W,
            X,
            TypeError,
            "apply_fn is a Flax module; expected a function .*: pass module.apply",
        ),
        (optax.sgd(0.1), W, X, TypeError, "apply_fn is a gradient transformation; expected a function"),
        (
            lambda p, x: {"classes": net(p, x) > 0},
            W,
            X,
            TypeError,
            "of dtype bool at 'classes'; .*the logits",
        ),
        (lambda p, x: {}, W, X, ValueError, "apply_fn returns {}; expected an array"),
        (
            lambda p, x: jax.lax.complex(net(p, x), net(p, x)),
            W,
            X,
            TypeError,
            "predictions of dtype complex64; .*real and imaginary parts",
        ),
        (lambda p, x: jnp.argmax(net(p, x), 1), W, X, TypeError, "predictions of dtype int32; .*the logits"),
        (lambda p, x: net(p, x) > 0, W, X, TypeError, "predictions of dtype bool; .*the logits"),
    ],
)
def test_what_it_cannot_take_is_said_at_once(apply_fn, params, x, error, message, unchecked):
    with pytest.raises(error, match=message):
        autodiff(apply_fn, params, x)


@jax.custom_vjp
def reverse_only(z):
    return jnp.tanh(z)


reverse_only.defvjp(lambda z: (reverse_only(z), z), lambda z, g: (g * (1 - jnp.tanh(z) ** 2),))


@jax.custom_jvp
def forward_first(z):
    return jnp.tanh(z)


forward_first.defjvp(lambda z, t: (forward_first(z[0]), t[0] * (1 - jnp.tanh(z[0]) ** 2)))


def of(act):
    return lambda p, x: act(x @ p["w"]) @ p["v"]


OWN_RULES = {"custom_vjp": of(reverse_only), "custom_jvp": of(forward_first), "tanh": net}


WIDE = {name: leaf.astype(np.float64) for name, leaf in W.items()}


def smallest(apply_fn, mode):
    x = X.astype(np.float64)
    return lambda w: nj.sigma_min(autodiff(apply_fn, {**WIDE, "w": w}, x, wrt="w", mode=mode), "gram").value


@pytest.mark.parametrize(("rule", "mode"), [("custom_vjp", "reverse"), ("custom_jvp", "reverse")])
def test_derivatives_honour_the_mode(rule, mode):
    value = smallest(OWN_RULES[rule], mode)
    with jax.enable_x64(True):
        w = jnp.asarray(WIDE["w"])
        direction = np.asarray(RNG.normal(size=w.shape))
        gradient = jax.jit(jax.grad(value))(w)
        h = 1e-6
        difference = (float(value(w + h * direction)) - float(value(w - h * direction))) / (2 * h)
        assert float(jnp.vdot(gradient, direction)) == pytest.approx(difference, rel=1e-6)
        np.testing.assert_allclose(
            jax.vmap(jax.grad(value))(jnp.stack([w, w]))[1], gradient, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize(
    ("rule", "mode"),
    [("custom_vjp", "reverse"), ("custom_jvp", "reverse"), ("custom_jvp", "forward"), ("tanh", "forward")],
)
def test_the_bilinear_form_can_be_differentiated_twice(rule, mode):
    x = X.astype(np.float64)
    with jax.enable_x64(True):
        J = autodiff(OWN_RULES[rule], WIDE, x, wrt="w", mode=mode)
        u, p = (jnp.asarray(RNG.normal(size=size)) for size in J.shape)
        np.testing.assert_allclose(jax.grad(J.bilinear)(u, p), J.mv(p), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(jax.grad(J.bilinear, argnums=1)(u, p), J.rmv(u), rtol=1e-12, atol=1e-13)

        def form(w):
            return autodiff(OWN_RULES[rule], {**WIDE, "w": w}, x, wrt="w", mode=mode).bilinear(u, p)

        def formula(w):
            slopes = (1 - jnp.tanh(x @ w) ** 2) * (x @ p.reshape(w.shape))
            return u @ (slopes @ WIDE["v"][:, 0])

        for order in (jax.jacrev, lambda f: jax.jacrev(jax.jacrev(f))):
            found, expected = (np.asarray(jax.jit(order(f))(WIDE["w"])) for f in (form, formula))
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
