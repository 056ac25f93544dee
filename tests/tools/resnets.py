"""Small residual nets, drawn by NumPy, for the tests of their exact zero and of all else."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax.models import ResNet, mirror

NET = ResNet(channels=(3, 6), blocks=(1, 1), outputs=3)  # half a width of 3: no power of two
SHAPE = (5, 6, 6, 2)


def images(seed, scale=1.0, shape=SHAPE):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def random_like(tree, seed):
    """Return random numbers of order 1, variances positive."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), tree)


@functools.cache
def shapes(net):
    return jax.eval_shape(net.init, jax.random.key(0), images(0))


def start(net, seed):
    """Return variables as ``init`` gives them, drawn by NumPy: compiling JAX's draws would take most of the time."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(size=leaf.shape) * np.sqrt(2 / math.prod(leaf.shape[:-1]))
        if path[-1].key == "v":
            return rng.choice([-1, 1], leaf.shape) * rng.uniform(0.1, 0.5, leaf.shape)
        return np.full(leaf.shape, float(path[-1].key in ("scale", "var")))

    drawn = jax.tree_util.tree_map_with_path(lambda *leaf: jnp.asarray(draw(*leaf), jnp.float32), shapes(net))
    return {**drawn, "params": mirror(drawn["params"], net.labels)}


@functools.cache
def compiled(net):
    """Return the logits in evaluation mode, and logits and variables in training mode, jitted."""
    apply = jax.jit(lambda v, x: net.apply(v, x))
    return apply, jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]))


def mirrored_at_random(net, seed):
    """Return variables with random weights of the last stage, norms included, mirrored."""
    variables = start(net, seed)
    params = dict(variables["params"])
    params[net.last_stage] = random_like(params[net.last_stage], seed)
    return {**variables, "params": mirror(params, net.labels)}
