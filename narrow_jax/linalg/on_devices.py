"""Large matrices over several devices: the Gram route, every square of numbers dealt out among them.

Ĵ itself and vectors are small: the host has them, and every device what of them it needs. K̂ is formed where it lies,
from Ĵ, each time that something is to be factorised; the factor takes its place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.linalg import blas

from narrow_jax import _printing
from narrow_jax._typing import Array, Float, HostArray
from narrow_jax.linalg import block_cyclic, context, lanczos, on_tiles, preconditioned
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.algebra import Ritz, Rows, Scalar
from narrow_jax.linalg.block_cyclic import Layout, Shifted
from narrow_jax.linalg.on_host import INVERTIBLE, Host
from narrow_jax.linalg.operators import EvaluatedJacobian

COLUMNS = 4
"""Block columns that are there at a time, beside a device's own."""

REPORTS = 32
"""How often a factorisation says how far it is, and can be interrupted."""


def require(devices: Any, dtype: str) -> list[jax.Device]:
    """Return the devices as a list.

    Raises:
        TypeError: something else than devices.
        ValueError: none, one twice, of several kinds, or without float64 where that is asked for.
    """
    several = isinstance(devices, Iterable) and not isinstance(devices, str)
    given = (
        list(devices.ravel()) if isinstance(devices, np.ndarray) else list(devices) if several else [devices]
    )
    if not all(isinstance(device, jax.Device) for device in given):
        raise TypeError(
            f"devices is {devices!r}; expected devices of JAX, as jax.devices() lists them, or None to stay on one"
        )
    kinds = sorted({device.platform for device in given})
    if not given or len(set(given)) < len(given) or len(kinds) > 1:
        raise ValueError(
            f"devices are {given} ({', '.join(kinds) or 'none'}); expected one or more of one platform, each once"
        )
    if all(device.process_index != jax.process_index() for device in given):
        raise ValueError(
            f"devices are {given}, all of other processes; expected some of this one, process {jax.process_index()}, "
            "among them: pass jax.devices() in every process"
        )
    if dtype == "float64" and not has_float64(given):
        raise ValueError(
            f"devices of {kinds[0]} have no float64: pass dtype='float32' for an estimate, or leave devices out for a "
            "proof on the host"
        )
    return given


def has_float64(devices: Sequence[jax.Device]) -> bool:
    """Return whether these compute in float64."""
    return devices[0].platform not in context.WITHOUT_FLOAT64


