"""The lower triangle of a symmetric matrix in square tiles, and its Cholesky factor in its place: half of the memory.

Tiles lie in memory or in a file, one after the other; SciPy's BLAS works on one or two of them at a time, so that a
loop over them can be interrupted and says how far it is.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.linalg import blas, lapack

from narrow_jax import _printing
from narrow_jax._typing import Float

TILE = 2000
"""Rows of a tile: products reach the speed of large ones, and last less than a second."""

Form = Callable[[slice, slice, np.dtype], Float[np.ndarray, "a b"]]
"""Gives a new tile of a symmetric matrix: its rows, its columns and their dtype; on the diagonal the lower triangle."""


def elements(rows: int, tile: int) -> int:
    """Return how many numbers the tiles of a triangle have.

    Example:
        >>> elements(5, 2), elements(5, 5)
        (17, 25)
    """
    full, rest = divmod(rows, tile)
    return full * (full + 1) // 2 * tile * tile + rest * rows


def roundings(rows: int, tile: int) -> int:
    """Return how many an entry of LLᵀ meets: within a tile, one for each tile, and one for reciprocals of pivots."""
    return min(tile, rows) + -(-rows // tile) + 4


def memory(count: int, dtype: str) -> np.ndarray:
    """Return room for so many numbers, in memory: none is touched."""
    return np.empty(count, dtype)


def file_in(folder: Path) -> Callable[[int, str], np.ndarray]:
    """Return what gives room for numbers in a file that nobody else sees, gone with it.

    Raises:
        OSError: the disk has no room for it; nothing is written then.
    """

    def room(count: int, dtype: str) -> np.ndarray:
        size = count * np.dtype(dtype).itemsize
        try:
            free = shutil.disk_usage(folder).free
            if size > free:
                raise OSError(f"which has {free:,} left")
            with tempfile.TemporaryFile(dir=folder) as file:
                # a hole that the disk cannot fill would kill the process
                os.posix_fallocate(file.fileno(), 0, size)
                return np.asarray(np.memmap(file, dtype, "r+", shape=(count,)))
        except OSError as error:
            raise OSError(
                f"tiles need {size:,} bytes in {folder}, {error}: free some, name another folder by TMPDIR, or raise "
                "memory_budget until they fit into memory"
            ) from error

    return room


@dataclass(frozen=True)
class Triangle:
    """The tiles on and below the diagonal, column by column of tiles.

    Args:
        rows: n.
        tile: rows of a tile; the last has what is left.
        numbers: ``elements`` of them.
    """

    rows: int
    tile: int
    numbers: Float[np.ndarray, " e"]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, n)."""
        return self.rows, self.rows

    @property
    def count(self) -> int:
        """Return the tiles along the diagonal."""
        return -(-self.rows // self.tile)

    def span(self, index: int) -> slice:
        """Return the rows of a tile."""
        return slice(index * self.tile, min((index + 1) * self.tile, self.rows))

    def __getitem__(self, place: tuple[int, int]) -> np.ndarray:
        """Return tile (i, j), i ≥ j, in Fortran's order, as a view."""
        i, j = place
        first, above = j * self.tile, i * self.tile
        width, height = (part.stop - part.start for part in (self.span(j), self.span(i)))
        # columns of tiles before this one are trapezia of rows from their diagonal on
        before = self.tile * (j * self.rows - self.tile * (j * (j - 1) // 2))
        start = before + (above - first) * width
        return self.numbers[start : start + height * width].reshape((height, width), order="F")

    def places(self) -> Iterator[tuple[int, int]]:
        """Yield (i, j) column by column, from the diagonal down."""
        for j in range(self.count):
            yield from ((i, j) for i in range(j, self.count))

    def fill(self, form: Form) -> None:
        """Set the matrix."""
        places = list(self.places())
        with _printing.countdown("forming", len(places)) as advance:
            for done, (i, j) in enumerate(places):
                advance(done)
                self[i, j][...] = form(self.span(i), self.span(j), self.numbers.dtype)

    def add(self, form: Form) -> None:
        """Add a matrix, one rounding an entry."""
        for i, j in self.places():
            self[i, j][...] += form(self.span(i), self.span(j), self.numbers.dtype)

    def diagonal(self) -> Float[np.ndarray, " n"]:
        """Return the diagonal."""
        return np.concatenate([np.diagonal(self[i, i]) for i in range(self.count)])

    def factorise(self) -> bool:
        """Overwrite A by L, LLᵀ = A, left-looking, and return whether that completed.

        Products of tiles are rounded before they are subtracted, so that an entry meets those of one tile and one for
        each tile: |A − LLᵀ| ≤ γ_k |L||L|ᵀ for the ``roundings`` k (docs/proofs/enclosure.md, step 3).
        """
        trsm, axpy = blas.get_blas_funcs(("trsm", "axpy"), dtype=self.numbers.dtype)
        work = np.empty(
            min(self.tile, self.rows) ** 2, self.numbers.dtype
        )  # new room would cost a tenth of the time
        effort = np.cumsum([2 * j + 1 for _, j in self.places()])
        with _printing.countdown("factorising", int(effort[-1])) as advance:
            for done, (i, j) in zip(itertools.chain([0], effort), self.places(), strict=False):
                advance(int(done))
                here = self[i, j]
                product = work[: here.size].reshape(here.shape, order="F")
                for k in range(j):
                    left = self[i, k]
                    outer(left, left if i == j else self[j, k], product)
                    axpy(product.ravel(order="F"), here.ravel(order="F"), a=-1.0)
                if i == j:
                    if not _factorised(self[j, j]):
                        return False
                else:
                    self[i, j][...] = trsm(
                        1.0, self[j, j], self[i, j], side=1, lower=1, trans_a=1, overwrite_b=1
                    )
        return True

    def solve(self, v: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return (LLᵀ)⁻¹v, L in place of A, in its precision."""
        trsv, gemv = blas.get_blas_funcs(("trsv", "gemv"), dtype=self.numbers.dtype)
        x = np.array(v, self.numbers.dtype)
        for j in range(self.count):
            here = self.span(j)
            x[here] = trsv(self[j, j], x[here], lower=1)
            for i in range(j + 1, self.count):
                x[self.span(i)] -= gemv(1.0, self[i, j], x[here])
        for j in reversed(range(self.count)):
            here = self.span(j)
            for i in range(j + 1, self.count):
                x[here] -= gemv(1.0, self[i, j], x[self.span(i)], trans=1)
            x[here] = trsv(self[j, j], x[here], lower=1, trans=1)
        return x.astype(np.float64)

    def product(self, v: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return Av."""
        symv, gemv = blas.get_blas_funcs(("symv", "gemv"), dtype=self.numbers.dtype)
        y = np.zeros_like(v)
        for i, j in self.places():
            here, there = self.span(i), self.span(j)
            if i == j:
                y[here] += symv(1.0, self[i, i], v[here], lower=1)
            else:
                y[here] += gemv(1.0, self[i, j], v[there])
                y[there] += gemv(1.0, self[i, j], v[here], trans=1)
        return y


def outer(a: np.ndarray, b: np.ndarray, room: np.ndarray | None = None) -> np.ndarray:
    """Return abᵀ, in Fortran's order, each entry's error at most γ_k (|a||b|ᵀ); of a = b the lower triangle alone.

    ``room`` is where it is put, in Fortran's order.
    """
    into = {} if room is None else {"c": room, "overwrite_c": 1}
    if a is b:
        (syrk,) = blas.get_blas_funcs(("syrk",), (a,))
        left, by_rows = _laid(a)
        return syrk(1.0, left, trans=by_rows, lower=1, **into)
    (gemm,) = blas.get_blas_funcs(("gemm",), (a, b))
    (left, by_rows), (right, by_columns) = _laid(a), _laid(b)
    return gemm(1.0, left, right, trans_a=by_rows, trans_b=not by_columns, **into)


def _laid(a: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return A as it lies in Fortran's order, or Aᵀ where that is so: no copy; and whether it is Aᵀ."""
    return (a, False) if a.flags.f_contiguous else (a.T, True)


def _factorised(a: np.ndarray) -> bool:
    """Overwrite the tile by its factor, and return whether it has one, of finite pivots with inverses."""
    (potrf,) = lapack.get_lapack_funcs(("potrf",), (a,))
    a[...], info = potrf(a, lower=1, clean=0, overwrite_a=1)
    pivots = np.diagonal(a)
    return info == 0 and bool(
        np.isfinite(pivots).all() and np.min(pivots) > float(np.finfo(a.dtype).tiny) ** 0.4
    )
