"""Triangles in tiles of any size do what whole matrices do, in half of the memory, or in a file."""

import numpy as np
import pytest
from scipy.linalg import blas

from narrow_jax.linalg import conjugate_gradients, on_tiles, tiles
from narrow_jax.linalg import rounding as fl

SIZES = [(1, 1), (5, 2), (7, 7), (12, 5), (13, 1), (6, 40)]


def spd(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, n + 3))
    return x @ x.T


def triangle(a, tile, dtype="float64", room=tiles.memory):
    found = tiles.Triangle(len(a), tile, room(tiles.elements(len(a), tile), dtype))
    found.fill(lambda r, c, dtype: np.asarray(a[r, c], dtype, order="F"))
    return found


def lower(found):
    whole = np.zeros((found.rows, found.rows))
    for i, j in found.places():
        whole[found.span(i), found.span(j)] = found[i, j]
    return np.tril(whole)


@pytest.mark.parametrize(("n", "tile"), SIZES)
def test_tiles_share_no_number_and_leave_none_out(n, tile):
    found = triangle(np.zeros((n, n)), tile)
    for number, place in enumerate(found.places()):
        found[place][...] = number
    assert sum(found[place].size for place in found.places()) == found.numbers.size
    assert all((found[place] == number).all() for number, place in enumerate(found.places()))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "tile"), SIZES)
def test_factors_and_solutions(n, tile, dtype):
    a, v = spd(n), np.random.default_rng(1).normal(size=n)
    found, unit = triangle(a, tile, dtype), float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found.diagonal(), np.diag(a), rtol=unit)
    assert found.factorise()
    factor = lower(found)
    size = np.linalg.norm(a, 2)
    assert np.linalg.norm(a - factor @ factor.T, 2) <= n * unit * size
    assert np.linalg.norm(a @ found.solve(v) - v) <= 10 * n * unit * np.linalg.cond(a) * np.linalg.norm(v)


@pytest.mark.parametrize("tile", [1, 3, 20])
def test_what_is_not_positive_has_no_factor(tile):
    a = spd(11)
    a[7, 7] = -1.0
    assert not triangle(a, tile).factorise()
    a[7, 7] = np.nan
    assert not triangle(a, tile).factorise()


@pytest.mark.parametrize("tile", [1, 4, 16, 64])
def test_the_defect_of_a_factor_is_below_its_bound(tile):
    """Every entry by itself: γ_k |L||L|ᵀ, with fewer roundings k than a whole factor has."""
    a = spd(64)
    found = triangle(a, tile)
    assert found.factorise()
    factor = lower(found).astype(np.longdouble)
    defect = np.abs(np.tril(a) - np.tril(factor @ factor.T))
    assert (defect <= fl.gamma(tiles.roundings(64, tile)) * np.tril(np.abs(factor) @ np.abs(factor).T)).all()
    assert (defect > fl.UNIT * 2.0**-3 * np.abs(a)).any()  # something is rounded
    assert tiles.roundings(64, tile) <= 64 + 5


def test_tiles_in_a_file(tmp_path):
    a = spd(9)
    found = triangle(a, 4, room=tiles.file_in(tmp_path))
    assert found.factorise()
    np.testing.assert_allclose(lower(found), np.linalg.cholesky(a))
    assert not list(tmp_path.iterdir())  # nothing stays behind, even where the process dies


def test_a_disk_that_is_too_small(tmp_path):
    with pytest.raises(OSError, match=r"tiles need 8,000,000,000,000,000 bytes in .* left: free some"):
        tiles.file_in(tmp_path)(10**15, "float64")


@pytest.mark.parametrize(("n", "k"), [(13, 1), (5, 3)])
def test_tiles_of_hadamard_products(n, k):
    rng = np.random.default_rng(0)
    x, d = rng.normal(size=(n, 4)), rng.normal(size=(n * k, 6))
    expected = np.kron(x @ x.T, np.ones((k, k))) * (d @ d.T)
    for tile in (1, 2, 3, 4, 7, 20):
        found = tiles.Triangle(n * k, tile, tiles.memory(tiles.elements(n * k, tile), "float64"))
        found.fill(lambda *place: on_tiles.hadamard_tile(x, d, *place))
        np.testing.assert_allclose(lower(found), np.tril(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5)])
def test_norms_of_outer_products(shape):
    a = np.random.default_rng(0).normal(size=shape)
    size = np.linalg.norm(a @ a.T)
    assert size <= on_tiles.outer_norm(a) <= size * (1 + 1e-12)


def test_conjugate_gradients_need_few_steps_with_a_good_inverse():
    a, b = spd(30), np.random.default_rng(2).normal(size=30)
    rough = triangle(a + 1e-3 * np.eye(30), 7, "float32")
    assert rough.factorise()
    x = conjugate_gradients(lambda v: blas.dsymv(1.0, a, v), rough.solve, b, 1e-12, 8)
    assert np.linalg.norm(a @ x - b) <= 1e-11 * np.linalg.norm(b)
    assert np.linalg.norm(a @ conjugate_gradients(lambda v: a @ v, lambda v: v, b, 1e-12, 8) - b) > 1e-6


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError(95, "Operation not supported")]
)
def test_a_file_that_cannot_be_had_is_said(monkeypatch, tmp_path, error):
    def refused(*args):
        raise error

    monkeypatch.setattr(tiles.os, "posix_fallocate", refused)
    with pytest.raises(OSError, match=f"tiles need 80 bytes in {tmp_path}, .*{error.strerror}.*TMPDIR"):
        tiles.file_in(tmp_path)(10, "float64")


def test_a_folder_that_is_gone_is_said(tmp_path):
    with pytest.raises(OSError, match=r"tiles need 80 bytes in .*No such file.*TMPDIR"):
        tiles.file_in(tmp_path / "gone")(10, "float64")
