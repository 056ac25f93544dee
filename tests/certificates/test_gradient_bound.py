"""What a gradient says of the loss, and the monitor of what is proven of gradient descent."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descended_nets import drawn, outputs, provable, value

import narrow_jax as nj
from narrow_jax.certificates import gradient_bound, gradient_descent


@pytest.mark.parametrize(
    ("kind", "depth", "wrt"),
    [("pairwise", 1, None), ("standard", 1, None), ("pair", 2, "w"), ("mlp", 2, ["w1", "w3"])],
)
def test_gradient_bound_is_that_of_the_dense_jacobian(kind, depth, wrt):
    params, x, y = drawn(kind, depth, 1, 40)
    rng = np.random.default_rng(41)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape), params)
    found = gradient_bound(params, x, y, wrt=wrt)
    chosen = {"w", "plus", "minus"} if kind in ("pairwise", "pair") or wrt == "w" else set(wrt or params)
    with jax.enable_x64(True):
        arrays = jax.tree.map(jnp.asarray, params)
        fixed = {name: leaf for name, leaf in arrays.items() if name not in chosen}
        moved = {name: leaf for name, leaf in arrays.items() if name in chosen}
        j = jax.jacrev(lambda part: outputs({**part, **fixed}, jnp.asarray(x), "tanh")[:, 0])(moved)
        j = np.concatenate([np.asarray(leaf).reshape(len(x), -1) for leaf in jax.tree.leaves(j)], axis=1)
    r = value(params, x, "tanh") - y
    sigma, gradient = np.linalg.svd(j, compute_uv=False)[-1], np.linalg.norm(j.T @ r)
    assert found.holds, found.reason
    assert sigma * (1 - 1e-9) <= found.sigma * (1 + 2e-9)
    assert found.sigma <= sigma * (1 + 1e-12)
    assert gradient * (1 - 1e-12) <= found.gradient_norm <= gradient * (1 + 1e-9)
    assert np.sum(r**2) / 2 == pytest.approx(found.loss)
    assert found.loss <= found.bound
    assert found.bound == pytest.approx((gradient / sigma) ** 2 / 2, rel=1e-6)


def test_gradient_bound_near_a_minimum_is_that_of_rounding():
    _, x, y = drawn("pairwise", 1, 1, 42)
    m = nj.memorize(jax.random.key(0), x, y, width=16, radius=0.5)
    found = gradient_bound(m.params, x, y)
    assert found.holds
    assert found.loss <= found.bound < 1e-18


def test_gradient_bound_says_why_nothing_is_proven():
    params, x, y = drawn("pairwise", 1, 1, 43)
    wide = np.random.default_rng(0).normal(size=(100, 4))
    assert "widen the network" in gradient_bound(params, wide, np.ones(100)).reason
    x[1] = x[0]
    assert "no network can learn both" in gradient_bound(params, x, y).reason
    with pytest.raises(ValueError, match=r"wrt is 'v'; expected 'w', or None"):
        gradient_bound(params, x, y, wrt="v")
    with pytest.raises(ValueError, match="unknown wrt layer 'w9'"):
        gradient_bound({"w1": np.ones((4, 3)), "w2": np.ones((3, 1))}, x, y, wrt="w9")


def split(eta, wrt):
    """SGD on all weights but a V that is frozen."""
    frozen = "v" if wrt == "w" else "none"

    def labels(params):
        return {name: name if name == frozen else "moves" for name in params}

    return optax.partition({"moves": optax.sgd(eta), "v": optax.set_to_zero()}, labels)


@pytest.mark.parametrize(
    ("kind", "wrt", "dtype"),
    [("pairwise", "w", np.float32), ("pair", "w", np.float64), ("mlp", "all", np.float64)],
)
def test_monitor_sees_no_bound_broken_by_the_step_that_was_certified(kind, wrt, dtype, x64):
    params, x, y = drawn(kind, 1 if kind == "pairwise" else 2, 1, 50)
    params, y, c = provable(params, x, y, "tanh", wrt)
    params, x, y = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, x, y))
    apply_fn = functools.partial(lambda params, x: outputs(params, x, "tanh"))
    for rate, every, named in (
        (1, 1, None),
        (1, 7, None),
        (10, 1, {"‖θ − θ⁰‖ ≤ R", "½‖f − y‖² ≤ loss_bound(k)"}),
    ):
        eta = rate * (c.learning_rate if rate == 1 else c.max_learning_rate)
        watch = nj.certificates.GradientDescentBound(c, y, every=every)
        with jax.numpy_dtype_promotion("standard"):
            result = nj.fit(
                apply_fn, params, split(eta, wrt), (x, y), steps=100, every=every, monitors=[watch]
            )
        broken = watch.first_broken(result.history)
        assert broken is None if named is None else broken.invariant in named


def test_monitor_asks_for_a_certificate_that_holds():
    params, x, y = drawn("pairwise", 1, 1, 51)
    with pytest.raises(ValueError, match="the certificate does not hold: no ball"):
        nj.certificates.GradientDescentBound(gradient_descent(params, x, y), y)


@pytest.mark.parametrize("given", [None, 3.0, "bound"])
def test_monitors_ask_for_their_certificate(given, unchecked):
    with pytest.raises(
        TypeError, match=r"expected GradientDescent: pass what nj\.certificates\.gradient_descent"
    ):
        nj.certificates.GradientDescentBound(given, np.ones(3))
    sigma = nj.activations.smooth_leaky_relu(0.5, 1.0)
    with pytest.raises(
        TypeError, match=r"expected PyramidalCertificate: pass what nj\.certificates\.pyramidal"
    ):
        nj.certificates.PyramidalInvariants(given, np.ones((3, 1)), sigma)


def test_an_activation_without_stated_rounding_is_named():
    silent = nj.activations.Activation("mine", jnp.tanh, lambda z: 1 - jnp.tanh(z) ** 2, 1.0, 0.0, 0.77)
    params, x, y = drawn("pair", 2, 1, 3)
    for call in (gradient_bound, gradient_descent):
        assert "the rounding error of mine is not stated" in call(params, x, y, silent).reason
