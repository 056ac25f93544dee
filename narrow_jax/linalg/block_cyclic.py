"""A symmetric matrix over several devices, and its Cholesky factor in its place, by block columns dealt out in turn.

Device p of P holds the block columns p, p + P, p + 2P, … (1-D block-cyclic), all their rows, transposed: so their
columns are contiguous, as libraries want them. What is sent are sums over the devices: of a block column that only one
has, of parts of a product. The matrix is filled up with 1 on the diagonal to a number of blocks that P divides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from narrow_jax._typing import Array, Float, HostArray
from narrow_jax.linalg import rounding as fl
from narrow_jax.linalg.operators import EvaluatedJacobian

BLOCK = 512
"""Columns of a block: products of such reach the speed of large ones."""

STRIP = 8
"""Blocks whose rows are updated at a time."""

AXIS = "blocks"
DEALT, WHOLE = PartitionSpec(AXIS), PartitionSpec()


def width(rows: int, devices: int) -> int:
    """Return the columns of a block: fewer where every device is to have one."""
    return min(BLOCK, -(-rows // devices))


def block_columns(rows: int, block: int, devices: int) -> int:
    """Return how many block columns there are, as many on every device.

    Example:
        >>> block_columns(10, 3, 2), block_columns(12, 3, 2)
        (4, 4)
    """
    return -(-rows // (block * devices)) * devices


@dataclass(frozen=True)
class Layout:
    """Where an n × n matrix lies: an array of shape (block columns, b, rows), dealt out by its first axis.

    Args:
        rows: n.
        block: b ≤ n.
        mesh: the devices, in one axis.
    """

    rows: int
    block: int
    mesh: Mesh

    @staticmethod
    def of(rows: int, devices: Any, block: int | None = None) -> Layout:
        """Return the layout over these devices."""
        mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
        return Layout(rows, block or width(rows, mesh.size), mesh)

    @property
    def count(self) -> int:
        """Return the block columns, filled up."""
        return block_columns(self.rows, self.block, self.mesh.size)

    @property
    def padded(self) -> int:
        """Return the rows, filled up."""
        return self.count * self.block

    @property
    def own(self) -> int:
        """Return the block columns of a device."""
        return self.count // self.mesh.size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the shape of the array."""
        return self.count, self.block, self.padded

    def sharding(self, spec: PartitionSpec) -> NamedSharding:
        """Return how an array lies on the devices."""
        return NamedSharding(self.mesh, spec)

    def everywhere(self, tree: Any) -> Any:
        """Return arrays that every process has as one that every device has.

        Raises:
            ValueError: the processes have different ones.
        """
        if jax.process_count() > 1:
            self._require_same(tree)

        def place(leaf: Any) -> Array:
            whole = np.asarray(leaf)
            return jax.make_array_from_callback(whole.shape, self.sharding(WHOLE), lambda index: whole[index])

        return jax.tree.map(place, tree)

    def _require_same(self, tree: Any) -> None:
        """Raise, in all processes, unless they have the same arrays, bit for bit: a proof is of one matrix."""
        digest = hashlib.sha256(
            b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))
        )
        words = np.tile(np.frombuffer(digest.digest(), np.uint32), (self.mesh.size, 1))
        dealt = jax.make_array_from_callback(words.shape, self.sharding(DEALT), lambda index: words[index])
        most, least = _extremes(dealt, layout=self)
        if (np.asarray(most) != np.asarray(least)).any():
            raise ValueError(
                "the processes that share these devices hold different operators, or computed different vectors for "
                "them; expected the same call with the same data in each, on machines of one kind"
            )

    def place(self, index: Array) -> tuple[Array, Array]:
        """Return whether a block column is this device's, and where it lies among those."""
        devices = np.int32(self.mesh.size)
        return index % devices == jax.lax.axis_index(AXIS), index // devices

    def index(self, place: Array) -> Array:
        """Return which block column lies at a place of this device."""
        return place * np.int32(self.mesh.size) + jax.lax.axis_index(AXIS)

    def shared(
        self, function: Callable[..., Any], *arguments: Any, dealt: int = 0, result: Any = WHOLE
    ) -> Any:
        """Return what every device computes from its part of the first ``dealt`` arguments and the whole others."""
        specs = tuple(DEALT if number < dealt else WHOLE for number in range(len(arguments)))
        mapped = jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=result, check_vma=False)
        return mapped(*arguments)


