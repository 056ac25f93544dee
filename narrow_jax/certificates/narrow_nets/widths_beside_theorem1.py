"""How wide a net has to be to fit n samples: counting, Theorem 1 of "When Expressivity Meets Trainability", others."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from narrow_jax import _checks
from narrow_jax._typing import HostArray
from narrow_jax.jacobian import width_for_rank, widths_for_rank
from narrow_jax.linalg import numerical_rank

IMPOSSIBLE, POSSIBLE, SCALING, BY_COUNTS = (
    "impossible below",
    "possible from",
    "scaling",
    "admitted by counts",
)
_COUNTING, _BUBECK, _MADDEN = "counting (Sard)", "Bubeck et al. 2020", "Madden 2024"
_ALMOST = "labels outside a null set, in which ±1 may be"


class NarrowWidth(NamedTuple):
    """How many neurons a net needs, or a work proves to be enough, for given n, d and k.

    Fields:
        work: reference.
        says: "impossible below", for all labels outside a null set of R^{nk}; "possible from"; "scaling", a bound
            whose constants are not known; "admitted by counts", the fewest with which counts allow a Jacobian of full
            row rank at a mirrored start, as it was found in every tanh net tried.
        net: which.
        provided: what it asks of labels, data and activation.
        formula: the number of neurons.
        neurons: it for these n, d and k, in all hidden layers together; None for a scaling.
        log10_known: log10 of it, without the constants that an Õ hides; infinity where the formula has no value.
        widths: of the hidden layers, in the halves of a pair together.
    """

    work: str
    says: str
    net: str
    provided: str
    formula: str
    neurons: int | None
    log10_known: float
    widths: tuple[int, ...] | None


def narrow_widths(
    samples: int, layers: int, inputs: int | None, outputs: int, x: HostArray | None
) -> list[NarrowWidth]:
    """Return what ``width_requirements`` says of n samples, d inputs, k outputs; the rank of x counts for d."""
    _checks.count("outputs", outputs)
    return _rows(samples, _rank(samples, inputs, x), outputs, layers - 1)


def _rank(samples: int, inputs: int | None, x: HostArray | None) -> int:
    if x is None:
        assert inputs is not None
        _checks.count("inputs", inputs)
        return inputs
    data = np.asarray(_checks.real_matrix("x", x), float)
    _checks.finite("x", data)
    if data.shape[0] != samples or inputs not in (None, data.shape[1]):
        expected = f"({samples}, {'d' if inputs is None else inputs})"
        raise ValueError(f"x has shape {data.shape}; expected {expected}, as samples and inputs say")
    if rank := numerical_rank(data):
        return rank
    raise ValueError("x is 0 everywhere: there is nothing to fit; remove zero samples first")


def _rows(n: int, d: int, k: int, depth: int) -> list[NarrowWidth]:
    two_layers = [
        _counted(_COUNTING, IMPOSSIBLE, "standard", _ALMOST, "nk/(d + k)", -(-n * k // (d + k))),
        _counted(_COUNTING, IMPOSSIBLE, "pairwise", _ALMOST, "2nk/(2d + k)", 2 * -(-n * k // (2 * d + k))),
        _theorem1(n, d, k),
        _counted(_BUBECK, POSSIBLE, "standard", "x in general position, ReLU", "4⌈n/d⌉k", 4 * -(-n // d) * k),
        _daniely(n, d),
    ]
    return two_layers if depth == 1 else [*two_layers, *_deep(n, d, k, depth)]


def _counted(work: str, says: str, net: str, provided: str, formula: str, *widths: int) -> NarrowWidth:
    """Return a row whose number of neurons is known."""
    neurons = sum(widths)
    return NarrowWidth(work, says, net, provided, formula, neurons, math.log10(neurons), widths)


def _theorem1(n: int, d: int, k: int) -> NarrowWidth:
    provided = "x of a continuous distribution, σ analytic with σ = 0 at 0 only"
    says = POSSIBLE if k == 1 else BY_COUNTS  # the paper's proof is for one output
    return _counted("Theorem 1", says, "pairwise", provided, "2nk/d", width_for_rank(d, n, k))


def _daniely(n: int, d: int) -> NarrowWidth:
    """Return Õ(n/d · log(d log n)^c) with c = log n/log d, which may exceed n²/d where c is no constant."""
    base = math.log(d * math.log(n)) if n > 1 else 0.0
    defined = d > 1 and base > 0
    size = math.log10(n / d) + math.log(n) / math.log(d) * math.log10(base) if defined else math.inf
    return NarrowWidth(
        work="Daniely",
        says=SCALING,
        net="standard",
        provided="random x; a share of them, trained by SGD",
        formula="Õ(n/d · log(d log n)^(log n/log d))",
        neurons=None,
        log10_known=size,
        widths=None,
    )


def _deep(n: int, d: int, k: int, depth: int) -> list[NarrowWidth]:
    """Return the rows of pairs with several hidden layers of equal width."""
    net = f"pairwise, {depth} hidden layers"
    fewest = _fewest_parameters(n, d, k, depth)
    admitted = widths_for_rank(d, n, depth, k)
    formula = "2Hw with 2dw + 2(H − 1)w² + wk ≥ nk"
    return [
        _counted(_COUNTING, IMPOSSIBLE, net, _ALMOST, formula, *(2 * fewest,) * depth),
        _counted(_MADDEN, BY_COUNTS, net, "generic x, tanh", "Θ(√(nk))", *(2 * width for width in admitted)),
    ]


def _fewest_parameters(n: int, d: int, k: int, depth: int) -> int:
    """Return the smallest w with 2dw + 2(H − 1)w² + wk ≥ nk."""
    width = 1
    while 2 * d * width + 2 * (depth - 1) * width**2 + width * k < n * k:
        width += 1
    return width
