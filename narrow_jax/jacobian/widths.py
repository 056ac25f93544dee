"""The width that a full-rank Jacobian needs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax.linalg import numerical_rank


def _needed(x: object, outputs: int) -> tuple[int, int, int]:
    data = np.asarray(_checks.real_matrix("x", x), dtype=float)
    _checks.count("outputs", outputs)
    if data.shape[0] == 0:
        raise ValueError(f"x has shape {data.shape}: there is no sample; expected n ≥ 1")
    _checks.finite("x", data)
    rank = numerical_rank(data)
    if rank == 0:
        raise ValueError(
            "x is 0 everywhere: the Jacobian of the first layer vanishes at any width; remove zero samples first"
        )
    return width_for_rank(rank, data.shape[0], outputs), rank, data.shape[0]


def width_for_rank(rank: int, samples: int, outputs: int) -> int:
    """Return the smallest even width m with h·rank(X) ≥ n·k and h ≥ k, h = m/2, for a rank above 0."""
    return 2 * max(-(-samples * outputs // rank), outputs)


def admissible_width(x: object, outputs: int = 1) -> int:
    """Return the smallest even width m with h·rank(X) ≥ n·k and h ≥ k, h = m/2.

    At a mirrored start the Jacobian of the pairwise net has rank at most h·rank(X); for rank(X) = d this is m ≥ 2n/d.

    Args:
        x: data, (n, d).
        outputs: k.

    Raises:
        ValueError: no sample, all zero, non-finite.
        TypeError: not real floating numbers.

    Example:
        >>> import numpy as np
        >>> admissible_width(np.eye(10, 5))
        4

    Reference:
        Assumption m ≥ 2n/d of "When Expressivity Meets Trainability: Fewer than n Neurons Can Work".
    """
    return _needed(x, outputs)[0]


@host_only
def check_width(x: object, width: int, outputs: int = 1, strict: bool = False) -> None:
    """Warn if a pairwise net of this width cannot have a Jacobian of full row rank at its mirrored start.

    Args:
        x: data, (n, d).
        width: m.
        outputs: k.
        strict: raise instead.

    Raises:
        ValueError: too narrow, under ``strict``; odd width.

    Example:
        >>> import numpy as np
        >>> check_width(np.eye(10, 5), 4)
    """
    _checks.even_width(width)
    needed, rank, samples = _needed(x, outputs)
    if width >= needed:
        return
    message = (
        f"width {width} is too narrow: {width // 2} pairs times rank(X) = {rank} give rank at most "
        f"{width // 2 * rank} for {samples} samples and {outputs} outputs; the smallest "
        f"admissible width is {needed}"
    )
    if strict:
        raise ValueError(message)
    warnings.warn(message, UserWarning, stacklevel=2)


def rank_bound(rank: int, samples: int, widths: Sequence[int], outputs: int) -> int:
    """Return the largest rank that J of φ(x; W)V can have, by counts alone.

    At most n·k rows; at most Σ_l rank(A_{l−1})·n_l columns that differ; and what reaches the outputs through layer l
    has rank at most n·n_l, beside the columns of the layers above.

    Args:
        rank: of X.
        samples: n.
        widths: n_1 … n_H.
        outputs: k.
    """
    ranks = [rank, *(min(samples, width) for width in widths[:-1])]
    columns = [below * width for below, width in zip(ranks, widths, strict=True)]
    through = [samples * width + sum(columns[layer:]) for layer, width in enumerate(widths, start=1)]
    return min(samples * outputs, sum(columns), *through)


def admissible_widths(x: object, depth: int, outputs: int = 1) -> tuple[int, ...]:
    """Return the smallest equal widths of a pair's halves with which counts admit a Jacobian of full row rank.

    Args:
        x: data, (n, d).
        depth: H, the number of hidden layers.
        outputs: k.

    Raises:
        ValueError: no sample, all zero, non-finite, depth 0.
        TypeError: not real floating numbers.

    Example:
        >>> import numpy as np
        >>> admissible_widths(np.eye(30, 3), depth=2)
        (5, 5)

    Reference:
        docs/proofs/jacobian.md.
    """
    _checks.count("depth", depth)
    _, rank, samples = _needed(x, outputs)
    return widths_for_rank(rank, samples, depth, outputs)


def widths_for_rank(rank: int, samples: int, depth: int, outputs: int) -> tuple[int, ...]:
    """Return the smallest equal widths with which ``rank_bound`` is n·k, for a rank above 0."""
    width = 1
    while rank_bound(rank, samples, (width,) * depth, outputs) < samples * outputs:
        width += 1
    return (width,) * depth


@host_only
def check_widths(x: object, widths: Sequence[int], outputs: int = 1, strict: bool = True) -> None:
    """Raise if a pair with these hidden layers cannot have a Jacobian of full row rank at its mirrored start.

    Args:
        x: data, (n, d).
        widths: n_1 … n_H of each half.
        outputs: k.
        strict: raise where they are too narrow; else warn.

    Raises:
        ValueError: too narrow, under ``strict``; no layer; a width below 1.
        TypeError: widths that are no sequence.

    Example:
        >>> import numpy as np
        >>> check_widths(np.eye(30, 3), (5, 5))

    Reference:
        docs/proofs/jacobian.md.
    """
    require_widths(widths)
    _, rank, samples = _needed(x, outputs)
    found = rank_bound(rank, samples, widths, outputs)
    if found >= samples * outputs:
        return
    message = (
        f"widths {tuple(widths)} are too narrow: the Jacobian has rank at most {found} for {samples} samples, "
        f"{outputs} outputs and inputs of rank {rank}; the smallest admissible equal widths are "
        f"{widths_for_rank(rank, samples, len(widths), outputs)}"
    )
    if strict:
        raise ValueError(message)
    warnings.warn(message, UserWarning, stacklevel=2)


def require_widths(widths: Sequence[int]) -> None:
    """Require the widths of at least one hidden layer."""
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise TypeError(f"widths is {widths!r}; expected a sequence such as (30, 30), one a hidden layer")
    if not widths:
        raise ValueError("widths is empty, depth 0; expected at least one hidden layer, such as (30, 30)")
    for layer, width in enumerate(widths, start=1):
        _checks.count(f"the width of layer {layer}", width)
