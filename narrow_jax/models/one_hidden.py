"""One-hidden-layer nets without biases: pure functions, and the Flax modules that wrap them."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from narrow_jax import _checks, activations, initializers
from narrow_jax._typing import Array, Float, HostArray, Params
from narrow_jax.activations import Activation
from narrow_jax.models.pairs import activated

_LONG_INPUT = 64


def standard_apply(
    params: Params, x: Float[HostArray, "n d"], activation: str | Activation = "tanh"
) -> Float[Array, "n k"]:
    """Return f(x) = Σ_j v_j σ(w_jᵀx) for ``{"w": (d, m), "v": (m, k)}``.

    Example:
        >>> import jax
        >>> params = initializers.lecun(jax.random.key(0), inputs=3, width=4, outputs=2)
        >>> standard_apply(params, jnp.ones((5, 3))).shape
        (5, 2)

    Reference:
        "When Expressivity Meets Trainability", equation (1).
    """
    sigma = activations.get(activation)
    _check_shapes(params, x, paired=False)
    w, v = params["w"], params["v"]
    if sigma.units:  # which are told apart by the column
        return jnp.matmul(sigma(jnp.matmul(x, w)), v)
    return _outputs(w, v, x, lambda z, _: sigma(z))


def pairwise_apply(
    params: Params, x: Float[HostArray, "n d"], activation: str | Activation = "tanh"
) -> Float[Array, "n k"]:
    """Return f(x) = Σ_j v_j (σ(w_{j+}ᵀx) − σ(w_{j−}ᵀx)) for ``{"w": (d, m), "v": (h, k)}``.

    Columns 0 … h−1 of w are the "+" half, h … m−1 the "−" half: at a mirrored start the output is exactly 0.

    Example:
        >>> import jax
        >>> params = initializers.mirrored_lecun(jax.random.key(0), inputs=3, width=4)
        >>> float(jnp.abs(pairwise_apply(params, jnp.ones((5, 3)))).max())
        0.0

    Reference:
        "When Expressivity Meets Trainability", equation (6).
    """
    sigma = activations.shared(activation)
    _check_shapes(params, x, paired=True)
    plus, minus = jnp.split(params["w"], 2, axis=1)
    # equal columns of w may round apart in a product, zero cannot: exact at the mirrored start, accurate near it
    columns = jnp.concatenate([plus, plus - minus], axis=1)

    def difference(products: Array, axis: int) -> Array:
        z, gap = jnp.split(products, 2, axis=axis)
        return activated(sigma, z, gap)[1]

    return _outputs(columns, params["v"], x, difference)


def _check_shapes(params: Params, x: HostArray, paired: bool) -> None:
    """Require data and the leaves of a one-hidden-layer net that fit together, with two units a row of v if paired."""
    _checks.one_hidden(params)
    x, w, v = (_checks.array(name, leaf) for name, leaf in (("x", x), ("w", params["w"]), ("v", params["v"])))
    matrices = x.ndim == w.ndim == v.ndim == 2
    if not matrices or w.shape != (x.shape[1], (1 + paired) * v.shape[0]):
        net = "pairwise net: w (d, 2h), v (h, k)" if paired else "standard net: w (d, m), v (m, k)"
        raise ValueError(
            f"x has shape {x.shape}, w {w.shape}, v {v.shape}; expected x (n, d) and, for the {net}"
        )


def _outputs(w: HostArray, v: HostArray, x: HostArray, hidden: Callable[[Array, int], Array]) -> Array:
    """Return hidden(XW)V, ``hidden`` being told along which axis the units lie: rows for short inputs.

    On a CPU the products take longer the other way.
    """
    if x.shape[1] < _LONG_INPUT:
        return jnp.matmul(v.T, hidden(jnp.matmul(w.T, x.T), 0)).T
    return jnp.matmul(hidden(jnp.matmul(x, w), 1), v)


class StandardNet(nn.Module):
    """The standard net as a Flax module, ``{"w": (d, m), "v": (m, k)}`` drawn by ``lecun``.

    Example:
        >>> import jax
        >>> net = StandardNet(width=4)
        >>> variables = net.init(jax.random.key(0), jnp.ones((5, 3)))
        >>> net.apply(variables, jnp.ones((5, 3))).shape
        (5, 1)
    """

    width: int
    outputs: int = 1
    activation: str | Activation = "tanh"
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[HostArray, "n d"]) -> Float[Array, "n k"]:
        """Return f(x)."""
        return standard_apply(_declare(self, initializers.lecun, x), x, self.activation)


class PairwiseNet(nn.Module):
    """The pairwise net as a Flax module, ``{"w": (d, m), "v": (h, k)}`` drawn by ``mirrored_lecun``.

    Example:
        >>> import jax
        >>> net = PairwiseNet(width=4, outputs=2)
        >>> variables = net.init(jax.random.key(0), jnp.ones((5, 3)))
        >>> {name: leaf.shape for name, leaf in variables["params"].items()}
        {'w': (3, 4), 'v': (2, 2)}
    """

    width: int
    outputs: int = 1
    activation: str | Activation = "tanh"
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[HostArray, "n d"]) -> Float[Array, "n k"]:
        """Return f(x)."""
        return pairwise_apply(_declare(self, initializers.mirrored_lecun, x), x, self.activation)


def _declare(net: StandardNet | PairwiseNet, draw: Callable[..., Params], x: HostArray) -> Params:
    sizes = {"inputs": x.shape[-1], "width": net.width, "outputs": net.outputs, "dtype": net.param_dtype}
    return {name: net.param(name, lambda key, name=name: draw(key, **sizes)[name]) for name in ("w", "v")}
