"""One solution for all back ends: Gram matrix, route, result in true scale; large ones by tiles or over devices."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _host
from narrow_jax._typing import Computed, Float, HostArray
from narrow_jax.linalg import (
    HOST,
    Algebra,
    Device,
    Devices,
    EvaluatedJacobian,
    Jacobian,
    Layout,
    Stored,
    Tiles,
    arrays,
    compiled,
    context,
    on_devices,
    on_tiles,
    tiles,
    xp,
)
from narrow_jax.linalg import rounding as fl
from narrow_jax.spectra import plans, routes
from narrow_jax.spectra.enclosure import Operand
from narrow_jax.spectra.result import SigmaMin, Status

NORMAL = 2.0**-1021
"""The smallest float64 that no backend flushes to 0."""


def evaluated(J: Jacobian) -> EvaluatedJacobian:
    """Return the matrix on the host, of few entries as NumPy's: its formulas compile nothing then."""
    j = context.at_hand(J).evaluate()
    few = isinstance(j, Stored) and math.prod(j.shape) <= context.FEW
    return jax.tree.map(np.asarray, j) if few else j


def solve(
    algebra: Algebra, j: EvaluatedJacobian, method: str, certify: bool, encloses: str, top: float = 1e-8
) -> tuple[SigmaMin, HostArray, Float[HostArray, " n"]]:
    """Return the result in true scale, the right singular vector, and the vector of σ_max."""
    gram = j.gram(algebra)
    largest = algebra.largest(gram.matrix, top)  # of σ²: it judges, and proves nothing
    sigma_max = xp.sqrt(largest.first)
    again = isinstance(algebra, Device) and plans.formed_again(plans.Sizes.of_evaluated(j), certify)
    if again:  # one matrix at a time: the next is formed when this one has been used
        j, largest = arrays.barrier((j, largest))
    operand = Operand(algebra, j, gram.bounds, None if again else gram.matrix)
    found = routes.find(operand, sigma_max, method, certify)
    s = _assemble(found, sigma_max, gram.bounds.perturbation, j.exponent, j.shape, encloses)
    return s, found.right, largest.vector


@compiled(static_argnames=("shape", "encloses"))
def _assemble(
    found: routes.Found,
    sigma_max: Computed,
    perturbation: Computed,
    exponent: Computed,
    shape: tuple[int, int],
    encloses: str,
) -> SigmaMin:
    """Add δ, judge, and scale back by the power of two, bounds rounded outward where denormals begin."""
    lower = fl.down(found.lower - perturbation)
    lower = xp.where(xp.isfinite(lower), lower, 0.0)
    upper = fl.up(found.upper + perturbation)
    zero = found.value <= max(shape) * (jnp.finfo(found.value.dtype).eps / 2) * sigma_max
    zero = zero & ((sigma_max > 0) | xp.isfinite(perturbation))  # denormals may have been flushed
    status = xp.where(zero, Status.NUMERICALLY_ZERO.value, Status.ESTIMATE.value)
    value, lower, upper, sigma_max = (
        xp.ldexp(number, exponent) for number in (found.value, lower, upper, sigma_max)
    )
    lower, upper = normal(lower, upper)
    status = xp.where(lower > 0, Status.CERTIFIED.value, status)
    # any u with ‖Jᵀu‖ at rounding proves that, converged or not
    status = xp.where(found.reliable | zero, status, Status.NOT_CONVERGED.value).astype(np.int32)
    return SigmaMin(
        value=value,
        lower=lower,
        upper=upper,
        sigma_max=sigma_max,
        vector=found.vector,
        status_code=status,
        method_code=found.method_code,
        encloses=encloses,
    )


def normal(lower: Computed, upper: Computed) -> tuple[Computed, Float[Computed, ""]]:
    """Return the bounds where over- and underflow of their dtype are taken into account."""
    limits = jnp.finfo(lower.dtype)
    smallest = max(NORMAL, float(limits.tiny))
    lower = xp.where(lower > smallest, xp.minimum(lower, float(limits.max)), 0.0)
    return lower, xp.where(xp.isnan(upper), np.inf, xp.maximum(upper, smallest))


