"""What the theorems of "When Expressivity Meets Trainability" ask of data, width and activation, one by one."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from narrow_jax import _checks, activations
from narrow_jax.activations import Activation
from narrow_jax.certificates.samples import distinct
from narrow_jax.spectra.rank import numerical_rank

HOLDS, FAILS, UNKNOWN = "holds", "fails", "cannot be checked"
PARALLEL = 1e-12
"""Two unit samples are called parallel if they, up to sign, differ by less than this."""


class Check(NamedTuple):
    """One assumption: its statement, "holds", "fails" or "cannot be checked", and the evidence."""

    assumption: str
    verdict: str
    evidence: str


class Assumptions(NamedTuple):
    """The audit.

    Fields:
        holds: no assumption fails.
        reason: which fail, or which cannot be checked.
        checks: one a row.
        rank: rank of x.
        width_needed: the smallest even m with h·rank(x) ≥ n·k and h ≥ k.
    """

    holds: bool
    reason: str
    checks: tuple[Check, ...]
    rank: int
    width_needed: int


def assumptions(x: Any, y: Any, width: int, activation: str | Activation = "tanh") -> Assumptions:
    """Assumptions 1 to 3, audited: width, activation, data.

    Args:
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        width: m.
        activation: name or ``Activation``.

    Returns:
        ``Assumptions``. That samples come from a continuous distribution can be refuted, never confirmed.

    Raises:
        ValueError: no sample, non-finite values, width below 1.
        TypeError: arrays that are not real floating numbers.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(20, 5))
        >>> audit = assumptions(x, x[:, 0], width=8)
        >>> audit.holds, [c.verdict for c in audit.checks][:3]
        (True, ['holds', 'holds', 'holds'])

    Reference:
        "When Expressivity Meets Trainability", section 4.1.
    """
    sigma = activations.get(activation)
    _checks.count("width", width)
    x, y = _checks.real_data(x, y)
    rank = numerical_rank(x)
    needed = 2 * max(math.ceil(x.shape[0] * y.shape[1] / max(rank, 1)), y.shape[1])
    checks = (*_width(x, y, width, rank, needed), *_activation(sigma), *_data(x, y, rank))
    failing = [check.assumption for check in checks if check.verdict == FAILS]
    unknown = [check.assumption for check in checks if check.verdict == UNKNOWN]
    reason = f"fails: {'; '.join(failing)}" if failing else f"cannot be checked: {'; '.join(unknown)}"
    return Assumptions(not failing, reason, checks, rank, needed)


def _said(assumption: str, holds: bool, evidence: str) -> Check:
    return Check(assumption, HOLDS if holds else FAILS, evidence)


def _width(x: np.ndarray, y: np.ndarray, width: int, rank: int, needed: int) -> tuple[Check, ...]:
    (n, d), k = x.shape, y.shape[1]
    return (
        _said("m is even", width % 2 == 0, f"m = {width}"),
        _said("m ≥ 2nk/d", width * d >= 2 * n * k, f"2nk/d = {2 * n * k / d:.4g}, m = {width}"),
        _said(
            "h·rank(x) ≥ nk and h ≥ k",
            width // 2 * rank >= n * k and width // 2 >= k,
            f"rank(x) = {rank} of d = {d}: m ≥ {needed} is needed",
        ),
    )


def _activation(sigma: Activation) -> tuple[Check, ...]:
    lipschitz = math.isfinite(sigma.lipschitz)
    return (
        _said(
            "σ is analytic with infinitely many Taylor coefficients",
            sigma.analytic,
            f"{sigma.name}: {'yes' if sigma.analytic else 'no, as its definition states'}",
        ),
        _said("σ is Lipschitz", lipschitz, f"sup|σ'| = {sigma.lipschitz:.6g}"),
        _said(
            "σ(z) = 0 only at z = 0",
            sigma.zero_only_at_zero,
            f"{sigma.name}: {'yes' if sigma.zero_only_at_zero else 'no, as its definition states'}",
        ),
    )


def _data(x: np.ndarray, y: np.ndarray, rank: int) -> tuple[Check, ...]:
    found = distinct(x, y)
    repeated = f"{len(found.repeated)} repeated, such as {found.repeated[0]}" if found.repeated else ""
    zero = np.flatnonzero(~x.any(axis=1))
    constant = int(np.sum(np.ptp(x, axis=0) == 0)) if len(x) > 1 else 0
    parallel = _parallel(x[x.any(axis=1)])
    values = len(np.unique(x))
    discrete = x.size >= 100 and values < 0.5 * x.size
    return (
        _said(
            "labels do not contradict each other",
            not found.clash,
            found.clash or "no equal samples with other labels",
        ),
        _said(
            "samples are distinct", not (found.repeated or found.clash), repeated or found.clash or "all are"
        ),
        _said("no sample is 0", not zero.size, f"zero samples: {zero[:5].tolist()}" if zero.size else "none"),
        _said("no two samples are parallel", not parallel, parallel or "none, to 1e-12"),
        _said(
            "x spans R^d",
            rank == min(x.shape),
            f"rank(x) = {rank}, {constant} constant inputs",
        ),
        Check(
            "samples come from a continuous distribution",
            FAILS if discrete or (constant and len(x) > 1) else UNKNOWN,
            f"{values} different values in {x.size} entries, {constant} constant inputs",
        ),
    )


def _parallel(x: np.ndarray) -> str:
    """Name a pair of parallel samples: neighbours in the order of their directions, the first entry made positive."""
    if len(x) < 2:
        return ""
    directions = x / np.max(np.abs(x), axis=1, keepdims=True)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    first = np.take_along_axis(directions, np.argmax(np.abs(directions) > 1e-6, axis=1)[:, None], axis=1)
    directions *= np.sign(first)
    order = np.lexsort(np.round(directions, 9).T)
    gaps = np.linalg.norm(np.diff(directions[order], axis=0), axis=1)
    close = np.flatnonzero(gaps < PARALLEL)
    if not close.size:
        return ""
    i, j = sorted((int(order[close[0]]), int(order[close[0] + 1])))
    return f"{close.size} pairs, such as samples {i} and {j} (zero samples not counted)"
