"""Deep fully connected nets without biases: a pure function, and the Flax module that wraps it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from narrow_jax import _checks, activations
from narrow_jax._typing import Array, Float, HostArray, Params
from narrow_jax.activations import Activation
from narrow_jax.models.pairs import halves


def mlp_layers(params: Params) -> list[HostArray]:
    """Return the weights W_1 … W_L of ``{"w1": (d, n_1), …, "wL": (n_{L−1}, n_L)}`` in order.

    Raises:
        ValueError: other names, such as biases, or shapes that do not chain.
        TypeError: params that are no dict, or leaves that are no arrays.

    Example:
        >>> [w.shape for w in mlp_layers({"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 1))})]
        [(3, 4), (4, 1)]
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"params is a {type(params).__name__}; expected a dict of the weights w1, w2, …")
    names = [f"w{layer}" for layer in range(1, len(params) + 1)]
    if set(names) != set(params) or not names:
        found = ", ".join(sorted(params)) or "none"
        raise ValueError(f"params have the leaves {found}; expected w1, w2, … of a net without biases")
    weights = [_checks.array(name, params[name]) for name in names]
    shapes = [w.shape for w in weights]
    chain = all(len(shape) == 2 for shape in shapes) and all(
        a[1] == b[0] for a, b in itertools.pairwise(shapes)
    )
    if not chain:
        raise ValueError(f"the weights have shapes {shapes}; expected matrices (n_{{l−1}}, n_l) that chain")
    return weights


Layers = list[HostArray]


def pairwise_mlp_layers(params: Params) -> tuple[Layers, Layers, Float[HostArray, "h k"]]:
    """Return W_1⁺ … W_H⁺, W_1⁻ … W_H⁻ and V of ``{"plus": {"w1", …, "wH"}, "minus": {…}, "v": (n_H, k)}``.

    Raises:
        ValueError: other keys, biases, no layer, shapes that do not chain, halves that differ, a v of another height.
        TypeError: params or halves that are no dicts, or leaves that are no arrays.

    Example:
        >>> half = {"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 2))}
        >>> plus, _, v = pairwise_mlp_layers({"plus": half, "minus": half, "v": jnp.ones((2, 1))})
        >>> [w.shape for w in plus], v.shape
        ([(3, 4), (4, 2)], (2, 1))
    """
    plus, minus, v = halves(params)
    layers = _layers_of("plus", plus), _layers_of("minus", minus)
    height = layers[0][-1].shape[1]
    if v.ndim != 2 or v.shape[0] != height:
        raise ValueError(
            f"v has shape {v.shape}; expected (h, k) with h = {height}, the units of the last layer"
        )
    return *layers, v


def _layers_of(name: str, half: Params) -> Layers:
    try:
        return mlp_layers(half)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the half {name!r}: {error}") from None


Activations = str | Activation | Sequence[str | Activation]


def mlp_activations(activation: Activations, hidden: int) -> list[Activation]:
    """Return the activation of each hidden layer: the same for all, or a sequence with one a layer.

    Raises:
        ValueError: a sequence of another length.

    Example:
        >>> [sigma.name for sigma in mlp_activations(("relu", "tanh"), hidden=2)]
        ['relu', 'tanh']
    """
    if isinstance(activation, str | Activation):
        return [activations.get(activation)] * hidden
    if not isinstance(activation, Sequence):
        raise TypeError(
            f"activation is {activation!r}; expected a name such as 'tanh', an nj.activations.Activation, which states "
            "the constants of a function of your own, or a sequence with one a hidden layer"
        )
    if len(activation) != hidden:
        raise ValueError(
            f"activation has {len(activation)} entries; expected {hidden}, one a hidden layer "
            "(nj.activations.per_unit makes one of units that differ)"
        )
    return [activations.get(sigma) for sigma in activation]


def mlp_apply(
    params: Params, x: Float[HostArray, "n d"], activation: Activations = "relu"
) -> Float[Array, "n k"]:
    """Return F_L = F_{L−1} W_L with F_0 = X and F_l = σ_l(F_{l−1} W_l), for ``{"w1": (d, n_1), …}``.

    ``activation`` is σ, or a sequence σ_1 … σ_{L−1}.

    Example:
        >>> params = {"w1": jnp.eye(2), "w2": jnp.ones((2, 1))}
        >>> mlp_apply(params, jnp.array([[3.0, -1.0]]))
        Array([[3.]], dtype=float32)

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", (1);
        "Effect of Depth and Width on Local Minima in Deep Learning", (4.1).
    """
    first, *others = mlp_layers(params)
    _checks.array("x", x)
    sigmas = mlp_activations(activation, len(others))
    if x.ndim != 2 or x.shape[1] != first.shape[0]:
        raise ValueError(f"x has shape {x.shape}; expected (n, {first.shape[0]}) for these params")
    z = jnp.asarray(x) @ first
    for sigma, w in zip(sigmas, others, strict=True):
        z = sigma(z) @ w
    return z


class MLP(nn.Module):
    """The net as a Flax module: layers of ``widths``, the last one linear, entries drawn N(0, 1/n_{l−1}).

    Example:
        >>> import jax
        >>> variables = MLP(widths=(40, 4, 1)).init(jax.random.key(0), jnp.ones((5, 3)))
        >>> {name: leaf.shape for name, leaf in variables["params"].items()}
        {'w1': (3, 40), 'w2': (40, 4), 'w3': (4, 1)}
    """

    widths: Sequence[int]
    activation: Activations = "relu"
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[HostArray, "n d"]) -> Float[Array, "n k"]:
        """Return F_L."""
        draw = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        sizes = itertools.pairwise((x.shape[-1], *self.widths))
        params = {
            f"w{layer}": self.param(f"w{layer}", draw, size, self.param_dtype)
            for layer, size in enumerate(sizes, start=1)
        }
        return mlp_apply(params, x, self.activation)
