"""Jacobians of any function by automatic differentiation, in chunks of bounded memory."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from narrow_jax import _checks
from narrow_jax._memory import MemoryBudgetError, check_budget
from narrow_jax._paths import path_name, select
from narrow_jax._typing import ApplyFn
from narrow_jax.jacobian.blocks import Blocked, recomputed, stored
from narrow_jax.jacobian.operator import Evaluating

MODES = ("reverse", "forward")
DEFAULT_BUDGET = 1 << 30


@dataclass(frozen=True)
class _Plan:
    """The static part: what to differentiate, how, and in which pieces."""

    apply_fn: ApplyFn
    chosen: tuple[bool, ...]
    mode: str
    outputs: int
    samples: int
    columns: int
    width: int
    batch: int
    stored: bool


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AutodiffJacobian(Evaluating):
    """∂f(θ, x)/∂θ for the chosen leaves θ. Made by ``autodiff``."""

    params: Any
    x: Any
    plan: _Plan = field(metadata={"static": True})

    encloses = "the Jacobian as computed in float64"

    @property
    def shape(self) -> tuple[int, int]:
        """Return (samples·outputs, chosen weights)."""
        return self.plan.samples * self.plan.outputs, self.plan.columns

    @property
    def dtype(self) -> Any:
        """Return the dtype of the chosen leaves."""
        return jnp.result_type(*_chosen(self.params, self.plan.chosen))

    def evaluate(self, dtype: str = "float64") -> Blocked:
        """Return the matrix: stored if it fits the budget, else computed anew for each pass."""
        return _evaluate((_cast(self.params, dtype), _cast(self.x, dtype)), self.plan, dtype)

    def bilinear(self, u: Any, p: Any) -> Any:
        """Return uᵀJp in the dtype at hand, differentiable in params and x."""
        theta, rebuild = _flatten(self.params, self.plan)
        slope = jax.jvp(lambda t: self.plan.apply_fn(rebuild(t), self.x), (theta,), (p.astype(theta.dtype),))[
            1
        ]
        return jnp.vdot(u, slope.reshape(-1).astype(u.dtype))

    def column_blocks(self) -> Iterator[Any]:
        """Yield J in blocks of consecutive columns."""
        return self._column_blocks()


def autodiff(
    apply_fn: ApplyFn,
    params: Any,
    x: Any,
    wrt: str | Iterable[str] | None = None,
    mode: str = "reverse",
    memory_budget: int = DEFAULT_BUDGET,
) -> AutodiffJacobian:
    """Return the Jacobian of apply_fn(params, x) with respect to chosen leaves of params.

    J[(i, c), l] = ∂ apply_fn(params, x)[i, c] / ∂θ_l, θ being the chosen leaves as ``ravel_pytree`` flattens them.
    Its enclosure is that of the matrix as computed in float64: the rounding of apply_fn itself is unknown.
    apply_fn is called with params and x cast to float64; it is a static argument, so pass the same function object
    each time to avoid compiling again.

    Args:
        apply_fn: (params, x) ↦ predictions, (n,) or (n, k); each sample's from that sample alone.
        params: any pytree.
        x: data, samples along the first axis.
        wrt: leaves by name: a path such as "params/w1", or its last or first parts; None for all.
        mode: "reverse" (vmap of vjp over samples) or "forward" (``jax.jacfwd`` over blocks of weights).
        memory_budget: bytes that the matrix or its blocks may take.

    Raises:
        ValueError: unknown leaf or mode, wrong output shape, no sample, non-finite values, samples that influence each
            other (such as batch normalisation in training mode).
        TypeError: params or data that are not real floating numbers.
        MemoryBudgetError: not even single columns or samples fit.

    Example:
        >>> import jax.numpy as jnp
        >>> J = autodiff(lambda p, x: jnp.tanh(x @ p["w"]), {"w": jnp.ones((3, 2))}, jnp.ones((5, 3)))
        >>> J.shape
        (10, 6)
    """
    _checks.choice("mode", mode, MODES)
    check_budget(memory_budget)
    chosen = _select(params, wrt)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        _real(f"params leaf {path_name(path)!r}", leaf)
    x = _real("x", x)
    if x.ndim == 0 or x.shape[0] == 0:
        raise ValueError(f"x has shape {x.shape}: there is no sample; expected n ≥ 1 along the first axis")
    outputs = _outputs(apply_fn, params, x)
    _refuse_coupling(apply_fn, params, x)
    columns = sum(int(jnp.size(leaf)) for leaf in _chosen(params, chosen))
    total = sum(int(jnp.size(leaf)) for leaf in jax.tree.leaves(params))
    width, batch, stored = _pieces(x.shape[0], outputs, columns, total, mode, memory_budget)
    return AutodiffJacobian(
        params, x, _Plan(apply_fn, chosen, mode, outputs, x.shape[0], columns, width, batch, stored)
    )


def _select(params: Any, wrt: str | Iterable[str] | None) -> tuple[bool, ...]:
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ValueError("params has no leaves; expected a pytree of arrays")
    return (True,) * len(leaves) if wrt is None else select("wrt leaf", params, wrt)


def _chosen(params: Any, chosen: tuple[bool, ...]) -> list[Any]:
    return [leaf for leaf, use in zip(jax.tree.leaves(params), chosen, strict=True) if use]


def _real(what: str, array: Any) -> Any:
    array = array if hasattr(array, "dtype") else jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{what} has dtype {array.dtype}; expected real floating numbers: convert it first")
    _checks.finite(what, array)
    return array


def _outputs(apply_fn: ApplyFn, params: Any, x: Any) -> int:
    y = jax.eval_shape(apply_fn, params, x)
    shape = getattr(y, "shape", None)
    if shape is None or len(shape) not in (1, 2) or shape[0] != x.shape[0]:
        found = f"shape {shape}" if shape is not None else f"a {type(y).__name__}"
        raise ValueError(
            f"apply_fn returns {found} for {x.shape[0]} samples; expected an array of shape (n,) or (n, k): "
            "flatten other axes, and return the predictions only"
        )
    return shape[1] if len(shape) == 2 else 1


def _refuse_coupling(apply_fn: ApplyFn, params: Any, x: Any) -> None:
    """Change all samples but the first: its prediction must not move."""
    if x.shape[0] < 2 or any(_checks.concrete(leaf) is None for leaf in jax.tree.leaves((params, x))):
        return
    if _moves(apply_fn, params, x):
        raise ValueError(
            "apply_fn couples samples: the first prediction changes with the other samples, so there is no Jacobian "
            "row by sample. Batch normalisation in training mode does this: evaluate with stored statistics "
            "(train=False)"
        )


@functools.partial(jax.jit, static_argnames="apply_fn")
def _moves(apply_fn: ApplyFn, params: Any, x: Any) -> Any:
    others = jnp.concatenate([x[:1], -2 * x[1:] + 1])
    first, again = (apply_fn(params, data)[0] for data in (x, others))
    tolerance = 1e3 * jnp.finfo(first.dtype).eps * jnp.max(jnp.abs(first), initial=0.0)
    return jnp.max(jnp.abs(first - again)) > tolerance


def _pieces(
    samples: int, outputs: int, columns: int, total: int, mode: str, budget: int
) -> tuple[int, int, bool]:
    """Return the block width, the samples a reverse pass takes at once, and whether to store the matrix."""
    rows = samples * outputs
    stored = 3 * 8 * rows * columns <= budget
    width = min(columns, max(3 * rows, 256), budget // (4 * 8 * rows))
    batch = min(samples, budget // (4 * 8 * outputs * total)) if mode == "reverse" else samples
    if width < 1 or batch < 1:
        needed = 4 * 8 * max(rows, outputs * total if mode == "reverse" else rows)
        raise MemoryBudgetError(
            f"autodiff needs at least {needed:,} bytes for one column and one sample, and memory_budget is {budget:,}: "
            + ("raise it, or use mode='forward'" if width >= 1 else "raise it, or pass fewer samples")
        )
    return width, batch, stored


def _cast(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def _flatten(params: Any, plan: _Plan) -> tuple[Any, Any]:
    """Return the chosen leaves as one vector, and the function that puts such a vector back in place."""
    leaves, structure = jax.tree.flatten(params)
    theta, unravel = ravel_pytree(_chosen(params, plan.chosen))

    def rebuild(theta: Any) -> Any:
        moved = iter(unravel(theta))
        chosen = [next(moved) if use else leaf for leaf, use in zip(leaves, plan.chosen, strict=True)]
        return jax.tree.unflatten(structure, chosen)

    return theta, rebuild


@functools.partial(jax.jit, static_argnames=("plan", "dtype"))
def _evaluate(data: Any, plan: _Plan, dtype: str) -> Blocked:
    size = plan.samples * plan.outputs, plan.columns
    columns = functools.partial(_columns, plan=plan)
    if not plan.stored:
        return recomputed(data, _Columns(plan), size, plan.width)
    count = math.ceil(plan.columns / plan.width)
    blocks = jax.lax.map(lambda i: columns(data, i), jnp.arange(count, dtype=jnp.int32))
    matrix = jnp.moveaxis(blocks, 0, 1).reshape(size[0], -1)[:, : plan.columns].astype(dtype)
    return stored(matrix)


@dataclass(frozen=True)
class _Columns:
    """(data, i) ↦ block i; equal for equal plans, so that nothing compiles twice."""

    plan: _Plan

    def __call__(self, data: Any, index: Any) -> Any:
        return _columns(data, index, self.plan)


def _columns(data: Any, index: Any, plan: _Plan) -> Any:
    """Return ∂f/∂θ for the weights of a block, differentiating with respect to a step t in those alone."""
    params, x = data
    theta, rebuild = _flatten(params, plan)
    width, count = plan.width, math.ceil(plan.columns / plan.width)
    padded = jnp.pad(theta, (0, count * width - plan.columns))
    start = jnp.int32(index) * width
    here = jax.lax.dynamic_slice_in_dim(padded, start, width)

    def predict(step: Any, x: Any) -> Any:
        moved = jax.lax.dynamic_update_slice_in_dim(padded, here + step, start, axis=0)
        return plan.apply_fn(rebuild(moved[: plan.columns]), x).reshape(-1)

    step = jnp.zeros_like(here)
    if plan.mode == "forward":
        return jax.jacfwd(lambda step: predict(step, x))(step)
    rows = jax.lax.map(
        lambda sample: jax.jacrev(lambda step: predict(step, sample[None]))(step), x, batch_size=plan.batch
    )
    return rows.reshape(plan.samples * plan.outputs, width)
