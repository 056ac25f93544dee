"""Table 1 and equation (12) of "Global Convergence of Deep Networks": how wide theorems want a net to be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np

from narrow_jax import _checks, activations
from narrow_jax._host import host_only
from narrow_jax._typing import HostArray
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets import NarrowWidth, narrow_widths
from narrow_jax.certificates.pyramidal_nets.constants import Constants
from narrow_jax.certificates.pyramidal_nets.equation13_lambda_star import check_sphere, lambda_star
from narrow_jax.certificates.pyramidal_nets.guarantee import log10
from narrow_jax.certificates.pyramidal_nets.measured_norms import StartNorms, in_float64
from narrow_jax.linalg import HOST, extremes


class WidthRequirement(NamedTuple):
    """A row of Table 1 for given N and L.

    Fields:
        work: reference, numbered as in the paper.
        deep, many_outputs, trains_all_layers: what it covers.
        activation: which activations.
        formula: the width, as Table 1 has it.
        log10_known: log10 of the powers of N and L in it, without the constants that an Ω hides.
        unknown: the factor that remains, in symbols; empty if none does.
        wide_layers: how many layers must be that wide.
    """

    work: str
    deep: bool
    many_outputs: bool
    trains_all_layers: bool
    activation: str
    formula: str
    log10_known: float
    unknown: str
    wide_layers: str


@overload
def width_requirements(samples: int, layers: int) -> list[WidthRequirement]: ...
@overload
def width_requirements(
    samples: int, layers: int, inputs: int, outputs: int = 1, *, x: HostArray | None = None
) -> list[NarrowWidth]: ...
@overload
def width_requirements(
    samples: int, layers: int, inputs: int | None = None, outputs: int = 1, *, x: HostArray
) -> list[NarrowWidth]: ...
def width_requirements(
    samples: int,
    layers: int,
    inputs: int | None = None,
    outputs: int = 1,
    *,
    x: HostArray | None = None,
) -> list[WidthRequirement] | list[NarrowWidth]:
    """Return the width that each work requires: Table 1 for N and L, or what fitting n samples takes for your d and k.

    Table 1 has unknown constants: λ_0 and λ_min(K^(L)) are eigenvalues of other Gram matrices, φ is the smallest
    distance of two samples, λ_* is ``lambda_star``; only the row "general" is a width without a hidden constant.

    With ``inputs`` or ``x`` the rows are ``NarrowWidth``: below which numbers of neurons almost no labels can be
    fitted, since there are too few parameters, from which ones Theorem 1 of "When Expressivity Meets Trainability" and
    others prove that they can, and how few neurons deep pairs need.

    Args:
        samples: N, or n.
        layers: L ≥ 2; L − 1 are hidden.
        inputs: d.
        outputs: k.
        x: data, (n, d), whose rank then counts instead of d.

    Raises:
        ValueError: N < 1, L < 2, d < 1, k < 1, or an x that is 0, not finite or of other shape; outputs without inputs.

    Example:
        >>> for row in width_requirements(samples=1000, layers=3)[1:3]:
        ...     print(f"{row.formula}: 10^{row.log10_known:.1f} {row.unknown}")
        Ω(N^24 L^12 φ^-4): 10^77.7 φ^-4
        Ω(N^8 L^12 φ^-4): 10^29.7 φ^-4
        >>> for row in width_requirements(samples=1000, layers=3, inputs=3):
        ...     print(f"{row.neurons} {row.says:18} {row.work}: {row.formula}")
        250 impossible below   counting (Sard): nk/(d + k)
        286 impossible below   counting (Sard): 2nk/(2d + k)
        668 possible from      Theorem 1: 2nk/d
        1336 possible from      Bubeck et al. 2020: 4⌈n/d⌉k
        None scaling            Daniely: Õ(n/d · log(d log n)^(log n/log d))
        84 impossible below   counting (Sard): 2Hw with 2dw + 2(H − 1)w² + wk ≥ nk
        124 admitted by counts Madden 2024: Θ(√(nk))

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", Table 1;
        the power of N in row [16] is 4. "When Expressivity Meets Trainability", section 2, appendix C and Theorem 1;
        docs/proofs/jacobian.md.
    """
    _checks.count("samples", samples)
    _checks.count("layers", layers, minimum=2)
    if inputs is not None or x is not None:
        return narrow_widths(samples, layers, inputs, outputs, x)
    if outputs != 1:
        raise ValueError(f"outputs is {outputs} without inputs; expected inputs, d, or x beside it")
    return _table1(samples, layers)


def _table1(samples: int, layers: int) -> list[WidthRequirement]:
    n, depth = math.log10(samples), math.log10(layers)
    zou = 8 * n + 12 * depth
    allen_zhu = 16 * n + zou
    gram = "λ_min(K^(L))^-4"
    du, lecun = f"2^O(L) {gram}", "2^O(L) λ_*^-2"
    no, yes = False, True
    rows = [
        ("[31] Oymak, Soltanolkotabi", no, no, no, "smooth", "Ω(N^2 λ_0^-2)", 2 * n, "λ_0^-2", "one"),
        ("[2] Allen-Zhu, Li, Song", yes, yes, no, "any", "Ω(N^24 L^12 φ^-4)", allen_zhu, "φ^-4", "all"),
        ("[49] Zou, Gu", yes, no, no, "ReLU", "Ω(N^8 L^12 φ^-4)", zou, "φ^-4", "all"),
        ("[16] Du et al.", yes, no, yes, "smooth", f"Ω(N^4 {du})", 4 * n, du, "all"),
        ("Nguyen, Mondelli: general", yes, yes, yes, "smooth", "N", n, "", "one"),
        ("Nguyen, Mondelli: LeCun", yes, yes, yes, "smooth", f"Ω(N^2 {lecun})", 2 * n, lecun, "one"),
    ]
    return [WidthRequirement(*row) for row in rows]


class LecunWidth(NamedTuple):
    """The scaling (12), and where (4) and (5) would hold.

    Fields:
        lambda_star: λ_*.
        spectral_term: ‖X‖₂²/λ_* (log(N/λ_*))²: scaling only, its constant is not known.
        sample_term: N²/λ_*²: scaling only, without its factor 2^O(L).
        log10_width: log10 of the n_1 from which (4) and (5) hold for the expected numbers of a LeCun start:
            an estimate, not a proof; infinity where no width serves.
    """

    lambda_star: float
    spectral_term: float
    sample_term: float
    log10_width: float


@host_only
def lecun_width(x: HostArray, y: HostArray, above: Sequence[int], activation: str | Activation) -> LecunWidth:
    """Equation (12): estimate the first width that Theorem 3.2 needs with LeCun's initialisation, beside its terms.

    The numbers of the start are replaced by what they concentrate at: λ_F by √(n_1λ_*), ‖W_l‖ and λ_l by
    1 ± √(n_l/n_{l−1}), the output's size by its largest expectation.

    Args:
        x: data (N, d), rows of norm √d.
        y: targets (N, n_L).
        above: n_2 … n_L.
        activation: σ with its constants.

    Raises:
        ValueError: rows not of norm √d, targets that do not fit, no width.

    Example:
        >>> x = np.sqrt(2) * np.eye(2)
        >>> found = lecun_width(x, np.ones((2, 1)), (1,), activations.smooth_leaky_relu(0.5, 1.0))
        >>> round(found.lambda_star, 3), round(found.log10_width, 1)
        (0.584, 3.6)

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", (12), appendix C.
    """
    sigma = activations.check(activations.get(activation))
    x, y = in_float64(_checks.real_matrix("x", x)), in_float64(_checks.real_matrix("y", y))
    _checks.samples(x, y)
    check_sphere(x)
    if not above or y.shape[1] != above[-1]:
        raise ValueError(
            f"above is {tuple(above)} and y has shape {y.shape}; expected n_2 … n_L, n_L outputs"
        )
    for layer, width in enumerate(above, start=2):
        _checks.count(f"width n_{layer}", width)
    samples, inputs = x.shape
    norm = extremes(x).largest
    smallest = lambda_star(x, sigma).value
    residual = HOST.norm_up(y) + HOST.norm_up(x) * math.sqrt(above[-1] / inputs)

    def margin(width: float) -> float:
        sizes = (float(inputs), width, *map(float, above))
        ratios = [math.sqrt(b / a) for a, b in itertools.pairwise(sizes)]
        start = StartNorms(
            samples=samples,
            widths=(),
            norms=tuple(1 + ratio for ratio in ratios),
            smallest=tuple(max(0.0, 1 - ratio) for ratio in ratios),
            features=(norm,),
            lambda_f=math.sqrt(width * smallest),
            x_frobenius=HOST.norm_up(x),
            residual=residual,
        )
        constants = Constants.of(start, sigma)
        return min(constants.condition4, constants.condition5)

    exponents = np.arange(log10(samples), 60, 0.05)
    holds = [float(e) for e in exponents if margin(10.0**e) >= 0]
    positive = smallest > 0
    return LecunWidth(
        lambda_star=smallest,
        spectral_term=norm**2 / smallest * math.log(samples / smallest) ** 2 if positive else math.inf,
        sample_term=samples**2 / smallest**2 if positive else math.inf,
        log10_width=holds[0] if holds else math.inf,
    )
