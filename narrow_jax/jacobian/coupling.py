"""Whether a function's rows come from one sample each: the whole batch against each sample alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from narrow_jax._typing import ApplyFn, Array, Float, Params
from narrow_jax.jacobian import inputs

STEP = 2.0**-7
"""How far the params move, relatively, to the second point: there an output that starts at 0 has left it."""


class Rows(NamedTuple):
    """What the whole batch gives, and each sample alone, at the params and at the point beside them (first axis)."""

    whole: Array
    alone: Array


def rows(
    predict: ApplyFn,
    flatten: Callable[[Params], tuple[Array, Callable[[Array], Params]]],
    params: Params,
    x: Any,
    reverse: bool,
) -> tuple[Array, ...]:
    """Return predictions and slopes of the whole batch, and predictions and slopes of each sample alone.

    Args:
        predict: (params, x) ↦ predictions (n, k).
        flatten: params ↦ (θ, the function that puts such a vector back in place), θ the weights to differentiate.
        params: any pytree.
        x: at least one sample, along the first axis of every leaf.
        reverse: differentiate one weighted sum of the predictions instead of all in one direction of θ: for functions
            that have no other rule, since it keeps the whole batch in memory.

    Returns:
        Predictions (n, k), and their derivatives: (n, k), or (p,) for ``reverse``.
    """
    theta, rebuild = flatten(params)

    def whole(theta: Array) -> Array:
        return predict(rebuild(theta), x)

    def alone(theta: Array) -> Array:
        return jax.vmap(lambda sample: predict(rebuild(theta), inputs.alone(sample))[0])(x)

    slopes = _reverse if reverse else _forward
    return *slopes(whole, theta), *slopes(alone, theta)


def moved(params: Params, step: Float[Array, ""]) -> Params:
    """Return params moved relatively by a step: no sign changes, so that variances stay some, and no leaf stays 0."""

    def one(leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return leaf + step.astype(leaf.dtype) * jnp.abs(_scattered(leaf)) * jnp.where(leaf == 0, 1, leaf)

    return jax.tree.map(one, params)


def excess(found: Rows, eps: float) -> Array:
    """Return by how much the two differ beyond rounding: ε^0.6 of the entry and ε^0.7 of the largest are let pass.

    In float64 that is 4e-10 and 1e-11: a batch and a sample are summed in another order. What is not finite differs
    from all that is.
    """
    size = jnp.maximum(jnp.abs(found.whole), jnp.abs(found.alone))
    entry = jnp.max(size, axis=0, keepdims=True)
    gap = jnp.abs(found.whole - found.alone) - (eps**0.6 * entry + eps**0.7 * jnp.max(entry))
    same = (found.whole == found.alone) | (jnp.isnan(found.whole) & jnp.isnan(found.alone))
    return jnp.where(same, 0.0, jnp.where(jnp.isnan(gap), jnp.inf, gap))


def _forward(f: Callable[[Array], Array], theta: Array) -> tuple[Array, Array]:
    return jax.jvp(f, (theta,), (_scattered(theta),))


def _reverse(f: Callable[[Array], Array], theta: Array) -> tuple[Array, Array]:
    values, pull = jax.vjp(f, theta)
    return values, pull(_scattered(values))[0]


def _scattered(like: Array) -> Array:
    """Return numbers in [−1, 1], the multiples of the golden ratio modulo 1: they share no symmetry with a net."""
    steps = jnp.arange(1, like.size + 1, dtype=like.dtype) * ((math.sqrt(5) - 1) / 2)
    return (2 * (steps - jnp.floor(steps)) - 1).reshape(like.shape)
