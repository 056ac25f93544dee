"""Small nets of every kind, gradient descent on them in plain formulas, and their whole Jacobian by reverse mode."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax.certificates import gradient_descent

SIGMAS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus, "sin": jnp.sin}
STEPS = 300


def outputs(params, x, name):
    """A reference of its own: all four kinds of nets from their formulas."""
    sigma = SIGMAS[name]

    def features(weights):
        return functools.reduce(lambda a, w: sigma(a @ w), weights, x)

    def layers(net):
        return [net[f"w{index + 1}"] for index in range(len(net))]

    if "plus" in params:
        return (features(layers(params["plus"])) - features(layers(params["minus"]))) @ params["v"]
    if "w" not in params:
        *hidden, v = layers(params)
        return features(hidden) @ v
    w, v = params["w"], params["v"]
    if w.shape[1] == v.shape[0]:
        return features([w]) @ v
    plus, minus = jnp.split(features([w]), 2, axis=1)
    return (plus - minus) @ v


def outer(params):
    """The name of V."""
    return "v" if "v" in params else f"w{len(params)}"


@functools.partial(jax.jit, static_argnames=("name", "wrt", "steps"))
def descended(start, x, y, eta, name, wrt, steps):
    """Plain gradient descent on ½‖f − y‖²: the residuals' norms, the path's lengths and the last point."""

    def loss(params):
        return jnp.sum((outputs(params, x, name) - y) ** 2) / 2

    def step(state, _):
        params, length = state
        value, gradient = jax.value_and_grad(loss)(params)
        if wrt == "w":
            gradient = {**gradient, outer(params): jnp.zeros_like(gradient[outer(params)])}
        params = jax.tree.map(lambda p, g: p - eta * g, params, gradient)
        moved = eta * jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
        return (params, length + moved), (jnp.sqrt(2 * value), length)

    (last, _), (norms, lengths) = jax.lax.scan(step, (start, jnp.zeros(())), length=steps)
    return norms, lengths, last


def run(params, x, y, eta, name="tanh", wrt="w", steps=STEPS):
    with jax.enable_x64(True):
        arrays = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), (params, x, y))
        return jax.tree.map(np.asarray, descended(*arrays, jnp.asarray(eta), name, wrt, steps))


def value(params, x, name):
    with jax.enable_x64(True):
        arrays = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), (params, x))
        return np.asarray(outputs(*arrays, name))


def rounding(params, y):
    """What f is not known below."""
    return 1e-14 * (np.sum(np.abs(params[outer(params)])) + np.linalg.norm(y))


def drawn(kind, depth, k, seed):
    """Weights and data of a small net with enough weights."""
    rng = np.random.default_rng(seed)
    n, d, h = 5, 4, 8
    sizes = [d] + [h] * depth

    def half():
        return {
            f"w{layer}": rng.normal(size=(a, b)) / np.sqrt(a)
            for layer, (a, b) in enumerate(itertools.pairwise(sizes), start=1)
        }

    v = rng.normal(size=(h, k)) / np.sqrt(h)
    hidden = half()
    x, y = rng.normal(size=(n, d)), rng.normal(size=(n, k))
    if kind == "pairwise":
        return {"w": np.concatenate([hidden["w1"]] * 2, axis=1), "v": v}, x, y
    if kind == "standard":
        return {"w": hidden["w1"], "v": v}, x, y
    if kind == "pair":
        return {"plus": hidden, "minus": hidden, "v": v}, x, y
    if kind == "split pair":
        other = {name: w + 0.1 * rng.normal(size=w.shape) for name, w in hidden.items()}
        return {"plus": hidden, "minus": other, "v": v}, x, y
    return {**hidden, f"w{depth + 1}": v}, x, y


def provable(params, x, y, name, wrt):
    """Scale V of a mirrored pair, or move the labels of another net near its outputs, until the theorem holds."""
    c = gradient_descent(params, x, y, name, wrt=wrt)
    if c.scale is not None:
        params = {**params, "v": c.scale * params["v"]}
        return params, y, gradient_descent(params, x, y, name, wrt=wrt)
    f = value(params, x, name)
    while not c.holds:
        y = f + (y - f) / 8
        c = gradient_descent(params, x, y, name, wrt=wrt)
    return params, y, c


def dense(params, x, name, wrt):
    """The whole Jacobian, by reverse mode."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), params)
        v = outer(params)
        fixed = {} if wrt == "all" else {v: params[v]}
        moving = {key: leaf for key, leaf in params.items() if key not in fixed}
        j = jax.jacrev(lambda part: outputs({**part, **fixed}, jnp.asarray(x), name))(moving)
        return np.concatenate(
            [np.asarray(leaf).reshape(len(x) * params[v].shape[1], -1) for leaf in jax.tree.leaves(j)], axis=1
        )