def plan(rows: int, entries: int, devices: int, dtype: str, block: int | None = None) -> int:
    """Return the bytes that each device needs: its part of a square, some block columns, and the parts of Ĵ."""
    block = block or block_cyclic.width(rows, devices)
    count = block_cyclic.block_columns(rows, block, devices)
    column = count * block * block
    return np.dtype(dtype).itemsize * (column * (count // devices + COLUMNS) + entries)


@dataclass(frozen=True)
class Unformed:
    """K̂, formed on the devices when something is to be done with it."""

    rows: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, n)."""
        return self.rows, self.rows

    def __add__(self, other: Unformed) -> Unformed:
        """Return the sum over layers: each of them is formed from the same Ĵ."""
        return self


@dataclass
class Spread:
    """A symmetric matrix or its factor over the devices; once factorised, what was before is gone."""

    layout: Layout
    blocks: Float[Array, "k b n"]
    of: Shifted
    """What it was formed from: what a factor is measured against."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, n)."""
        return self.layout.rows, self.layout.rows


@dataclass
class Devices(Host):
    """The contract of ``Algebra`` as far as the Gram route needs it, for one operator.

    A factor is valid until the next matrix is formed, in its place. In float32 the factor is that of K̂ + sI: the
    preconditioner of what is done with products of Ĵ in float64, as by tiles.

    Args:
        j: Ĵ, on the host.
        layout: where squares lie.
        dtype: of their numbers.
    """

    j: EvaluatedJacobian
    layout: Layout
    dtype: str = "float64"
    _formed: Spread | None = field(default=None, init=False)

    def hadamard(self, x: Float[HostArray, "n a"], d: Float[HostArray, "r b"]) -> tuple[Any, float, float]:
        """Return K̂, and bounds of the Frobenius norms of xxᵀ and ddᵀ."""
        x, d = np.ascontiguousarray(x), np.ascontiguousarray(d)
        return Unformed(self.layout.rows), on_tiles.outer_norm(x), on_tiles.outer_norm(d)

    def total(self, term: Any, count: int) -> Any:
        """Return K̂: its terms are formed on the devices."""
        return Unformed(self.layout.rows)

    def shifted(self, k: Any, c: Scalar, u: Float[HostArray, " n"], beta: Scalar) -> Any:
        """Return K + c uuᵀ − βI."""
        of = Shifted(self.j, *(np.asarray(value, float) for value in (c, u, beta)))
        of = self.layout.everywhere(context.floats(of, lambda leaf: np.asarray(leaf, self.dtype)))
        if self._formed is not None:
            self._formed.blocks.delete()
        self._formed = Spread(self.layout, block_cyclic.formed(of, layout=self.layout), of)
        return self._formed

    def diagonal(self, a: Any) -> np.ndarray:
        """Return the diagonal."""
        return np.asarray(block_cyclic.diagonal(a.blocks, layout=self.layout), float)

    def cholesky(self, a: Any, overwrite: bool = False) -> tuple[Any, bool]:
        """Return L in the place of A, and whether that completed."""
        if isinstance(a, Unformed):
            return self._factor(a)
        return a, self._factorised(a)

    def _factor(self, k: Unformed) -> tuple[Spread, bool]:
        """Return L of K̂, in float32 of K̂ + sI with s as small as lets it complete, and whether that did."""
        shifts = (0.0,) if self.dtype == "float64" else on_tiles.SHIFTS
        unit = 2.0**-24 * float(self.largest(k, on_tiles.ROUGHLY).first) if shifts[0] else 0.0
        for shift in shifts:
            a = self.shifted(k, 0.0, np.zeros(k.rows), -shift * unit)
            completed = self._factorised(a)
            if completed:
                break
        return a, completed

    def _factorised(self, a: Spread) -> bool:
        """Put L in the place of A, and return whether that completed."""
        steps = np.linspace(0, self.layout.count, min(REPORTS, self.layout.count) + 1).astype(np.int32)
        with _printing.countdown("factorising", len(steps) - 1) as advance:
            for done, (first, last) in enumerate(itertools.pairwise(steps)):
                advance(done)
                a.blocks = block_cyclic.factorised(a.blocks, first, last, layout=self.layout)
                jax.block_until_ready(a.blocks)
        pivots = self.diagonal(a)
        return bool(np.isfinite(pivots).all() and np.min(pivots) > INVERTIBLE)

    def cholesky_defect(self, of_a: Rows, factor: Any, trace: Scalar) -> float:
        """Return a bound of ‖A − LLᵀ‖₂ by computing it, from A formed again: ‖R‖_F² ≤ 2‖tril R‖_F²."""
        parts, sizes = block_cyclic.residual(factor.blocks, factor.of, layout=self.layout)
        found = fl.norm_up(np.asarray(parts)) * (math.sqrt(2) * (1 + fl.SLACK))
        # those of a product of all rows, the sum over devices among them, and of the difference
        rounding = fl.gamma(self.layout.padded + 2)
        filled = self.layout.padded - self.layout.rows
        return float(found + rounding * fl.up(fl.norm_up(np.asarray(sizes)) ** 2 + trace + filled))

    def solve(self, factor: Any, v: Float[HostArray, " n"]) -> np.ndarray:
        """Return (LLᵀ)⁻¹v."""
        right = self.layout.everywhere(np.asarray(v, self.dtype))
        return np.asarray(block_cyclic.solution(factor.blocks, right, layout=self.layout), float)

    def largest(self, a: Any, tolerance: float) -> Ritz:
        """Return the largest eigenpair of K̂ by Lanczos with products of Ĵ."""
        return lanczos.host(self._apply, lanczos.start_vector(a.shape[0]), tolerance)

    def smallest(self, factor: Any, tolerance: float) -> Ritz:
        """Return the smallest eigenpair of K̂, as the largest of its inverse, polished by one more inverse step."""
        solve, rows = partial(self.solve, factor), factor.shape[0]
        if self.dtype == "float64":
            ritz = lanczos.host(solve, lanczos.start_vector(rows), tolerance)
            vector = solve(ritz.vector)
        else:
            ritz = preconditioned.smallest(self._apply, solve, rows, tolerance)
            u = np.asarray(ritz.vector)
            vector = u - solve(self._apply(u) - u / ritz.first)
        return ritz._replace(vector=vector / blas.dnrm2(vector))

    def _apply(self, v: np.ndarray) -> np.ndarray:
        return np.asarray(on_tiles.product(self.j, v))
