"""D of Theorem 1 of "Effect of Depth and Width on Local Minima": the derivative of all outputs by all weights.

With Φ^(l) the features, Λ^(l) the slopes and G^(l)[i, c, b] = ∂ŷ_ic/∂z^(l)_ib, the row (i, c) of D holds
G^(l)[i, c, b] Φ^(l−1)[i, a] at the weight (a, b) of layer l. Columns go by layer, then by unit b, then by input a.
Features and sensitivities are brought to mean squares of about one, column by column and layer by layer, so that
none over- or underflows: D with its columns scaled, of the same range. By powers of two, so that no digit changes:
nets that differ by powers of two between the weights into and out of their units have the same tangent, bit by bit.
Everything is float64 on the host; D itself is made in slabs.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import blas

from narrow_jax import _checks
from narrow_jax._typing import Array, Float, HostArray, Params
from narrow_jax.activations import Activation
from narrow_jax.jacobian import Factors, KhatriRao
from narrow_jax.linalg import HOST, column_exponents, context
from narrow_jax.models import Activations, mlp_activations, mlp_layers

SLAB = 2**22
"""Entries of D that are made at a time."""


@dataclass(frozen=True)
class Tangent:
    """A net at its params and data.

    Args:
        weights: W_l, (d_{l−1}, d_l), l = 1 … H+1.
        features: Φ^(l), (n, d_l), l = 0 … H, its columns scaled.
        preactivations: z^(l), (n, d_l), l = 1 … H, its columns scaled.
        slopes: Λ^(l), (n, d_l), l = 1 … H; 0 at a kink.
        sensitivities: G^(l), (n, k, d_l), l = 1 … H+1, its columns scaled.
        outputs: Ŷ, (n, k), but for the power of two ``output_exponent``.
        zeros: pre-activations that are exactly 0.
        kinks: those of them that a small change of the weights moves across a kink of the activation.
        feature_exponents, sensitivity_exponents: powers of two that were taken off the columns of Φ^(l) and G^(l).
    """

    weights: tuple[np.ndarray, ...]
    features: tuple[np.ndarray, ...]
    preactivations: tuple[np.ndarray, ...]
    slopes: tuple[np.ndarray, ...]
    sensitivities: tuple[np.ndarray, ...]
    outputs: np.ndarray
    output_exponent: int
    zeros: int
    kinks: int
    feature_exponents: tuple[np.ndarray, ...]
    sensitivity_exponents: tuple[np.ndarray, ...]

    @property
    def exponents(self) -> np.ndarray:
        """Return the powers of two that were taken off the columns of D."""
        layers = zip(self.feature_exponents, self.sensitivity_exponents, strict=True)
        return np.concatenate([np.add.outer(above, below).ravel() for below, above in layers])

    @property
    def largest_exponent(self) -> int:
        """Return the largest power of two that was taken off a column of D, those of zeros left out."""
        below = map(_largest, self.feature_exponents, self.features)
        above = map(_largest, self.sensitivity_exponents, self.sensitivities)
        return max(map(operator.add, below, above))

    @property
    def rows(self) -> int:
        """Return n·k."""
        return self.outputs.size

    @property
    def starts(self) -> list[int]:
        """Return the first column of each layer, and the number of columns at the end."""
        return [0, *itertools.accumulate(w.size for w in self.weights)]

    @property
    def columns(self) -> int:
        """Return the number of weights."""
        return self.starts[-1]

    @functools.cached_property
    def jacobian(self) -> KhatriRao:
        """Return D, the columns of each layer by input and then by unit."""
        with context.float64():
            layers = zip(map(jnp.asarray, self.features), map(jnp.asarray, self.sensitivities), strict=True)
            return KhatriRao(tuple(Factors(phi, g, None) for phi, g in layers), jnp.zeros((), jnp.int32))

    def mv(self, v: Float[np.ndarray, " p"]) -> Float[np.ndarray, " r"]:
        """Return Dv."""
        parts = zip(self.weights, np.split(v, self.starts[1:-1]), strict=True)
        by_input = np.concatenate([part.reshape(w.T.shape).T.ravel() for w, part in parts])
        return context.as_numpy(lambda: _mv(self.jacobian, jnp.asarray(by_input)))

    def rmv(self, u: Float[np.ndarray, " r"]) -> Float[np.ndarray, " p"]:
        """Return Dᵀu."""
        by_input = np.split(context.as_numpy(lambda: _rmv(self.jacobian, jnp.asarray(u))), self.starts[1:-1])
        parts = zip(self.weights, by_input, strict=True)
        return np.concatenate([part.reshape(w.shape).T.ravel() for w, part in parts])

    def row_slabs(self) -> Iterator[Float[np.ndarray, "p c"]]:
        """Yield Dᵀ by consecutive samples, Fortran-ordered; each slab may be overwritten."""
        n, k = self.outputs.shape
        size = max(1, SLAB // (k * self.columns))
        for first in range(0, n, size):
            here = slice(first, min(first + size, n))
            slab = np.empty(((here.stop - first), k, self.columns))
            layers = zip(self.weights, self.features, self.sensitivities, self.starts[:-1], strict=True)
            for w, phi, g, start in layers:
                part = slab[:, :, start : start + w.size].reshape(-1, k, *w.T.shape)
                np.multiply(g[here, :, :, None], phi[here, None, None, :], out=part)
            yield slab.reshape(-1, self.columns).T

    def column_slabs(self) -> Iterator[Float[np.ndarray, "r c"]]:
        """Yield D by consecutive units, Fortran-ordered; each slab may be overwritten."""
        for layer, w in enumerate(self.weights):
            size = max(1, SLAB // (self.rows * w.shape[0]))
            for first in range(0, w.shape[1], size):
                yield self.unit_columns(layer, slice(first, min(first + size, w.shape[1])))

    def unit_columns(self, layer: int, units: slice) -> Float[np.ndarray, "r c"]:
        """Return the columns of the weights into these units of a layer, counted from 0."""
        g, phi = self.sensitivities[layer][:, :, units], self.features[layer]
        columns = np.moveaxis(g, 2, 0)[:, None, :, :] * phi.T[None, :, :, None]
        return columns.reshape(-1, self.rows).T

    def row_gram(self) -> Float[np.ndarray, "r r"]:
        """Return DDᵀ = Σ_l (Φ^(l−1)Φ^(l−1)ᵀ) ∘ (G^(l)G^(l)ᵀ), upper triangle, without D."""
        grams = (layer.gram(HOST)[0] for layer in self.jacobian.layers)
        lower = context.as_numpy(lambda: functools.reduce(operator.add, grams))
        return np.asfortranarray(lower.T)

    def column_gram(self) -> Float[np.ndarray, "p p"]:
        """Return DᵀD, upper triangle, without D: sums of n products Φ_ia Φ_ia' Σ_c G_icb G_icb', not of n·k."""
        lower = np.zeros((self.columns, self.columns), order="F")
        size = max(1, SLAB // self.columns)
        for first in range(0, len(self.outputs), size):
            here = slice(first, first + size)
            features = [np.asfortranarray(phi[here]) for phi in self.features]
            sensitivities = [g[here] for g in self.sensitivities]
            for layer, (phi, g, start) in enumerate(zip(features, sensitivities, self.starts, strict=False)):
                for unit in range(g.shape[2]):
                    at = start + unit * phi.shape[1]
                    weighted = np.empty((len(phi), self.columns - at))
                    filled = 0
                    for other, h in zip(features[layer:], sensitivities[layer:], strict=True):
                        later = h[:, :, unit:] if h is g else h
                        both = np.einsum("ic,icb->ib", g[:, :, unit], later)
                        part = weighted[:, filled : filled + both.shape[1] * other.shape[1]]
                        np.multiply(both[:, :, None], other[:, None, :], out=part.reshape(*both.shape, -1))
                        filled += part.shape[1]
                    lower[at:, at : at + phi.shape[1]] += blas.dgemm(1.0, weighted.T, phi)
        return np.asfortranarray(np.tril(lower).T)

    def row_sum_norm(self) -> float:
        """Return ‖D‖_∞ = max_ic Σ_l ‖Φ_i^(l−1)‖₁ ‖G_ic^(l)‖₁."""
        sums = sum(
            np.abs(phi).sum(axis=1)[:, None] * np.abs(g).sum(axis=2)
            for phi, g in zip(self.features, self.sensitivities, strict=True)
        )
        return float(np.max(sums))

    def row_norms(self) -> Float[np.ndarray, " r"]:
        """Return the length of each row of D."""
        squares = sum(
            (phi**2).sum(axis=1)[:, None] * (g**2).sum(axis=2)
            for phi, g in zip(self.features, self.sensitivities, strict=True)
        )
        return np.sqrt(np.ravel(squares))

    def column_norms(self) -> Float[np.ndarray, " p"]:
        """Return the length of each column of D: 0 for what dead units and dead inputs touch."""
        squares = (
            HOST.matmul((g**2).sum(axis=1).T, phi**2)
            for phi, g in zip(self.features, self.sensitivities, strict=True)
        )
        return np.sqrt(np.concatenate([layer.ravel() for layer in squares]))


def tangent(params: Params, x: HostArray, activation: Activations) -> Tangent:
    """Lemma 1: return the tangent of a net with positively homogeneous activations, for which vec Ŷ = D^(l) vec W^(l).

    Raises:
        ValueError: biases or shapes that do not chain, no hidden layer, a smooth activation, non-finite values,
            data of another width.
        TypeError: params or data that are not real floating numbers.
    """
    weights = [_checks.real_matrix("a weight matrix", w) for w in mlp_layers(params)]
    if len(weights) < 2:
        raise ValueError(
            "params have one layer, H = 0; the theorems need a hidden layer. Every stationary point of a linear "
            "model is its least-squares solution"
        )
    sigmas = mlp_activations(activation, len(weights) - 1)
    for sigma in sigmas:
        if not sigma.homogeneous:
            raise ValueError(
                f"activation {sigma.name!r} is not positively homogeneous: Ŷ = D·θ, on which the theorems rest, "
                "holds for ReLU, leaky ReLUs and the absolute value only"
            )
    x = _checks.real_matrix("x", x)
    if x.shape[1] != weights[0].shape[0]:
        raise ValueError(f"x has shape {x.shape}; expected (n, {weights[0].shape[0]}) for these params")
    for layer, w in enumerate(weights, start=1):
        _checks.finite(f"w{layer}", w)
    _checks.finite("x", x)
    hosts = [np.asarray(w, np.float64) for w in weights]
    features, exponents, before, slopes, kinks = _forwards(np.asarray(x, np.float64), hosts, sigmas)
    outputs, above = _product(features[-1], exponents[-1], hosts[-1])
    shared = _largest(above, outputs)
    sensitivities, sensitivity_exponents = _backwards(hosts, slopes)
    return Tangent(
        weights=tuple(hosts),
        features=features,
        preactivations=before,
        slopes=slopes,
        sensitivities=sensitivities,
        outputs=np.ldexp(outputs, above - shared),
        output_exponent=shared,
        zeros=sum(int(np.sum(z == 0)) for z in before),
        kinks=kinks,
        feature_exponents=exponents,
        sensitivity_exponents=sensitivity_exponents,
    )


def _forwards(
    x: np.ndarray, weights: list[np.ndarray], sigmas: list[Activation]
) -> tuple[tuple, tuple, tuple, tuple, int]:
    """Return features, what was taken off their columns, pre-activations, slopes and the number of kinks."""
    exponents = [column_exponents(x)]
    features, before, slopes, kinks = [np.ldexp(x, -exponents[0])], [], [], 0
    for sigma, w in zip(sigmas, weights[:-1], strict=True):
        z, taken = _product(features[-1], exponents[-1], w)
        with context.float64():
            value, slope, (below, above) = jax.tree.map(np.asarray, _layer(z, sigma))
        bent = (z == 0) & (below != above)
        kinks += int((bent & features[-1].any(axis=1, keepdims=True)).sum())
        before.append(z)
        slopes.append(np.where(bent, 0.0, slope))
        own = column_exponents(value)
        features.append(np.ldexp(value, -own))
        exponents.append(taken + own)
    return tuple(features), tuple(exponents), tuple(before), tuple(slopes), kinks


def _backwards(weights: list[np.ndarray], slopes: tuple[np.ndarray, ...]) -> tuple[tuple, tuple]:
    """Return the sensitivities and what was taken off their columns."""
    n, k = len(slopes[0]), weights[-1].shape[1]
    sensitivities, exponents = [np.broadcast_to(np.eye(k), (n, k, k))], [np.zeros(k, int)]
    for w, slope in zip(reversed(weights[1:]), reversed(slopes), strict=True):
        back, taken = _product(sensitivities[-1].reshape(n * k, -1), exponents[-1], w.T)
        g = back.reshape(n, k, -1) * slope[:, None, :]
        own = column_exponents(g.reshape(n * k, -1))
        sensitivities.append(np.ldexp(g, -own))
        exponents.append(taken + own)
    return tuple(reversed(sensitivities)), tuple(reversed(exponents))


def _largest(exponents: np.ndarray, columns: np.ndarray) -> int:
    """Return the largest of the exponents of columns that are not 0, far below any number if there is none."""
    used = columns.any(axis=tuple(range(columns.ndim - 1)))
    return int(np.max(exponents, where=used, initial=-(2**28)))


def _product(
    a: Float[np.ndarray, "r a"], exponents: np.ndarray, w: Float[np.ndarray, "a b"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what A diag(2^e) W is but for powers of two that are taken off its columns, and those."""
    sizes = np.where(w == 0, -(2**30), np.frexp(w)[1] + exponents[:, None])
    taken = np.where((w != 0).any(axis=0), sizes.max(axis=0), 0)
    return HOST.matmul(a, np.ldexp(w, exponents[:, None] - taken)), taken


