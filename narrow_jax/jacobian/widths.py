"""The width that a full-rank Jacobian needs."""

from __future__ import annotations

import warnings

import numpy as np

from narrow_jax import _checks
from narrow_jax.linalg import numerical_rank


def _needed(x: object, outputs: int) -> tuple[int, int, int]:
    data = np.asarray(_checks.real_matrix("x", x), dtype=float)
    _checks.count("outputs", outputs)
    if data.shape[0] == 0:
        raise ValueError(f"x has shape {data.shape}: there is no sample; expected n ≥ 1")
    _checks.finite("x", data)
    rank = numerical_rank(data)
    if rank == 0:
        raise ValueError("x is 0 everywhere: the Jacobian vanishes at any width; remove zero samples first")
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
