"""The pairwise net of any depth, without biases: a pure function, and the Flax module that wraps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from narrow_jax import _checks, initializers
from narrow_jax._typing import Array, Float, HostArray, Key, Params
from narrow_jax.models.mlp import Activations, mlp_activations, pairwise_mlp_layers
from narrow_jax.models.pairs import activated


def pairwise_mlp_apply(
    params: Params, x: Float[HostArray, "n d"], activation: Activations = "tanh"
) -> Float[Array, "n k"]:
    """Return f(x) = (φ(x; plus) − φ(x; minus)) V, φ the layers a_l = σ_l(a_{l−1} W_l) of ``{"w1": (d, n_1), …, "wH"}``.

    The difference g = a⁺ − a⁻ goes through the layers beside a⁺: z⁺ − z⁻ = a⁺(W⁺ − W⁻) + gW⁻. It is exactly 0 for
    every x where the halves are equal, and near that only σ is rounded in two ways, not the products.

    Args:
        params: ``{"plus": {"w1": (d, n_1), …, "wH": (n_{H−1}, h)}, "minus": the same, "v": (h, k)}``.
        x: one row a sample.
        activation: σ, or a sequence σ_1 … σ_H.

    Raises:
        ValueError: as ``pairwise_mlp_layers``, data of another width, or activations of another number.
        TypeError: params, leaves or data that are no arrays.

    Example:
        >>> params = initializers.mirrored_mlp(jax.random.key(0), inputs=3, widths=(6, 4), outputs=2)
        >>> pairwise_mlp_apply(params, jnp.ones((1, 3)))
        Array([[0., 0.]], dtype=float32)

    Reference:
        "When Expressivity Meets Trainability", equation (6), with features of any depth.
    """
    plus, minus, v = pairwise_mlp_layers(params)
    _checks.array("x", x)
    if x.ndim != 2 or x.shape[1] != plus[0].shape[0]:
        raise ValueError(f"x has shape {x.shape}; expected (n, {plus[0].shape[0]}) for these params")
    x, plus, minus = jax.tree.map(jnp.asarray, (x, plus, minus))
    layers = zip(mlp_activations(activation, len(plus)), plus, minus, strict=True)
    # equal weights may round apart in two products, zero cannot
    sigma, w, other = next(layers)
    a, gap = activated(sigma, x @ w, x @ (w - other))
    for sigma, w, other in layers:
        a, gap = activated(sigma, a @ w, a @ (w - other) + gap @ other)
    return gap @ v


class PairwiseMLP(nn.Module):
    """The deep pairwise net as a Flax module, its params drawn by ``mirrored_mlp``.

    ``{"plus": {"w1": (d, n_1), …, "wH": (n_{H−1}, h)}, "minus": the same, "v": (h, k)}``, ``widths`` being n_1 … n_H.

    Example:
        >>> variables = PairwiseMLP(widths=(6, 4)).init(jax.random.key(0), jnp.ones((5, 3)))
        >>> jax.tree.map(jnp.shape, variables["params"]["minus"])
        {'w1': (3, 6), 'w2': (6, 4)}
    """

    widths: Sequence[int] = (30, 30)
    outputs: int = 1
    activation: Activations = "tanh"
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[HostArray, "n d"]) -> Float[Array, "n k"]:
        """Return f(x)."""

        def drawn(name: str) -> Callable[[Key[Array, ""]], Params]:
            return lambda key: initializers.mirrored_mlp(
                key, inputs=x.shape[-1], widths=self.widths, outputs=self.outputs, dtype=self.param_dtype
            )[name]

        plus = self.param("plus", drawn("plus"))
        minus = self.param("minus", lambda _: jax.tree.map(jnp.copy, plus))
        return pairwise_mlp_apply(
            {"plus": plus, "minus": minus, "v": self.param("v", drawn("v"))}, x, self.activation
        )
