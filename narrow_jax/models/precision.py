"""Mixed precision by composition: a model that computes in bfloat16 while its weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from narrow_jax._typing import HostArray, Params, Tree

__all__ = ["bfloat16"]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


@dataclass(frozen=True)
class Bfloat16:
    """Equal for equal functions, so that the compiled loop is found again."""

    apply_fn: Callable[..., Any]

    def __call__(self, params: Params, *inputs: Any, **options: Any) -> Tree:
        """Compute in bfloat16, answer in float32; variables of the model pass as they are."""
        *state, x = inputs
        result = self.apply_fn(_lower(params), *state, _lower(x), **options)
        if not state:
            return result.astype(jnp.float32)
        outputs, updated = result
        return outputs.astype(jnp.float32), updated


def bfloat16(apply_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the model computed in bfloat16: weights and samples are rounded on the way in, outputs are float32.

    Loss, gradients of the weights, optimizer and constraints stay in float32, and so do the variables of a model
    with ``model_state`` (BatchNorm statistics). A product of bfloat16 numbers carries 8 bits, so that a pairwise
    net sees its two halves apart only where they differ by more than 2⁻⁸ of the weights: use it with large balls.
    Samples that are integers pass as they are. A model that scales bytes makes float32 of them, which Flax then
    computes in: scale them outside, ``lambda params, x: bfloat16(net)(params, x / 255)``.

    Args:
        apply_fn: ``apply_fn(params, x)`` or ``apply_fn(params, state, x, train=…)``, as ``nj.fit`` takes them.

    Example:
        >>> import narrow_jax as nj
        >>> params = nj.initializers.lecun(jax.random.key(0), inputs=3, width=4)
        >>> net = bfloat16(nj.models.standard_apply)
        >>> net(params, jnp.ones((5, 3))).dtype, net == bfloat16(nj.models.standard_apply)
        (dtype('float32'), True)
    """
    return Bfloat16(apply_fn)


def _lower(tree: Tree) -> Tree:
    def lower(leaf: HostArray) -> HostArray:
        return leaf.astype(jnp.bfloat16) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(lower, tree)
