"""In which pieces a Jacobian is computed by automatic differentiation, so that a budget of memory suffices."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._checks import MemoryBudgetError
from narrow_jax._typing import Array, Float, Int, Tree
from narrow_jax.jacobian import inputs
from narrow_jax.linalg import indices

COPIES = 2
"""A matrix that is kept is scaled into a second one."""
BLOCKS = 4
"""Blocks of columns that a pass over a matrix that is not kept holds at once."""
TRIES = 3
NARROW = 256
"""Columns that a block of forward mode has at most, or 3 a row: every column is a pass of its own."""


class Size(NamedTuple):
    """What is to be computed: n samples of k outputs each, differentiated by p of all weights."""

    samples: int
    outputs: int
    columns: int
    mode: str

    @property
    def rows(self) -> int:
        """Return n·k."""
        return self.samples * self.outputs


class Pieces(NamedTuple):
    """How it is computed.

    Fields:
        width: columns of a block.
        batch: samples that a pass takes at once.
        stored: whether the matrix is kept.
        bytes: what that takes beside the params and the data, at most where it is not measured.
        measured: whether it was measured, by compiling a pass.
    """

    width: int
    batch: int
    stored: bool
    bytes: int
    measured: bool


Bytes = Callable[[int, bool, int], int]
"""(width, stored, batch) ↦ the bytes that evaluating takes."""


def pieces(size: Size, budget: int, most: int, bound: Bytes, measure: Bytes) -> Pieces:
    """Return the largest pieces that fit the budget.

    Args:
        size: what is computed.
        budget: bytes.
        most: samples that a pass may take.
        bound: an upper bound that costs nothing; where it fits nothing has to be compiled.
        measure: what compiling tells.

    Raises:
        MemoryBudgetError: not even a column or a sample fits.
    """
    stored = COPIES * 8 * size.rows * size.columns <= budget
    for keep in (True, False) if stored else (False,):
        for width in _widths(size, budget, keep):
            if (taken := bound(width, keep, most)) <= budget:
                return Pieces(width, most, keep, taken, measured=False)
            batch, taken = _largest(most, budget, functools.partial(measure, width, keep))
            if taken <= budget:
                return Pieces(width, batch, keep, taken, measured=True)
    least = max(measure(1, False, 1), 2 * 8 * BLOCKS * size.rows)
    instead = "try mode='forward'" if size.mode == "reverse" else "pass fewer samples"
    raise MemoryBudgetError(
        f"autodiff needs at least {least:,} bytes for one column and one sample, and memory_budget is {budget:,}: "
        f"raise it, or {instead}"
    )


def _largest(most: int, budget: int, measure: Callable[[int], int]) -> tuple[int, int]:
    """Return how many samples fit and what they take: all, or by interpolation; 1 where none do."""
    if (all_of_them := measure(most)) <= budget or most == 1:
        return most, all_of_them
    low, taken = 1, measure(1)
    high, above = most, all_of_them
    for _ in range(TRIES):
        if (
            taken > budget
            or (guess := low + int((budget - taken) / max(above - taken, 1) * (high - low))) == low
        ):
            break
        if (found := measure(guess)) <= budget:
            low, taken = guess, found
            break
        high, above = guess, found
    return low, taken


def _widths(size: Size, budget: int, stored: bool) -> Iterator[int]:
    """Yield widths of a block to try: a pass of reverse mode gives whole rows, whatever part of them is asked for."""
    width = size.columns
    if size.mode == "forward":
        width = min(width, max(3 * size.rows, NARROW))
    if not stored:
        width = min(width, budget // (2 * BLOCKS * 8 * size.rows))
    while width:
        yield width
        width = 0 if size.mode == "reverse" and stored else width // 2 if width < 8 else width // 4


def in_batches(
    rows: Callable[[Tree], Float[Array, "b k w"]], x: Tree, samples: int, batch: int
) -> Float[Array, "n k w"]:
    """Return the rows of all samples, some at a time; the last of them go with some that were there before."""
    if batch == samples:
        return rows(x)
    starts = jnp.minimum(indices(math.ceil(samples / batch)) * batch, samples - batch)
    one = jax.eval_shape(rows, inputs.part(x, starts[0], batch))

    def put(i: Int[Array, ""], found: Float[Array, "n k w"]) -> Float[Array, "n k w"]:
        part = rows(inputs.part(x, starts[i], batch))
        return jax.lax.dynamic_update_slice_in_dim(found, part, starts[i], axis=0)

    # typed: XLA lowers the loop where x64 may be off
    empty = jnp.zeros((samples, *one.shape[1:]), one.dtype)
    return jax.lax.fori_loop(np.int32(0), np.int32(len(starts)), put, empty)


def intermediate(jaxpr: Any) -> int:
    """Return the bytes of all that a jaxpr computes, as if nothing were ever freed."""
    total = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        total += sum(
            var.aval.size * var.aval.dtype.itemsize for var in eqn.outvars if hasattr(var.aval, "dtype")
        )
        for value in eqn.params.values():
            for part in value if isinstance(value, tuple | list) else [value]:
                if hasattr(getattr(part, "jaxpr", part), "eqns"):
                    total += intermediate(part)
    return total
