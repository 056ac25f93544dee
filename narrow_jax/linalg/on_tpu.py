"""Linear algebra for TPUs: float32, in loops over blocks, so that programs stay small whatever the size.

XLA writes its own factorisations for TPUs out, block by block: for v5e a QR factorisation of 2,000 × 500 compiles in
17 s and one of 4,000 × 1,000 in 188 s, an SVD of 500 × 500 in 58 s, Cholesky of 2,000 × 2,000 in 25 s. Here they are
loops around a factorisation of one block: seconds at any size. Nothing is proven in float32: all results are estimates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array, Float, HostArray
from narrow_jax.linalg import lanczos
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.algebra import Ritz
from narrow_jax.linalg.on_device import Device, start_vector
from narrow_jax.linalg.rounding import symmetric

BLOCK = 128
"""Rows or columns that XLA factorises at once: the width of the matrix unit."""

SWEEPS = 24
"""Of Jacobi rotations at most; 6 to 10 are needed."""

INVERTIBLE = 2.0**-30
"""Pivots below, beside the largest, have inverses whose products float32 cannot hold, and are rounding anyway."""


class Tpu(Device):
    """The contract of ``Algebra``, in float32."""

    def cholesky(self, a: Float[HostArray, "n n"], overwrite: bool = False) -> tuple[Array, Array]:
        """Return L and whether the factorisation completed: left-looking, by blocks of columns."""
        rows = a.shape[0]
        full = _filled(symmetric(a))

        def step(block: Array, factor: Array) -> Array:
            first = block * BLOCK
            row = jax.lax.dynamic_slice_in_dim(factor, first, BLOCK)
            panel = jax.lax.dynamic_slice_in_dim(full, first, BLOCK, axis=1) - fl.matmul(factor, row.T)
            corner = jax.lax.linalg.cholesky(jax.lax.dynamic_slice_in_dim(panel, first, BLOCK))
            solved = jax.lax.linalg.triangular_solve(
                corner, panel, left_side=False, lower=True, transpose_a=True
            )
            below = _numbers(full)[:, None] >= first
            return jax.lax.dynamic_update_slice_in_dim(factor, jnp.where(below, solved, 0.0), first, axis=1)

        factor = jnp.tril(_over_blocks(step, full, jnp.zeros_like(full)))[:rows, :rows]
        ok = jnp.all(jnp.isfinite(factor))
        return jnp.where(ok, factor, jnp.eye(rows, dtype=factor.dtype)), ok

    def invert(self, factor: Float[HostArray, "n n"]) -> Float[Array, "n n"]:
        """Return L⁻¹, lower triangular, by blocks of rows."""
        rows = factor.shape[0]
        full = _filled(jnp.tril(factor))

        def step(block: Array, inverse: Array) -> Array:
            first = block * BLOCK
            row = jax.lax.dynamic_slice_in_dim(full, first, BLOCK)
            corner = jax.lax.dynamic_slice_in_dim(row, first, BLOCK, axis=1)
            number = _numbers(full)
            identity = (number[None, :] == first + number[:BLOCK, None]).astype(full.dtype)
            right = identity - fl.matmul(row, inverse)  # of the inverse only the rows above are there
            solved = jax.lax.linalg.triangular_solve(corner, right, left_side=True, lower=True)
            return jax.lax.dynamic_update_slice_in_dim(inverse, solved, first, axis=0)

        return jnp.tril(_over_blocks(step, full, jnp.zeros_like(full)))[:rows, :rows]

    def inverse(self, a: Float[HostArray, "n n"]) -> Float[Array, "n n"]:
        """Return A⁻¹ of a positive definite matrix."""
        z = self.invert(self.cholesky(a)[0])
        return fl.matmul(z.T, z)

    def smallest(self, factor: Float[HostArray, "n n"], tolerance: float) -> Ritz:
        """Return the largest eigenpair of (LLᵀ)⁻¹: products with L⁻¹, where solving would go entry by entry."""
        z = self.invert(factor)

        def apply(v: HostArray) -> Array:
            return fl.matmul(z.T, fl.matmul(z, v[:, None]))[:, 0]

        ritz = lanczos.device(apply, start_vector(factor), tolerance)
        vector = apply(ritz.vector)
        return ritz._replace(vector=vector / jnp.linalg.norm(vector))

    def triangle(
        self, block: Callable[..., Float[HostArray, "n b"]], count: int, rows: int
    ) -> tuple[Array, Array]:
        """Return L = Rᵀ of the QR factorisation of Jᵀ, by column blocks of J, and whether R is invertible."""

        def step(r: Array, index: Array) -> tuple[Array, None]:
            return orthonormal(jnp.concatenate([r, block(index).T])).r, None

        dtype = jax.eval_shape(lambda: block(0)).dtype
        r, _ = jax.lax.scan(step, jnp.zeros((rows, rows), dtype), jnp.arange(count, dtype=jnp.int32))
        pivots = jnp.abs(jnp.diag(r))
        return r.T, jnp.min(pivots) > INVERTIBLE * jnp.max(pivots)

    def decompose(self, factor: Float[HostArray, "n p"]) -> tuple[Array, Array]:
        """Return the left singular vectors and all singular values, descending, by one-sided Jacobi rotations.

        Pairs of rows are rotated until all rows are orthogonal; their lengths are then the singular values, each with a
        small relative error where only the scales of rows make the matrix ill-conditioned.

        Reference: Demmel and Veselić, "Jacobi's method is more accurate than QR" (1992).
        """
        rows, columns = factor.shape
        even = rows + rows % 2
        # the rotations are gathered beside the rows; a row of zeros that makes their number even is never rotated
        whole = jnp.pad(
            jnp.concatenate([factor, jnp.eye(rows, dtype=factor.dtype)], axis=1), ((0, even - rows), (0, 0))
        )
        pairs = _Pairs(whole[: even // 2], whole[even // 2 :], jnp.full((), jnp.inf, factor.dtype))
        enough = columns**0.5 * float(jnp.finfo(factor.dtype).eps)

        def sweep(state: tuple[Array, _Pairs]) -> tuple[Array, _Pairs]:
            count, pairs = state
            pairs = pairs._replace(angle=jnp.zeros_like(pairs.angle))
            return count + jnp.int32(1), jax.lax.fori_loop(
                jnp.int32(0),
                jnp.int32(max(even - 1, 1)),
                lambda _, pairs: _rotated(pairs, columns, enough),
                pairs,
            )

        _, pairs = jax.lax.while_loop(
            lambda state: (state[0] < SWEEPS) & (state[1].angle > enough), sweep, (jnp.int32(0), pairs)
        )
        whole = jnp.concatenate(pairs[:2])
        image, vectors = whole[:, :columns], whole[:, columns:]
        values = jnp.sqrt(jnp.sum(image * image, axis=1))
        last = jnp.sum(vectors * vectors, axis=1) == 0  # the row of zeros
        order = jnp.argsort(jnp.where(last, jnp.inf, -values))[:rows]
        return vectors[order].T, values[order]

    def top(self, a: Float[HostArray, "n n"]) -> tuple[Array, Array]:
        """Return the largest eigenvalue of a symmetric matrix and its vector."""
        ritz = self.largest(a, float(jnp.finfo(a.dtype).eps) ** 2)
        return jnp.asarray(ritz.first), jnp.asarray(ritz.vector)

    def largest_eigenvalue(self, a: Float[HostArray, "n n"]) -> Array:
        """Return the largest eigenvalue of a symmetric matrix."""
        return self.top(a)[0]

    def basis(self, matrix: Float[HostArray, "n p"]) -> Float[Array, "n p"]:
        """Return an orthonormal basis of the columns."""
        return orthonormal(orthonormal(matrix).q).q  # once leaves rounding times the condition number


TPU = Tpu()


class Orthonormal(NamedTuple):
    """A = QR."""

    q: Float[Array, "n p"]
    r: Float[Array, "p p"]


def orthonormal(matrix: Float[HostArray, "n p"]) -> Orthonormal:
    """Return A = QR, n ≥ p, by block Gram–Schmidt, each block by Householder: R is as accurate as Householder's.

    Reference: Barlow, "Block modified Gram-Schmidt algorithms and their analysis" (2019).
    """
    columns = matrix.shape[1]
    wide = jnp.pad(matrix, ((0, max(0, BLOCK - matrix.shape[0])), (0, -columns % BLOCK)))
    number = jnp.arange(wide.shape[1], dtype=jnp.int32)

    def step(block: Array, carry: Orthonormal) -> Orthonormal:
        rest, r = carry
        first = block * BLOCK
        q, corner = jnp.linalg.qr(jax.lax.dynamic_slice_in_dim(rest, first, BLOCK, axis=1))
        row = jnp.where(number >= first + BLOCK, fl.matmul(q.T, rest), 0.0)
        rest = jax.lax.dynamic_update_slice_in_dim(rest - fl.matmul(q, row), q, first, axis=1)
        row = jax.lax.dynamic_update_slice_in_dim(row, corner, first, axis=1)
        return Orthonormal(rest, jax.lax.dynamic_update_slice_in_dim(r, row, first, axis=0))

    empty = jnp.zeros((wide.shape[1], wide.shape[1]), wide.dtype)
    q, r = jax.lax.fori_loop(jnp.int32(0), jnp.int32(wide.shape[1] // BLOCK), step, Orthonormal(wide, empty))
    return Orthonormal(q[: matrix.shape[0], :columns], r[:columns, :columns])


class _Pairs(NamedTuple):
    """Rows [A | W] to be rotated, each above with that below, and the largest cosine seen between two of A."""

    above: Float[Array, "h c"]
    below: Float[Array, "h c"]
    angle: Float[Array, ""]


def _rotated(pairs: _Pairs, columns: int, enough: float) -> _Pairs:
    """Return the rows with all pairs rotated to be orthogonal, in the order of the next round of a tournament."""
    above, below, _ = pairs
    a, b = above[:, :columns], below[:, :columns]
    alpha, beta, gamma = (jnp.sum(product, axis=1) for product in (a * a, b * b, a * b))
    size = jnp.sqrt(alpha) * jnp.sqrt(beta)
    cosine = jnp.where(size > 0, jnp.abs(gamma) / jnp.where(size > 0, size, 1.0), 0.0)
    turned = cosine > enough
    zeta = (beta - alpha) / jnp.where(turned, 2 * gamma, 1.0)
    tangent = jnp.where(zeta >= 0, 1.0, -1.0) / (jnp.abs(zeta) + jnp.sqrt(1 + zeta * zeta))
    tangent = jnp.where(turned, tangent, 0.0)
    cosine_of, sine = 1 / jnp.sqrt(1 + tangent * tangent), tangent / jnp.sqrt(1 + tangent * tangent)
    s, tau = sine[:, None], (sine / (1 + cosine_of))[:, None]
    # as Rutishauser: what a small rotation changes is rounded, not the rows
    above, below = above - s * (below + tau * above), below + s * (above - tau * below)
    return _Pairs(
        jnp.concatenate([above[:1], below[:1], above[1:-1]]) if len(above) > 1 else above,
        jnp.concatenate([below[1:], above[-1:]]) if len(above) > 1 else below,
        jnp.maximum(pairs.angle, jnp.max(cosine)),
    )


def _filled(a: Float[Array, "n n"]) -> Float[Array, "m m"]:
    """Return the matrix with ones on the diagonal beyond it, up to whole blocks."""
    missing = -a.shape[0] % BLOCK
    beyond = _numbers(a, missing) >= a.shape[0]
    return jnp.pad(a, (0, missing)) + jnp.diag(beyond.astype(a.dtype))


def _numbers(a: Array, more: int = 0) -> Array:
    return jnp.arange(a.shape[0] + more, dtype=jnp.int32)


def _over_blocks(step: Callable[[Array, Array], Array], full: Array, state: Array) -> Array:
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(full.shape[0] // BLOCK), step, state)
