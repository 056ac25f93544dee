"""Large matrices on the host, by tiles: one triangle at a time, in float32 to find a vector, in float64 to prove.

K̂ is no array: its tiles are formed where they are needed. The "factor" of K̂ is that of K̂ + sI in float32, the
preconditioner of what is done with products of Ĵ in float64; what a proof factorises is formed in float64 in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from narrow_jax._typing import Float, HostArray
from narrow_jax.linalg import lanczos, preconditioned, tiles
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.algebra import Ritz, Scalar
from narrow_jax.linalg.on_host import Host
from narrow_jax.linalg.operators import EvaluatedJacobian
from narrow_jax.linalg.tiles import Form, Triangle, outer

SHIFTS = (4.0, 32.0, 256.0)
"""Times 2⁻²⁴·λ_max: what is added to the diagonal in float32, until there is a factor."""

DAMPED = 200
"""Steps of conjugate gradients at most: float32 leaves some tens."""


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
        return Formed(self.rows, lambda r, c: self.form(r, c) + other.form(r, c))


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
    tile: int = tiles.TILE
    room: Callable[[int, str], np.ndarray] = tiles.memory
    _numbers: np.ndarray | None = field(default=None, init=False)

    def hadamard(
        self, x: Float[HostArray, "n a"], d: Float[HostArray, "r b"]
    ) -> tuple[Any, float, float]:
        """Return (xxᵀ ⊗ 11ᵀ) ∘ (ddᵀ) by tiles, and bounds of the Frobenius norms of xxᵀ and ddᵀ."""
        x, d = np.asarray(x), np.asarray(d)
        return Formed(len(d), partial(hadamard_tile, x, d)), outer_norm(x), outer_norm(d)

    def outer(self, a: Float[HostArray, "a k"]) -> Any:
        """Return aaᵀ by tiles."""
        a = np.asarray(a)
        return Formed(len(a), partial(_outer_tile, a))

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

        def form(r: slice, columns: slice) -> np.ndarray:
            a = k.form(r, columns)
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
        single = jax.tree.map(_single, self.j).gram(self).matrix if self.j.cheap_gram else k
        largest = float(self.largest(k, 1e-4).first)
        triangle = self._triangle(k.rows, "float32")
        for factor in SHIFTS:
            triangle.fill(partial(_raised, single.form, np.float32(factor * 2.0**-24 * largest)))
            if triangle.factorise():
                return Preconditioner(triangle, self._apply), True
        return Preconditioner(triangle, self._apply), False

    def cholesky_defect(self, of_a: Any, factor: Any, trace: Scalar) -> float:
        """Return a bound of ‖A − LLᵀ‖₂: γ_k ‖L‖_F², k the roundings of an entry by tiles."""
        terms = factor.roundings
        return fl.gamma(terms) * float(trace) * (1 + 4 * fl.gamma(terms))

    def solve(self, factor: Any, v: Float[HostArray, " n"]) -> np.ndarray:
        """Return K̂⁻¹v by conjugate gradients, to six digits."""
        return preconditioned.conjugate_gradients(
            factor.apply, factor.triangle.solve, np.asarray(v), 1e-6, DAMPED
        )

    def smallest(self, factor: Any, tolerance: float) -> Ritz:
        """Return the smallest eigenpair of K̂, as the largest of its inverse."""
        return preconditioned.smallest(factor.apply, factor.triangle.solve, factor.shape[0], tolerance)

    def largest(self, a: Any, tolerance: float) -> Ritz:
        """Return the largest eigenpair of K̂ by Lanczos."""
        return lanczos.host(self._apply, lanczos.start_vector(a.shape[0]), tolerance)

    def _apply(self, v: np.ndarray) -> np.ndarray:
        return np.asarray(self.j.mv(self.j.rmv(v)))

    def _triangle(self, rows: int, dtype: str) -> Triangle:
        count = tiles.elements(rows, self.tile)
        if self._numbers is None:
            self._numbers = self.room(count, "float64")
        return Triangle(rows, self.tile, self._numbers.view(dtype)[:count])


def hadamard_tile(x: np.ndarray, d: np.ndarray, r: slice, c: slice) -> Float[np.ndarray, "a b"]:
    """Return a tile of (xxᵀ ⊗ 11ᵀ) ∘ (ddᵀ), errors as those of its two factors and one rounding."""
    k = len(d) // len(x)
    samples, others = (slice(part.start // k, -(-part.stop // k)) for part in (r, c))
    inputs, units = _outer_tile(x, samples, others), _outer_tile(d, r, c)
    if k > 1:
        if samples == others:
            inputs = fl.symmetric(inputs)
        here, there = (np.arange(part.start, part.stop) // k - part.start // k for part in (r, c))
        inputs = inputs[here[:, None], there[None, :]]
    units *= inputs
    return units


def _outer_tile(a: np.ndarray, r: slice, c: slice) -> Float[np.ndarray, "a b"]:
    rows = a[r]
    return outer(rows, rows if r == c else a[c])


def outer_norm(a: Float[np.ndarray, "n k"]) -> float:
    """Return a bound of ‖aaᵀ‖_F = ‖aᵀa‖_F, from the smaller of the two."""
    square = outer(a, a) if len(a) <= a.shape[1] else outer(a.T, (a.T))
    raise NotImplementedError


def _tile_of(kept: Triangle, r: slice, c: slice) -> np.ndarray:
    return np.array(kept[r.start // kept.tile, c.start // kept.tile], order="F")


def _raised(form: Form, shift: np.float32, r: slice, c: slice) -> np.ndarray:
    a = form(r, c)
    if r == c:
        a[np.diag_indices_from(a)] += shift
    return a


def _single(leaf: Any) -> Any:
    """Return numbers as NumPy's, in float32."""
    return np.asarray(leaf, np.float32) if np.asarray(leaf).dtype == np.float64 else leaf
