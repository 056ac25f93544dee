"""Definitions 1 and 2 of "Effect of Depth and Width on Local Minima": separated, linearly acting units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax._printing import brief
from narrow_jax._typing import Array, HostArray, Key, Params
from narrow_jax.certificates.depth_width.tangent import Tangent, tangent
from narrow_jax.linalg import context
from narrow_jax.models import Activations


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

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())


@host_only
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
    return separated_units(tangent(params, x, activation), first_layer, strong)


def separated_units(d: Tangent, first_layer: int, strong: bool) -> LinearUnits:
    """Return ``linear_units`` of a tangent (Definitions 1 and 2)."""
    depth, outputs = len(d.slopes), d.outputs.shape[1]
    check_layer("first_layer", first_layer, depth)
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
    return LinearUnits(holds=not short, reason=found, sets=sets, first_layer=first_layer, strong=strong)


def _acts_linearly(d: Tangent, layer: int) -> np.ndarray:
    """Return which units of a layer have Φ = Φ^(l−1)W: slope 1, or 0 in and out, at every sample."""
    return ((d.slopes[layer - 1] == 1) | (d.preactivations[layer - 1] == 0)).all(axis=0)


@host_only
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
    check_layer("first_layer", first_layer, depth)
    if units > min(widths[first_layer:depth], default=units):
        raise ValueError(
            f"units is {units} and the widths are {tuple(widths)}: a layer has fewer units than that"
        )
    sizes = (np.shape(x)[1], *widths)
    with context.float64():
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


def check_layer(what: str, layer: int, depth: int) -> None:
    """Require the number of a layer, from the inputs to the last hidden one."""
    _checks.count(what, layer, minimum=0)
    if layer > depth:
        raise ValueError(f"{what} is {layer}; expected 0 (the inputs) to {depth}, the last hidden layer")
