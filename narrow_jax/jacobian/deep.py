"""Jacobians of deep nets without biases, of one net or of a pair, with respect to all their layers or some."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, labels
from narrow_jax._typing import Array, Computed, Float, HostArray, Leaf, Params
from narrow_jax.activations import Activation
from narrow_jax.activations import check as check_activation
from narrow_jax.jacobian import layers
from narrow_jax.jacobian.khatri_rao import KhatriRao
from narrow_jax.linalg import Jacobian, arrays, context
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations, mlp_activations, mlp_layers, pairwise_mlp_layers

Half = tuple[Leaf, ...]
"""W_1 … W_H of one net, or of one of a pair."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MLPJacobian(Jacobian):
    """∂f/∂θ of f = φ(x; W)V, or of a pair's f = (φ(x; W⁺) − φ(x; W⁻))V with V fixed: a sum of Khatri–Rao products.

    With a_l = σ_l(a_{l−1}W_l) and Δ_l^c = ∂f_c/∂(a_{l−1}W_l), the row (i, c) holds a_{l−1,i} ⊗ Δ^c_{l,i} for each layer
    l. Rows are ordered (sample, output), columns as ``ravel_pytree`` lays out the leaves. Made by ``mlp`` and
    ``pairwise_mlp``.

    Args:
        x: data, (n, d).
        halves: of one net; or W⁻, then W⁺.
        v: V, (h, k).
        sigmas: σ_1 … σ_H.
        chosen: the layers l, from 1, in the order of the columns; H + 1 is V, of one net only.
    """

    x: Leaf
    halves: tuple[Half, ...]
    v: Leaf
    sigmas: tuple[Activation, ...] = field(metadata={"static": True})
    chosen: tuple[int, ...] = field(metadata={"static": True})

    encloses = "the Jacobian"

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n·k, number of weights)."""
        columns = sum(math.prod(shape) for half in self.halves for shape in self._shapes(half))
        return jnp.shape(self.x)[0] * jnp.shape(self.v)[1], columns

    @property
    def dtype(self) -> jnp.dtype:
        """Return the dtype of the weights, in which traced results come."""
        return context.dtype_of(*self.halves[0], self.v)

    def evaluate(self, dtype: str = "float64", bounded: bool = True) -> KhatriRao:
        """Return the matrix, a and Δ computed once; with its distance from the exact Jacobian in float64 if asked."""
        x, halves, v = jax.tree.map(lambda leaf: fl.widened(leaf, dtype), (self.x, self.halves, self.v))
        return _evaluate(x, halves, v, self.sigmas, self.chosen, bounded)

    def bilinear(self, u: Float[HostArray, " r"], p: Float[HostArray, " p"]) -> Float[Array, ""]:
        """Return uᵀJp in the dtype at hand, differentiable in x, W and V."""
        x, v = (jnp.asarray(leaf, self.dtype) for leaf in (self.x, self.v))
        total, start = jnp.zeros((x.shape[0], v.shape[1]), self.dtype), 0
        for half, sign in zip(self.halves, self._signs, strict=True):
            steps: dict[int, Array] = {}
            for layer, shape in zip(self.chosen, self._shapes(half), strict=True):
                size = math.prod(shape)
                steps[layer] = jnp.asarray(p)[start : start + size].reshape(shape)
                start += size
            total = total + sign * _moved(x, half, v, self.sigmas, steps)
        return jnp.sum(u.reshape(total.shape) * total)

    @property
    def _signs(self) -> tuple[int, ...]:
        return (1,) if len(self.halves) == 1 else (-1, 1)

    def _shapes(self, half: Half) -> list[tuple[int, ...]]:
        weights = (*half, self.v)
        return [jnp.shape(weights[layer - 1]) for layer in self.chosen]


def mlp(
    params: Params,
    x: object,
    activation: Activations = "tanh",
    wrt: str | Iterable[str] | None = None,
) -> MLPJacobian:
    """Return the Jacobian of a deep net without biases, f(x) = σ_H(… σ_1(xW_1) …)W_{H+1}, with respect to its layers.

    J Jᵀ = Σ_l (A_{l−1}A_{l−1}ᵀ) ∘ (Δ_lΔ_lᵀ), the empirical neural tangent kernel: λ_min(NTK) = σ_min(J)².

    Args:
        params: {"w1": (d, n_1), …, "wL": (n_{L−1}, k)}.
        x: data, (n, d).
        activation: name or ``Activation``, or a sequence with one a hidden layer.
        wrt: names of the layers; None for all.

    Returns:
        An operator of shape (n·k, number of weights): rows (sample, output), columns as ``ravel_pytree`` orders the
        leaves.

    Raises:
        ValueError: biases, shapes that do not fit, no sample, non-finite values, a layer that is not there, an
            activation whose constants are refuted.
        TypeError: params or data that are not real floating numbers.

    Example:
        >>> import numpy as np
        >>> params = {"w1": np.ones((3, 4)), "w2": np.ones((4, 5)), "w3": np.ones((5, 2))}
        >>> mlp(params, np.ones((6, 3))).shape, mlp(params, np.ones((6, 3)), wrt="w1").shape
        ((12, 42), (12, 12))

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", (1);
        docs/proofs/jacobian.md.
    """
    *hidden, v = (_weight(f"w{layer}", w) for layer, w in enumerate(mlp_layers(params), start=1))
    params = dict(sorted(params.items()))
    names = list(params)
    chosen = range(len(names)) if wrt is None else _selected(params, wrt)
    return MLPJacobian(
        x=_data(x, (*hidden, v)[0]),
        halves=(tuple(hidden),),
        v=v,
        sigmas=_checked(activation, len(hidden)),
        chosen=tuple(int(names[index][1:]) for index in chosen),
    )


def pairwise_mlp(params: Params, x: object, activation: Activations = "tanh") -> MLPJacobian:
    """Return the Jacobian of the pair f(x) = (φ(x; W⁺) − φ(x; W⁻))V with respect to W⁺ and W⁻, V fixed.

    At a mirrored start J = [−J̄, J̄], J̄ that of φ(x; W)V: σ_min(J) = √2 σ_min(J̄).

    Args:
        params: {"plus": {"w1": (d, n_1), …, "wH": (n_{H−1}, h)}, "minus": of the same shapes, "v": (h, k)}.
        x: data, (n, d).
        activation: name or ``Activation``, or a sequence with one a hidden layer.

    Returns:
        An operator of shape (n·k, 2·number of weights of a half): rows (sample, output), columns as ``ravel_pytree``
        orders {"plus": …, "minus": …}: W⁻ first.

    Raises:
        ValueError: other leaves, no hidden layer, shapes that do not fit, no sample, non-finite values, an activation
            whose constants are refuted.
        TypeError: params or data that are not real floating numbers.

    Example:
        >>> import numpy as np
        >>> half = {"w1": np.ones((3, 4)), "w2": np.ones((4, 5))}
        >>> pairwise_mlp({"plus": half, "minus": half, "v": np.ones((5, 1))}, np.ones((6, 3))).shape
        (6, 64)

    Reference:
        docs/proofs/jacobian.md; with one hidden layer equation (6) of "When Expressivity Meets Trainability".
    """
    plus, minus, v = halves(params)
    return MLPJacobian(
        x=_data(x, plus[0]),
        halves=(minus, plus),
        v=v,
        sigmas=_checked(activation, len(plus)),
        chosen=tuple(int(name[1:]) for name in sorted(f"w{layer + 1}" for layer in range(len(plus)))),
    )


def halves(params: Params) -> tuple[Half, Half, HostArray]:
    """Return W⁺, W⁻ and V of a pair's params, checked.

    Raises:
        ValueError: other leaves, shapes that do not fit, non-finite values.
        TypeError: leaves that are not real floating numbers.
    """
    plus, minus, v = pairwise_mlp_layers(params)
    return _half("plus", plus), _half("minus", minus), _weight("v", v)


def _half(name: str, weights: list[HostArray]) -> Half:
    return tuple(_weight(f"{name}/w{layer}", w) for layer, w in enumerate(weights, start=1))


def _weight(name: str, w: object) -> HostArray:
    matrix = _checks.real_matrix(name, w)
    if 0 in matrix.shape:
        raise ValueError(f"{name} has shape {matrix.shape}; expected at least one input and one unit")
    _checks.finite(name, matrix)
    return matrix


def _data(x: object, first: HostArray) -> HostArray:
    data = _checks.real_matrix("x", x)
    if data.shape[0] == 0:
        raise ValueError(f"x has shape {data.shape}: there is no sample; expected n ≥ 1")
    if data.shape[1] != first.shape[0]:
        raise ValueError(f"x has shape {data.shape}; expected (n, {first.shape[0]}) for these params")
    _checks.finite("x", data)
    return data


def _checked(activation: Activations, hidden: int) -> tuple[Activation, ...]:
    return tuple(map(check_activation, mlp_activations(activation, hidden)))


def _selected(params: Params, wrt: str | Iterable[str]) -> list[int]:
    """Return the indices of the chosen layers among the sorted names."""
    chosen = [index for index, use in enumerate(labels.select("wrt layer", params, wrt)) if use]
    if not chosen:
        raise ValueError(f"wrt is empty; expected some of {', '.join(sorted(params))}, or None for all")
    return chosen


@arrays.compiled(static_argnames=("sigmas", "chosen", "bounded"))
def _evaluate(
    x: Float[Computed, "n d"],
    halves: tuple[Half, ...],
    v: Float[Computed, "h k"],
    sigmas: tuple[Activation, ...],
    chosen: tuple[int, ...],
    bounded: bool,
) -> KhatriRao:
    exact = layers.carried(x, v, *jax.tree.leaves(halves)) if bounded and x.dtype == np.float64 else None
    signs = (1.0,) if len(halves) == 1 else (-1.0, 1.0)
    columns = []
    for half, sign in zip(halves, signs, strict=True):
        hidden, a, error = layers.forward(x, half, sigmas, bounded)
        own = [*layers.backward(hidden, half, sign * v, exact), layers.outer(a, error, v.shape[1], exact)]
        columns += [own[layer - 1] for layer in chosen]
    return KhatriRao(*layers.together(columns))


def _moved(
    x: Float[Array, "n d"],
    half: Half,
    v: Float[Array, "h k"],
    sigmas: tuple[Activation, ...],
    steps: Mapping[int, Array],
) -> Float[Array, "n k"]:
    """Return the derivative of σ_H(…σ_1(xW_1)…)V along steps of some layers, differentiable."""
    a, moved = x, jnp.zeros_like(x)
    for layer, (w, sigma) in enumerate(zip(half, sigmas, strict=True), start=1):
        w = jnp.asarray(w, x.dtype)
        z, moved = fl.matmul(a, w), fl.matmul(moved, w)
        if layer in steps:
            moved = moved + fl.matmul(a, steps[layer])
        a, moved = sigma(z), sigma.derivative(z) * moved
    moved = fl.matmul(moved, v)
    outer = len(half) + 1
    return moved + fl.matmul(a, steps[outer]) if outer in steps else moved
