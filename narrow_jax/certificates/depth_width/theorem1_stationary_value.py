"""Theorem 1 of "Effect of Depth and Width on Local Minima": the loss at every differentiable stationary point."""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax._printing import brief
from narrow_jax._typing import Float, HostArray, Params
from narrow_jax.certificates.depth_width import factorizations, ranges
from narrow_jax.certificates.depth_width.factorizations import CUTOFFS, Spectrum
from narrow_jax.certificates.depth_width.ranges import Range, is_tall
from narrow_jax.certificates.depth_width.tangent import SLAB, Tangent, error, tangent, targets
from narrow_jax.linalg import householder
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations

METHODS = ("auto", "dense", "qr", "cholesky", "lsmr")


class Status(enum.Enum):
    """What the value is worth."""

    resolved = (
        "the value is accurate to rounding, about eps·σ_max/σ_r of ½‖Y‖² with the columns of D normalised: the "
        "three cutoffs agree on the rank, and a gap around them shows it"
    )
    no_gap = (
        "the three cutoffs agree on the rank, but no gap shows it: a singular value, or a row or column of D, is "
        "within a factor of 1000 of them, so that rank and value may be those of rounding"
    )
    cutoff_dependent = "the value is that of the asked cutoff; the others count another rank"
    estimate = "the value is an upper bound from an iteration that sees no rank; residual says how good"

    @classmethod
    def of(cls, spectrum: Spectrum | None) -> Status:
        """Return that of a value with this spectrum of D."""
        if spectrum is None:
            return cls.estimate
        if len(set(spectrum.ranks.values())) > 1:
            return cls.cutoff_dependent
        return cls.resolved if spectrum.resolved else cls.no_gap


class StationaryValue(NamedTuple):
    """The loss, the value that it must have at a differentiable stationary point, and how they compare.

    Fields:
        loss: L(θ) = ½‖Ŷ − Y‖².
        value: J(θ) = ½‖(I − P[D])Y‖² ≤ L(θ).
        gap: ½‖P[D](Ŷ − Y)‖² = L − J.
        gap_bound: ½(‖∇L‖/σ_r)² ≥ gap, both with the columns of D normalised.
        baseline: ½‖Y‖², the value of a dead net.
        gradient_norm: ‖∇L(θ)‖ = ‖Dᵀ(Ŷ − Y)‖.
        sigma_max, sigma_r: largest and smallest kept singular value of D as it is, to about eps·sigma_max; None where
            not known.
        ranks: rank of D under each cutoff, its columns normalised; None where not known.
        cutoff: the one that was used.
        shape: (n·k, number of weights) of D.
        layers: what each layer takes off ½‖Y‖², in order; with value they sum to baseline. None where not known.
        units: the same for each unit of each hidden layer; the output layer counts as one unit.
        zeros: pre-activations that are exactly 0.
        kinks: those of them whose unit has an input that is not 0: where all inputs are 0, as behind dead units,
            the pre-activation stays 0 around θ.
        differentiable: whether there are no kinks.
        method, status: how the value was found, and what it is worth (see ``Status``).
        residual: ‖Dᵀr‖/(‖D‖_F ‖Y‖), columns normalised, for the r with value = ½‖r‖²; 0 at the exact one.
        holds: whether the loss is the stationary value: differentiable, and gap ≤ tolerance·baseline.
        reason: why, or why not.
    """

    loss: float
    value: float
    gap: float
    gap_bound: float | None
    baseline: float
    gradient_norm: float
    sigma_max: float | None
    sigma_r: float | None
    ranks: dict[str, int] | None
    cutoff: str
    shape: tuple[int, int]
    layers: Float[np.ndarray, " layers"] | None
    units: tuple[np.ndarray, ...] | None
    zeros: int
    kinks: int
    differentiable: bool
    method: str
    status: str
    residual: float
    holds: bool
    reason: str

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())


