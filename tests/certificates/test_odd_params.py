"""Params in another order, of other mappings, with leaves too many: the same answer or none, never another net's."""

from collections import OrderedDict

import flax
import jax
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.jacobian.nets import plain

X = np.random.default_rng(0).normal(size=(6, 4))
Y = np.sin(X[:, 0])
PAIR = nj.memorize(jax.random.key(0), X, Y, widths=(4, 4), radius=0.1, progress=False)
NET = {
    name: np.random.default_rng(1).normal(size=size)
    for name, size in {"w1": (4, 5), "w2": (5, 5), "w3": (5, 1)}.items()
}


def reversed_order(tree):
    if not isinstance(tree, dict):
        return tree
    return OrderedDict((name, reversed_order(tree[name])) for name in sorted(tree, reverse=True))


ORDERS = {"reversed": reversed_order, "frozen": flax.core.freeze}


def certificates(params, center):
    c = nj.certificates
    return {
        "kkt": c.kkt(params, center, X, Y, 0.1),
        "residual": c.natural_residual(params, center, X, Y, 0.1),
        "memorization": c.memorization(params, center, X, Y, 0.1),
        "nice_region": c.nice_region(center, X),
        "gradient_descent": c.gradient_descent(center, X, Y),
        "gradient_bound": c.gradient_bound(params, X, Y),
    }


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_leaves_changes_no_certificate(order):
    change = ORDERS[order]
    assert certificates(change(PAIR.params), change(PAIR.center)) == certificates(PAIR.params, PAIR.center)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("wrt", ["w1", "w3", ["w1", "w3"], None])
def test_layers_are_chosen_by_name_whatever_their_order(order, wrt):
    expected, found = (nj.jacobian.mlp(net, X, "tanh", wrt=wrt) for net in (NET, ORDERS[order](NET)))
    assert found.chosen == expected.chosen
    np.testing.assert_array_equal(found.dense(), expected.dense())
    bounds = [nj.certificates.gradient_bound(net, X, Y, wrt=wrt) for net in (NET, ORDERS[order](NET))]
    assert bounds[0] == bounds[1]


def test_plain_sorts_what_is_nested():
    tree = OrderedDict(b=OrderedDict(z=1, y=2), a=3)
    assert list(plain(tree)) == ["a", "b"]
    assert list(plain(tree)["b"]) == ["y", "z"]


def test_biases_of_one_hidden_layer_are_refused_everywhere():
    m = nj.memorize(jax.random.key(0), X, Y, radius=0.5, progress=False)
    params = {**m.params, "b": np.ones(m.params["w"].shape[1])}
    c = nj.certificates
    for call in (
        lambda: nj.models.pairwise_apply(params, X),
        lambda: nj.jacobian.pairwise(params, X),
        lambda: c.gradient_bound(params, X, Y),
        lambda: c.memorization(params, m.center, X, Y, 0.5),
        lambda: c.nice_region(params, X),
        lambda: c.kkt(params, params, X, Y, 0.1),
        lambda: c.gradient_descent(params, X, Y),
    ):
        with pytest.raises(ValueError, match="without biases"):
            call()


def test_params_of_a_run_have_their_start_beside():
    """As ``runs.load`` gives those of ``narrow-jax memorize``."""
    m = nj.memorize(jax.random.key(0), X, Y, radius=0.5, progress=False)
    both = {**m.params, "center": m.center}
    np.testing.assert_array_equal(
        nj.jacobian.pairwise(both, X).dense(), nj.jacobian.pairwise(m.params, X).dense()
    )
    assert nj.certificates.gradient_bound(both, X, Y) == nj.certificates.gradient_bound(m.params, X, Y)
    assert nj.certificates.memorization(both, m.center, X, Y, 0.5).holds
    deep = {**PAIR.params, "center": PAIR.center}
    np.testing.assert_array_equal(
        nj.jacobian.pairwise_mlp(deep, X).dense(), nj.jacobian.pairwise_mlp(PAIR.params, X).dense()
    )
    np.testing.assert_array_equal(
        nj.models.pairwise_mlp_apply(deep, X), nj.models.pairwise_mlp_apply(PAIR.params, X)
    )
    assert nj.certificates.gradient_bound(deep, X, Y) == nj.certificates.gradient_bound(PAIR.params, X, Y)


@pytest.mark.parametrize("order", ORDERS)
def test_the_monitor_of_the_loss_bound_reads_leaves_by_name(order):
    change = ORDERS[order]
    watches = [nj.certificates.LossBound(tree, X, Y, 0.1) for tree in (PAIR.center, change(PAIR.center))]
    params = jax.tree.map(jax.numpy.float32, PAIR.params)
    values = [
        watch.update(watch.init(p, X), p, X)[1]
        for watch, p in zip(watches, (params, change(params)), strict=True)
    ]
    assert float(values[0]) == float(values[1])


@pytest.mark.parametrize("activation", [np.tanh, jax.numpy.tanh, None, 3])
def test_an_activation_that_is_none_is_named(activation, unchecked):
    for call in (
        lambda: nj.memorize(jax.random.key(0), X, Y, widths=(4, 4), activation=activation),
        lambda: nj.jacobian.mlp(NET, X, activation),
        lambda: nj.models.pairwise_mlp_apply(PAIR.params, X, activation),
    ):
        with pytest.raises(TypeError, match="expected a name such as 'tanh'"):
            call()


@pytest.mark.parametrize("wrt", [1, [1], 2.5])
def test_layers_have_names(wrt, unchecked):
    with pytest.raises(TypeError, match="expected a name"):
        nj.jacobian.mlp(NET, X, "tanh", wrt=wrt)
    with pytest.raises((TypeError, ValueError), match="expected"):
        nj.certificates.gradient_bound(PAIR.center, X, Y, wrt=wrt)


def test_center_and_params_are_of_one_net():
    m = nj.memorize(jax.random.key(0), X, Y, radius=0.5, progress=False)
    with pytest.raises(ValueError, match="expected the same leaves"):
        nj.certificates.memorization(PAIR.params, m.center, X, Y, 0.5)
    frozen = nj.certificates.memorization(m.params, flax.core.freeze(m.center), X, Y, 0.5)
    assert frozen == nj.certificates.memorization(m.params, m.center, X, Y, 0.5)


def test_v_outside_the_cone_moves_at_the_first_step():
    zero = {**PAIR.center, "v": np.zeros((4, 1))}
    c = nj.certificates.gradient_descent(zero, X, np.zeros(6), wrt="all", zeta=1e-3)
    assert not c.holds
    assert "outside the cone" in c.reason


@pytest.mark.parametrize("scale", [1e-150, 1e-145, 1e-140, 1e140, 1e150])
def test_a_matrix_that_is_0_beside_its_rounding(scale):
    rng = np.random.default_rng(0)
    half = {"w1": rng.normal(size=(2, 2)), "w2": rng.normal(size=(2, 2))}
    J = nj.jacobian.pairwise_mlp(
        {"plus": half, "minus": half, "v": np.ones((2, 1))}, scale * rng.normal(size=(3, 2))
    )
    assert nj.sigma_min(J).status in ("numerically_zero", "estimate", "not_converged")


def test_what_keeps_a_deep_region_from_being_known_is_named():
    own = nj.activations.Activation(
        "own", jax.numpy.tanh, lambda z: 1 - jax.numpy.tanh(z) ** 2, 1.0, 0.0, 0.77
    )
    region = nj.certificates.nice_region(PAIR.center, X, own)
    assert not region.holds
    assert "overflows" not in region.reason
