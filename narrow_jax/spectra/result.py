"""What a spectral computation returns, and what its status means."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from narrow_jax import _checks
from narrow_jax._host import traced
from narrow_jax._printing import brief


class Status(enum.IntEnum):
    """What is known of σ_min; each member carries what that means and what to do. A number in traced code."""

    message: str

    CERTIFIED = 0, "lower ≤ σ_min ≤ upper is proven, rounding included, and lower > 0"
    NUMERICALLY_ZERO = (
        1,
        "σ_min is not above the rounding of the matrix: treat the Jacobian as rank-deficient",
    )
    RANK_DEFICIENT_BY_SHAPE = 2, "more rows than columns: σ_min over the rows is 0; widen the network"
    ESTIMATE = (
        3,
        "the value is accurate to rounding but its lower bound is not proven: use certify=True and float64 on "
        "a CPU, or on a GPU that is told not to emulate it (CUBLAS_EMULATE_DOUBLE_PRECISION=0), and an activation "
        "whose rounding is known (tanh, sigmoid, softplus, sin, relu); a condition number above 1e10 or entries beyond "
        "2^±900 are beyond proof in float64",
    )
    NOT_CONVERGED = (
        4,
        "the Gram matrix cannot resolve σ_min, or an iteration stopped early: use method='qr' outside vmap",
    )

    def __new__(cls, code: int, message: str) -> Status:
        """Attach the message to the number."""
        member = int.__new__(cls, code)
        member._value_, member.message = code, message
        return member


class Method(enum.IntEnum):
    """What gave the value."""

    GRAM, QR, DENSE, SHAPE = range(4)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SigmaMin:
    """The smallest singular value of a Jacobian, over its rows.

    lower ≤ σ_min ≤ upper holds for every status; where nothing is proven it is [0, ∞] or [0, upper].
    A pytree: it passes through ``jit`` and ``vmap``, where ``status_code`` is the form of ``status`` to compute with.

    Args:
        value: the best estimate, ‖Jᵀu‖ for the unit ``vector`` u.
        lower: proven lower bound.
        upper: proven upper bound.
        sigma_max: the largest singular value, an estimate to about 1e-6 or better.
        vector: the left singular vector u, one entry a row (sample, output).
        status_code: 0 certified, 1 numerically_zero, 2 rank_deficient_by_shape, 3 estimate, 4 not_converged.
        method_code: 0 gram, 1 qr, 2 dense, 3 shape.
        encloses: the matrix that the interval speaks of.
    """

    value: Any
    lower: Any
    upper: Any
    sigma_max: Any
    vector: Any
    status_code: Any
    method_code: Any
    encloses: str = field(metadata={"static": True})

    def __repr__(self) -> str:
        """Return one line, the status and the method by name where they are known."""
        named = isinstance(self.status_code, int | np.generic | np.ndarray | jax.Array) and not traced(self)
        codes = {"status": self.status, "method": self.method} if named else {"status_code": self.status_code}
        numbers = {name: getattr(self, name) for name in ("value", "lower", "upper", "sigma_max", "vector")}
        return brief("SigmaMin", codes | numbers | {"encloses": self.encloses})

    @property
    def status(self) -> Any:
        """Return the status by name; an array of names for a batch. Under ``jit`` use ``status_code``."""
        return _named(Status, self.status_code, "status_code")

    @property
    def method(self) -> Any:
        """Return the method that gave the value, by name."""
        return _named(Method, self.method_code, "method_code")

    @property
    def certified(self) -> Any:
        """Return whether the interval is proven with lower > 0; also inside ``jit``."""
        return self.status_code == Status.CERTIFIED

    @property
    def message(self) -> str:
        """Return what the status means and what to do."""
        return Status[str(self.status).upper()].message


def _named(members: type[enum.IntEnum], code: Any, instead: str) -> Any:
    codes = _checks.concrete(code)
    if codes is None:
        raise TypeError(
            f"the name is not known while traced: compare {instead} or use .certified inside jit and vmap"
        )
    names = [member.name.lower() for member in members]
    return np.array(names)[codes] if codes.ndim else names[int(codes)]
