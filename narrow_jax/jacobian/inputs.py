"""What ``autodiff`` takes: which leaves to differentiate, data that are arrays, a function of one row a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax._typing import ApplyFn, HostArray, Leaf, Params
from narrow_jax.labels import path_name, select


def selected(params: Params, wrt: str | Iterable[str] | None) -> tuple[bool, ...]:
    """Return which leaves are chosen, all of them arrays and the chosen ones real, floating and finite."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError("params has no leaves; expected a pytree of arrays")
    if wrt is None and isinstance(params, Mapping) and "params" in params:
        wrt = "params"  # Flax variables: the other collections are statistics and caches
    chosen = (True,) * len(leaves) if wrt is None else select("wrt leaf", params, wrt)
    for (path, leaf), use in zip(leaves, chosen, strict=True):
        what = f"params leaf {path_name(path)!r}"
        if use or not _checks.is_key(leaf):
            leaf = _checks.as_array(what, leaf)
            _checks.finite(what, leaf)
        if use and not is_floating(leaf):
            raise TypeError(
                f"{what} has dtype {leaf.dtype}; expected real floating numbers to differentiate by: convert it first, "
                "or leave it out of wrt"
            )
    return chosen


def chosen_leaves(params: Params, chosen: tuple[bool, ...]) -> list[Leaf]:
    """Return the leaves to differentiate."""
    return [leaf for leaf, use in zip(jax.tree.leaves(params), chosen, strict=True) if use]


def dtype_of(leaf: Leaf) -> Any:  # the dtype of keys is none of NumPy's
    """Return the dtype of an array, a key or a number."""
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def is_floating(leaf: Leaf) -> bool:
    """Return whether a leaf holds real floating numbers."""
    return bool(jnp.issubdtype(dtype_of(leaf), jnp.floating))


def data(x: object) -> HostArray:
    """Return x as an array of real, finite numbers with at least one sample; integers stay as they are."""
    values = _checks.as_array("x", x)
    if jnp.issubdtype(values.dtype, jnp.complexfloating):
        raise TypeError(
            f"x has dtype {values.dtype}; expected real numbers: pass real and imaginary parts side by side"
        )
    _checks.finite("x", values)
    if values.ndim == 0 or values.shape[0] == 0:
        raise ValueError(
            f"x has shape {values.shape}: there is no sample; expected n ≥ 1 along the first axis"
        )
    return values


def outputs_of(apply_fn: ApplyFn, params: Params, x: HostArray) -> int:
    """Return k, the outputs a sample."""
    y = _shape_of(apply_fn, params, x)
    shape = getattr(y, "shape", None)
    if shape is None or len(shape) not in (1, 2) or shape[0] != x.shape[0]:
        found = f"shape {shape}" if shape is not None else f"a {type(y).__name__}"
        raise ValueError(
            f"apply_fn returns {found} for {x.shape[0]} samples; expected an array of shape (n,) or (n, k): "
            "flatten other axes, and return the predictions only"
        )
    if not jnp.issubdtype(y.dtype, jnp.floating):
        advice = (
            "real and imaginary parts as two outputs"
            if y.dtype.kind == "c"
            else "the logits, not the classes"
        )
        raise TypeError(
            f"apply_fn returns predictions of dtype {y.dtype}; expected real floating numbers: return {advice}"
        )
    outputs = shape[1] if len(shape) == 2 else 1
    alone = jax.eval_shape(apply_fn, params, x[:1])
    if alone.size != outputs:
        raise ValueError(
            f"apply_fn couples samples: it returns shape {shape} for {shape[0]} samples and {alone.shape} for one; "
            "expected a row a sample for any number of samples"
        )
    return outputs


def _shape_of(apply_fn: ApplyFn, params: Params, x: HostArray) -> Params:
    try:
        return jax.eval_shape(apply_fn, params, x)
    except (TypeError, ValueError) as error:
        if is_floating(x):
            raise
        raise TypeError(
            f"x has dtype {x.dtype}, and apply_fn does not take it: expected real floating numbers, or integers where "
            f"apply_fn takes them: convert it first ({error})"
        ) from error
