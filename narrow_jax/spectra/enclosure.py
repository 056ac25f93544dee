"""Proven bounds of the smallest singular value from an approximate singular pair.

docs/proofs/enclosure.md derives every line; the numbers of the steps are those there. Ĵ is the evaluated float64
matrix, J the exact Jacobian, ‖J − Ĵ‖₂ ≤ δ. Nothing here relies on the pair or on a factor being accurate: they
only make the bounds good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from narrow_jax._typing import Computed, Float
from narrow_jax.linalg import (
    Algebra,
    Bounds,
    EvaluatedJacobian,
    Ritz,
    Scalar,
    Square,
    Truth,
    arrays,
    compiled,
    eigenvalue_bound,
    xp,
)
from narrow_jax.linalg import rounding as fl

NO_COMPLEMENT = 2.0**200
"""β where u has no orthogonal complement (one row): any number above ν² serves."""

ROUNDS = 2
"""How often a pair is corrected, at most."""


class Operand(NamedTuple):
    """What bounds are proven for: Ĵ in an algebra, with what is known of its Gram matrix K̂.

    Args:
        algebra: that does the work.
        j: Ĵ.
        bounds: of K̂.
        kept: K̂, lower triangle; None where it is formed anew each time.
    """

    algebra: Algebra
    j: EvaluatedJacobian
    bounds: Bounds
    kept: Square | None

    @property
    def rows(self) -> int:
        """Return the number of rows of Ĵ."""
        return self.j.shape[0]

    def gram(self) -> Square:
        """Return K̂, lower triangle."""
        return self.j.gram(self.algebra).matrix if self.kept is None else self.kept

    def gram_rows(self, start: Any, count: int) -> Float[Computed, "c n"]:
        """Return rows of K̂, up to the diagonal."""
        return self.j.gram_rows(start, count) if self.kept is None else arrays.rows(self.kept, start, count)

    def block(self, index: Any) -> Float[Computed, "n b"]:
        """Return a column block of Ĵ."""
        return _block(self.j, index)

    def triangle(self) -> tuple[Float[Computed, "n n"], Truth]:
        """Return L = Rᵀ of Ĵᵀ = QR and whether it is invertible."""
        return self.algebra.triangle(self.block, self.j.block_count, self.rows)

    def weighted_gram(self, z: Float[Computed, "n n"]) -> Float[Computed, "n n"]:
        """Return N̂ = Σ_b fl(ZĴ_b)fl(ZĴ_b)ᵀ, lower triangle."""
        a = self.algebra
        return a.total(lambda i: a.outer(a.matmul(z, self.block(i))), self.j.block_count)


@compiled
def _block(j: EvaluatedJacobian, index: Any) -> Computed:
    return j.block(index)


class SingularPair(NamedTuple):
    """An approximate singular pair and what is proven of it.

    Args:
        vector: u, unit to rounding.
        right: P, at first fl(Ĵᵀu)/ν.
        image: S = fl(Ĵᵀu).
        image_error: a bound of ‖S − Ĵᵀu‖.
        value: ‖Ĵᵀu‖/‖u‖, the estimate.
        nu: ν₋ ≤ PᵀĴᵀu for the normalised vectors.
        upper: an upper bound of ‖Ĵᵀu‖/‖u‖ ≥ σ_min(Ĵ).
        b: B ≥ the part of Ĵᵀu orthogonal to P.
        c: C ≥ the part of ĴP orthogonal to u.
        residual: the computed ĴP − νu, without its error bound.
    """

    vector: Float[Computed, " n"]
    right: Float[Computed, " p"]
    image: Float[Computed, " p"]
    image_error: Float[Computed, ""]
    value: Float[Computed, ""]
    nu: Float[Computed, ...]
    upper: Float[Computed, ""]
    b: Float[Computed, ...]
    c: Float[Computed, ...]
    residual: Float[Computed, " n"]


@compiled
def measure(j: EvaluatedJacobian, u: Float[Computed, " n"]) -> SingularPair:
    """Return the pair of the direction u with its bounds B, C, ν₋ and the upper bound (step 2); float64 only."""
    u = u / fl.norm(u)
    s, s_error = j.rmv_bounded(u)
    return _bounds(j, u, s, s_error, s / xp.maximum(fl.norm(s), fl.TINY))


def _bounds(j: EvaluatedJacobian, u: Computed, s: Computed, s_error: Computed, p: Computed) -> SingularPair:
    nu = fl.norm(s)
    y, y_error = j.mv_bounded(p)
    e_b = _distance(s, nu, p, s_error)
    e_c = _distance(y, nu, u, y_error)
    o_u, o_p = _unit_defect(u), _unit_defect(p)
    b = fl.up(e_b / xp.sqrt(fl.down(1 - o_u)))
    root = fl.down(nu * xp.sqrt(fl.down(1 - o_p) / fl.up(1 + o_u)))
    upper = fl.up((fl.norm_up(s) + s_error) / xp.sqrt(fl.down(1 - o_u)))
    # P of unit length is only needed where ν > 0; elsewhere C is infinite and so no lower bound arises
    c = xp.where(o_p < 0.5, fl.up(e_c / xp.sqrt(xp.maximum(fl.down(1 - o_p), 0.25))), np.inf)
    return SingularPair(
        vector=u,
        right=p,
        image=s,
        image_error=s_error,
        value=nu / fl.norm(u),
        nu=fl.down(fl.down(root) - b),
        upper=upper,
        b=b,
        c=c,
        residual=y - nu * u,
    )


@compiled
def _corrected(j: EvaluatedJacobian, pair: SingularPair, correction: Computed) -> SingularPair:
    return _bounds(j, pair.vector, pair.image, pair.image_error, pair.right - j.rmv(correction))


@compiled
def measure_roughly(j: EvaluatedJacobian, u: Float[Computed, " n"]) -> SingularPair:
    """Return the pair without bounds, in any precision: two products instead of nine."""
    u = u / fl.norm(u)
    s = j.rmv(u)
    nu = fl.norm(s)
    p = s / xp.where(nu > 0, nu, 1.0)
    zero, infinity = xp.zeros_like(nu), xp.full_like(nu, np.inf)
    unknown = {"image_error": infinity, "nu": zero, "upper": infinity, "b": infinity, "c": infinity}
    return SingularPair(vector=u, right=p, image=s, value=nu, residual=j.mv(p) - nu * u, **unknown)


def _distance(y: Computed, nu: Computed, v: Computed, error: Computed) -> Computed:
    """Return a bound of ‖exact y − νv‖: the computed residual, its two roundings an entry, and the error of y."""
    residual = y - nu * v
    rounding = fl.UNIT * (1.01 * nu * fl.norm_up(v) + fl.norm_up(residual))
    return fl.up(fl.norm_up(residual) + rounding + error)


def _unit_defect(v: Computed) -> Computed:
    """Return a bound of |‖v‖² − 1|."""
    square = fl.stable_sum(v * v)
    return fl.up(xp.abs(square - 1) + 2 * fl.gamma(fl.sum_terms(v.size) + 2) * square)


@compiled
def lower_bound(pair: SingularPair, beta: Float[Computed, ""]) -> Float[Computed, ...]:
    """Return ν'√(1 − C²/(β − ν'²)) − B, the best over ν' ≤ ν₋ (step 4); 0 where β = 0; for each entry of ν₋, B and C.

    Theorem: if yᵀĴĴᵀy ≥ β‖y‖² for all y ⟂ u, this is at most σ_min(Ĵ). The maximum over ν'² is at β − C√β.
    """
    c = pair.c if pair.vector.size > 1 else xp.zeros_like(pair.c)  # one row has no complement
    best = beta - c * xp.sqrt(beta)
    nu = xp.minimum(pair.nu, xp.sqrt(xp.maximum(best, 0.0)) * (1 - fl.SLACK))
    gap = fl.down(beta - fl.up(nu * nu))
    ratio = xp.where(gap > 0, fl.up(c * c / xp.where(gap > 0, gap, 1.0)), 1.0)
    sigma = fl.down(nu * fl.down(xp.sqrt(fl.down(1 - xp.minimum(ratio, 1.0)))))
    lower = fl.down(sigma - pair.b)
    return xp.where((beta > 0) & xp.isfinite(lower), lower, 0.0)


def corrected(operand: Operand, factor: Square, pair: SingularPair, rounds: Any) -> SingularPair:
    """Return the pair with ν₋, B and C of itself and of its corrections P −= Ĵᵀ(LLᵀ)⁻¹(ĴP − νu), an entry each.

    Rounding of u reaches P as noise of size uκ in all directions, which Ĵ turns into C ≈ uκ²ν; corrected
    semi-normal equations with an accurate L leave C and B near uκν. Any P is allowed, so the best may be taken.
    """
    algebra, number = operand.algebra, np.arange(ROUNDS + 1, dtype=np.int32)

    def improve(state: tuple[Any, SingularPair, Any]) -> tuple[Any, SingularPair, Any]:
        done, pair, all_sides = state
        pair = _corrected(operand.j, pair, algebra.solve(factor, pair.residual))
        later = number > done
        return (
            done + 1,
            pair,
            tuple(xp.where(later, new, old) for new, old in zip(_sides(pair), all_sides, strict=True)),
        )

    def improvable(state: tuple[Any, SingularPair, Any]) -> Computed:
        done, pair, _ = state
        # C below this costs (C/ν)²ν²/(β − ν²) < 1e-15 of the bound wherever the gap exceeds a thousandth
        return (done < rounds) & (pair.c > 1e-9 * pair.value)

    every = tuple(side + np.zeros(number.shape) for side in _sides(pair))
    nu, b, c = algebra.while_loop(improvable, improve, (np.int32(0), pair, every))[2]
    return pair._replace(nu=nu, b=b, c=c)


def _sides(pair: SingularPair) -> tuple[Computed, Computed, Computed]:
    return pair.nu, pair.b, pair.c


def separation(operand: Operand, u: Computed, ritz: Ritz) -> Float[Computed, ""]:
    """Return β > 0 with yᵀĴĴᵀy ≥ β‖y‖² for y ⟂ u by one Cholesky factorisation, or 0 (step 3).

    The shift lies halfway between the two smallest Ritz values; if they are closer than the error of K̂, or a
    multiple eigenvalue hid from the iteration, just below the first.
    """
    if operand.rows == 1:
        return xp.full_like(u[0], NO_COMPLEMENT)
    shifts = _shifts(operand.bounds, ritz, operand.rows, operand.algebra.roundings(operand.rows))
    return attempts(
        operand.algebra,
        lambda index, _: _shifted_bound(operand, u, _choose(index, *shifts)),
        lambda index, beta: (index < 2) & ~(beta > 0),
        np.zeros(()),
    )


@compiled
def _choose(index: Any, first: Any, second: Any) -> Any:
    return jax.tree.map(lambda a, b: xp.where(index > 0, b, a), first, second)


def attempts(
    algebra: Algebra, attempt: Callable[[Any, Any], Any], wanting: Callable[[Any, Any], Any], result: Any
) -> Any:
    """Return the result after result ← attempt(i, result), i = 0, 1, …, while wanting(i, result); compiled once."""
    return algebra.while_loop(
        lambda state: wanting(*state),
        lambda state: (state[0] + np.int32(1), attempt(*state)),
        (np.int32(0), result),
    )[1]


class Shift(NamedTuple):
    """β̂, the power of 4 c ≥ 4β̂, and a bound of tr(K̂ + c uuᵀ)."""

    beta: Float[Computed, ""]
    c: Float[Computed, ""]
    trace: Float[Computed, ""]


@compiled(static_argnames=("rows", "terms"))
def _shifts(bounds: Bounds, ritz: Ritz, rows: int, terms: int) -> tuple[Shift, Shift]:
    """Return the two candidates of β̂ from the largest eigenvalues of K̂⁻¹; ``terms``: roundings of a factor."""
    first, second = ritz.of_inverse()
    majorant, trace, error, _ = bounds
    margin = 4 * (fl.gamma(terms) * majorant + error)
    middle = xp.maximum((first + second) / 2, xp.minimum(second, first) - margin)

    def shift(beta: Computed) -> Shift:
        # c is a power of 4: c·u_i is exact
        c = fl.power(2 * fl.power_of_two(xp.sqrt(xp.maximum(beta, fl.TINY))) + 2)
        return Shift(beta, c, fl.up(trace * (1 + fl.gamma(rows + 4)) + rows * error + _NEARLY_ONE * c))

    return shift(xp.minimum(middle, second - margin)), shift(first - margin)


_NEARLY_ONE = 1 + 1e-6
"""A bound of ‖u‖² for a vector that is unit to rounding."""


def _shifted_bound(operand: Operand, u: Computed, shift: Shift) -> Computed:
    """Cholesky of Â = fl(K̂ + c uuᵀ − β̂I) completes ⇒ ĴĴᵀ ⪰ β on the complement of u."""
    algebra = operand.algebra

    def rows(start: Any, count: int) -> Computed:
        number = np.arange(u.size, dtype=np.int32)
        on_diagonal = (start + number[:count])[:, None] == number[None, :]
        update = shift.c * (arrays.rows(u, start, count)[:, None] * u[None, :])
        return operand.gram_rows(start, count) + update - xp.where(on_diagonal, shift.beta, 0.0)

    k = operand.kept
    a = algebra.from_rows(rows, u) if k is None else algebra.shifted(k, shift.c, u, shift.beta)
    a, diagonal = arrays.barrier((a, algebra.diagonal(a)))  # read before the factor takes its place
    factor, ok = algebra.cholesky(a, overwrite=True)
    defect = algebra.cholesky_defect(rows, factor, shift.trace)
    return _certified_shift(shift, ok, defect, operand.bounds, diagonal)


@compiled
def _certified_shift(shift: Shift, ok: Truth, defect: Scalar, bounds: Bounds, diagonal: Computed) -> Computed:
    weight = _NEARLY_ONE * shift.c
    largest = xp.max(xp.abs(diagonal))
    forming = fl.gamma(3) * weight + fl.gamma(2) * (bounds.majorant + weight) + 2 * fl.UNIT * largest
    beta = fl.down(shift.beta - fl.up(defect + bounds.error + forming))
    return xp.where(ok & (beta > 0), beta, 0.0)


def preconditioned(operand: Operand, factor: Float[Computed, "n n"], u: Computed) -> Float[Computed, ""]:
    """Return β with yᵀĴĴᵀy ≥ β‖y‖² for y ⟂ u from G = ZĴ ≈ orthogonal, Z = fl(L⁻¹), or 0 (step 5).

    √β = σ_min(G)/‖Z − f hᵀ‖₂, f = Zu/‖Zu‖, h = Zᵀf: linear in the condition number, where step 3 is quadratic.
    """
    j, z = operand.j, operand.algebra.invert(factor)
    n = operand.weighted_gram(z)
    sigma = _preconditioned_sigma(n, z, operand.bounds.majorant, j.block_width, j.block_count)
    if operand.rows == 1:
        return xp.where(sigma > 0, NO_COMPLEMENT, 0.0)
    deflated, rest = _deflate(z, u)
    beta = _squared_ratio(sigma, _norm_bound(operand.algebra, deflated), rest)
    return xp.where(xp.isfinite(beta), beta, 0.0)


@compiled(static_argnames=("width", "count"))
def _preconditioned_sigma(n: Computed, z: Computed, majorant: Computed, width: int, count: int) -> Computed:
    """σ_min(ZĴ) ≥ √(1 − ‖I − N̂‖_F − γ_{p'} tr N̂) − (γ_{n+2} + 1.01u)√g‖Z‖_F, p' = block width + count + 2."""
    rows = n.shape[0]
    trace = xp.trace(n) * (1 + 4 * fl.gamma(rows + width + count + 2))
    defect = fl.up(fl.lower_norm(arrays.module(n).eye(rows) - n) + fl.UNIT * rows)
    square = fl.down(1 - fl.up(defect + fl.gamma(width + count + 2) * trace))
    loss = fl.up((fl.gamma(rows + 2) + 1.01 * fl.UNIT) * xp.sqrt(majorant) * fl.norm_up(z))
    sigma = fl.down(fl.down(xp.sqrt(square)) - loss)
    return xp.where(xp.isfinite(sigma), sigma, 0.0)


@compiled
def _deflate(z: Computed, u: Computed) -> tuple[Computed, Computed]:
    """Return Z_d = fl(Z − f̂ĥᵀ) and a bound of ‖ĥ‖·dist(f̂, span Zu) + the rounding of Z_d."""
    rows = u.size
    image = fl.matmul(z, u[:, None])[:, 0]
    size = fl.norm(image)
    f = image / size
    h = fl.matmul(z.T, f[:, None])[:, 0]
    deflated = z - f[:, None] * h[None, :]
    f_norm, h_norm = fl.norm_up(f), fl.norm_up(h)
    tilt = fl.gamma(rows + 2) * fl.norm_up(z) * fl.norm_up(u) / fl.down(size) + fl.UNIT * f_norm
    rounding = fl.UNIT * (1.01 * f_norm * h_norm + fl.norm_up(deflated))
    return deflated, fl.up(h_norm * fl.up(tilt) + rounding)


def _norm_bound(algebra: Algebra, a: Computed) -> Computed:
    """Return an upper bound of ‖A‖₂: μI − fl(AAᵀ) has a Cholesky factor."""
    square = algebra.outer(a)
    size = algebra.largest_eigenvalue(square)
    forming = fl.gamma(a.shape[0]) * fl.norm_up(a) ** 2
    rounding = 4 * fl.gamma(a.shape[0] ** 2)

    def attempt(index: Any, _: Computed) -> Computed:
        mu = size * (1 + rounding + _choose(index, 1e-13, 1e-3))
        bound, proven = eigenvalue_bound(algebra, square, mu, forming)
        return xp.where(proven, fl.up(xp.sqrt(fl.up(fl.up(bound)))), np.inf)

    return attempts(
        algebra, attempt, lambda index, bound: (index < 2) & ~xp.isfinite(bound), np.full((), np.inf)
    )


@compiled
def _squared_ratio(sigma: Computed, bound: Computed, rest: Computed) -> Computed:
    return fl.down(fl.down(sigma / fl.up(bound + rest)) ** 2)