@contextlib.contextmanager
def finite_entries() -> Iterator[None]:
    """Say of a matrix that is not finite more than SciPy does."""
    try:
        yield
    except ValueError as error:
        if "infs or NaNs" not in str(error):
            raise
        raise ValueError(
            "J has entries that are not finite: look at the model's predictions and derivatives there"
        ) from error


def suits_tiles(J: Jacobian, method: str, certify: bool, budget: int | None) -> bool:
    """Return whether the Gram route goes by tiles: of many rows, and where a budget holds no whole matrices."""
    _checks.memory_budget(budget)
    rows = J.shape[0]
    if method not in ("auto", "gram") or rows <= min(tiles.TILE, on_tiles.WHOLE):
        return False
    if rows > on_tiles.WHOLE or budget is None:
        return rows > on_tiles.WHOLE
    return plans.of_sigma_min(plans.Sizes.of(J), "host", certify)[method] > budget


def by_tiles(J: Jacobian, method: str, certify: bool, budget: int | None) -> SigmaMin:
    """Return the result of the Gram route by tiles; "auto" goes on where that says little and the memory allows it."""
    room = on_tiles.room_for(*J.shape, budget, "sigma_min")

    def run() -> SigmaMin:
        j = evaluated(J)
        j = jax.tree.map(np.asarray, j) if j.cheap_gram else j
        s = solve(Tiles(j, tiles.TILE, room), j, "gram", certify, J.encloses)[0]
        narrow = s.upper - s.lower <= routes.LOOSE * s.sigma_max or not certify
        said = narrow and s.status in ("certified", "estimate", "numerically_zero")
        whole = plans.of_sigma_min(plans.Sizes.of_evaluated(j), "host", certify)["qr"]
        if method == "gram" or said or whole > (context.machine_memory() if budget is None else budget):
            return s
        return solve(HOST, j, "qr", certify, J.encloses)[0]

    return context.as_numpy(run)


def required(J: Jacobian, devices: Any, method: str, dtype: str) -> list[jax.Device]:
    """Return the devices as a list.

    Raises:
        TypeError: no devices, or J is traced, or something around it.
        ValueError: another method, devices that cannot do it.
    """
    given = on_devices.require(devices, dtype)
    if method not in ("auto", "gram"):
        raise ValueError(
            f"method is {method!r} with devices; expected 'auto' or 'gram': QR goes over no devices"
        )
    if _host.traced(J) or context.tracing():
        raise TypeError(
            "devices given inside of jit, grad or vmap; expected a call outside: leave devices out there"
        )
    return given


def by_devices(
    J: Jacobian, devices: Sequence[jax.Device], certify: bool, dtype: str, budget: int | None
) -> SigmaMin:
    """Return the result of the Gram route with every square of numbers dealt out over devices.

    Raises:
        TypeError: J is no tree of arrays.
        MemoryBudgetError: a device needs more than the budget.
    """
    if budget is not None:
        sizes = plans.Sizes.of(J)
        need = on_devices.plan(sizes.rows, plans.entries(J), len(devices), dtype)
        _checks.memory(budget, {"gram": need}, "gram", f"sigma_min on each of {len(devices)} devices")
    certify = certify and not (devices[0].platform != "cpu" and context.emulated())

    def run() -> SigmaMin:
        j = evaluated(J)
        if jax.tree_util.all_leaves([j]):
            raise TypeError(
                f"{type(j).__name__} is no pytree; expected one whose arrays can be sent to devices: register it by "
                "jax.tree_util.register_dataclass"
            )
        algebra = Devices(jax.tree.map(np.asarray, j), Layout.of(J.shape[0], devices), dtype)
        return solve(algebra, algebra.j, "gram", certify, J.encloses)[0]

    return context.as_numpy(run)
