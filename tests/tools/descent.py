"""Levenberg–Marquardt to a stationary point of ½‖Ŷ − Y‖², in float64 with derivatives by autodiff."""

import functools

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from narrow_jax.models import mlp_apply


def jacobian(params, x, activation="relu"):
    """D as automatic differentiation has it: rows by sample and output, columns as ``ravel_pytree`` orders."""
    return np.asarray(_jacobian(params, x, activation))


@functools.partial(jax.jit, static_argnames="activation")
def _jacobian(params, x, activation):
    theta, unravel = ravel_pytree(params)
    return jax.jacrev(lambda t: mlp_apply(unravel(t), x, activation).reshape(-1))(theta)


@functools.partial(jax.jit, static_argnames="activation")
def outputs(params, x, activation="relu"):
    """The net, compiled once a shape."""
    return mlp_apply(params, x, activation)


def to_stationarity(params, x, y, activation="relu", frozen=None, steps=400):
    """Minimise over the weights that are not frozen; ``frozen`` is a tree of booleans."""
    names = sorted(params)
    ends = np.cumsum([params[name].size for name in names])

    def ravel(tree):
        return np.concatenate([np.ravel(tree[name]) for name in names])

    def unravel(theta):
        parts = zip(names, np.split(theta, ends[:-1]), strict=True)
        return {name: part.reshape(params[name].shape) for name, part in parts}

    def residual(theta):
        return np.ravel(np.asarray(outputs(unravel(theta), x, activation)) - y)

    theta = ravel(params)
    free = np.ones(theta.size, bool) if frozen is None else ~ravel(frozen)
    damping, error = 1e-3, residual(theta)
    for _ in range(steps):
        matrix = jacobian(unravel(theta), x, activation)[:, free]
        gradient = matrix.T @ error
        if np.linalg.norm(gradient) < 1e-11:
            break
        step = np.linalg.solve(matrix.T @ matrix + damping * np.eye(free.sum()), gradient)
        moved = theta.copy()
        moved[free] -= step
        after = residual(moved)
        if after @ after < error @ error:
            theta, error, damping = moved, after, damping / 3
        else:
            damping *= 4
            if damping > 1e12:
                break
    return unravel(theta)
