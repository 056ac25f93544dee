"""Pairs on their data, V fixed: the equations that Newton's method solves for the hidden weights."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array, Float, Params
from narrow_jax.activations import Activation
from narrow_jax.jacobian import KhatriRao, MLPJacobian, OneHiddenJacobian
from narrow_jax.linalg import xp
from narrow_jax.models import pairwise_apply, pairwise_mlp_apply
from narrow_jax.solvers.newton import Theta


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PairOnData:
    """f(θ; V) of a pair with one hidden layer, or with several, at the samples x. Made by ``of``."""

    x: Float[Array, "n d"]
    v: Float[Array, "h k"]
    sigmas: tuple[Activation, ...] = field(metadata={"static": True})
    structure: jax.tree_util.PyTreeDef = field(metadata={"static": True})
    shapes: tuple[tuple[int, ...], ...] = field(metadata={"static": True})

    @staticmethod
    def of(
        center: Params, x: Float[Array, "n d"], sigmas: tuple[Activation, ...]
    ) -> tuple[PairOnData, Theta]:
        """Return the pair and its hidden weights."""
        leaves, structure = jax.tree.flatten({name: leaf for name, leaf in center.items() if name != "v"})
        shapes = tuple(leaf.shape for leaf in leaves)
        theta = jnp.concatenate([leaf.reshape(-1) for leaf in leaves])
        return PairOnData(x, center["v"], sigmas, structure, shapes), theta

    def params(self, theta: Theta) -> Params:
        """Return the weights as the net has them."""
        ends = list(itertools.accumulate(map(math.prod, self.shapes)))
        parts = xp.split(theta, ends[:-1])
        leaves = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return {**jax.tree.unflatten(self.structure, leaves), "v": self.v}

    @jax.jit
    def predict(self, theta: Theta) -> Float[Array, " r"]:
        """Return f, rows (i, c)."""
        params = self.params(theta)
        if "w" in params:
            return pairwise_apply(params, self.x, self.sigmas[0]).reshape(-1)
        return pairwise_mlp_apply(params, self.x, self.sigmas).reshape(-1)

    @jax.jit
    def jacobian(self, theta: Theta) -> KhatriRao:
        """Return J with respect to θ, as computed."""
        params = self.params(theta)
        if "w" in params:
            one = OneHiddenJacobian(self.x, params["w"], self.v, self.sigmas[0], paired=True)
            return one.evaluate(bounded=False)
        names = sorted(params["plus"])
        layers = [f"w{layer}" for layer in range(1, len(names) + 1)]
        halves = tuple(tuple(params[half][name] for name in layers) for half in ("minus", "plus"))
        chosen = tuple(int(name[1:]) for name in names)
        return MLPJacobian(self.x, halves, self.v, self.sigmas, chosen).evaluate(bounded=False)
