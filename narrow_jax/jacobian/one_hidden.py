"""Jacobians of one-hidden-layer networks with respect to the hidden weights, from X and D alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, activations
from narrow_jax._typing import Array, Computed, Float, HostArray, Leaf, Params
from narrow_jax.activations import Activation
from narrow_jax.activations import check as check_activation
from narrow_jax.jacobian import layers
from narrow_jax.jacobian.khatri_rao import KhatriRao
from narrow_jax.linalg import Jacobian, arrays, context, xp
from narrow_jax.linalg import rounding as fl


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneHiddenJacobian(Jacobian):
    """∂f/∂w of f(x) = Σ_j s_j v_jc σ(w_jᵀx): J[(i, c), (a, j)] = s_j v_jc σ'(w_jᵀx_i) x_ia.

    Rows are ordered (sample, output), columns as ``ravel_pytree`` lays out w of shape (d, m): the units interleave.
    Made by ``pairwise`` and ``standard``.
    """

    x: Leaf
    w: Leaf
    v: Leaf
    activation: Activation = field(metadata={"static": True})
    paired: bool = field(metadata={"static": True})

    encloses = "the Jacobian"

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n·k, d·m)."""
        return jnp.shape(self.x)[0] * jnp.shape(self.v)[1], int(np.prod(jnp.shape(self.w)))

    @property
    def dtype(self) -> jnp.dtype:
        """Return the dtype of the weights, in which traced results come."""
        return context.dtype_of(self.w)

    def evaluate(self, dtype: str = "float64", bounded: bool = True) -> KhatriRao:
        """Return the matrix, D computed once; with its distance from the exact Jacobian in float64 if asked."""
        x, w, v = (fl.widened(leaf, dtype) for leaf in (self.x, self.w, self.v))
        return _evaluate(x, w, v, self.activation, self.paired, bounded)

    def bilinear(self, u: Float[HostArray, " r"], p: Float[HostArray, " p"]) -> Float[Array, ""]:
        """Return uᵀJp in the dtype at hand, differentiable in x, w and v."""
        v = jnp.asarray(self.v, self.dtype)
        signed = jnp.concatenate([v, -v]) if self.paired else v
        x, w = jnp.asarray(self.x, self.dtype), jnp.asarray(self.w)
        slopes = self.activation.derivative(fl.matmul(x, w)) * fl.matmul(x, jnp.asarray(p).reshape(w.shape))
        return jnp.sum(u.reshape(x.shape[0], -1) * fl.matmul(slopes, signed))


def pairwise(params: Params, x: object, activation: str | Activation = "tanh") -> OneHiddenJacobian:
    """Return the Jacobian of the pairwise net with respect to w.

    f(x) = Σ_{j<h} v_j (σ(w_jᵀx) − σ(w_{h+j}ᵀx)); J Jᵀ = (XXᵀ) ∘ (DDᵀ) with D_ij = ±v_j σ'(w_jᵀx_i).

    Args:
        params: {"w": (d, m), "v": (m/2, k)}.
        x: data, (n, d).
        activation: name or ``Activation``.

    Returns:
        An operator of shape (n·k, d·m): rows (sample, output), columns as ``ravel_pytree`` orders w.

    Raises:
        ValueError: shapes that do not fit, no sample, non-finite values, an activation whose constants are refuted.
        TypeError: params or data that are not real floating numbers.

    Example:
        >>> import numpy as np
        >>> params = {"w": np.ones((3, 4)), "v": np.ones((2, 1))}
        >>> pairwise(params, np.ones((5, 3))).shape
        (5, 12)

    Reference:
        Equation (6) of "When Expressivity Meets Trainability: Fewer than n Neurons Can Work".
    """
    w, v, x = _checked(params, x)
    sigma = check_activation(activations.shared(activation))
    _checks.even_width(w.shape[1])
    if v.shape[0] * 2 != w.shape[1]:
        raise ValueError(
            f"v has {v.shape[0]} rows and w has {w.shape[1]} columns; a pairwise net has v of shape (m/2, k): "
            f"expected {w.shape[1] // 2} rows. For one v a unit use jacobian.standard"
        )
    return OneHiddenJacobian(x, w, v, sigma, paired=True)


def standard(params: Params, x: object, activation: str | Activation = "tanh") -> OneHiddenJacobian:
    """Return the Jacobian of the standard net f(x) = Σ_{j<m} v_j σ(w_jᵀx) with respect to w.

    Args:
        params: {"w": (d, m), "v": (m, k)}.
        x: data, (n, d).
        activation: name or ``Activation``.

    Returns:
        An operator of shape (n·k, d·m): rows (sample, output), columns as ``ravel_pytree`` orders w.

    Raises:
        ValueError: shapes that do not fit, no sample, non-finite values, an activation whose constants are refuted.
        TypeError: params or data that are not real floating numbers.

    Example:
        >>> import numpy as np
        >>> standard({"w": np.ones((3, 4)), "v": np.ones((4, 2))}, np.ones((5, 3))).shape
        (10, 12)

    Reference:
        Equation (3) of "When Expressivity Meets Trainability: Fewer than n Neurons Can Work".
    """
    w, v, x = _checked(params, x)
    if v.shape[0] != w.shape[1]:
        raise ValueError(
            f"v has {v.shape[0]} rows and w has {w.shape[1]} columns; a standard net has v of shape (m, k): "
            f"expected {w.shape[1]} rows. For v of shape (m/2, k) use jacobian.pairwise"
        )
    return OneHiddenJacobian(x, w, v, check_activation(activation), paired=False)


def _checked(params: Params, x: object) -> tuple[HostArray, HostArray, HostArray]:
    (w, v), data = _checks.weights(params), _checks.real_matrix("x", x)
    if data.shape[0] == 0:
        raise ValueError(f"x has shape {data.shape}: there is no sample; expected n ≥ 1")
    if 0 in w.shape or 0 in v.shape:
        raise ValueError(
            f"w has shape {w.shape} and v {v.shape}; expected at least one input, unit and output"
        )
    if data.shape[1] != w.shape[0]:
        raise ValueError(
            f"x has {data.shape[1]} columns and w has {w.shape[0]} rows; expected x (n, d) and w (d, m) of the same d"
        )
    _checks.finite("x", data)
    return w, v, data


@arrays.compiled(static_argnames=("activation", "paired", "bounded"))
def _evaluate(
    x: Float[Computed, "n d"],
    w: Float[Computed, "d m"],
    v: Float[Computed, "_ k"],
    activation: Activation,
    paired: bool,
    bounded: bool,
) -> KhatriRao:
    v = xp.concatenate([v, -v]) if paired else v
    exact = layers.carried(x, w, v) if bounded and x.dtype == np.float64 else None
    hidden, _, _ = layers.forward(x, (w,), (activation,), bounded)
    return KhatriRao(*layers.together(layers.backward(hidden, (w,), v, exact)))
