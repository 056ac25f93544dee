"""The protocol between ``jacobian``, which makes operators, and ``spectra``, which consumes them.

A ``Jacobian`` is what users hold: parameters and data as given. ``evaluate()``, called under float64, fixes its matrix:
an ``EvaluatedJacobian`` Ĵ, scaled by a power of two to entries of size one, with bounds for everything that
separates its computed Gram matrix and products from the exact ones, and Ĵ from the exact Jacobian.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from narrow_jax._typing import Array, Float


@runtime_checkable
class Products(Protocol):
    """The two large operations of a Gram matrix, on the host or on the device."""

    def outer(self, a: Any, /) -> Any:
        """Return aaᵀ: the lower triangle, with anything above it."""

    def total(self, term: Any, count: int, /) -> Any:
        """Return Σ term(i)."""

    def lower_norm(self, a: Any, /) -> Any:
        """Return an upper bound of the Frobenius norm of the symmetric matrix with this lower triangle."""


class Gram(NamedTuple):
    """The computed Gram matrix K̂ of Ĵ (lower triangle) and what is proven about it.

    Args:
        matrix: K̂; the strict upper triangle may hold anything.
        majorant: g ≥ ‖|Ĵ||Ĵ|ᵀ‖₂ ≥ ‖Ĵ‖₂².
        trace: an upper bound of ‖Ĵ‖_F².
        error: ε_G ≥ ‖K̂ − ĴĴᵀ‖₂, K̂ made symmetric from its lower triangle.
        perturbation: δ ≥ ‖J − Ĵ‖₂ for the exact J; infinite if none is known.
    """

    matrix: Any
    majorant: Float[Array, ""]
    trace: Float[Array, ""]
    error: Float[Array, ""]
    perturbation: Float[Array, ""]


@runtime_checkable
class EvaluatedJacobian(Protocol):
    """Ĵ·2^exponent: one fixed float64 matrix of shape (rows, columns)."""

    @property
    def exponent(self) -> Array: ...
    @property
    def block_count(self) -> int: ...
    @property
    def block_width(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    def gram(self, products: Products) -> Gram: ...
    def mv(self, p: Array) -> Array: ...
    def rmv(self, u: Array) -> Array: ...
    def mv_bounded(self, p: Array) -> tuple[Array, Array]: ...
    def rmv_bounded(self, u: Array) -> tuple[Array, Array]: ...
    def block(self, index: Any) -> Array: ...
    def transposed(self) -> EvaluatedJacobian: ...


@runtime_checkable
class Jacobian(Protocol):
    """What ``sigma_min`` takes: a pytree of the parameters and data as given."""

    encloses: str

    @property
    def dtype(self) -> Any: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    def evaluate(self, dtype: str = "float64") -> EvaluatedJacobian: ...
    def bilinear(self, u: Any, p: Any) -> Any: ...
    def mv(self, p: Any) -> Array: ...
    def rmv(self, u: Any) -> Array: ...
    def gram(self) -> Array: ...
    def dense(self) -> Array: ...
    def column_blocks(self) -> Iterator[Array]: ...
    def perturbation(self) -> Array: ...
    def gram_error(self) -> Array: ...
