"""Sums over layers of row-wise Khatri–Rao products: Ĵ[(i, c), (a, j)] = x_ia D_icj in each layer, never stored."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import jax
import numpy as np

from narrow_jax._typing import Computed, Float, Int
from narrow_jax.linalg import (
    Bounds,
    EvaluatedJacobian,
    Gram,
    Products,
    Scalar,
    Square,
    arrays,
    collatz_wielandt,
    hadamard_rows,
    xp,
)
from narrow_jax.linalg import rounding as fl

T = TypeVar("T")

UNDERFLOW = 2.0**-100
"""What flushed denormals cost an entry of the scaled matrix, at most (docs/proofs/enclosure.md)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Factors:
    """The columns of one layer, rows x_i ⊗ D_ic, and how far both factors are from the exact ones, elementwise.

    Ĵ vec(Z) = rowsum(D_:c ∘ XZ); Ĵᵀu = Xᵀ Σ_c D_:c ∘ u_:c.

    Args:
        x: what enters the layer.
        d: D̂, how the outputs depend on its pre-activations.
        d_error: ≥ |D − D̂|; None where nothing is known.
        x_error: the same of x; None where x is exact.
    """

    x: Float[Computed, "n a"]
    d: Float[Computed, "n k b"]
    d_error: Float[Computed, "n k b"] | None
    x_error: Float[Computed, "n a"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Return (a, b): the columns are a·b."""
        return self.x.shape[1], self.d.shape[2]

    @property
    def columns(self) -> int:
        """Return how many columns there are."""
        return math.prod(self.size)

    def mv(self, p: Float[Computed, " p"]) -> Float[Computed, " r"]:
        """Return Ĵp."""
        return xp.sum(self.d * fl.matmul(self.x, p.reshape(self.size))[:, None, :], axis=2).reshape(-1)

    def rmv(self, u: Float[Computed, " r"]) -> Float[Computed, " p"]:
        """Return Ĵᵀu."""
        return fl.matmul(self.x.T, xp.sum(self.d * u.reshape(*self.d.shape[:2], 1), axis=1)).reshape(-1)

    def rmv_bounded(self, u: Float[Computed, " r"]) -> tuple[Float[Computed, " p"], Float[Computed, " p"]]:
        """Return S and a bound of |S − Ĵᵀu|: D ∘ u as an unevaluated sum, its head multiplied in slices."""
        rows, outputs = u.size, self.d.shape[1]
        x = xp.repeat(self.x, outputs, axis=0) if outputs > 1 else self.x  # a copy of large data counts
        d = self.d.reshape(rows, -1)
        head, tail = fl.two_product(d, u[:, None])
        product, error = fl.split_product(x.T, head)
        s = product + fl.matmul(x.T, tail)
        absolute = fl.matmul(xp.abs(x.T), xp.abs(head))
        # |tail| ≤ (u + 2⁻²³u)|head|; its product rounds by γ_n, the tail itself is off by 2⁻⁷⁴|D∘u|
        rest = fl.up((fl.gamma(rows + 2) * 1.01 * fl.UNIT + 2.0**-73) * (1 + fl.gamma(rows)) * absolute)
        return s.reshape(-1), fl.up(error + rest + fl.UNIT * xp.abs(s)).reshape(-1)

    def absolute(self) -> Factors:
        """Return |X| and |D|."""
        return Factors(xp.abs(self.x), xp.abs(self.d), self.d_error, self.x_error)

    def row_squares(self) -> Float[Computed, " r"]:
        """Return the squared length of each row."""
        return (_squares(self.x)[:, None] * _squares(self.d)).reshape(-1)

    def gram(self, products: Products) -> tuple[Square, Computed]:
        """Return (XXᵀ ⊗ 11ᵀ) ∘ (DDᵀ), lower triangle, and the layer's δ."""
        n, k, units = self.d.shape
        gram, *norms = products.hadamard(self.x, self.d.reshape(n * k, units))
        return gram, self.perturbation(*norms)

    def gram_rows(self, first: Any, samples: int) -> Float[Computed, "c r"]:
        """Return the rows of (XXᵀ ⊗ 11ᵀ) ∘ (DDᵀ) of so many samples."""
        n, k, units = self.d.shape
        return hadamard_rows(self.x, self.d.reshape(n * k, units), first, samples)[0]

    @arrays.compiled
    def perturbation(self, inputs_norm: Scalar, units_norm: Scalar) -> Float[Computed, ""]:
        """Return δ ≥ ‖J − Ĵ‖₂, from X ⊗ E, E_X ⊗ D and E_X ⊗ E, and the allowance for underflow.

        (J − Ĵ)(J − Ĵ)ᵀ = XXᵀ ∘ EEᵀ for signed E (blown up where k > 1): at most Σ‖x_i‖²‖E_ic‖², and max‖E_ic‖²‖XXᵀ‖_F
        by Schur's bound of a Hadamard product.

        Args:
            inputs_norm: a bound of ‖fl(XXᵀ)‖_F.
            units_norm: a bound of ‖fl(DDᵀ)‖_F, D as a matrix of n·k rows.
        """
        if self.d_error is None:
            return arrays.module(self.d).full((), np.inf, self.d.dtype)
        (n, k, _), (a, b) = self.d.shape, self.size
        slack = 1 + fl.gamma(a + b + n * k + 8)
        inputs, units, errors = _squares(self.x)[:, None], _squares(self.d), _squares(self.d_error)
        # the error of the computed XXᵀ is below γ_a tr XXᵀ in Frobenius norm
        inputs_norm = k * (inputs_norm + fl.gamma(a + n * k + a) * xp.sum(inputs))
        delta = _least(inputs * errors, xp.max(errors), inputs_norm) * slack
        if self.x_error is not None:
            moved = _squares(self.x_error)[:, None]
            units_norm = units_norm + fl.gamma(b + n * k + b) * xp.sum(units)
            delta = delta + _least(moved * units, xp.max(moved), units_norm) * slack
            delta = delta + xp.sqrt(fl.stable_sum(moved * errors)) * slack
        return xp.where(xp.isnan(delta), np.inf, fl.up(delta) + n * k * a * b * UNDERFLOW)


def _squares(a: Float[Computed, "... b"]) -> Float[Computed, ...]:
    return xp.sum(a * a, axis=-1)


def _least(terms: Computed, largest: Computed, norm: Scalar) -> Computed:
    return xp.minimum(xp.sqrt(fl.stable_sum(terms)), xp.sqrt(largest) * xp.sqrt(norm))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KhatriRao(EvaluatedJacobian):
    """Ĵ = [Ĵ_1, Ĵ_2, …] by layers, scaled to entries of size one: ĴĴᵀ = Σ_l (X_lX_lᵀ ⊗ 11ᵀ) ∘ (D_lD_lᵀ).

    Args:
        layers: in the order of the columns.
        exponent: the Jacobian is Ĵ·2^exponent.
    """

    layers: tuple[Factors, ...]
    exponent: Int[Computed, ""]
    cheap_gram: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        n, k, _ = self.layers[0].d.shape
        return n * k, sum(layer.columns for layer in self.layers)

    @property
    def terms(self) -> int:
        """Return the roundings of an inner product of two rows, beside the last."""
        return max(sum(layer.size) for layer in self.layers) + len(self.layers) - 1

    def gram(self, products: Products) -> Gram:
        """Return K̂ and its bounds: |K̂ − ĴĴᵀ| ≤ γ_{a+b+layers} M entry by entry, M the same of |X| and |D|."""
        matrices, deltas = zip(*(layer.gram(products) for layer in self.layers), strict=True)
        majorant, trace, error = self._majorant()
        return Gram(_sum(matrices), Bounds(majorant, trace, error, _root_sum(deltas)))

    def gram_rows(self, start: Any, count: int) -> Float[Computed, "c r"]:
        """Return rows of K̂: those of samples that have them all."""
        n, k, _ = self.layers[0].d.shape
        samples = min(-(-count // k) + 1, n) if k > 1 else count
        first = xp.minimum(start // k, n - samples)
        parts = [layer.gram_rows(first, samples) for layer in self.layers]
        return arrays.rows(_sum(parts), start - first * k, count)

    def mv(self, p: Float[Computed, " p"]) -> Float[Computed, " r"]:
        """Return Ĵp."""
        return _sum([layer.mv(part) for layer, part in zip(self.layers, self._split(p), strict=True)])

    def rmv(self, u: Float[Computed, " r"]) -> Float[Computed, " p"]:
        """Return Ĵᵀu."""
        return xp.concatenate([layer.rmv(u) for layer in self.layers])

    def mv_bounded(self, p: Float[Computed, " p"]) -> tuple[Float[Computed, " r"], Float[Computed, ""]]:
        """Return y and a bound of ‖y − Ĵp‖: γ of the product of absolute values."""
        terms = self.terms + 2
        error = self._absolute().mv(xp.abs(p)) * (1 + fl.gamma(terms))
        return self.mv(p), fl.up(fl.gamma(terms) * fl.norm_up(error))

    def rmv_bounded(self, u: Float[Computed, " r"]) -> tuple[Float[Computed, " p"], Float[Computed, ""]]:
        """Return S and a bound of ‖S − Ĵᵀu‖."""
        parts, errors = zip(*(layer.rmv_bounded(u) for layer in self.layers), strict=True)
        return xp.concatenate(parts), fl.norm_up(xp.concatenate(errors))

    def distance(self) -> Float[Computed, ""]:
        """Return δ ≥ ‖J − Ĵ‖₂, over 2^exponent, from the lengths of rows alone."""
        sums = [(xp.sum(_squares(layer.x)), xp.sum(_squares(layer.d))) for layer in self.layers]
        return _root_sum([layer.perturbation(*both) for layer, both in zip(self.layers, sums, strict=True)])

    def norm_up(self) -> Float[Computed, ""]:
        """Return a bound of ‖Ĵ‖_F."""
        squares = fl.stable_sum(_sum([layer.row_squares() for layer in self.layers]))
        return fl.up(xp.sqrt(squares) * (1 + fl.gamma(self.terms + 4 + fl.sum_terms(self.shape[0]))))

    @property
    def block_width(self) -> int:
        """Return the columns in a block: about 3 a row, those of whole inputs of the first layer."""
        units = self.layers[0].size[1]
        return min(self.shape[1], math.ceil(max(3 * self.shape[0], 256) / units) * units)

    def block(self, index: int | Int[Computed, ""]) -> Float[Computed, "r b"]:
        """Return a column block, each entry rounded once; the last is filled up with columns of 0."""
        x = xp.concatenate([layer.x for layer in self.layers], axis=1)
        d = xp.concatenate([layer.d for layer in self.layers], axis=2)
        column = xp.asarray(index, np.int32) * np.int32(self.block_width) + np.arange(
            self.block_width, dtype=np.int32
        )
        inputs, units = self._factors_of(column)
        block = x[:, None, inputs] * d[:, :, units]
        return xp.where(column < self.shape[1], block, 0.0).reshape(self.shape[0], -1)

    def _factors_of(self, column: Int[Computed, " b"]) -> tuple[Int[Computed, " b"], Int[Computed, " b"]]:
        """Return which columns of all X and of all D side by side make these columns of Ĵ."""
        inputs, units = column, column
        offset = np.zeros(3, np.int32)  # of columns, inputs and units before the layer
        for layer in self.layers:
            a, b = layer.size
            within = column - offset[0]
            inputs = xp.where(within >= 0, xp.minimum(within // b, np.int32(a - 1)) + offset[1], inputs)
            units = xp.where(within >= 0, within % np.int32(b) + offset[2], units)
            offset = offset + np.array([a * b, a, b], np.int32)
        return inputs, units

    def _split(self, p: Float[Computed, " p"]) -> list[Computed]:
        ends = itertools.accumulate(layer.columns for layer in self.layers)
        return xp.split(p, list(ends)[:-1])

    def _absolute(self) -> KhatriRao:
        return KhatriRao(tuple(layer.absolute() for layer in self.layers), self.exponent)

    @arrays.compiled
    def _majorant(self) -> tuple[Computed, Computed, Computed]:
        """Return the majorant, the trace and the error of K̂."""
        absolute, rows = self._absolute(), self.shape[0]
        squares = _sum([layer.row_squares() for layer in self.layers])
        trace = fl.up(fl.stable_sum(squares) * (1 + fl.gamma(self.terms + 3 + fl.sum_terms(rows))))
        terms = 2 * rows + 2 * self.terms + 4
        perron = collatz_wielandt(lambda y: absolute.mv(absolute.rmv(y)), squares, terms)
        majorant = xp.minimum(trace, perron)
        return majorant, trace, fl.up(fl.gamma(self.terms + 1) * majorant)


def _sum(terms: Iterable[T]) -> T:
    return functools.reduce(operator.iadd, terms)


def _root_sum(deltas: Sequence[Computed]) -> Computed:
    """Return the bound for all layers side by side: (Σ δ²)^½."""
    return deltas[0] if len(deltas) == 1 else fl.norm_up(xp.stack(deltas))
