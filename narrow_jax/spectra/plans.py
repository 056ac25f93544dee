"""Bytes that the routes take beside what the operator holds: what compilers count, and what NumPy allocates.

Measured for Jacobians of nets and fitted, in squares of n numbers, n the rows: what is found is within a quarter of
what is planned (``tests/spectra/test_plans.py``, ``tests/aot``). Operators with blocks of their own take these, too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from narrow_jax import _host
from narrow_jax.linalg import ROWS, EvaluatedJacobian, context, lanczos

KEPT = 2**14
"""Rows up to which a device keeps the Gram matrix of a proof: of more, forming it anew costs less than its memory."""


class Sizes(NamedTuple):
    """What a plan depends on: rows and columns, those of a block and all blocks, whether the Gram matrix is cheap."""

    rows: int
    columns: int
    width: int
    blocks: int
    cheap_gram: bool

    @staticmethod
    def of(J: Any) -> Sizes:
        """Return the sizes of the matrix that an operator evaluates to, which is not evaluated if JAX can trace it."""
        if jax.tree_util.all_leaves([J]):  # a user's own, which is no tree
            with jax.enable_x64(True):
                return Sizes.of_evaluated(J.evaluate())
        found = []  # sizes are no arrays, which alone may leave what is traced
        with jax.enable_x64(True):
            jax.eval_shape(lambda J: found.append(Sizes.of_evaluated(J.evaluate())), J)
        return found[0]

    @staticmethod
    def of_evaluated(j: EvaluatedJacobian) -> Sizes:
        """Return the sizes of an evaluated matrix."""
        return Sizes(*j.shape, j.block_width, j.block_count, j.cheap_gram)

    @property
    def several(self) -> bool:
        """Return whether there is more than one block."""
        return self.blocks > 1

    @property
    def few(self) -> bool:
        """Return whether a device forms all rows of a Gram matrix at once."""
        return self.rows <= 2 * ROWS

    @property
    def copies(self) -> int:
        """Return how many blocks are there at a time where all are gone through: XLA unrolls a loop over two."""
        return 3 if self.blocks == 2 else 2

    @property
    def block(self) -> float:
        """Return the size of a block, in squares."""
        return self.width / self.rows

    @property
    def basis(self) -> float:
        """Return the size of a basis of Lanczos, in squares."""
        return min(lanczos.MAX_STEPS / self.rows, 1.0)

    @property
    def all_blocks(self) -> float:
        """Return the size of all blocks, the last one filled up."""
        return self.blocks * self.block


def entries(J: Any) -> int:
    """Return how many numbers the parts have that an operator evaluates to."""
    with jax.enable_x64(True):
        found = J.evaluate() if jax.tree_util.all_leaves([J]) else jax.eval_shape(lambda J: J.evaluate(), J)
    return sum(leaf.size for leaf in jax.tree.leaves(found))


def compiled_for(J: Any) -> str:
    """Return "cpu" or "gpu": what a program with this operator is compiled for, as far as can be known here."""
    on_host = jax.default_backend() == "cpu" if _host.traced(J) else context.on_cpu(J)
    return "cpu" if on_host else "gpu"


def formed_again(sizes: Sizes, certify: bool) -> bool:
    """Return whether a device forms the Gram matrix anew where it is needed, instead of keeping it."""
    return certify and sizes.cheap_gram and sizes.rows > KEPT


def of_sigma_min(sizes: Sizes, place: str, certify: bool) -> dict[str, int]:
    """Return the bytes of each method of ``sigma_min``, with "auto" as the largest it may take.

    Args:
        sizes: of the matrix.
        place: "host" for NumPy, "cpu" for programs of XLA there, "gpu" for those of accelerators.
        certify: whether bounds are proven.
    """
    n, p = sizes.rows, sizes.columns
    if n > p:
        return dict.fromkeys(
            ("auto", "gram", "qr", "dense"), int(8 * n * p * (1.7 if place == "gpu" else 4.05))
        )
    squares = {"host": _on_host, "cpu": _on_cpu, "gpu": _on_gpu}[place](sizes, certify)
    return {method: int(8 * n * n * size) for method, size in squares.items()}


def _on_host(sizes: Sizes, certify: bool) -> dict[str, float]:
    w, basis = sizes.block, sizes.basis
    gram = (3 if certify else 2) + basis + 24 * sizes.columns / sizes.rows**2
    if not sizes.cheap_gram:
        gram = (5 if certify else 4) * w + basis
    qr = 5 * w + 3 if sizes.several else max(4 * w + 1 if certify else 3 * w + 2, gram)
    return {"auto": max(qr, gram), "gram": gram, "qr": qr, "dense": 4 * sizes.all_blocks + 4.5}


def _on_cpu(sizes: Sizes, certify: bool) -> dict[str, float]:
    w, basis = sizes.block, sizes.basis
    if certify:
        gram, qr = 8.2 + 3 * basis, max(w + 5.0, 2 * w + 7.0) + 3 * basis
    else:
        few = sizes.cheap_gram and sizes.few
        gram, qr = (4.2 if few else 3.3) + basis, w + 6.3 if sizes.several else 2 * w + 2.7
    return _with_own_blocks(sizes, gram, qr, 2 * sizes.all_blocks + (4.2 if certify else 1.2), 1)


def _on_gpu(sizes: Sizes, certify: bool) -> dict[str, float]:
    w, n = sizes.block, sizes.rows
    if certify:
        gram = 4.5 + 620 / n if sizes.few else (2.2 if formed_again(sizes, certify) else 4.1) + 360 / n
        qr = max(w + 5.0, sizes.copies * w + 3.1) + 730 / n
    else:
        gram = 3.9 + 160 / n if sizes.few and sizes.cheap_gram else 2.3 + 120 / n
        qr = w + 2.2 + 50 / n
    dense = max(2 * sizes.all_blocks + 1.2, qr) + 0.4
    return _with_own_blocks(sizes, gram, qr, dense, 2 if sizes.several else 1)


def _with_own_blocks(sizes: Sizes, gram: float, qr: float, dense: float, times: int) -> dict[str, float]:
    own = 0.0 if sizes.cheap_gram else sizes.all_blocks
    gram, qr = gram + times * own, qr + own
    return {"auto": max(qr + 1, gram, 5.0), "gram": gram, "qr": qr, "dense": max(dense, qr)}


def of_singular_values(sizes: Sizes, place: str) -> int:
    """Return the bytes of ``singular_values``; arguments as for ``of_sigma_min``."""
    n, p, w = sizes.rows, sizes.columns, sizes.block
    if n > p:
        of_rows, of_columns = {"host": (4.0, 4.3), "cpu": (5.4, 1.8), "gpu": (2.1, 1.8)}[place]
        return int(8 * p * (of_rows * n + of_columns * p))
    if place == "host":
        squares = 5 * w + 3 if sizes.several else max(4 * w + 1, 11.0)
    elif place == "cpu":
        squares = sizes.copies * w + 5.7 if sizes.several else 2 * w + 3.5
    else:
        squares = max(w + 4.3, sizes.copies * w + 2.4) + 1400 / n
    own = sizes.all_blocks if place != "host" and sizes.several and not sizes.cheap_gram else 0.0
    return int(8 * n * n * (squares + own))
