"""A constraint for no leaf is refused in ``init``; what optax masked is no such selection."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import narrow_jax as nj
from narrow_jax.constraints import ball_coordinates, project, regime
from narrow_jax.labels import by_path

SGD = optax.sgd(0.1)
W, V = {"w": jnp.ones((2, 4)), "bias": jnp.ones(4)}, {"v": jnp.ones((2, 1))}
BOTH, NEITHER = W | V, {"params": {"kernel": jnp.ones((2, 4)), "bias": jnp.ones(4)}}

# name: transformation, params, the label that is missing, the leaves that the message lists
NOTHING = {
    "project": (project(radius=0.1), NEITHER, "w", "params/bias, params/kernel"),
    "regime": (regime(SGD, 1e-6), NEITHER, "w", "params/bias, params/kernel"),
    "ball_coordinates": (ball_coordinates(SGD, 0.1), NEITHER, "w", "params/bias"),
    "schedule": (project(radius=optax.constant_schedule(0.1)), V, "w", "v"),
    "injected": (optax.inject_hyperparams(project)(radius=0.1), NEITHER, "w", "params/bias"),
    "radius zero": (project(radius=0.0), NEITHER, "w", "params/bias"),
    "chain": (optax.chain(SGD, project(radius=0.1)), NEITHER, "w", "params/bias"),
    "MultiSteps": (optax.MultiSteps(regime(SGD, 0.1), 2), NEITHER, "w", "params/bias"),
    "flatten": (optax.flatten(regime(SGD, 0.1)), BOTH, "w", "one array without a name .*flatten belongs in"),
    "no params": (regime(SGD, 0.1), {}, "w", "none"),
    "cone": (project(zeta=1e-3), W, "v", "bias, w"),
    "default zeta": (regime(SGD, 0.1), W, "v", "bias, w"),
    "by_path of nothing": (regime(SGD, 0.1, labels=by_path()), BOTH, "w", "bias, v, w"),
    "by_path of v alone": (regime(SGD, 0.1, labels=by_path(v="v")), BOTH, "w", "bias, v, w"),
    "all free": (regime(SGD, 0.1, labels=lambda p: jax.tree.map(lambda _: "free", p)), BOTH, "w", "bias"),
    "a tree of free": (project(0.1, labels=jax.tree.map(lambda _: "free", BOTH)), BOTH, "w", "bias"),
    "masked, others are left": (
        optax.masked(regime(SGD, 0.1), lambda p: jax.tree.map(lambda x: x.ndim == 2, p)),
        NEITHER,
        "w",
        "params/kernel",
    ),
    "nnx": (regime(SGD, 0.1), nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param), "w", "bias, kernel"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_constraint_for_no_leaf_is_refused(name):
    tx, params, label, listed = NOTHING[name]
    with pytest.raises(
        ValueError,
        match=rf"no leaf is labelled '{label}', .*The leaves are {listed}.*by_path\({label}=…\), or pass",
    ):
        tx.init(params)
    with pytest.raises(ValueError, match=f"no leaf is labelled '{label}'"):
        jax.eval_shape(tx.init, params)  # traced bounds are looked for too


MASK = {"w": True, "bias": False, "v": False}
SOMETHING = {
    "no constraint": (regime(SGD, np.inf, zeta=None), NEITHER),
    "ball alone": (regime(SGD, 0.1, zeta=None), W),
    "cone alone": (regime(SGD, np.inf), V),
    "masked w": (optax.masked(regime(SGD, 0.1), MASK), BOTH),
    "masked v": (optax.masked(regime(SGD, 0.1), {"w": False, "bias": False, "v": True}), BOTH),
    "all masked": (optax.masked(regime(SGD, 0.1), {"w": False, "bias": False, "v": False}), BOTH),
    "masked by_path": (optax.masked(regime(SGD, 0.1, labels=by_path(w="w", v="v")), MASK), BOTH),
    "masked tree": (optax.masked(regime(SGD, 0.1, labels={"w": "w", "bias": "free", "v": "v"}), MASK), BOTH),
    "partition": (
        optax.partition({"ball": regime(SGD, 0.1), "rest": SGD}, {"w": "ball", "bias": "rest", "v": "rest"}),
        BOTH,
    ),
    "subtree masked": (optax.masked(regime(SGD, 0.1), {"net": True, "head": False}), {"net": W, "head": V}),
}


@pytest.mark.parametrize("name", SOMETHING)
def test_what_constrains_something_or_was_masked_passes(name):
    tx, params = SOMETHING[name]
    updates = jax.eval_shape(lambda p: tx.update(p, tx.init(p), p)[0], params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_ratio_without_a_cone_is_refused():
    for make in (lambda **o: project(0.1, **o), lambda **o: regime(SGD, 0.1, **o)):
        with pytest.raises(ValueError, match="there is a kappa 4 and no zeta; expected both or none"):
            make(zeta=None, kappa=4.0)


def test_mirror_of_nothing_is_refused():
    with pytest.raises(
        ValueError, match=r"mirror: no leaf is labelled 'w'.*The leaves are bias, v, w.*by_path"
    ):
        nj.models.mirror(BOTH, by_path(v="v"))


def test_leaves_of_nnx_have_the_names_of_their_variables():
    class Net(nnx.Module):
        def __init__(self):
            self.w, self.v = nnx.Param(jnp.ones((2, 4))), nnx.Param(jnp.ones((2, 1)))

    state = nnx.state(Net(), nnx.Param)
    for labels in (None, by_path(w="w", v="v")):
        tx = regime(optax.sgd(100.0), 0.1, labels=labels)
        labelled = tx.init(state)[1]
        assert [leaf.shape for leaf in jax.tree.leaves((labelled.center, labelled.signs))] == [(2, 4), (2, 1)]


def test_fit_and_sweep_refuse_before_they_train():
    x, y = jnp.ones((3, 2)), jnp.ones((3, 1))
    net = nj.models.MLP(widths=(4, 1), activation="tanh")
    variables = net.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"no leaf is labelled 'w'.*params/w1, params/w2.*by_path"):
        nj.fit(net.apply, variables, regime(SGD, 1e-6), (x, y), steps=2)
    with pytest.raises(ValueError, match="no leaf is labelled 'w'"):
        nj.sweep(net.apply, lambda r: (variables, regime(SGD, r)), (x, y), grid={"r": [0.1]}, steps=2)
