"""The row-wise Khatri–Rao product of inputs and unit sensitivities: Ĵ[r, (a, j)] = x_ra D_rj, never stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from narrow_jax._typing import Array, Float, Int
from narrow_jax.linalg import Bounds, EvaluatedJacobian, Gram, Products, collatz_wielandt
from narrow_jax.linalg import rounding as fl


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KhatriRao(EvaluatedJacobian):
    """Ĵ = rows x_r ⊗ D_r, scaled to entries of size one, and E ≥ |D − D̂| elementwise.

    ĴĴᵀ = (XXᵀ) ∘ (DDᵀ); Ĵ vec(Z) = rowsum(D ∘ XZ); Ĵᵀu = Xᵀ(D ∘ u).

    Args:
        x: inputs, one row for each row of D (repeated where there are several outputs).
        d: D̂.
        d_error: E.
        exponent: the Jacobian is Ĵ·2^exponent.
    """

    x: Float[Array, "r d"]
    d: Float[Array, "r m"]
    d_error: Float[Array, "r m"]
    exponent: Int[Array, ""]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        return self.x.shape[0], self.x.shape[1] * self.d.shape[1]

    def gram(self, products: Products) -> Gram:
        """Return K̂ and its bounds: |K̂ − ĴĴᵀ| ≤ γ_{d+m+1} M entry by entry, M = (|X||X|ᵀ) ∘ (|D||D|ᵀ)."""
        inputs, units = products.outer(self.x), products.outer(self.d)
        majorant, trace, error = self._majorant()
        perturbation = self._perturbation(products.lower_norm(inputs))
        return Gram(inputs * units, Bounds(majorant, trace, error, perturbation))

    def mv(self, p: Float[Array, " p"]) -> Float[Array, " r"]:
        """Return Ĵp."""
        z = p.reshape(self.x.shape[1], self.d.shape[1])
        return jnp.sum(self.d * fl.matmul(self.x, z), axis=1)

    def rmv(self, u: Float[Array, " r"]) -> Float[Array, " p"]:
        """Return Ĵᵀu."""
        return fl.matmul(self.x.T, self.d * u[:, None]).reshape(-1)

    def mv_bounded(self, p: Float[Array, " p"]) -> tuple[Float[Array, " r"], Float[Array, ""]]:
        """Return y and a bound of ‖y − Ĵp‖: γ_{d+m+2} of the product of absolute values."""
        terms = sum(self._terms) + 2
        absolute = KhatriRao(jnp.abs(self.x), jnp.abs(self.d), self.d_error, self.exponent)
        error = absolute.mv(jnp.abs(p)) * (1 + fl.gamma(terms))
        return self.mv(p), fl.up(fl.gamma(terms) * fl.norm_up(error))

    def rmv_bounded(self, u: Float[Array, " r"]) -> tuple[Float[Array, " p"], Float[Array, ""]]:
        """Return S and a bound of ‖S − Ĵᵀu‖: D ∘ u as an unevaluated sum, its head multiplied in slices."""
        head, tail = fl.two_product(self.d, u[:, None])
        product, error = fl.split_product(self.x.T, head)
        small = fl.matmul(self.x.T, tail)
        absolute = fl.matmul(jnp.abs(self.x.T), jnp.abs(head))
        rows = self.x.shape[0]
        # |tail| ≤ (u + 2⁻²³u)|head|; its product rounds by γ_n, the tail itself is off by 2⁻⁷⁴|D∘u|
        rest = fl.up((fl.gamma(rows + 2) * 1.01 * fl.UNIT + 2.0**-73) * (1 + fl.gamma(rows)) * absolute)
        s = product + small
        return s.reshape(-1), fl.norm_up(fl.up(error + rest + fl.UNIT * jnp.abs(s)))

    @property
    def _terms(self) -> tuple[int, int]:
        return self.x.shape[1], self.d.shape[1]

    @property
    def block_inputs(self) -> int:
        """Return how many inputs make a column block: about 3 columns a row."""
        rows, (inputs, units) = self.x.shape[0], self._terms
        return max(1, min(inputs, math.ceil(max(3 * rows, 256) / units)))

    @property
    def block_width(self) -> int:
        """Return the columns in a block."""
        return self.block_inputs * self.d.shape[1]

    def block(self, index: int | Int[Array, ""]) -> Float[Array, "r b"]:
        """Return a column block, each entry rounded once; the last is filled up with columns of 0."""
        size = self.block_inputs
        x = jnp.pad(self.x, ((0, 0), (0, self.block_count * size - self.x.shape[1])))
        x = jax.lax.dynamic_slice_in_dim(x, jnp.int32(index) * size, size, axis=1)
        return (x[:, :, None] * self.d[:, None, :]).reshape(x.shape[0], -1)

    @jax.jit
    def _majorant(self) -> tuple[Array, Array, Array]:
        x, d = jnp.abs(self.x), jnp.abs(self.d)
        rows, inputs, units = x.shape[0], x.shape[1], d.shape[1]
        squares = jnp.sum(x * x, axis=1) * jnp.sum(d * d, axis=1)
        trace = fl.up(fl.stable_sum(squares) * (1 + fl.gamma(inputs + units + 3 + fl.sum_terms(rows))))

        def apply(y: Array) -> Array:
            return jnp.sum(d * fl.matmul(x, fl.matmul(x.T, d * y[:, None])), axis=1)

        terms = 2 * rows + inputs + 2 * units + 4
        majorant = jnp.minimum(trace, collatz_wielandt(apply, squares, terms))
        return majorant, trace, fl.up(fl.gamma(inputs + units + 1) * majorant)

    @jax.jit
    def _perturbation(self, inputs_norm: Float[Array, ""]) -> Float[Array, ""]:
        """Return δ = min{(Σ‖x_r‖²‖E_r‖²)^½, max‖E_r‖ ‖XXᵀ‖_F^½} and the allowance for underflow.

        (J − Ĵ)(J − Ĵ)ᵀ = XXᵀ ∘ EEᵀ for signed E; the second form is Schur's bound of a Hadamard product.
        """
        rows, (d, m) = self.x.shape[0], self._terms
        sizes = jnp.sum(self.x * self.x, axis=1)
        # the error of the computed XXᵀ is below γ_d tr XXᵀ in Frobenius norm
        gram_norm = inputs_norm + fl.gamma(d + rows + d) * jnp.sum(sizes)
        errors = jnp.sum(self.d_error * self.d_error, axis=1)
        slack = 1 + fl.gamma(d + m + rows + 8)
        first = jnp.sqrt(fl.stable_sum(sizes * errors)) * slack
        second = jnp.sqrt(jnp.max(errors)) * jnp.sqrt(gram_norm) * slack
        return fl.up(jnp.minimum(first, second)) + rows * d * m * UNDERFLOW


UNDERFLOW = 2.0**-100
"""What flushed denormals cost an entry of the scaled matrix, at most (docs/enclosure.md)."""