@partial(jax.jit, static_argnames="layout")
def _extremes(words: Array, *, layout: Layout) -> tuple[Array, Array]:
    """Return the largest and the smallest of what the devices have."""

    def own(words: Array) -> tuple[Array, Array]:
        return jax.lax.pmax(words, AXIS), jax.lax.pmin(words, AXIS)

    return layout.shared(own, words, dealt=1, result=(WHOLE, WHOLE))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shifted:
    """ĴĴᵀ + c uuᵀ − βI, by its rows: at most three roundings an entry for the update, one more on the diagonal."""

    j: EvaluatedJacobian
    c: Float[HostArray, ""]
    u: Float[HostArray, " n"]
    beta: Float[HostArray, ""]

    def rows(self, start: Array, count: int) -> Float[Array, "c n"]:
        """Return so many rows, from a first one on."""
        part = jax.lax.dynamic_slice_in_dim(self.u, start, count)
        number = jnp.arange(self.u.size, dtype=jnp.int32)
        diagonal = (start + number[:count])[:, None] == number[None, :]
        update = self.c * (part[:, None] * self.u[None, :])
        return (
            self.j.gram_rows(start, count)
            + update
            - jnp.where(diagonal, self.beta, jnp.zeros_like(self.beta))
        )

    def column(self, layout: Layout, index: Array) -> Float[Array, "b n"]:
        """Return a block column, transposed, filled up."""
        n, b = layout.rows, layout.block
        start = jnp.minimum(index * np.int32(b), np.int32(n - b))
        number = index * np.int32(b) + jnp.arange(b, dtype=jnp.int32)
        part = self.rows(start, b)[jnp.clip(number - start, 0, b - 1)]
        part = jnp.pad(part, ((0, 0), (0, layout.padded - n)))
        beyond = number[:, None] == jnp.arange(layout.padded, dtype=jnp.int32)[None, :]
        return jnp.where((number < n)[:, None], part, beyond.astype(part.dtype))


@partial(jax.jit, static_argnames="layout")
def formed(matrix: Shifted, *, layout: Layout) -> Float[Array, "k b n"]:
    """Return the matrix: every device forms its own block columns."""

    def own(matrix: Shifted) -> Array:
        places = jnp.arange(layout.own, dtype=jnp.int32)
        return jax.lax.map(lambda place: matrix.column(layout, layout.index(place)), places)

    return layout.shared(own, matrix, result=DEALT)


@partial(jax.jit, static_argnames="layout", donate_argnums=0)
def factorised(
    blocks: Float[Array, "k b n"], first: Array, last: Array, *, layout: Layout
) -> Float[Array, "k b n"]:
    """Return the blocks after the steps first … last − 1 of A = LLᵀ, right-looking; NaN where there is no factor."""

    def own(blocks: Array, first: Array, last: Array) -> Array:
        return jax.lax.fori_loop(first, last, partial(_step, layout), blocks)

    return layout.shared(own, blocks, first, last, dealt=1, result=DEALT)


def _step(layout: Layout, index: Array, blocks: Array) -> Array:
    """Set block column ``index`` of L, and subtract what it adds to those after it."""
    b = layout.block
    mine, place = layout.place(index)
    column = _broadcast(mine, blocks[place])
    corner = jax.lax.linalg.cholesky(_corner(column, index).T, symmetrize_input=False)
    below = jax.lax.linalg.triangular_solve(corner, column, left_side=True, lower=True)
    number = jnp.arange(layout.padded, dtype=jnp.int32)[None, :]
    below = jnp.where(number >= (index + 1) * b, below, jnp.zeros_like(below))
    column = jax.lax.dynamic_update_slice_in_dim(below, corner.T, index * b, axis=1)
    blocks = jax.lax.dynamic_update_index_in_dim(
        blocks, jnp.where(mine, column, blocks[place]), place, axis=0
    )

    def update(place: Array, blocks: Array) -> Array:
        other = layout.index(place)
        across = _corner(column, other).T

        def subtract(start: Array, rows: Array, blocks: Array) -> Array:
            at = (place, jnp.zeros((), jnp.int32), start)
            part = fl.matmul(across, rows)[None]
            return jax.lax.dynamic_update_slice(
                blocks, jax.lax.dynamic_slice(blocks, at, part.shape) - part, at
            )

        return _by_strips(layout, column, other, subtract, blocks)

    later = jnp.where(layout.index(place) > index, place, place + 1)
    return jax.lax.fori_loop(later, np.int32(layout.own), update, blocks)


def _corner(column: Array, index: Array) -> Array:
    """Return the square of a block column, transposed as it is, at the rows of block ``index``."""
    b = len(column)
    return jax.lax.dynamic_slice_in_dim(column, index * b, b, axis=1)