def restored(d: Tangent, t: int) -> Tangent:
    """Return the tangent with what was taken off its columns put back, but for 2^t."""
    shifts = list(map(_largest, d.feature_exponents, d.features))
    return replace(
        d,
        features=tuple(
            np.ldexp(phi, e - shift)
            for phi, e, shift in zip(d.features, d.feature_exponents, shifts, strict=True)
        ),
        sensitivities=tuple(
            np.ldexp(g, e + shift - t)
            for g, e, shift in zip(d.sensitivities, d.sensitivity_exponents, shifts, strict=True)
        ),
        feature_exponents=tuple(map(np.zeros_like, d.feature_exponents)),
        sensitivity_exponents=tuple(np.full_like(e, t) for e in d.sensitivity_exponents),
    )


@jax.jit
def _mv(d: KhatriRao, p: Array) -> Array:
    return d.mv(p)


@jax.jit
def _rmv(d: KhatriRao, u: Array) -> Array:
    return d.rmv(u)


@jax.jit(static_argnames="sigma")
def _layer(z: HostArray, sigma: Activation) -> tuple[Array, Array, tuple[Array, Array]]:
    """Return σ(z), σ'(z), and the slopes of each unit below and above 0."""
    one = jnp.ones((1, z.shape[1]), z.dtype)
    below, above = sigma.derivative(jnp.concatenate([-one, one]))
    return sigma(z), sigma.derivative(z), (below, above)


def targets(d: Tangent, y: HostArray) -> Float[np.ndarray, " r"]:
    """Return vec Y in float64, by rows of D.

    Raises:
        ValueError: another shape than the outputs, non-finite values.
        TypeError: not real floating numbers.
    """
    y = _checks.real_matrix("y", y)
    if y.shape != d.outputs.shape:
        raise ValueError(
            f"y has shape {y.shape}; expected {d.outputs.shape}: a row a sample, a column an output"
        )
    _checks.finite("y", y)
    return np.asarray(y, np.float64).ravel()


def error(d: Tangent, target: Float[np.ndarray, " r"], exponent: int) -> tuple[Float[np.ndarray, " r"], int]:
    """Return (e, t) with vec(Ŷ − Y) = e·2^t, Y = target·2^exponent: neither is lost beside the other, nor overflows."""
    t = max(d.output_exponent, exponent) if target.any() else d.output_exponent
    return np.ldexp(d.outputs.ravel(), d.output_exponent - t) - np.ldexp(target, exponent - t), t
