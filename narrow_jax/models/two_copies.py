"""The pairwise net over any features: two copies of them, and one output layer that reads their difference."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax._typing import Array, Bool, Float, HostArray, Params
from narrow_jax.models.mirroring import pairwise_head
from narrow_jax.models.pairs import halves

Features = Callable[[Params, Any], Any] | nn.Module
"""``features(w, x) -> (n, h)``, or a Linen module whose ``apply`` it is."""


@dataclass(frozen=True)
class TwoCopies:
    """What ``pairwise`` returns. Equal for equal features, so that a compiled loop is used again."""

    features: Features

    def __call__(self, params: Params, x: HostArray) -> Float[Array, "n k"]:
        """Return f(x)."""
        plus, minus, v = halves(params)
        phi = features_of(self.features)
        both = [_rows(phi(w, x), x, v) for w in (plus, minus)]
        return pairwise_head(v, jnp.concatenate(both, axis=1), _equal(plus, minus))


def features_of(features: Features) -> Callable[[Params, Any], Any]:
    """Return the function (w, x) ↦ φ(x; w)."""
    if not isinstance(features, nn.Module):
        return features
    module = features

    def apply(w: Params, x: Any) -> Any:
        if not isinstance(w, Mapping) or "params" not in w:
            keys = ", ".join(map(str, w)) if isinstance(w, Mapping) else type(w).__name__
            raise ValueError(
                f"w is {keys or 'empty'}; expected the variables of {type(module).__name__}, "
                '{"params": …}, as module.init(key, x) returns them'
            )
        return module.apply(w, x)

    return apply


def pairwise(features: Features) -> TwoCopies:
    """Return ``apply_fn(params, x) -> (n, k)`` of the pairwise net f(x) = (φ(x; w₊) − φ(x; w₋)) V over any features φ.

    Its params are ``{"plus": w₊, "minus": w₋, "v": V}``. Start with w₊ = w₋ and V in the cone, such as the "v" of
    ``mirrored_lecun(key, inputs=1, width=2 * h, outputs=k)``: f is then exactly 0 for every x, however the features of
    the two copies are rounded, and its gradients are those of the formula. By default (``nj.constraints.by_name``) the
    ball of ``nj.constraints.regime`` is one around both copies, and the cone is for V.

    Args:
        features: ``features(w, x) -> (n, h)``, smooth in the pytree w, the same function of w and x at every call: no
            dropout, no statistics of the batch. Or a Linen module, whose ``apply(w, x)`` is taken: w are its variables
            ``{"params": …}``.

    Raises:
        TypeError: no function, such as an nnx module. When applied: params that are no dict, features that are no
            array.
        ValueError: when applied, other keys than plus, minus and v, copies that differ in names, shapes or dtypes,
            features of another shape than (n, h), or a v of another height.

    Example:
        >>> apply_fn = pairwise(lambda w, x: jnp.sin(x @ w["kernel"] + w["bias"]))
        >>> w = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
        >>> apply_fn({"plus": w, "minus": w, "v": jnp.ones((2, 1))}, jnp.ones((1, 3)))
        Array([[0.]], dtype=float32)

    Reference:
        "When Expressivity Meets Trainability", equation (6), with any features in place of σ(xw).
    """
    if isinstance(features, type):
        raise TypeError(
            f"features is the class {features.__name__}; expected a module of it, {features.__name__}(…)"
        )
    if not isinstance(features, nn.Module):
        _checks.function("features", features, "(w, x) ↦ features (n, h)", "module.apply")
    return TwoCopies(features)


def _rows(phi: Any, x: HostArray, v: HostArray) -> Float[Array, "n h"]:
    """Require one row a sample, as long as V is high."""
    _checks.array("features(w, x)", phi)
    samples = _checks.array("x", x).shape[:1]
    if phi.ndim != 2 or phi.shape[:1] != samples:
        raise ValueError(
            f"features(w, x) has shape {phi.shape} for x of shape {x.shape}; expected (n, h), one row a sample"
        )
    if v.ndim != 2 or v.shape[0] != phi.shape[1]:
        raise ValueError(
            f"v has shape {v.shape} and features(w, x) {phi.shape}; expected v (h, k) with h = {phi.shape[1]}"
        )
    return jnp.asarray(phi)


def _equal(plus: Params, minus: Params) -> Bool[Array, ""]:
    """Return whether all leaves of two trees are equal."""
    pairs = zip(jax.tree.leaves(plus), jax.tree.leaves(minus), strict=True)
    return functools.reduce(operator.and_, [jnp.all(jnp.equal(a, b)) for a, b in pairs])
