"""``autodiff`` of functions of trees: data in dictionaries and tuples, predictions in trees, modules of Flax NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import narrow_jax as nj
from narrow_jax.jacobian import autodiff

RNG = np.random.default_rng(4)
TOKENS = RNG.integers(0, 5, size=(6, 2))
DATA = {"tokens": TOKENS, "image": RNG.normal(size=(6, 3, 2)), "mask": TOKENS > 2}
PARAMS = {"table": RNG.normal(size=(5, 4)), "w": RNG.normal(size=(6, 4)), "v": RNG.normal(size=(4, 3))}


def embedded(p, x):
    words = jnp.where(x["mask"][..., None], 0, p["table"][x["tokens"]]).sum(1)
    return jnp.tanh(words + x["image"].reshape(len(words), -1) @ p["w"]) @ p["v"]


def headed(p, x):
    y = embedded(p, x)
    return {"pixels": y[:, None, :] * jnp.array([[[1.0], [2.0]]]), "grade": jnp.sin(y[:, 0])}


def dense(f, params, x):
    """Reverse mode of each sample, outputs in the order of the leaves."""
    with jax.enable_x64(True):
        params, x = jax.tree.map(jnp.asarray, (params, x))

        def rows(params, sample):
            y = f(params, jax.tree.map(lambda leaf: leaf[None], sample))
            return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(y)])

        parts = jax.vmap(jax.jacrev(rows), (None, 0))(params, x)
        leaves = [
            leaf.reshape(-1, want.size)
            for leaf, want in zip(*map(jax.tree.leaves, (parts, params)), strict=True)
        ]
        return np.concatenate(leaves, axis=1)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("budget", [1 << 30, 12_000])
@pytest.mark.parametrize("f", [embedded, headed])
def test_data_and_predictions_in_trees(f, mode, budget):
    J, expected = autodiff(f, PARAMS, DATA, mode=mode, memory_budget=budget), dense(f, PARAMS, DATA)
    assert J.plan.stored == (budget == 1 << 30)
    np.testing.assert_allclose(J.dense(), expected, rtol=1e-5, atol=1e-6)
    s = nj.sigma_min(J)
    assert s.value == pytest.approx(np.linalg.svd(expected, compute_uv=False)[-1], rel=1e-9)


def test_tuples_and_several_axes():
    def both(p, x):
        return jnp.tanh(x[0] @ p)[:, :, None] * x[1][:, None, :]

    x = (RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2)))
    J = autodiff(both, RNG.normal(size=(3, 2)), x)
    assert J.shape == (16, 6)
    np.testing.assert_allclose(J.dense(), dense(both, J.params, x), rtol=1e-5, atol=1e-6)


def test_gradients_and_compiled_programs_take_trees():
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), PARAMS)

    def value(image):
        return nj.sigma_min(autodiff(embedded, params, {**DATA, "image": image})).value

    image = DATA["image"].astype(np.float32)
    gradient = jax.jit(jax.grad(value))(image)
    step = 1e-3 * np.sign(gradient)
    expected = (float(value(image + step)) - float(value(image - step))) / 2
    assert expected == pytest.approx(float(jnp.vdot(gradient, step)), rel=1e-2)


def test_samples_that_are_coupled_in_one_leaf_are_refused():
    def centred(p, x):
        return {"a": embedded(p, x), "b": embedded(p, x) - embedded(p, x).mean(0, keepdims=True)}

    with pytest.raises(ValueError, match="couples samples"):
        autodiff(centred, PARAMS, DATA)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.last = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(jnp.tanh(self.norm(self.first(x)))))


def test_modules_of_nnx_are_split_for_the_user():
    model, x = Net(nnx.Rngs(0)), RNG.normal(size=(5, 3)).astype(np.float32)
    J = autodiff(call, model, x)
    graph, weights, other = nnx.split(model, nnx.Param, ...)
    expected = dense(lambda p, x: nnx.merge(graph, p, other)(x), weights, x)
    np.testing.assert_allclose(J.dense(), expected, rtol=1e-4, atol=1e-6)
    first = autodiff(call, model, x, wrt="params/first")
    assert first.shape == (10, 16)
    assert autodiff(call, model, x).plan == J.plan  # nothing compiles twice


def call(model, x):
    return model(x)


def test_a_module_in_place_of_the_function_is_told_what_to_do():
    with pytest.raises(TypeError, match=r"apply_fn is an nnx\.Module; .*nnx\.split\(model\)"):
        autodiff(Net(nnx.Rngs(0)), None, np.ones((2, 3)))
