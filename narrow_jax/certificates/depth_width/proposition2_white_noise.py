"""Proposition 2 of "Effect of Depth and Width on Local Minima": loss on white noise, predicted and simulated."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np
from scipy import linalg

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax._typing import Array, HostArray, Key
from narrow_jax.certificates.depth_width.factorizations import orthonormal
from narrow_jax.linalg import context, numerical_rank


class WhiteNoiseLoss(NamedTuple):
    """Prediction and simulation of L = ½‖(I − P[D̃])Y‖², D̃ = [Λ_1X … Λ_mX], for Gaussian [X Y].

    Fields:
        rank: predicted rank of D̃, min(n, d·m).
        ranks: the ranks that were simulated.
        mean: predicted mean ½(n − rank); exact where D̃ has that rank.
        simulated_mean, standard_error: of L over the trials.
        factor: (1 + 6√(t/n))(n − d·m)/n, the bound on L/(½‖Y‖²); 0 where d·m ≥ n.
        exceeded: fraction of the trials above that bound; the proposition allows ``allowed``.
        allowed: 2e^(−t) and what the probability of the rank adds, at most 1.
        size_condition: whether n, d, m and δ are as large as the proposition asks.
        delta: δ, as given or found; 0 where a sampled Λ_I lacks rank.
        smallest_singular_value: the smallest of Λ_I over the sampled row subsets I: the m-th where d·m < n, else the
            |I|-th.
        pattern_condition: "refuted" if that is below δ, or if an entry of Λ exceeds 1 in size, as the proof lets none
            do; else "not verified": there are too many subsets.
        holds: ranks as predicted, and the means within three standard errors.
        reason: why, or why not.
    """

    rank: int
    ranks: np.ndarray
    mean: float
    simulated_mean: float
    standard_error: float
    factor: float
    exceeded: float
    allowed: float
    size_condition: bool
    delta: float
    smallest_singular_value: float
    pattern_condition: str
    holds: bool
    reason: str


@host_only
def white_noise_loss(
    key: Key[Array, ""],
    patterns: HostArray,
    inputs: int,
    *,
    trials: int = 200,
    subsets: int = 200,
    delta: float | None = None,
    t: float = 3.0,
) -> WhiteNoiseLoss:
    """Proposition 2: return predicted and simulated loss at local minima for fixed patterns and Gaussian data.

    Args:
        key: a JAX random key.
        patterns: Λ, the slope of each hidden unit at each sample, such as 0 and 1 for ReLU.
        inputs: d.
        trials: draws of [X Y].
        subsets: sampled row subsets for the condition on Λ: |I| = ⌈n/2⌉ where d·m < n, else |I| = ⌊m/2⌋.
        delta: δ of that condition; None for the largest that the sampled subsets leave, their smallest singular value.
            The smaller it is, the larger the sizes have to be: n ≥ 64 ln²(dmn/δ²)dm, or dm ≥ 2n ln²(nm/δ).
        t: of the bound, which holds with probability 1 − 2e^(−t) and more.

    Raises:
        ValueError: sizes below 1, non-finite patterns.

    Example:
        >>> patterns = np.random.default_rng(0).integers(0, 2, (30, 4)).astype(float)
        >>> result = white_noise_loss(jax.random.key(0), patterns, inputs=3)
        >>> result.rank, result.mean, result.holds, result.size_condition
        (12, 9.0, True, False)

    Reference:
        "Effect of Depth and Width on Local Minima in Deep Learning", Proposition 2 and Lemma 6.
    """
    _checks.key("key", key)
    patterns = _checks.real_matrix("patterns", patterns)
    _checks.finite("patterns", patterns)
    for name, value in {"inputs": inputs, "trials": trials, "subsets": subsets}.items():
        _checks.count(name, value, minimum=2 if name == "trials" else 1)
    if delta is not None:
        _checks.positive("delta", delta)
    _checks.positive("t", t)
    slopes = np.asarray(patterns, np.float64)
    n, m = slopes.shape
    rank = min(n, inputs * m)
    key_data, key_rows = jax.random.split(key)
    with context.float64():
        data = np.asarray(jax.random.normal(key_data, (trials, n, inputs + 1)))
        orders = np.asarray(jax.random.uniform(key_rows, (subsets, n))).argsort(axis=1)
    draws = [loss_and_rank(slopes, xy) for xy in data]
    losses, ranks = map(np.array, zip(*draws, strict=True))
    halves = (data[:, :, -1] ** 2).sum(axis=1) / 2
    factor = (1 + 6 * math.sqrt(t / n)) * (n - rank) / n
    tall = inputs * m < n  # then Λ_I has to be injective: its m-th singular value counts, 0 where |I| < m
    size = math.ceil(n / 2) if tall else min(n, max(1, m // 2))
    smallest, deficient = _smallest(slopes, orders[:, :size], m if tall else size)
    delta = delta or (0.0 if deficient else smallest)
    mean, error = float(losses.mean()), float(losses.std(ddof=1) / math.sqrt(trials))
    predicted = (n - rank) / 2
    near = abs(mean - predicted) <= 3 * error + 1e-9 * n
    refuted = smallest < delta or not delta or np.abs(slopes).max() > 1
    size_condition, failure = _sizes(n, m, inputs, delta)
    return WhiteNoiseLoss(
        rank=rank,
        ranks=ranks,
        mean=predicted,
        simulated_mean=mean,
        standard_error=error,
        factor=factor,
        exceeded=float(np.mean(losses > factor * halves + 1e-9 * n)),
        allowed=min(1.0, failure + (2 * math.exp(-t) if tall else 0.0)),
        size_condition=size_condition,
        delta=delta,
        smallest_singular_value=smallest,
        pattern_condition="refuted" if refuted else "not verified",
        holds=bool((ranks == rank).all()) and near,
        reason=(
            f"rank {rank} in {int((ranks == rank).sum())} of {trials} trials; mean {mean:.6g} ± {error:.2g}, "
            f"predicted {predicted:.6g}"
        ),
    )


def loss_and_rank(slopes: np.ndarray, xy: np.ndarray) -> tuple[float, int]:
    """Lemma 5: return L = ½‖(I − P[D̃])Y‖² and rank D̃ for one draw of [X Y]."""
    x, y = xy[:, :-1], xy[:, -1]
    d = (slopes[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    basis = orthonormal(d)
    return float(y @ y - np.sum((basis.T @ y) ** 2)) / 2, basis.shape[1]


def _smallest(slopes: np.ndarray, subsets: np.ndarray, order: int) -> tuple[float, bool]:
    """Return the smallest ``order``-th singular value of Λ_I over these row subsets I, and whether it is 0."""
    if order > subsets.shape[1]:
        return 0.0, True
    worst = slopes[min(subsets, key=lambda rows: linalg.svdvals(slopes[rows])[order - 1])]
    return float(linalg.svdvals(worst)[order - 1]), numerical_rank(worst) < order


def _sizes(n: int, m: int, inputs: int, delta: float) -> tuple[bool, float]:
    """Return whether the sizes are in reach of the proposition, and the probability it allows for another rank."""
    if delta == 0:
        return False, 1.0
    if inputs * m < n:
        logarithm = math.log(max(inputs * m * n / delta**2, math.e))
        return n >= 64 * logarithm**2 * inputs * m, math.exp(-n / (64 * logarithm))
    wide = inputs * m >= 2 * n * math.log(n * m / delta) ** 2
    return wide and inputs >= math.log(m * n) ** 2, 2 * math.exp(-inputs / 20)