@host_only
def stationary_value(
    params: Params,
    x: HostArray,
    y: HostArray,
    activation: Activations = "relu",
    cutoff: str = "nr",
    method: str = "auto",
    *,
    contributions: bool = True,
    memory_budget: int | None = None,
    tolerance: float = 1e-6,
) -> StationaryValue:
    """Theorem 1: return J(θ) = ½‖(I − P[D])vec Y‖², which is the loss at every differentiable local minimum.

    D is the derivative of all outputs with respect to all weights. L(θ) − J(θ) = ½‖P[D](Ŷ − Y)‖² at every θ, so
    the loss is at least J, and is J exactly at the stationary points. Computed in float64 from params cast first.

    The range of D does not change with the scale of a column, and its rank is decided with the columns brought to about
    one length by powers of two: units and layers of unlike scale are seen alike, and nets that differ only by powers of
    two between the weights into and out of their units have the same result.
    So do targets in another unit 2^e, but for the unit: loss, value, gap and what layers contribute are infinite beyond
    the largest number, and the smallest normal number where they underflow; 0 is exactly 0.

    Args:
        params: ``{"w1": (d, d_1), …}``, at least one hidden layer, no biases.
        x: inputs.
        y: targets, a column an output.
        activation: ReLU, leaky ReLUs or the absolute value; a sequence for one a hidden layer, with
            ``nj.activations.per_unit`` where the units of a layer differ.
        cutoff: what counts as a singular value 0: "nr" (½ σ_max eps √(rows + columns + 1)), "golub-van-loan"
            (½ ‖D‖_∞ eps) or "lapack" (σ_max eps).
        method: "dense" (SVD of all of D, the reference), "qr" (Householder, by slabs), "cholesky" (shifted
            CholeskyQR, by slabs), "lsmr" (matrix-free, an estimate), or "auto": cholesky if it fits, else lsmr.
            QR and Cholesky take known null directions off D first, so that only unknown ones meet the cutoff.
        contributions: whether to find what each unit and layer contributes.
        memory_budget: bytes that may be used; None for no limit.
        tolerance: the gap, as a fraction of ½‖Y‖², up to which the loss counts as the stationary value.

    Raises:
        ValueError: no hidden layer, biases, a smooth activation, non-finite values, shapes that do not fit,
            unknown cutoff or method.
        TypeError: not real floating numbers.
        MemoryBudgetError: the budget is too small; the message says which method would fit.

    Example:
        >>> import narrow_jax as nj
        >>> x, y = np.eye(3), np.array([[1.0], [2.0], [4.0]])
        >>> params = {"w1": np.array([[1.0], [1.0], [-1.0]]), "w2": np.array([[1.0]])}
        >>> s = nj.certificates.stationary_value(params, x, y)  # one ReLU sees the first two samples
        >>> s.loss, s.value, s.ranks["nr"], s.layers.round(12).tolist()
        (8.5, 8.0, 2, [2.5, 0.0])

    Reference:
        "Effect of Depth and Width on Local Minima in Deep Learning", Theorem 1 (4.2), with one hidden layer
        Proposition 1 (3.2), and appendix C.
    """
    _checks.choice("cutoff", cutoff, CUTOFFS)
    _checks.choice("method", method, METHODS)
    _checks.positive("tolerance", tolerance)
    d = tangent(params, x, activation)
    target, scale = fl.unit(targets(d, y))
    method = _fitting(d, method, memory_budget)
    kept = _range(d, cutoff, method, contributions)
    off, t = error(d, target, scale)
    rest, inside, gradient = kept.residual(target), off - kept.residual(off), d.rmv(off)
    baseline, gap = fl.half_square(target, scale), fl.half_square(inside, t)
    stationary = fl.half_square(inside, t - scale) <= tolerance * fl.half_square(target)
    spectrum, units = None, None
    extremes: tuple[float | None, float | None] = (None, None)
    if isinstance(kept, Range):
        spectrum = kept.spectrum
        units = improvements(d, kept, target) if contributions else None
        extremes = _extremes(d, kept)
    return StationaryValue(
        loss=fl.half_square(off, t),
        value=fl.half_square(rest, scale),
        gap=gap,
        gap_bound=_gap_bound(gradient, t, spectrum),
        baseline=baseline,
        gradient_norm=_gradient_norm(d, gradient, t),
        sigma_max=extremes[0],
        sigma_r=extremes[1],
        ranks=spectrum and spectrum.ranks,
        cutoff=cutoff,
        shape=(d.rows, d.columns),
        layers=fl.at_scale([unit.sum() for unit in units], 2 * scale) if units else None,
        units=tuple(fl.at_scale(unit, 2 * scale) for unit in units) if units else None,
        zeros=d.zeros,
        kinks=d.kinks,
        differentiable=d.kinks == 0,
        method=method,
        status=Status.of(spectrum).name,
        residual=_relative_residual(d, rest, target),
        holds=d.kinks == 0 and stationary,
        reason=_reason(d, gap, stationary, tolerance),
    )


def _extremes(d: Tangent, kept: Range) -> tuple[float, float]:
    """Return σ_max and σ_r of D as it was, by way of D/2^t, whose squares do not overflow."""
    t = d.largest_exponent
    largest, smallest = kept.extremes(t)
    return float(fl.at_scale(largest, t)), float(fl.at_scale(smallest, t))


def _gradient_norm(d: Tangent, gradient: np.ndarray, t: int) -> float:
    """Return ‖∇L‖ from that with the columns of D scaled, but for 2^t."""
    largest = d.largest_exponent
    with np.errstate(under="ignore"):
        return float(fl.at_scale(blas.dnrm2(np.ldexp(gradient, d.exponents - largest)), largest + t))


