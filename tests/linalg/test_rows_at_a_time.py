"""Large matrices that devices form some rows at a time are those that are formed at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.linalg import DEVICE, HOST, arrays, on_device


@pytest.fixture(params=[1, 4, 7, 8])
def rows(request, monkeypatch):
    """Few rows at a time: numbers that divide those there are, and others."""
    monkeypatch.setattr(on_device, "ROWS", request.param)


@pytest.mark.parametrize(("n", "k"), [(21, 1), (10, 2), (9, 3)])
def test_hadamard_products_of_gram_matrices(n, k, rows, x64):
    rng = np.random.default_rng(0)
    x, d = rng.normal(size=(n, 5)), rng.normal(size=(n * k, 6))
    expected = np.kron(x @ x.T, np.ones((k, k))) * (d @ d.T)
    for algebra in (DEVICE, HOST):
        found, inputs, units = algebra.hadamard(x, d)
        np.testing.assert_allclose(np.tril(found), np.tril(expected), rtol=1e-12, atol=1e-12)
        for bound, matrix in ((inputs, x @ x.T), (units, d @ d.T)):
            size = np.linalg.norm(matrix)
            assert size * (1 - 1e-12) <= bound <= 1.5 * size  # rows that are gone over twice count twice


def rows_of(a):
    return functools.partial(arrays.rows, jnp.asarray(a))


def test_a_defect_is_seen_wherever_it_is(rows, x64):
    a = np.eye(21) * 21 + np.ones((21, 21))
    factor, ok = DEVICE.cholesky(jnp.asarray(a))
    assert ok
    trace = float(np.trace(a))
    sound = float(DEVICE.cholesky_defect(rows_of(a), factor, trace))
    assert sound < 1e-11
    for i, j in ((0, 0), (13, 2), (20, 20), (20, 0)):
        off = a.copy()
        off[i, j] = off[j, i] = a[i, j] + 0.5
        defect = np.linalg.norm(off - np.asarray(factor) @ np.asarray(factor).T, 2)
        assert defect <= float(DEVICE.cholesky_defect(rows_of(off), factor, trace)) <= 2.5 * defect


def test_traced_certificates_of_many_rows_hold(rows, x64):
    rng = np.random.default_rng(1)
    params = {"w": rng.normal(size=(8, 12)), "v": rng.normal(size=(6, 1))}
    x = rng.normal(size=(40, 8))
    exact = np.linalg.svd(np.asarray(nj.jacobian.pairwise(params, x).dense()), compute_uv=False)[-1]
    s = jax.jit(lambda params, x: nj.sigma_min(nj.jacobian.pairwise(params, x), "gram"))(params, x)
    assert s.certified
    assert s.lower <= exact * (1 + 1e-12)
    assert s.upper >= exact * (1 - 1e-12)
    assert (s.upper - s.lower) / exact < 1e-6
