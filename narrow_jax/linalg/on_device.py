"""Linear algebra in JAX, for traced arrays and for accelerators: in float64, and in float32 for TPUs."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Array, Float, HostArray
from narrow_jax.linalg import by_blocks, lanczos
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.algebra import Ritz, Rows, Scalar, T, Truth
from narrow_jax.linalg.operators import hadamard_rows
from narrow_jax.linalg.rounding import symmetric

ROWS = 1024
"""Rows of a large matrix that are computed at a time."""


class Device:
    """The contract of ``Algebra``."""

    outer = staticmethod(fl.outer)
    total = staticmethod(fl.total)
    matmul = staticmethod(fl.matmul)
    lower_norm = staticmethod(fl.lower_norm)

    def hadamard(self, x: Float[HostArray, "n a"], d: Float[HostArray, "r b"]) -> tuple[Array, Array, Array]:
        """Return (xxᵀ ⊗ 11ᵀ) ∘ (ddᵀ), of many rows some at a time: three such matrices are never there at once."""
        x, d = jnp.asarray(x), jnp.asarray(d)
        (n, _), (rows, _) = x.shape, d.shape
        k, count = rows // n, n if rows <= 2 * ROWS else max(ROWS * n // rows, 1)
        starts = _starts(n, count)

        def put(i: Array, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            whole, inputs, units = found
            product, *sizes = hadamard_rows(x, d, starts[i], count)
            whole = jax.lax.dynamic_update_slice_in_dim(whole, product, starts[i] * k, axis=0)
            return whole, inputs.at[i].set(sizes[0]), units.at[i].set(sizes[1])

        if len(starts) == 1:
            return hadamard_rows(x, d, starts[0], n)
        none = jnp.zeros(len(starts), d.dtype)
        empty = jnp.broadcast_to(
            d[0, 0], (rows, rows)
        )  # zeros would be kept, for the factor's upper triangle
        whole, inputs, units = jax.lax.fori_loop(np.int32(0), np.int32(len(starts)), put, (empty, none, none))
        # the columns lie as a factorisation wants them
        return whole.T, fl.norm_up(inputs), fl.norm_up(units)

    def cond(self, predicate: Truth, yes: Callable[[], T], no: Callable[[], T]) -> T:
        """Return yes() or no(), chosen while running unless known before."""
        if isinstance(predicate, bool):
            return yes() if predicate else no()
        return jax.lax.cond(predicate, yes, no)

    def while_loop(self, going: Callable[[T], Truth], body: Callable[[T], T], state: T) -> T:
        """Return the state after body as often as it is ``going``."""
        return jax.lax.while_loop(going, body, state)

    def unknown(self, factor: Float[HostArray, "n n"]) -> Ritz:
        """Return a pair that has not converged."""
        one = jnp.ones((), factor.dtype)
        return Ritz(start_vector(factor), one, one, jnp.array(False))

    def shifted(
        self, k: Float[HostArray, "n n"], c: Scalar, u: Float[HostArray, " n"], beta: Scalar
    ) -> Float[Array, "n n"]:
        """Return K + c uuᵀ − βI: two roundings an entry for the update, one more on the diagonal."""
        return jnp.asarray(k) + c * (u[:, None] * u[None, :]) - beta * jnp.eye(k.shape[0], dtype=k.dtype)

    def from_rows(self, rows: Rows, like: Float[HostArray, " n"]) -> Float[Array, "n n"]:
        """Return the matrix of these rows, formed some at a time."""
        n, count = len(like), min(len(like), ROWS)
        starts = _starts(n, count)

        def put(i: Array, whole: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(whole, rows(starts[i], count), starts[i], axis=0)

        empty = jnp.broadcast_to(like[0], (n, n))  # zeros would be kept
        return jax.lax.fori_loop(np.int32(0), np.int32(len(starts)), put, empty).T

    def complement(self, t: Float[HostArray, "n n"], mu: Scalar) -> Float[Array, "n n"]:
        """Return μI − T."""
        return jnp.asarray(mu) * jnp.eye(t.shape[0], dtype=t.dtype) - jnp.asarray(t)

    def diagonal(self, a: Float[HostArray, "n n"]) -> Float[Array, " n"]:
        """Return the diagonal."""
        return jnp.diagonal(a)

    def cholesky(self, a: Float[HostArray, "n n"], overwrite: bool = False) -> tuple[Array, Array]:
        """Return L, zeros above, and whether the factorisation completed; XLA itself knows whether L may lie in A."""
        factor = jax.lax.linalg.cholesky(jnp.asarray(a), symmetrize_input=False)  # reads the lower triangle
        ok = jnp.all(jnp.isfinite(factor))
        return jnp.where(ok, factor, jnp.eye(a.shape[0], dtype=a.dtype)), ok

    def roundings(self, rows: int) -> int:
        """Return those of a conventional algorithm; the defect itself is computed."""
        return rows + 3

    def cholesky_defect(self, of_a: Rows, factor: Float[HostArray, "n n"], trace: Scalar) -> Array:
        """Return a bound of ‖A − LLᵀ‖₂ by computing it: an accelerator's Cholesky need not be a conventional one.

        Some rows at a time, ‖R‖_F² ≤ 2‖tril R‖_F²: a whole residual would be as large as A. ``factor`` is that of
        ``cholesky``.
        """
        upper = jnp.asarray(factor).T  # as it lies in memory
        rows, count = len(upper), min(len(upper), ROWS)

        def residual(start: Array) -> tuple[Array, Array]:
            part = jax.lax.dynamic_slice_in_dim(upper, start, count, axis=1)
            place = jnp.arange(rows, dtype=jnp.int32)
            below = place[None, :] <= (start + place[:count])[:, None]
            return fl.norm_up(
                jnp.where(below, of_a(start, count) - fl.matmul(part.T, upper), 0.0)
            ), fl.norm_up(part)

        parts, sizes = jax.lax.map(residual, _starts(rows, count))
        found = fl.norm_up(parts) * (math.sqrt(2) * (1 + fl.SLACK))
        return found + fl.gamma(rows + 2) * fl.up(fl.norm_up(sizes) ** 2 + trace)

    def solve(self, factor: Float[HostArray, "n n"], v: Float[HostArray, " n"]) -> Float[Array, " n"]:
        """Return (LLᵀ)⁻¹v."""
        half = jax.lax.linalg.triangular_solve(factor, v[:, None], left_side=True, lower=True)
        return jax.lax.linalg.triangular_solve(factor, half, left_side=True, lower=True, transpose_a=True)[
            :, 0
        ]

    def smallest(self, factor: Float[HostArray, "n n"], tolerance: float) -> Ritz:
        """Return the largest eigenpair of (LLᵀ)⁻¹, polished by one more inverse step."""
        ritz = lanczos.device(lambda v: self.solve(factor, v), start_vector(factor), tolerance)
        vector = self.solve(factor, ritz.vector)
        return ritz._replace(vector=vector / jnp.linalg.norm(vector))

    def largest(self, a: Float[HostArray, "n n"], tolerance: float) -> Ritz:
        """Return the largest eigenpair of a symmetric matrix."""
        full = symmetric(a)
        return lanczos.device(
            lambda v: jnp.matmul(full, v, precision=jax.lax.Precision.HIGHEST), start_vector(a), tolerance
        )

    def top(self, a: Float[HostArray, "n n"]) -> tuple[Array, Array]:
        """Return the largest eigenvalue of a symmetric matrix and its vector, from all of them."""
        values, vectors = jnp.linalg.eigh(symmetric(a))
        return values[-1], vectors[:, -1]

    def largest_eigenvalue(self, a: Float[HostArray, "n n"]) -> Array:
        """Return the largest eigenvalue to rounding; from all of them: one more Lanczos takes a second to compile."""
        return jnp.linalg.eigvalsh(symmetric(a), symmetrize_input=False)[-1]

    def triangle(
        self, block: Callable[..., Float[HostArray, "n b"]], count: int, rows: int
    ) -> tuple[Array, Array]:
        """Return L = Rᵀ of the QR factorisation of Jᵀ, by column blocks of J, and whether R is invertible."""

        def step(r: Array, index: Array) -> tuple[Array, None]:
            stacked = jnp.concatenate([r, block(index).T])
            return jnp.linalg.qr(stacked, mode="r")[:rows], None

        dtype = jax.eval_shape(lambda: block(0)).dtype
        r, _ = jax.lax.scan(step, jnp.zeros((rows, rows), dtype), jnp.arange(count, dtype=jnp.int32))
        pivots = jnp.abs(jnp.diag(r))
        return r.T, jnp.min(pivots) > 2.0**-60 * jnp.max(pivots)

    def singular(self, factor: Float[HostArray, "n p"]) -> Ritz:
        """Return the smallest singular pair of L by the QR iteration: divide and conquer can ruin the smallest."""
        vectors, values = self.decompose(factor)
        inverse = 1 / jnp.maximum(values, 2.0**-300) ** 2
        second = inverse[-2] if values.size > 1 else jnp.zeros((), factor.dtype)
        return Ritz(vectors[:, -1], inverse[-1], second, jnp.array(True))

    def invert(self, factor: Float[HostArray, "n n"]) -> Float[Array, "n n"]:
        """Return fl(L⁻¹), lower triangular; any error in it is measured afterwards."""
        eye = jnp.eye(factor.shape[0], dtype=factor.dtype)
        return jnp.tril(jax.lax.linalg.triangular_solve(factor, eye, left_side=True, lower=True))

    def inverse(self, a: Float[HostArray, "n n"]) -> Float[Array, "n n"]:
        """Return A⁻¹ of a positive definite matrix."""
        factor = jax.scipy.linalg.cho_factor(a, lower=True)
        return jax.scipy.linalg.cho_solve(factor, jnp.eye(a.shape[0]))

    def basis(self, matrix: Float[HostArray, "n p"]) -> Float[Array, "n p"]:
        """Return an orthonormal basis of the columns."""
        return jnp.linalg.qr(matrix)[0]

    def decompose(self, factor: Float[HostArray, "n p"]) -> tuple[Array, Array]:
        """Return the left singular vectors and all singular values, descending, by the QR iteration."""
        vectors, values, _ = jax.lax.linalg.svd(
            factor, full_matrices=False, algorithm=jax.lax.linalg.SvdAlgorithm.QR
        )
        return vectors, values


INVERTIBLE = 2.0**-30
"""Pivots below, beside the largest, have inverses whose products float32 cannot hold, and are rounding anyway."""


class Tpu(Device):
    """The contract of ``Algebra`` in float32, by the factorisations of ``by_blocks``. Nothing is proven: estimates."""

    def cholesky(self, a: Float[HostArray, "n n"], overwrite: bool = False) -> tuple[Array, Array]:
        """Return L and whether the factorisation completed."""
        factor = by_blocks.cholesky(jnp.asarray(symmetric(a)))
        ok = jnp.all(jnp.isfinite(factor))
        return jnp.where(ok, factor, jnp.eye(a.shape[0], dtype=a.dtype)), ok

    def smallest(self, factor: Float[HostArray, "n n"], tolerance: float) -> Ritz:
        """Return the largest eigenpair of (LLᵀ)⁻¹: products with L⁻¹, where solving would go entry by entry."""
        z = self.invert(factor)

        def apply(v: HostArray) -> Array:
            return fl.matmul(z.T, fl.matmul(z, v[:, None]))[:, 0]

        ritz = lanczos.device(apply, start_vector(factor), tolerance)
        vector = apply(ritz.vector)
        return ritz._replace(vector=vector / jnp.linalg.norm(vector))

    def top(self, a: Float[HostArray, "n n"]) -> tuple[Array, Array]:
        """Return the largest eigenvalue of a symmetric matrix and its vector, by Lanczos."""
        ritz = self.largest(a, float(jnp.finfo(a.dtype).eps) ** 2)
        return jnp.asarray(ritz.first), jnp.asarray(ritz.vector)

    def largest_eigenvalue(self, a: Float[HostArray, "n n"]) -> Array:
        """Return the largest eigenvalue of a symmetric matrix."""
        return self.top(a)[0]

    def triangle(
        self, block: Callable[..., Float[HostArray, "n b"]], count: int, rows: int
    ) -> tuple[Array, Array]:
        """Return L = Rᵀ of the QR factorisation of Jᵀ, by column blocks of J, and whether R is invertible."""

        def step(r: Array, index: Array) -> tuple[Array, None]:
            return by_blocks.orthonormal(jnp.concatenate([r, block(index).T])).r, None

        dtype = jax.eval_shape(lambda: block(0)).dtype
        r, _ = jax.lax.scan(step, jnp.zeros((rows, rows), dtype), jnp.arange(count, dtype=jnp.int32))
        pivots = jnp.abs(jnp.diag(r))
        return r.T, jnp.min(pivots) > INVERTIBLE * jnp.max(pivots)

    def invert(self, factor: Float[HostArray, "n n"]) -> Float[Array, "n n"]:
        """Return L⁻¹, lower triangular."""
        return by_blocks.inverse(jnp.asarray(factor))

    def inverse(self, a: Float[HostArray, "n n"]) -> Float[Array, "n n"]:
        """Return A⁻¹ of a positive definite matrix."""
        z = self.invert(self.cholesky(a)[0])
        return fl.matmul(z.T, z)

    def basis(self, matrix: Float[HostArray, "n p"]) -> Float[Array, "n p"]:
        """Return an orthonormal basis of the columns."""
        once = by_blocks.orthonormal(jnp.asarray(matrix)).q
        return by_blocks.orthonormal(once).q  # once leaves rounding times the condition number

    def decompose(self, factor: Float[HostArray, "n p"]) -> tuple[Array, Array]:
        """Return the left singular vectors and all singular values, descending, by Jacobi rotations."""
        return by_blocks.singular(jnp.asarray(factor))


DEVICE, TPU = Device(), Tpu()


def _starts(rows: int, count: int) -> Array:
    """Return where to begin to go through the rows so many at a time; the last may go over some again."""
    return jnp.asarray(np.minimum(np.arange(0, rows, count), rows - count).astype(np.int32))


def start_vector(a: HostArray) -> Array:
    """Return the start of an iteration with this matrix."""
    return jnp.asarray(lanczos.start_vector(a.shape[0]), a.dtype)
