"""The extreme singular values of small matrices: enclosed, and tightly, against 40 digits."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrow_jax.spectra import extremes

TIGHT = 1e-12  # of the largest singular value, for sides of at most 12: n^{3/2} roundings and γ's slack


def exact(a):
    with mpmath.workdps(40):
        tall = mpmath.matrix((a if a.shape[0] >= a.shape[1] else a.T).tolist())
        values = sorted(mpmath.svd_r(tall, compute_uv=False))
        return values[0], values[-1]


RNG = np.random.default_rng(0)
MATRICES = {
    "one entry": np.array([[-3.0]]),
    "column": RNG.normal(size=(7, 1)),
    "wide": RNG.normal(size=(3, 12)),
    "tall": RNG.normal(size=(12, 3)),
    "ill-conditioned": RNG.normal(size=(4, 4)) * np.array([1.0, 1e-4, 1e-8, 1e-12]),
    "singular": np.outer(RNG.normal(size=4), RNG.normal(size=5)),
    "tiny": 1e-300 * RNG.normal(size=(4, 5)),
    "huge": 1e300 * RNG.normal(size=(4, 5)),
    "zero": np.zeros((3, 2)),
}


@pytest.mark.parametrize("a", MATRICES.values(), ids=MATRICES.keys())
def test_enclosed_and_tight(a):
    low, high = exact(a)
    found = extremes(a)
    assert 0 <= found.smallest <= low
    assert high <= found.largest
    assert low - found.smallest <= TIGHT * high
    assert found.largest - high <= TIGHT * high + 1e-150


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_orthogonal_rows_are_enclosed(seed, rows, columns):
    rng = np.random.default_rng(seed)
    size = max(rows, columns)
    q = np.linalg.qr(rng.normal(size=(size, size)))[0][
        :rows, :columns
    ]  # exactly orthonormal only to rounding
    found = extremes(q)
    assert 1 - 1e-12 <= found.smallest <= 1 + 1e-14
    assert 1 - 1e-14 <= found.largest <= 1 + 1e-12
    assert found.smallest <= found.largest


def test_singular_is_zero():
    assert extremes(MATRICES["singular"]).smallest == 0


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_a_matrix_without_entries_is_refused(shape):
    with pytest.raises(ValueError, match="expected at least one row and one column"):
        extremes(np.zeros(shape))
