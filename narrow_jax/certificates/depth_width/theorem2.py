"""Theorem 2 and Corollaries 1 and 2: local minima are no worse than regression on a net's own features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from narrow_jax import _checks
from narrow_jax._typing import Array, HostArray, Key, Params
from narrow_jax.certificates.depth_width import ranges
from narrow_jax.certificates.depth_width.tangent import Tangent, error, tangent, targets
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations

SEPARATIONS = ("weak", "fixed", "strong")


class LinearUnits(NamedTuple):
    """Whether θ induces (k, t) separated linear units on the data, and where they are.

    Fields:
        holds: whether every set has at least k units.
        reason: why not, or how many there are.
        sets: the largest S^(t+1) … S^(H), unit numbers from 0; S^(H+1) is all outputs.
        first_layer: t.
        strong: whether Definition 2 was asked for.
    """

    holds: bool
    reason: str
    sets: tuple[np.ndarray, ...]
    first_layer: int
    strong: bool


class BasisFunctionBound(NamedTuple):
    """The bound of Theorem 2 on the loss of a local minimum, beside that loss.

    Fields:
        loss: L(θ).
        bound: the right-hand side: regression − improvement.
        regression: ½‖P_N[Φ^(S)]Y‖², the least loss of basis-function regression on the features of S.
        improvement: what depth and width add, ≥ 0.
        layers: S.
        units: the linear units that were found.
        holds: whether θ has them and loss ≤ bound, up to 1e-9 of ½‖Y‖².
        reason: why, or why not.
    """

    loss: float
    bound: float
    regression: float
    improvement: float
    layers: tuple[int, ...]
    units: LinearUnits
    holds: bool
    reason: str


def regression_value(
    params: Params,
    x: HostArray,
    y: HostArray,
    layers: Sequence[int],
    activation: Activations = "relu",
) -> float:
    """Return ½‖P_N[Φ^(S)]Y‖_F², the global minimum of regression on the features of the layers in S.

    Args:
        params, x, y, activation: as for ``stationary_value``.
        layers: S, numbers from 0 (the inputs) to H; none for ½‖Y‖².

    Raises:
        ValueError: a layer outside 0 … H, and what ``stationary_value`` refuses.

    Example:
        >>> params = {"w1": np.eye(2), "w2": np.ones((2, 1))}
        >>> regression_value(params, np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[2.0], [-1.0]]), layers=[0])
        2.5

    Reference:
        "Effect of Depth and Width on Local Minima in Deep Learning", Theorem 2, its first term.
    """
    d = tangent(params, x, activation)
    target, scale = fl.unit(targets(d, y))
    return fl.half_square(
        _unexplained(_features(d, _subset(d, layers)), target.reshape(d.outputs.shape)), scale
    )


def linear_units(
    params: Params,
    x: HostArray,
    first_layer: int,
    activation: Activations = "relu",
    *,
    strong: bool = False,
) -> LinearUnits:
    """Definitions 1 and 2: return the largest sets of separated, linearly acting units above layer t.

    A unit acts linearly if σ(z) = z at every sample. Weak separation: edges out of S^(l) to units outside
    S^(l+1) are 0, l = t+1 … H−1. Strong: no unit outside S^(l) sends a signal into S^(l+1) either. Sets that
    qualify are closed under union, so the largest ones decide.

    Args:
        params, x, activation: as for ``stationary_value``.
        first_layer: t, from 0 to H; for t = H every θ qualifies.
        strong: Definition 2 instead of Definition 1.

    Raises:
        ValueError: t outside 0 … H, and what ``stationary_value`` refuses.

    Example:
        >>> params = {"w1": np.array([[1.0, -1.0]]), "w2": np.ones((2, 1))}
        >>> linear_units(params, np.array([[1.0], [2.0]]), first_layer=0).sets  # the first unit sees x > 0
        (array([0]),)

    Reference:
        "Effect of Depth and Width on Local Minima in Deep Learning", Definitions 1 and 2.
    """
    return _linear_units(tangent(params, x, activation), first_layer, strong)


def _linear_units(d: Tangent, first_layer: int, strong: bool) -> LinearUnits:
    depth, outputs = len(d.slopes), d.outputs.shape[1]
    _layer("first_layer", first_layer, depth)
    hidden = range(first_layer + 1, depth + 1)
    inside = {layer: _acts_linearly(d, layer) for layer in hidden}
    while True:
        before = {layer: units.copy() for layer, units in inside.items()}
        for layer in range(first_layer + 1, depth):
            edges = d.weights[layer] != 0  # from layer to layer + 1
            inside[layer] &= ~(edges & ~inside[layer + 1][None, :]).any(axis=1)
            if strong:
                signals = edges & (d.features[layer] != 0).any(axis=0)[:, None]
                inside[layer + 1] &= ~(signals & ~inside[layer][:, None]).any(axis=0)
        if all((inside[layer] == before[layer]).all() for layer in hidden):
            break
    sets = tuple(np.flatnonzero(inside[layer]) for layer in hidden)
    short = [layer for layer, units in zip(hidden, sets, strict=True) if len(units) < outputs]
    kind = "strongly" if strong else "weakly"
    found = (
        f"layer {short[0]} has {len(sets[short[0] - first_layer - 1])} {kind} separated linear units; "
        f"{outputs} are needed, one an output"
        if short
        else f"every layer above {first_layer} has at least {outputs} {kind} separated linear units"
    )
    return LinearUnits(not short, found, sets, first_layer, strong)


def _acts_linearly(d: Tangent, layer: int) -> np.ndarray:
    """Return which units of a layer have Φ = Φ^(l−1)W: slope 1, or 0 in and out, at every sample."""
    return ((d.slopes[layer - 1] == 1) | (d.preactivations[layer - 1] == 0)).all(axis=0)


def separated_params(
    key: Key[Array, ""],
    x: HostArray,
    widths: Sequence[int],
    first_layer: int,
    activation: Activations = "relu",
    *,
    units: int | None = None,
    strong: bool = False,
) -> dict[str, np.ndarray]:
    """Draw float64 params of ``widths`` (the outputs last) that induce separated linear units above layer t.

    The first ``units`` units of each layer above t get positive weights, and separation sets the others to 0.

    Args:
        key: a JAX random key.
        x: inputs; Φ^(t) has to be non-negative, as it is for t ≥ 1 with ReLU, unless the units are linear anyway.
        widths: d_1 … d_H and k.
        first_layer: t.
        activation: as for ``stationary_value``.
        units: linear units a layer, by default k.
        strong: Definition 2 instead of Definition 1.

    Raises:
        ValueError: features of layer t with negative entries, more units than a layer has, t outside 0 … H.

    Example:
        >>> x = np.abs(np.random.default_rng(0).normal(size=(8, 3)))
        >>> params = separated_params(jax.random.key(0), x, widths=(4, 4, 2), first_layer=0)
        >>> linear_units(params, x, first_layer=0).sets
        (array([0, 1]), array([0, 1]))

    Reference:
        "Effect of Depth and Width on Local Minima in Deep Learning", Definitions 1 and 2.
    """
    depth, units = len(widths) - 1, widths[-1] if units is None else units
    _layer("first_layer", first_layer, depth)
    if units > min(widths[first_layer:depth], default=units):
        raise ValueError(
            f"units is {units} and the widths are {tuple(widths)}: a layer has fewer units than that"
        )
    sizes = (np.shape(x)[1], *widths)
    with jax.enable_x64(True):
        params = {
            f"w{layer}": np.array(jax.random.normal(k, sizes[layer - 1 : layer + 1]))
            / np.sqrt(sizes[layer - 1])
            for layer, k in enumerate(jax.random.split(key, len(widths)), start=1)
        }
    for layer in range(first_layer + 1, depth + 1):
        w = params[f"w{layer}"]
        w[:, :units] = np.abs(w[:, :units])
        if layer > first_layer + 1:
            w[:units, units:] = 0
            if strong:
                w[units:, :units] = 0
    found = linear_units(params, x, first_layer, activation, strong=strong)
    if not found.holds:
        raise ValueError(
            f"{found.reason}: with positive weights units act linearly where the features of layer {first_layer} "
            "are non-negative; shift x, or choose first_layer ≥ 1 with ReLU"
        )
    return params


def basis_function_bound(
    params: Params,
    x: HostArray,
    y: HostArray,
    layers: Sequence[int],
    first_layer: int,
    activation: Activations = "relu",
    *,
    separation: str = "weak",
) -> BasisFunctionBound:
    """Theorem 2: return the bound ½‖(I − P[Φ̄^(S) D^(1…H)])vec Y‖² on the loss of a local minimum.

    It holds at every differentiable local minimum that induces (k, t) separated linear units, for every S within
    {t, …, H}, with equality at S = {t, …, H}; elsewhere a loss above the bound shows that θ is no local minimum.

    Args:
        params, x, y, activation: as for ``stationary_value``.
        layers: S; none for a bound by D^(1…H) alone.
        first_layer: t.
        separation: "weak" (Theorem 2), "fixed" (Corollary 1: the edges that weak separation wants to be 0 are
            no parameters) or "strong" (Corollary 2: S within {t, H}).

    Raises:
        ValueError: S outside {t, …, H}, and what ``stationary_value`` refuses.

    Example:
        >>> import narrow_jax as nj
        >>> linear = nj.activations.leaky_relu(1.0)
        >>> params = {"w1": np.ones((1, 1)), "w2": np.ones((1, 1))}
        >>> x, y = np.array([[1.0], [2.0]]), np.array([[2.0], [1.5]])
        >>> b = basis_function_bound(params, x, y, layers=[0, 1], first_layer=0, activation=linear)
        >>> round(b.loss, 6), round(b.bound, 6), b.holds  # the best slope is 1
        (0.625, 0.625, True)

    Reference:
        "Effect of Depth and Width on Local Minima in Deep Learning", Theorem 2, Corollaries 1 and 2.
    """
    _checks.choice("separation", separation, SEPARATIONS)
    d = tangent(params, x, activation)
    target, scale = fl.unit(targets(d, y))
    off, t = error(d, target, scale)
    subset, depth = _subset(d, layers), len(d.slopes)
    allowed = (first_layer, depth) if separation == "strong" else range(first_layer, depth + 1)
    if not set(subset) <= set(allowed):
        raise ValueError(
            f"layers are {subset}; expected a subset of {tuple(allowed)}, {separation} separation "
            f"above t = {first_layer}"
        )
    units = _linear_units(d, first_layer, separation == "strong")
    hidden = np.concatenate(list(d.column_slabs()), axis=1)[:, : d.starts[-2]]
    if separation == "fixed":
        hidden = hidden[:, ~_fixed_edges(d, units)]
    features = _features(d, subset)
    both = np.hstack([_each_output(features, d.outputs.shape[1]), hidden])
    # in units of Y, and as they are
    least = fl.half_square(_unexplained(both, target[:, None]))
    without = fl.half_square(_unexplained(features, target.reshape(d.outputs.shape)))
    below = fl.half_square(off, t - scale) <= least + 1e-9 * fl.half_square(target)
    loss = fl.half_square(off, t)
    bound, regression, improvement = (
        float(fl.at_scale(value, 2 * scale)) for value in (least, without, max(without - least, 0.0))
    )
    reason = (
        f"{units.reason}: the theorem says nothing about this θ"
        if not units.holds
        else f"the loss {loss:.6g} is {'within' if below else 'above'} the bound {bound:.6g}"
        + ("" if below else ": θ is not a differentiable local minimum")
    )
    return BasisFunctionBound(
        loss, bound, regression, improvement, subset, units, units.holds and below, reason
    )


def _layer(what: str, layer: int, depth: int) -> None:
    _checks.count(what, layer, minimum=0)
    if layer > depth:
        raise ValueError(f"{what} is {layer}; expected 0 (the inputs) to {depth}, the last hidden layer")


def _subset(d: Tangent, layers: Sequence[int]) -> tuple[int, ...]:
    for layer in layers:
        _layer("a layer of S", layer, len(d.slopes))
    return tuple(sorted(set(layers)))


def _features(d: Tangent, layers: tuple[int, ...]) -> np.ndarray:
    return np.hstack([np.zeros((len(d.features[0]), 0)), *(d.features[layer] for layer in layers)])


def _each_output(features: np.ndarray, outputs: int) -> np.ndarray:
    """Return Φ̄ = Φ ⊗ I, rows by sample and output."""
    blocks = features[:, None, :, None] * np.eye(outputs)[None, :, None, :]
    return blocks.reshape(len(features) * outputs, -1)


def _unexplained(basis: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (I − P[M])Y."""
    return ranges.without(ranges.orthonormal(basis), np.asfortranarray(y))


def _fixed_edges(d: Tangent, units: LinearUnits) -> np.ndarray:
    """Return which weights of the hidden layers weak separation fixes at 0."""
    fixed = np.zeros(d.starts[-2], bool)
    for layer, (here, above) in enumerate(
        zip(units.sets, units.sets[1:], strict=False), units.first_layer + 1
    ):
        outside = np.setdiff1d(np.arange(d.weights[layer].shape[1]), above)
        block = fixed[d.starts[layer] : d.starts[layer + 1]].reshape(d.weights[layer].T.shape)
        block[np.ix_(outside, here)] = True
    return fixed
