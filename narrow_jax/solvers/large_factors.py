"""Newton's steps for many equations: conjugate gradients on the host, a factor by tiles or over devices beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import jax
import numpy as np
from scipy.linalg import blas

from narrow_jax._typing import Float
from narrow_jax.linalg import (
    Devices,
    EvaluatedJacobian,
    Layout,
    Tiles,
    conjugate_gradients,
    on_tiles,
    tiles,
)
from narrow_jax.linalg import rounding as fl
from narrow_jax.solvers.newton import TOLERANCE, Step


@dataclass(frozen=True)
class LargeFactor:
    """(ĴĴᵀ + sI)⁻¹ at some earlier point, by a factor that is valid until the next one is made."""

    solve: Callable[[np.ndarray], np.ndarray]
    pivot: float
    renewable: ClassVar[bool] = True

    def minimum_norm(self, j: EvaluatedJacobian, r: Float[np.ndarray, " r"]) -> Step:
        """Return the step at Ĵ."""
        j, r = _on_host(j), np.asarray(r)
        u = conjugate_gradients(partial(on_tiles.product, j), self.solve, r, TOLERANCE, on_tiles.STEPS)
        delta = j.rmv(u)
        left = blas.dnrm2(j.mv(delta) - r) / max(blas.dnrm2(r), np.finfo(float).tiny)
        return Step(fl.scaled(delta, -j.exponent), np.asarray(left))


@dataclass
class TileFactors:
    """Makes factors, all in the same room."""

    room: Callable[[int, str], np.ndarray] = tiles.memory
    _numbers: np.ndarray | None = field(default=None, init=False)

    def __call__(self, j: EvaluatedJacobian) -> LargeFactor:
        """Return the factor at Ĵ."""
        algebra = Tiles(_on_host(j), tiles.TILE, self._again)
        found, completed = algebra.preconditioner(algebra.j.gram(algebra).matrix)
        return LargeFactor(found.triangle.solve, 1.0 if completed else np.nan)

    def _again(self, count: int, dtype: str) -> np.ndarray:
        if self._numbers is None:
            self._numbers = self.room(count, dtype)
        return self._numbers


@dataclass
class DeviceFactors:
    """Makes factors over devices, each in the place of the one before."""

    devices: Sequence[jax.Device]
    dtype: str = "float64"
    _algebra: Devices | None = field(default=None, init=False)

    def __call__(self, j: EvaluatedJacobian) -> LargeFactor:
        """Return the factor at Ĵ."""
        j = _on_host(j)
        if self._algebra is None:
            self._algebra = Devices(j, Layout.of(j.shape[0], self.devices), self.dtype)
        algebra = self._algebra
        algebra.j = j
        factor, completed = algebra.cholesky(j.gram(algebra).matrix)
        return LargeFactor(partial(algebra.solve, factor), 1.0 if completed else np.nan)


def _on_host(j: EvaluatedJacobian) -> EvaluatedJacobian:
    return jax.tree.map(np.asarray, j)
