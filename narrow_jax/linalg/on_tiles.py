"""Large matrices on the host, by tiles: one triangle at a time, in float32 to find a vector, in float64 to prove.

K̂ is no array: its tiles are formed where they are needed. The "factor" of K̂ is that of K̂ + sI in float32, the
preconditioner of what is done with products of Ĵ in float64; what a proof factorises is formed in float64 in its place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import blas

from narrow_jax import _checks
from narrow_jax._typing import Computed, Float, HostArray
from narrow_jax.linalg import lanczos, preconditioned, tiles
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.algebra import Ritz, Scalar
from narrow_jax.linalg.arrays import compiled
from narrow_jax.linalg.on_host import HOST, Host
from narrow_jax.linalg.operators import EvaluatedJacobian
from narrow_jax.linalg.tiles import Form, Triangle, outer

WHOLE = 2**13
"""Rows up to which the host holds whole matrices: of more, tiles take less time, too."""

SHIFTS = (0.25, 2.0, 16.0, 128.0)
"""Times 2⁻²⁴·λ_max: what is added to the diagonal in float32, until there is a factor."""

ROUGHLY = 0.1
"""How exact a largest eigenvalue has to be for such a shift."""

STEPS = 200
"""Steps of conjugate gradients at most: float32 leaves some tens."""


def plan(rows: int, columns: int) -> tuple[int, int]:
    """Return the bytes that the Gram route needs by tiles, these in memory and in a file, beside the operator's own.

    A triangle, or a row and a column of tiles; the vectors among which an eigenvector is looked for; some as long as a
    row of Ĵ.
    """
    tile = tiles.TILE
    beside = 8 * (4 * min(tile, rows) ** 2 + 2 * min(rows, preconditioned.STEPS) * rows + 12 * columns)
    return 8 * tiles.elements(rows, tile) + beside, 8 * 2 * min(tile, rows) * rows + beside


def room_for(rows: int, columns: int, budget: int | None, what: str) -> Callable[[int, str], np.ndarray]:
    """Return what gives tiles their room: in memory, or in a file where the budget says so.

    Raises:
        MemoryBudgetError: not even a row of tiles fits.
    """
    inside, spilled = plan(rows, columns)
    if budget is None or inside <= budget:
        return tiles.memory
    _checks.memory(budget, {"tiles": inside, "tiles in a file": spilled}, "tiles in a file", what)
    return tiles.file_in(Path(tempfile.gettempdir()))


@dataclass(frozen=True)
class Formed:
    """A symmetric matrix that is formed by tiles where they are needed.

    Args:
        rows: n.
        form: gives a tile, in float64.
    """

    rows: int
    form: Form

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, n)."""
        return self.rows, self.rows

    def __add__(self, other: Formed) -> Formed:
        """Return the sum: one rounding an entry more."""
        return Formed(self.rows, lambda *tile: self.form(*tile) + other.form(*tile))