def _gap_bound(gradient: np.ndarray, t: int, spectrum: Spectrum | None) -> float | None:
    if spectrum is None:
        return None
    return fl.half_square(np.linalg.norm(gradient) / spectrum.sigma_r, t) if spectrum.sigma_r else 0.0


def plan(d: Tangent) -> dict[str, int]:
    """Return what each method holds at a time."""
    net = 3 * sum(a.size for a in (*d.weights, *d.features, *d.preactivations, *d.slopes, *d.sensitivities))
    size, entries = min(d.rows, d.columns), d.rows * d.columns
    vectors = 8 * (d.rows + d.columns)
    slab = 3 * max(min(SLAB, entries), d.columns * d.outputs.shape[1], d.rows)
    square = size * size
    # ranges.NullSpace holds them twice while it picks the independent ones
    null = 2 * ranges.null_count(d) * d.columns if is_tall(d) else 0
    return {
        "dense": 8 * (net + 3 * entries + 3 * square + vectors),
        "qr": 8 * (net + 2 * slab + 9 * square + null + vectors),
        "cholesky": 8 * (net + slab + 8 * square + null + vectors),
        "lsmr": 8 * (net + vectors),
    }


def _fitting(d: Tangent, method: str, budget: int | None) -> str:
    _checks.memory_budget(budget)
    if budget is None:
        return "cholesky" if method == "auto" else method
    needs = plan(d)
    if method == "auto":
        method = "cholesky" if needs["cholesky"] <= budget else "lsmr"
    _checks.memory(budget, needs, method, "stationary_value")
    return method


def _range(d: Tangent, cutoff: str, method: str, contributions: bool) -> Range | ranges.Iterative:
    if method == "lsmr":
        return ranges.Iterative(d)
    if method == "dense":
        return ranges.Dense(d, cutoff)
    if is_tall(d):
        enough = factorizations.ORTHOGONAL if contributions else factorizations.REFINABLE

        def cholesky(slabs: factorizations.Slabs, size: int, short: ranges.Gram | None) -> np.ndarray:
            return factorizations.cholesky_qr(slabs, size, enough, first=short)

        return ranges.Tall(d, cutoff, _householder_of_slabs if method == "qr" else cholesky)
    return ranges.Wide(d, cutoff, _householder_of_rows if method == "qr" else _cholesky_of_rows)


def _householder_of_slabs(slabs: factorizations.Slabs, size: int, _: object) -> np.ndarray:
    return householder(slabs(), size)


def _householder_of_rows(d: Tangent) -> np.ndarray:
    return householder(d.column_slabs(), d.rows)


def _cholesky_of_rows(d: Tangent) -> np.ndarray:
    return factorizations.cholesky_qr(d.column_slabs, d.rows, factorizations.REFINABLE, first=d.row_gram)


def improvements(d: Tangent, kept: Range, target: np.ndarray) -> tuple[np.ndarray, ...]:
    """Lemma 3: return ½‖P[N_k D_k]y‖² for each unit: block Gram–Schmidt in coordinates of the kept range.

    With the threshold σ_r/(2√blocks) no direction of the range can fall between the blocks, so that the sum
    is ½‖P[D]y‖² whatever the spectrum.
    """
    z = kept.coordinates(target)
    widths = [w.shape[1] for w in d.weights[:-1]]
    threshold = kept.spectrum.sigma_r / (2 * math.sqrt(sum(widths) + 1))
    basis, count = np.zeros((z.size, z.size), order="F"), 0
    layers = []
    for layer, width in enumerate((*widths, 1)):
        terms = np.zeros(width)
        for unit in range(width):
            if count == z.size:
                break
            units = slice(unit, unit + 1) if layer < len(widths) else slice(0, d.weights[-1].shape[1])
            new = factorizations.new_directions(basis[:, :count], kept.columns(layer, units), threshold)
            basis[:, count : count + new.shape[1]] = new
            count += new.shape[1]
            terms[unit] = np.sum((new.T @ z) ** 2) / 2
        layers.append(terms)
    return tuple(layers)


def _relative_residual(d: Tangent, rest: np.ndarray, target: np.ndarray) -> float:
    scale = np.linalg.norm(d.column_norms()) * np.linalg.norm(target)
    return float(np.linalg.norm(d.rmv(rest)) / scale) if scale else 0.0


def _reason(d: Tangent, gap: float, stationary: bool, tolerance: float) -> str:
    size = f"the gap {gap:.3g} is {'within' if stationary else 'above'} {tolerance:g} of ½‖Y‖²"
    if d.kinks:
        return (
            f"{size}, but {d.kinks} pre-activations are exactly 0 at a kink: θ is not a differentiable point"
        )
    return f"{size}: the loss is {'' if stationary else 'not '}that of a stationary point"