def _by_strips(
    layout: Layout, column: Array, first: Array, body: Callable[[Array, Array, Array], Array], state: Array
) -> Array:
    """Return the state after body(start, rows, state) over a block column from its block ``first`` on.

    The last strip may go over rows that were there before: they are 0 then.
    """
    b, n = layout.block, layout.padded
    height = min(STRIP, layout.count) * b
    number = jnp.arange(height, dtype=jnp.int32)[None, :]

    def strip(index: Array, state: Array) -> Array:
        wanted = first * b + index * height
        start = jnp.minimum(wanted, n - height)
        rows = jax.lax.dynamic_slice_in_dim(column, start, height, axis=1)
        return body(start, jnp.where(start + number >= wanted, rows, jnp.zeros_like(rows)), state)

    return jax.lax.fori_loop(np.int32(0), -((first * b - n) // height), strip, state)


@partial(jax.jit, static_argnames="layout")
def solution(blocks: Float[Array, "k b n"], v: Float[Array, " n"], *, layout: Layout) -> Float[Array, " n"]:
    """Return (LLᵀ)⁻¹v."""
    b = layout.block

    def own(blocks: Array, v: Array) -> Array:
        def forward(index: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            sums, y = state
            mine, place = layout.place(index)
            known = jax.lax.psum(jax.lax.dynamic_slice_in_dim(sums, index * b, b), AXIS)
            right = jax.lax.dynamic_slice_in_dim(v, index * b, b) - known
            found = jax.lax.linalg.triangular_solve(
                _corner(blocks[place], index).T, right[:, None], left_side=True, lower=True
            )
            part = _broadcast(mine, found)[:, 0]
            add = jax.lax.cond(
                mine, lambda: fl.matmul(part[None], blocks[place])[0], lambda: jnp.zeros_like(sums)
            )
            return sums + add, jax.lax.dynamic_update_slice_in_dim(y, part, index * b, axis=0)

        def backward(step: Array, x: Array) -> Array:
            index = np.int32(layout.count - 1) - step
            mine, place = layout.place(index)

            def found() -> Array:
                known = fl.matmul(blocks[place], x[:, None])
                right = jax.lax.dynamic_slice_in_dim(y, index * b, b)[:, None] - known
                return jax.lax.linalg.triangular_solve(
                    _corner(blocks[place], index).T, right, left_side=True, lower=True, transpose_a=True
                )

            part = jax.lax.cond(mine, found, lambda: jnp.zeros((b, 1), x.dtype))
            return jax.lax.dynamic_update_slice_in_dim(x, jax.lax.psum(part, AXIS)[:, 0], index * b, axis=0)

        zero, steps = jnp.zeros_like(v), np.int32(layout.count)
        _, y = jax.lax.fori_loop(np.int32(0), steps, forward, (zero, zero))
        return jax.lax.fori_loop(np.int32(0), steps, backward, zero)

    padded = jnp.pad(v, (0, layout.padded - layout.rows))
    return layout.shared(own, blocks, padded, dealt=1)[: layout.rows]


@partial(jax.jit, static_argnames="layout")
def diagonal(blocks: Float[Array, "k b n"], *, layout: Layout) -> Float[Array, " n"]:
    """Return the diagonal."""
    b = layout.block

    def own(blocks: Array) -> Array:
        def put(place: Array, found: Array) -> Array:
            index = layout.index(place)
            corner = jnp.diagonal(_corner(blocks[place], index))
            return jax.lax.dynamic_update_slice_in_dim(found, corner, index * b, axis=0)

        none = jnp.zeros(layout.padded, blocks.dtype)
        return jax.lax.psum(jax.lax.fori_loop(np.int32(0), np.int32(layout.own), put, none), AXIS)

    return layout.shared(own, blocks, dealt=1)[: layout.rows]


@partial(jax.jit, static_argnames="layout")
def residual(
    blocks: Float[Array, "k b n"], matrix: Shifted, *, layout: Layout
) -> tuple[Float[Array, " k"], Float[Array, " p"]]:
    """Return bounds of the norms of fl(A − LLᵀ), lower triangle, by block columns, and of L by devices."""
    b, n = layout.block, layout.padded

    def own(blocks: Array, matrix: Shifted) -> tuple[Array, Array]:
        def left(index: Array, norms: Array) -> Array:
            mine, place = layout.place(index)

            def add(place: Array, product: Array) -> Array:
                across = _corner(blocks[place], index)

                def put(start: Array, rows: Array, product: Array) -> Array:
                    part = fl.matmul(rows.T, across).T
                    before = jax.lax.dynamic_slice_in_dim(product, start, part.shape[1], axis=1)
                    return jax.lax.dynamic_update_slice_in_dim(product, before + part, start, axis=1)

                return _by_strips(layout, blocks[place], index, put, product)

            until = jnp.where(layout.index(place) <= index, place + 1, place)
            zero = jnp.zeros((b, n), blocks.dtype)
            product = jax.lax.psum(jax.lax.fori_loop(np.int32(0), until, add, zero), AXIS)

            def size() -> Array:
                number = jnp.arange(n, dtype=jnp.int32)
                lower = number[None, :] >= (index * b + number[:b])[:, None]
                difference = matrix.column(layout, index) - product
                return fl.norm_up(jnp.where(lower, difference, jnp.zeros_like(difference)))

            return norms.at[index].set(jax.lax.cond(mine, size, lambda: jnp.zeros((), blocks.dtype)))

        none = jnp.zeros(layout.count, blocks.dtype)
        norms = jax.lax.fori_loop(np.int32(0), np.int32(layout.count), left, none)
        size_here = fl.norm_up(jax.lax.map(fl.norm_up, blocks))
        sizes = jnp.zeros(layout.mesh.size, blocks.dtype).at[jax.lax.axis_index(AXIS)].set(size_here)
        return jax.lax.psum(norms, AXIS), jax.lax.psum(sizes, AXIS)

    return layout.shared(own, blocks, matrix, dealt=1, result=(WHOLE, WHOLE))


def _broadcast(mine: Array, values: Array) -> Array:
    """Return on every device what one has."""
    return jax.lax.psum(jnp.where(mine, values, jnp.zeros_like(values)), AXIS)
