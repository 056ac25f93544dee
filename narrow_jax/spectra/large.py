"""Matrices too large for one square of numbers: by tiles on the host, or over several devices."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from narrow_jax import _checks, _host
from narrow_jax.linalg import HOST, Devices, Jacobian, Layout, Tiles, context, on_devices, on_tiles, tiles
from narrow_jax.spectra import plans, routes
from narrow_jax.spectra.result import SigmaMin
from narrow_jax.spectra.solving import evaluated, solve


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


def by_devices(
    J: Jacobian,
    devices: Sequence[jax.Device],
    method: str,
    certify: bool,
    dtype: str,
    budget: int | None,
) -> SigmaMin:
    """Return the result of the Gram route with every square of numbers dealt out over devices.

    Raises:
        TypeError: no devices, or J is traced, or no tree of arrays.
        ValueError: another method, devices that cannot do it.
        MemoryBudgetError: a device needs more than the budget.
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
    if budget is not None:
        sizes = plans.Sizes.of(J)
        need = on_devices.plan(sizes.rows, plans.entries(J), len(given), dtype)
        _checks.memory(budget, {"gram": need}, "gram", f"sigma_min on each of {len(given)} devices")
    certify = certify and not (given[0].platform != "cpu" and context.emulated())

    def run() -> SigmaMin:
        j = evaluated(J)
        if jax.tree_util.all_leaves([j]):
            raise TypeError(
                f"{type(j).__name__} is no pytree; expected one whose arrays can be sent to devices: register it by "
                "jax.tree_util.register_dataclass"
            )
        algebra = Devices(jax.tree.map(np.asarray, j), Layout.of(J.shape[0], given), dtype)
        return solve(algebra, algebra.j, "gram", certify, J.encloses)[0]

    return context.as_numpy(run)
