"""A Lipschitz constant of the Jacobian of any net without biases, in float64 with rounding included.

docs/proofs/lipschitz.md has the proof.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from narrow_jax import _checks
from narrow_jax._typing import Computed, Float, HostArray
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets.constants import input_norm
from narrow_jax.jacobian import Net, layers
from narrow_jax.linalg import compiled, context, extremes, outward, xp
from narrow_jax.linalg import rounding as fl

Half = Sequence[Float[np.ndarray, "_ _"]]
"""W_1 … W_H."""


def lipschitz(net: Net, x: HostArray, radius: float, outer: bool = False, unit: float = 1.0) -> float:
    """Return L with ‖J(θ) − J(θ')‖₂ ≤ L‖θ − θ'‖_F for all θ, θ' within a distance of the net's weights.

    θ are the hidden weights, of both halves of a pair together, V fixed; with ``outer`` θ holds V too. J is the
    Jacobian of all outputs at all samples with respect to θ. For one hidden layer with V fixed L is S₂ max_j‖V_j,:‖
    √λ_max(Σ‖x_i‖² x_i x_iᵀ), whatever the radius.

    Args:
        net: the centre.
        x: data, (n, d).
        radius: of the ball in the Frobenius norm; infinity for no ball.
        outer: whether V moves.
        unit: s, where θ, its ball and J are those of the coordinates (w − w⁰)/s and sV.

    Returns:
        An upper bound, 0 only where that is exact, and infinity where nothing is known.

    Raises:
        ValueError: a negative radius, x of another shape, non-finite values.
        TypeError: a radius that is no number, x that is not real.

    Example:
        >>> net = Net.of({"w": np.ones((1, 1)), "v": np.full((1, 1), 3.0)}, "sin")  # f(x) = 3 sin(wx): |f''| ≤ 3x²
        >>> 12.0 <= lipschitz(net, np.full((1, 1), 2.0), radius=math.inf) < 12.01
        True

    Reference:
        docs/proofs/lipschitz.md.
    """
    _checks.radius(radius)
    x = _data(net, x)
    known = all(math.isfinite(sigma.sup_second_derivative) for sigma in net.sigmas)
    everywhere = len(net.sigmas) == 1 and not outer
    if not known or not (everywhere or math.isfinite(radius)):
        return math.inf
    # two halves with the same bounds share V as one would with √2 of it
    distinct, shared = (net.halves[:1], math.sqrt(2)) if net.mirrored else (net.halves, 1.0)
    halves = [_half(net, half, x, float(radius), outer, unit) for half in distinct]
    return min(_by_samples(halves, shared, outer), _by_layers(halves, shared, outer, input_norm(x)))


def _data(net: Net, x: HostArray) -> np.ndarray:
    data, inputs = _checks.real_matrix("x", x), net.halves[0][0].shape[0]
    if data.shape[1] != inputs:
        raise ValueError(f"x has shape {data.shape}; expected (n, {inputs}) for these weights")
    _checks.finite("x", data)
    return np.asarray(data, float)


class _Layer(NamedTuple):
    """A hidden layer z_l = a_{l−1}W_l, and what holds of it in all the ball, sample by sample.

    Fields:
        norm: ω_l ≥ ‖W_l‖₂.
        row: ρ_l ≥ max_j ‖(W_l)_j,:‖.
        units: n_l.
        sigma: σ_l.
        a: what is computed for a_{l−1} at the centre.
        reach: a_{l−1} is within this distance of it.
        size: α_{l−1} ≥ ‖a_{l−1}‖.
        speed: b_l ≥ ‖ż_l‖, for a unit direction.
    """

    norm: float
    row: float
    units: int
    sigma: Activation
    a: Float[np.ndarray, "n a"]
    reach: Float[np.ndarray, " n"]
    size: Float[np.ndarray, " n"]
    speed: Float[np.ndarray, " n"]


class _Half(NamedTuple):
    """One net, or one of a pair, on the ball.

    Fields:
        layers: the hidden ones, here from 0.
        norms: ω of each, and ‖V‖₂.
        rows: ρ of each, and max_j ‖V_j,:‖.
    """

    layers: tuple[_Layer, ...]
    norms: tuple[float, ...]
    rows: tuple[float, ...]

    def gain(self, layer: int) -> float:
        """Return G ≥ ‖∂f/∂z‖₂ of a layer; 1 of V's."""
        return _product(*self._slopes[layer:], *self.norms[layer + 1 :])

    def passed(self, low: int, high: int) -> float:
        """Return κ ≥ ‖∂z/∂z‖₂ of a layer and a lower one; 1 of one layer."""
        return _product(*self._slopes[low:high], *self.norms[low + 1 : high + 1])

    def moved(self, low: int, high: int, spread: float) -> float:
        """Return a bound of what a unit step of W_low moves all that enters a higher layer by."""
        return fl.product_up(self._slopes[high - 1], self.passed(low, high - 1), spread)

    def bent(self, at: int, low: int, high: int, together: float) -> float:
        """Return a bound of what σ''(z) of a layer adds for unit steps of two layers not above it."""
        curvature = self.layers[at].sigma.sup_second_derivative
        both = self.passed(low, at), self.passed(high, at)
        return fl.product_up(curvature, self.rows[at + 1], self.gain(at + 1), *both, together)

    @property
    def _slopes(self) -> list[float]:
        return [layer.sigma.lipschitz for layer in self.layers]


def _half(net: Net, half: Half, x: np.ndarray, radius: float, outer: bool, unit: float = 1.0) -> _Half:
    """Return the half; in other units f̈ has s² of both hidden directions, and all its terms ‖V‖ or a row of it once."""
    inside, apart = radius, radius if outer else 0.0
    if unit != 1:
        inside, apart = fl.product_up(unit, radius), fl.product_up(apart, over=unit)
    layers, v = _hidden(half, net.sigmas, x, inside), _norms(net.v, apart)
    if unit != 1:
        v = fl.product_up(unit, unit, v[0]), fl.product_up(unit, unit, v[1])
    norms, rows = zip(*((layer.norm, layer.row) for layer in layers), v, strict=True)
    return _Half(layers, norms, rows)


def _hidden(half: Half, sigmas: Sequence[Activation], x: np.ndarray, radius: float) -> tuple[_Layer, ...]:
    """Return the hidden layers: ‖ȧ_l‖ ≤ c_l = τ_l b_l, b_l² = (ω_l c_{l−1})² + α_{l−1}²."""
    entering = _entering(x, half[:-1], tuple(sigmas[:-1]))
    speed = reach = np.zeros(len(x))
    size = outward.row_norms(x)
    found: list[_Layer] = []
    for (a, error), w, sigma in zip(entering, half, sigmas, strict=True):
        if found:
            length = outward.row_norms(a)
            reach = outward.plus(error, outward.times(speed, radius))
            size = np.minimum(outward.plus(length, reach), _chained(found[-1]))
            reach = np.minimum(reach, outward.plus(length, size))
        norm, row = _norms(w, radius)
        moving = outward.hypot(outward.times(norm, speed), size)
        found.append(_Layer(norm, row, w.shape[1], sigma, a, reach, size, moving))
        speed = outward.times(sigma.lipschitz, moving)
    return tuple(found)


def _chained(layer: _Layer) -> Float[np.ndarray, " n"]:
    """Return a bound of ‖σ(aW)‖ ≤ |σ(0)|√n_l + τω‖a‖."""
    start = outward.times(_at_zero(layer.sigma), math.sqrt(layer.units))
    return outward.plus(start, outward.times(layer.sigma.lipschitz, layer.norm, layer.size))


def _at_zero(sigma: Activation) -> float:
    """Return a bound of |σ(0)|."""
    if sigma.zero_only_at_zero or sigma.value is None:
        return 0.0 if sigma.zero_only_at_zero else math.inf
    with context.float64():
        value = abs(float(sigma.value(jnp.zeros((), float))))
    return (value + sigma.value_error * fl.UNIT) * (1 + fl.SLACK)


def _norms(w: Float[np.ndarray, "a b"], radius: float) -> tuple[float, float]:
    """Return bounds of ‖W‖₂ and max_j ‖W_j,:‖ on the ball."""
    norm, row = outward.weighted_norm(np.ones(len(w)), w), float(np.max(outward.row_norms(w)))
    return (
        (norm, row) if radius == 0 else (float(outward.plus(norm, radius)), float(outward.plus(row, radius)))
    )


def _entering(
    x: np.ndarray, weights: Half, sigmas: tuple[Activation, ...]
) -> list[tuple[Float[np.ndarray, "n _"], Float[np.ndarray, " n"]]]:
    """Return a_0 = x … a_{H−1} as computed, and how far each sample's is from exact; 0 and infinity where unknown."""
    found = [(x, np.zeros(len(x)))]
    if weights:
        with context.float64(), np.errstate(all="ignore"):
            given = context.placed((x, weights), len(x) * sum(w.size for w in weights))
            computed = jax.tree.map(np.asarray, _forward(*given, sigmas))
        for a, error in computed:
            known = np.isfinite(a + error).all(axis=1)
            a, error = (np.where(known[:, None], values, 0.0) for values in (a, error))
            found.append((a, np.where(known, outward.row_norms(error), np.inf)))
    return found


@compiled(static_argnames="sigmas")
def _forward(
    x: Float[Computed, "n d"], weights: tuple[Float[Computed, "_ _"], ...], sigmas: tuple[Activation, ...]
) -> list[tuple[Computed, Computed]]:
    """Return a_1 … a_{H−1} with entrywise bounds of their errors."""
    hidden, a, error = layers.forward(x, weights, sigmas)
    unknown = xp.where(layers.carried(x, *weights), 0.0, np.inf)
    passed = [*((layer.x, layer.x_error) for layer in hidden[1:]), (a, error)]
    return [(values, errors + unknown) for values, errors in passed if errors is not None]


def _by_samples(halves: Sequence[_Half], shared: float, outer: bool) -> float:
    """Return the bound that adds the squares of what holds of each sample."""
    second = [_second(half) for half in halves]
    if not outer:
        return max(outward.norm(g) for g, _ in second)
    if len(second) == 1:
        (g, c), *_ = second
        return outward.norm(_largest_root(g, outward.times(shared, c)))
    blocks, border = zip(*((outward.norm(g), outward.norm(c)) for g, c in second), strict=True)
    return _largest(_bordered([np.full((1, 1), g) for g in blocks], np.array(border)))


def _second(half: _Half) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return g ≥ ‖f̈‖ and c_H ≥ ‖ȧ_H‖ of each sample, for unit directions of the hidden weights.

    ‖z̈_l‖ ≤ y_l = ½(t + √(t² + 4c_{l−1}²)), t = ω_lτy_{l−1} + ρ_lS₂b_{l−1}², and g is the t of V.
    """
    t = speed = np.zeros(len(half.layers[0].a))
    for layer, norm, row in zip(half.layers, half.norms[1:], half.rows[1:], strict=True):
        tau, curvature = layer.sigma.lipschitz, layer.sigma.sup_second_derivative
        turning = outward.times(norm, tau, _largest_root(t, speed))
        t = outward.plus(turning, outward.times(row, curvature, layer.speed, layer.speed))
        speed = outward.times(tau, layer.speed)
    return t, speed


def _largest_root(t: Float[np.ndarray, " n"], c: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return λ_max [[t, c], [c, 0]] = ½(t + √(t² + 4c²))."""
    return outward.times(0.5, outward.plus(t, outward.hypot(t, outward.times(2.0, c))))


def _by_layers(halves: Sequence[_Half], shared: float, outer: bool, inputs: float) -> float:
    """Return the bound that is an eigenvalue of a matrix with a row a layer; ``inputs`` is ‖diag(‖x_i‖)X‖₂."""
    spreads = [[_spread(layer) for layer in half.layers] for half in halves]
    blocks = [_matrix(half, spread, inputs) for half, spread in zip(halves, spreads, strict=True)]
    if not outer:
        return max(_largest(block) for block in blocks)
    border = [
        half.moved(low, len(spread), spread[low])
        for half, spread in zip(halves, spreads, strict=True)
        for low in range(len(spread))
    ]
    return _largest(_bordered(blocks, outward.times(shared, np.array(border))))


def _matrix(half: _Half, spread: Sequence[float], inputs: float) -> Float[np.ndarray, "l l"]:
    """Return M: a unit direction with ‖P_l‖ = p_l has ‖f̈‖ ≤ pᵀMp over all samples."""
    depth = len(half.layers)
    matrix = np.zeros((depth, depth))
    for low, high in itertools.combinations_with_replacement(range(depth), 2):
        together = _together(half.layers[low], half.layers[high]) if high else inputs
        terms = [half.bent(at, low, high, together) for at in range(high, depth)]
        if low < high:
            terms.append(fl.product_up(half.gain(high), half.moved(low, high, spread[low])))
        matrix[low, high] = matrix[high, low] = _sum(terms)
    return matrix


def _spread(layer: _Layer) -> float:
    """Return ν ≥ ‖A‖₂, A with the row a of each sample."""
    centre = outward.weighted_norm(np.ones(len(layer.a)), layer.a)
    return min(float(outward.plus(centre, outward.norm(layer.reach))), outward.norm(layer.size))


def _together(one: _Layer, other: _Layer) -> float:
    """Return N: (Σ_i ‖a_iP‖²‖a'_iP'‖²)^½ ≤ N‖P‖_F‖P'‖_F."""
    sizes = outward.norm(outward.times(one.size, other.size))
    orders = [(one, other)] if one is other else [(one, other), (other, one)]
    return min(sizes, *(_weighted(first.size, second) for first, second in orders))


def _weighted(size: Float[np.ndarray, " n"], layer: _Layer) -> float:
    """Return a bound of ‖diag(α)A‖₂."""
    moved = outward.norm(outward.times(size, layer.reach))
    return float(outward.plus(outward.weighted_norm(size, layer.a), moved))


def _product(*factors: float) -> float:
    return functools.reduce(fl.product_up, factors, 1.0)


def _sum(terms: Sequence[float]) -> float:
    return terms[0] if len(terms) == 1 else fl.product_up(sum(terms), 1 + fl.gamma(len(terms)))


def _bordered(
    blocks: Sequence[Float[np.ndarray, "_ _"]], border: Float[np.ndarray, " l"]
) -> Float[np.ndarray, "r r"]:
    """Return [[B, 0, b], [0, B', b'], [bᵀ, b'ᵀ, 0]]."""
    return np.block([[linalg.block_diag(*blocks), border[:, None]], [border[None, :], np.zeros((1, 1))]])


def _largest(matrix: Float[np.ndarray, "l l"]) -> float:
    """Return the largest eigenvalue of a symmetric matrix without negative entries: its norm."""
    if matrix.size == 1:
        return float(matrix[0, 0])
    return extremes(matrix).largest if np.isfinite(matrix).all() else math.inf
