"""Assumptions 1 to 3 of "When Expressivity Meets Trainability": data, width and activation, audited one by one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from narrow_jax import _checks, activations
from narrow_jax._host import host_only
from narrow_jax._typing import Samples
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import distinct_samples
from narrow_jax.jacobian import width_for_rank
from narrow_jax.linalg import equilibrated, numerical_rank

HOLDS, FAILS, UNKNOWN = "holds", "fails", "cannot be checked"
PARALLEL = 1e-12
"""Two unit samples, inputs in units of their own size, are parallel if they, up to sign, differ by less than this."""


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


@host_only
def assumptions(x: Samples, y: Samples, width: int, activation: str | Activation = "tanh") -> Assumptions:
    """Assumptions 1, 2 and 3, audited: width, activation, data.

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
    sigma = activations.check(activations.get(activation))
    _checks.count("width", width)
    x, y = _checks.real_data(x, y)
    rank = numerical_rank(x)
    needed = width_for_rank(max(rank, 1), *y.shape)
    checks = (*_width(x, y, width, rank, needed), *_activation(sigma), *_data(x, y, rank))
    failing = [check.assumption for check in checks if check.verdict == FAILS]
    unknown = [check.assumption for check in checks if check.verdict == UNKNOWN]
    reason = f"fails: {'; '.join(failing)}" if failing else f"cannot be checked: {'; '.join(unknown)}"
    return Assumptions(holds=not failing, reason=reason, checks=checks, rank=rank, width_needed=needed)


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
    found = distinct_samples(x, y)
    repeated = f"{len(found.repeated)} repeated, such as {found.repeated[0]}" if found.repeated else ""
    zero = np.flatnonzero(~x.any(axis=1))
    constant = int(np.sum(np.all(x == x[0], axis=0))) if len(x) > 1 else 0
    parallel = _parallel(x)
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
        _full_rank(x, rank, constant),
        Check(
            "samples come from a continuous distribution",
            FAILS if discrete or (constant and len(x) > 1) else UNKNOWN,
            f"{values} different values in {x.size} entries, {constant} constant inputs",
        ),
    )


def _full_rank(x: np.ndarray, rank: int, constant: int) -> Check:
    """Assumption 3 gives min(n, d): fewer than d samples cannot span R^d, and need not."""
    n, d = x.shape
    spans = "x spans R^d" if n >= d else "the samples, fewer than d, are linearly independent"
    return _said(
        spans, rank == min(n, d), f"rank(x) = {rank} of n = {n}, d = {d}, {constant} constant inputs"
    )


def _parallel(x: np.ndarray) -> str:
    """Name a pair of parallel samples.

    Parallel directions have projections on any vector that are equal up to sign: candidates are those whose
    projections differ in size by no more than PARALLEL and rounding, k apart in their order for k = 1, 2, …, as long as
    there are some of samples that are not known to be parallel to an earlier one. Their distance decides.
    """
    samples = np.flatnonzero(x.any(axis=1))
    # inputs in any units: what is parallel stays so, and what is not does not look it beside one large input
    directions = equilibrated(x)[samples]
    directions /= np.max(np.abs(directions), axis=1, keepdims=True, initial=0.0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    probe = np.random.default_rng(0).standard_normal(x.shape[1])
    sizes = np.abs(directions @ (probe / np.linalg.norm(probe)))
    order = np.argsort(sizes)
    directions, sizes, samples = directions[order], sizes[order], samples[order]
    window = PARALLEL + 4 * (x.shape[1] + 4) * 2.0**-53
    first = np.arange(len(samples))  # of the samples that are parallel to it, one that comes earlier
    for apart in range(1, len(samples)):
        later = np.flatnonzero(sizes[apart:] - sizes[:-apart] <= window) + apart
        later = later[first[later] == later]
        if not later.size:
            break
        found = later[_distances(directions[later - apart], directions[later]) < PARALLEL]
        first[found] = found - apart
    twins = np.flatnonzero(first != np.arange(len(samples)))
    if not twins.size:
        return ""
    i, j = sorted((int(samples[first[twins[0]]]), int(samples[twins[0]])))
    return f"{twins.size} pairs, such as samples {i} and {j} (zero samples not counted)"


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return min(‖a − b‖, ‖a + b‖) row by row."""
    return np.minimum(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
