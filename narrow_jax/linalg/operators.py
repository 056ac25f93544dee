"""The protocol between ``jacobian``, which makes operators, and ``spectra``, which consumes them.

A ``Jacobian`` is what users hold: parameters and data as given. ``evaluate()``, called under float64, fixes its matrix:
an ``EvaluatedJacobian`` Ĵ, scaled by a power of two to entries of size one, with bounds for everything that
separates its computed Gram matrix and products from the exact ones, and Ĵ from the exact Jacobian.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from narrow_jax._typing import Array, Float, HostArray
from narrow_jax.linalg.algebra import Products


class Bounds(NamedTuple):
    """What is proven about Ĵ and its computed Gram matrix K̂.

    Args:
        majorant: g ≥ ‖|Ĵ||Ĵ|ᵀ‖₂ ≥ ‖Ĵ‖₂².
        trace: an upper bound of ‖Ĵ‖_F².
        error: ε_G ≥ ‖K̂ − ĴĴᵀ‖₂, K̂ made symmetric from its lower triangle.
        perturbation: δ ≥ ‖J − Ĵ‖₂ for the exact J; infinite if none is known.
    """

    majorant: Float[Array, ""]
    trace: Float[Array, ""]
    error: Float[Array, ""]
    perturbation: Float[Array, ""]


class Gram(NamedTuple):
    """The computed Gram matrix K̂ of Ĵ, whose strict upper triangle may hold anything, and its bounds."""

    matrix: Float[HostArray, "n n"]
    bounds: Bounds


@runtime_checkable
class EvaluatedJacobian(Protocol):
    """Ĵ·2^exponent: one fixed float64 matrix of shape (rows, columns)."""

    @property
    def exponent(self) -> Array:
        """Return e."""

    @property
    def block_count(self) -> int:
        """Return how many blocks of columns there are."""

    @property
    def block_width(self) -> int:
        """Return how many columns a block has."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rows and columns."""

    def gram(self, products: Products) -> Gram:
        """Return the Gram matrix with its bounds."""

    def mv(self, p: Array) -> Array:
        """Return Ĵp."""

    def rmv(self, u: Array) -> Array:
        """Return Ĵᵀu."""

    def mv_bounded(self, p: Array) -> tuple[Array, Array]:
        """Return Ĵp and a bound of the error of every entry."""

    def rmv_bounded(self, u: Array) -> tuple[Array, Array]:
        """Return Ĵᵀu and a bound of the error of every entry."""

    def block(self, index: Any) -> Array:
        """Return a block of columns."""

    def transposed(self) -> EvaluatedJacobian:
        """Return the transpose."""


@runtime_checkable
class Jacobian(Protocol):
    """What ``sigma_min`` takes: a pytree of the parameters and data as given."""

    encloses: str

    @property
    def dtype(self) -> Any:
        """Return the dtype of params and data."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rows and columns."""

    def evaluate(self, dtype: str = "float64") -> EvaluatedJacobian:
        """Return Ĵ for this dtype."""

    def bilinear(self, u: Any, p: Any) -> Any:
        """Return uᵀJp, differentiable in params and data."""

    def mv(self, p: Any) -> Array:
        """Return Jp."""

    def rmv(self, u: Any) -> Array:
        """Return Jᵀu."""

    def gram(self) -> Array:
        """Return JJᵀ."""

    def dense(self) -> Array:
        """Return J as a matrix."""

    def column_blocks(self) -> Iterator[Array]:
        """Yield J, some columns at a time."""

    def perturbation(self) -> Array:
        """Return δ ≥ ‖J − Ĵ‖₂."""

    def gram_error(self) -> Array:
        """Return a bound of ‖computed gram − ĴĴᵀ‖₂."""
