"""The factorisations for TPUs, run here: against NumPy's in float64, errors as multiples of rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from narrow_jax.linalg import TPU
from narrow_jax.linalg.by_blocks import BLOCK, orthonormal

UNIT = 2.0**-24
SHAPES = [(1, 1), (1, 5), (2, 3), (3, 3), (5, 9), (BLOCK - 1, 300), (BLOCK, BLOCK), (BLOCK + 2, 260)]


def matrix(rows, columns, digits=0):
    """A drawn matrix whose rows get smaller and smaller."""
    drawn = np.random.default_rng(rows).normal(size=(rows, columns))
    return np.float32(np.logspace(0, -digits, rows)[:, None] * drawn)


def singular_values(a):
    return np.linalg.svd(np.asarray(a, float), compute_uv=False)


@pytest.mark.parametrize("digits", [0, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_singular_values_are_accurate_relatively_where_rows_are_scaled(shape, digits):
    a = matrix(*shape, digits)
    vectors, values = jax.jit(TPU.decompose)(a)
    exact, rows = singular_values(a), shape[0]
    conditioned = singular_values(a / np.linalg.norm(a, axis=1, keepdims=True))
    allowed = 30 * UNIT * rows * conditioned[0] / conditioned[-1]
    assert np.all(np.abs(values - exact) <= allowed * exact)
    assert np.abs(vectors.T @ vectors - np.eye(rows)).max() <= 30 * UNIT * max(rows, 4) ** 0.5
    images = np.linalg.norm(np.asarray(vectors, float).T @ a, axis=1)
    assert np.abs(images - exact).max() <= 30 * UNIT * rows * exact[0]


def test_singular_vectors_of_a_singular_matrix():
    a = np.zeros((5, 7), np.float32)
    a[1, 2], a[3, 0] = 2.0, 1.0
    vectors, values = jax.jit(TPU.decompose)(a)
    assert_array_equal(values, [2, 1, 0, 0, 0])
    assert_array_equal(vectors.T @ vectors, np.eye(5))


@pytest.mark.parametrize("rows", [1, 3, BLOCK - 1, BLOCK, 2 * BLOCK + 5])
def test_cholesky_and_inverse(rows):
    drawn = np.random.default_rng(0).normal(size=(rows, rows + 5))
    gram = np.float32(drawn @ drawn.T + rows * np.eye(rows))
    factor, ok = jax.jit(TPU.cholesky)(np.tril(gram) + np.triu(np.full_like(gram, np.nan), 1))
    inverse = np.asarray(jax.jit(TPU.invert)(factor), float)
    factor = np.asarray(factor, float)
    assert ok
    assert_array_equal(factor, np.tril(factor))
    assert np.abs(factor @ factor.T - gram).max() <= 30 * UNIT * np.abs(gram).max()
    assert np.abs(inverse @ factor - np.eye(rows)).max() <= 30 * UNIT * rows
    whole = np.asarray(jax.jit(TPU.inverse)(gram), float)
    assert np.abs(whole @ gram - np.eye(rows)).max() <= 30 * UNIT * rows * np.linalg.cond(gram)


def test_cholesky_says_that_it_broke_off():
    gram = np.eye(BLOCK + 3, dtype=np.float32)
    gram[BLOCK + 1, BLOCK + 1] = -1
    factor, ok = jax.jit(TPU.cholesky)(gram)
    assert not ok
    assert_array_equal(factor, np.eye(len(gram)))


@pytest.mark.parametrize("shape", [(3, 1), (7, 3), (BLOCK, BLOCK), (3 * BLOCK, BLOCK + 7)], ids=str)
def test_block_gram_schmidt_gives_the_triangle_of_householder(shape):
    a = matrix(*shape[::-1], digits=4).T
    _, r = jax.jit(orthonormal)(a)
    exact = singular_values(a)
    assert np.abs(singular_values(r) - exact).max() <= 30 * UNIT * exact[0]
    assert_array_equal(r, np.triu(r))
    basis = jax.jit(TPU.basis)(a)
    assert np.abs(basis.T @ basis - np.eye(shape[1])).max() <= 30 * UNIT
    left = a - basis @ (basis.T @ a)
    assert np.abs(left).max() <= 30 * UNIT * np.abs(a).max()


def test_triangle_by_blocks_of_columns():
    a = matrix(20, 90)

    def triangle(a):
        return TPU.triangle(lambda i: jax.lax.dynamic_slice_in_dim(a, 30 * i, 30, axis=1), 3, 20)

    factor, regular = jax.jit(triangle)(a)
    gram = np.asarray(a, float) @ a.T
    assert regular
    assert np.abs(np.asarray(factor, float) @ factor.T - gram).max() <= 30 * UNIT * np.abs(gram).max()


@pytest.mark.parametrize("rows", [1, 2, 40, 300])
def test_extreme_eigenpairs(rows):
    drawn = np.random.default_rng(0).normal(size=(rows, 3 * rows + 2))
    gram = np.float32(drawn @ drawn.T)
    exact = np.linalg.eigvalsh(np.asarray(gram, float))
    value, vector = jax.jit(TPU.top)(gram)
    assert abs(value - exact[-1]) <= 30 * UNIT * exact[-1]
    assert np.linalg.norm(gram @ vector - value * vector) <= 1e-3 * exact[-1]
    assert jax.jit(TPU.largest_eigenvalue)(gram) == value
    smallest = jax.jit(lambda k: TPU.smallest(TPU.cholesky(k)[0], 1e-12))(gram)
    assert abs(1 / smallest.first - exact[0]) <= 30 * UNIT * rows * exact[-1]
    assert jnp.linalg.norm(smallest.vector) == pytest.approx(1, abs=1e-6)
