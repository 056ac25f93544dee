"""The narrow regime for any Flax model: mirrored channels, and the pairwise head that reads them.

Features whose second half of channels equals the first give 0 in ``PairwiseHead``. ``mirror`` makes the two halves of
the weights equal. A compiler may still round equal channels apart, so ``is_mirrored`` tells the head of them.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from narrow_jax import _checks, constraints, initializers
from narrow_jax._typing import Array, Bool, Float, HostArray, Params
from narrow_jax.labels import label_tree, listed, path_name
from narrow_jax.models.pairs import zero_where


def mirror_channels(leaf: HostArray) -> Array:
    """Return the leaf with the second half of its last axis, the output channels, replaced by the first.

    Raises:
        ValueError: an odd number of channels, or none.

    Example:
        >>> mirror_channels(jnp.array([1.0, 2.0, 3.0, 4.0]))
        Array([1., 2., 1., 2.], dtype=float32)
    """
    _checks.array("leaf", leaf)
    if leaf.ndim == 0:
        raise ValueError("the leaf has shape (); expected its output channels along the last axis")
    _checks.even_width(leaf.shape[-1])
    half = jnp.asarray(leaf)[..., : leaf.shape[-1] // 2]
    return jnp.concatenate([half, half], axis=-1)


def mirror(params: Params, labels: constraints.Labels) -> Params:
    """Return params in which the leaves labelled "w" have mirrored output channels: channel j equals channel j + m/2.

    Output channels are the last axis, as in Flax: kernels (…, inputs, m), biases and norm scales (m,). Mirror all
    parameters between the block's input and a ``PairwiseHead``, norms included, before ``init`` of the optimizer; a
    block's input may be anything. The logits are then 0, up to rounding: compiled code may sum two equal channels in
    another order. Where ``is_mirrored`` tells the head, they are 0 exactly.

    Args:
        params: any pytree.
        labels: as in ``nj.constraints.regime``, whose ball then is around this start.

    Raises:
        ValueError: an odd number of output channels, bad labels, or no leaf labelled "w".

    Example:
        >>> params = {"conv": {"kernel": jnp.arange(4.0).reshape(1, 1, 1, 4)}, "head": {"v": jnp.ones((2, 3))}}
        >>> mirror(params, constraints.by_path(w="conv", v="head/v"))["conv"]["kernel"]
        Array([[[[0., 1., 0., 1.]]]], dtype=float32)
    """

    def leaf_of(path: tuple[Any, ...], mark: str, leaf: HostArray) -> HostArray:
        if mark != "w":
            return leaf
        try:
            return mirror_channels(leaf)
        except ValueError as error:
            raise ValueError(
                f"leaf {path_name(path)!r} of shape {leaf.shape} cannot be mirrored: {error}"
            ) from None

    marks = label_tree(labels, params)
    if "w" not in jax.tree.leaves(marks):
        raise ValueError(
            f"mirror: no leaf is labelled 'w', nothing would be mirrored. The leaves are {listed(params)}: name those "
            "between the block's input and the head, labels=nj.constraints.by_path(w=…)"
        )
    return jax.tree_util.tree_map_with_path(leaf_of, marks, params)


def mirrored(draw: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """Return the initializer that mirrors what another draws.

    Example:
        >>> mirrored(lambda key, shape: jnp.arange(4.0))(jax.random.key(0), (4,))
        Array([0., 1., 0., 1.], dtype=float32)
    """
    return lambda *args, **kwargs: mirror_channels(draw(*args, **kwargs))


def is_mirrored(*variables: Any) -> Bool[Array, ""]:
    """Return whether channel j equals channel j + m/2 in all leaves: then so do features that are made of them alone.

    Only the variables are looked at. Where the two halves see different inputs, as in a grouped convolution at the
    entry of the block or an identity past it, features differ all the same.

    Args:
        variables: all variables of the layers between a block's input and ``PairwiseHead``, any trees: the params and,
            in evaluation mode, the statistics of norms.

    Raises:
        ValueError: no leaf, or one with an odd number of channels.

    Example:
        >>> bool(is_mirrored({"kernel": jnp.array([[1.0, 2.0, 1.0, 2.0]])}, {"mean": jnp.zeros(4)}))
        True
    """
    leaves = jax.tree.leaves(variables)
    if not leaves:
        raise ValueError("is_mirrored got no leaf; expected the variables of the layers before the head")
    return jnp.all(jnp.stack([jnp.all(leaf == mirror_channels(leaf)) for leaf in leaves]))


def pairwise_head(
    v: HostArray, features: HostArray, mirrored: bool | Bool[Array, ""] = False
) -> Float[Array, "n k"]:
    """Return the logits (φ₊ − φ₋)V of features φ = (φ₊, φ₋), cast to the dtype of V: exactly 0 for equal halves.

    Args:
        v: V, (h, k).
        features: φ, (n, 2h).
        mirrored: the halves are equal, whatever rounding made of them (``is_mirrored``); gradients are not changed.

    Raises:
        ValueError: features that are not twice as many as the rows of V.

    Example:
        >>> pairwise_head(jnp.ones((2, 1)), jnp.array([[3.0, 4.0, 3.0, 4.0], [3.0, 4.0, 1.0, 1.0]]))
        Array([[0.],
               [5.]], dtype=float32)

    Reference:
        "When Expressivity Meets Trainability", equation (6).
    """
    _checks.array("v", v)
    _checks.array("features", features)
    if features.ndim != 2 or v.ndim != 2 or features.shape[1] != 2 * v.shape[0]:
        raise ValueError(f"features have shape {features.shape}, v {v.shape}; expected (n, 2h) and (h, k)")
    v = jnp.asarray(v)  # NumPy's float64 is float32 here where x64 is off
    plus, minus = jnp.split(features.astype(v.dtype), 2, axis=1)
    return zero_where(mirrored | (plus == minus), plus - minus) @ v


class PairwiseHead(nn.Module):
    """The output layer ``pairwise_head`` as a Flax module: no bias, exactly 0 for equal halves of the features.

    V (h, k) is drawn as in ``mirrored_lecun``, inside the cone of ζ = 1e-3, and named "v": the cone's label by
    default.

    Raises:
        ValueError: an odd number of features.

    Example:
        >>> variables = PairwiseHead(outputs=3).init(jax.random.key(0), jnp.ones((5, 8)))
        >>> {name: leaf.shape for name, leaf in variables["params"].items()}
        {'v': (4, 3)}

    Reference:
        "When Expressivity Meets Trainability", equation (6).
    """

    outputs: int = 1
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: Float[Array, "n m"], mirrored: bool | Bool[Array, ""] = False
    ) -> Float[Array, "n k"]:
        """Return the logits; ``mirrored`` as in ``pairwise_head``."""
        width = features.shape[-1]
        _checks.even_width(width)

        def draw(key: Array) -> Array:
            return initializers.mirrored_lecun(
                key, inputs=1, width=width, outputs=self.outputs, dtype=self.param_dtype
            )["v"]

        return pairwise_head(self.param("v", draw), features, mirrored)