@dataclass(frozen=True)
class Preconditioner:
    """(K̂ + sI)⁻¹ by a float32 factor, and the products of K̂."""

    triangle: Triangle
    apply: Callable[[np.ndarray], np.ndarray]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, n)."""
        return self.triangle.rows, self.triangle.rows


@dataclass
class Tiles(Host):
    """The contract of ``Algebra`` as far as the Gram route needs it, for one operator.

    A factor is valid until the next one: all take the same room.

    Args:
        j: Ĵ.
        tile: rows of a tile.
        room: gives the numbers, in memory or in a file.
    """

    j: EvaluatedJacobian
    tile: int
    room: Callable[[int, str], np.ndarray] = tiles.memory
    _numbers: np.ndarray | None = field(default=None, init=False)
    _top: float | None = field(default=None, init=False)

    def hadamard(self, x: Float[HostArray, "n a"], d: Float[HostArray, "r b"]) -> tuple[Any, float, float]:
        """Return (xxᵀ ⊗ 11ᵀ) ∘ (ddᵀ) by tiles, and bounds of the Frobenius norms of xxᵀ and ddᵀ."""
        x, d = np.ascontiguousarray(x), np.ascontiguousarray(d)
        return Formed(len(d), partial(hadamard_tile, x, d)), outer_norm(x), outer_norm(d)

    def outer(self, a: Float[HostArray, "a k"]) -> Any:
        """Return aaᵀ by tiles."""
        a = np.ascontiguousarray(a)
        return Formed(len(a), partial(outer_tile, a))

    def total(self, term: Callable[..., Any], count: int) -> Any:
        """Return Σ term(i), kept where there is more than one: a term is formed once."""
        first = term(0)
        if count == 1:
            return first
        kept = Triangle(first.rows, self.tile, self.room(tiles.elements(first.rows, self.tile), "float64"))
        kept.fill(first.form)
        for index in range(1, count):
            kept.add(term(index).form)
        return Formed(kept.rows, partial(_tile_of, kept))

    def shifted(self, k: Any, c: Scalar, u: Float[HostArray, " n"], beta: Scalar) -> Any:
        """Return K + c uuᵀ − βI in tiles: two roundings an entry for the update, one more on the diagonal."""
        c, beta, u = float(c), float(beta), np.asarray(u)

        def form(r: slice, columns: slice, dtype: np.dtype) -> np.ndarray:
            a = k.form(r, columns, dtype)
            a += c * (u[r, None] * u[None, columns])
            if r == columns:
                a[np.diag_indices_from(a)] -= beta
            return a

        triangle = self._triangle(k.rows, "float64")
        triangle.fill(form)
        return triangle

    def diagonal(self, a: Any) -> np.ndarray:
        """Return the diagonal."""
        return a.diagonal()

    def cholesky(self, a: Any, overwrite: bool = False) -> tuple[Any, bool]:
        """Return L in the place of tiles and whether that completed; of K̂ its float32 preconditioner."""
        if isinstance(a, Triangle):
            return a, a.factorise()
        return self.preconditioner(a)

    def preconditioner(self, k: Formed) -> tuple[Preconditioner, bool]:
        """Return the factor of K̂ + sI in float32, s as small as lets it complete, and whether one did."""
        largest = float(self.largest(k, ROUGHLY).first) if self._top is None else self._top
        triangle = self._triangle(k.rows, "float32")
        for factor in SHIFTS:
            triangle.fill(partial(_raised, k.form, np.float32(factor * 2.0**-24 * largest)))
            if triangle.factorise():
                return Preconditioner(triangle, self._apply), True
        return Preconditioner(triangle, self._apply), False

    def roundings(self, rows: int) -> int:
        """Return those of an entry by tiles."""
        return tiles.roundings(rows, self.tile)

    def solve(self, factor: Any, v: Float[HostArray, " n"]) -> np.ndarray:
        """Return K̂⁻¹v by conjugate gradients, to three digits: it corrects, and is applied again."""
        return preconditioned.conjugate_gradients(
            factor.apply, factor.triangle.solve, np.asarray(v), 1e-3, STEPS
        )

    def smallest(self, factor: Any, tolerance: float) -> Ritz:
        """Return the smallest eigenpair of K̂, as the largest of its inverse, polished by one more inverse step."""
        ritz = preconditioned.smallest(factor.apply, factor.triangle.solve, factor.shape[0], tolerance)
        u = ritz.vector
        vector = u - self.solve(factor, factor.apply(u) - u / ritz.first)
        return ritz._replace(vector=vector / blas.dnrm2(vector))

    def largest(self, a: Any, tolerance: float) -> Ritz:
        """Return the largest eigenpair of K̂ by Lanczos."""
        ritz = lanczos.host(self._apply, lanczos.start_vector(a.shape[0]), tolerance)
        self._top = float(ritz.first)
        return ritz

    def _apply(self, v: np.ndarray) -> np.ndarray:
        return np.asarray(product(self.j, v))

    def _triangle(self, rows: int, dtype: str) -> Triangle:
        count = tiles.elements(rows, self.tile)
        if self._numbers is None:
            self._numbers = self.room(count, "float64")
        return Triangle(rows, self.tile, self._numbers.view(dtype)[:count])


@compiled
def product(j: EvaluatedJacobian, v: Float[Computed, " n"]) -> Float[Computed, " n"]:
    """Return ĴĴᵀv."""
    return j.mv(j.rmv(v))


def hadamard_tile(
    x: np.ndarray, d: np.ndarray, r: slice, c: slice, dtype: np.dtype
) -> Float[np.ndarray, "a b"]:
    """Return a tile of (xxᵀ ⊗ 11ᵀ) ∘ (ddᵀ): the errors of both factors and one rounding."""
    k = len(d) // len(x)
    samples, others = (slice(part.start // k, -(-part.stop // k)) for part in (r, c))
    inputs, units = outer_tile(x, samples, others, dtype), outer_tile(d, r, c, dtype)
    if k > 1:
        inputs = fl.symmetric(inputs) if samples == others else inputs
        here, there = (np.arange(part.start, part.stop) // k - part.start // k for part in (r, c))
        inputs = inputs[here[:, None], there[None, :]]
    units *= inputs
    return units


def outer_tile(a: np.ndarray, r: slice, c: slice, dtype: np.dtype) -> Float[np.ndarray, "a b"]:
    """Return a tile of aaᵀ, of a diagonal one the lower triangle."""
    rows = a[r].astype(dtype, copy=False)
    return outer(rows, rows if r == c else a[c].astype(dtype, copy=False))


def outer_norm(a: Float[np.ndarray, "n k"]) -> float:
    """Return a bound of ‖aaᵀ‖_F = ‖aᵀa‖_F, from the smaller of the two."""
    rows = a if a.shape[0] <= a.shape[1] else a.T
    rounding = fl.gamma(rows.shape[1] + a.size) * HOST.norm_up(a) ** 2
    return float(fl.up(fl.lower_norm(outer(rows, rows)) + rounding))


def _tile_of(kept: Triangle, r: slice, c: slice, dtype: np.dtype) -> np.ndarray:
    return np.array(kept[r.start // kept.tile, c.start // kept.tile], dtype, order="F")


def _raised(form: Form, shift: np.float32, r: slice, c: slice, dtype: np.dtype) -> np.ndarray:
    a = form(r, c, dtype)
    if r == c:
        a[np.diag_indices_from(a)] += shift
    return a
