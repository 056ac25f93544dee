"""Theorem 2 and Corollaries 1 and 2 of "Effect of Depth and Width on Local Minima": no worse than regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax._typing import HostArray, Params
from narrow_jax.certificates.depth_width import factorizations
from narrow_jax.certificates.depth_width.definitions1_2_linear_units import (
    LinearUnits,
    check_layer,
    separated_units,
)
from narrow_jax.certificates.depth_width.tangent import Tangent, error, tangent, targets
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations

SEPARATIONS = ("weak", "fixed", "strong")


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


@host_only
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


@host_only
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
        "Effect of Depth and Width on Local Minima in Deep Learning", Theorem 2 (5.1), Corollaries 1 (5.2) and 2.
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
    units = separated_units(d, first_layer, separation == "strong")
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
        loss=loss,
        bound=bound,
        regression=regression,
        improvement=improvement,
        layers=subset,
        units=units,
        holds=units.holds and below,
        reason=reason,
    )


def _subset(d: Tangent, layers: Sequence[int]) -> tuple[int, ...]:
    for layer in layers:
        check_layer("a layer of S", layer, len(d.slopes))
    return tuple(sorted(set(layers)))


def _features(d: Tangent, layers: tuple[int, ...]) -> np.ndarray:
    return np.hstack([np.zeros((len(d.features[0]), 0)), *(d.features[layer] for layer in layers)])


def _each_output(features: np.ndarray, outputs: int) -> np.ndarray:
    """Return Φ̄ = Φ ⊗ I, rows by sample and output."""
    blocks = features[:, None, :, None] * np.eye(outputs)[None, :, None, :]
    return blocks.reshape(len(features) * outputs, -1)


def _unexplained(basis: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (I − P[M])Y."""
    return factorizations.without(factorizations.orthonormal(basis), np.asfortranarray(y))


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
