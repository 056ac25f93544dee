"""What ``autodiff`` takes: which leaves to differentiate, data that are arrays, a function of one row a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax._typing import ApplyFn, Array, Float, HostArray, Leaf, Params
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


def data(x: object) -> Any:
    """Return x as an array, or a tree of them, of finite real numbers, samples along the first axis.

    Integers stay as they are. Lists are tables of numbers; dictionaries, tuples and registered nodes are trees.
    """
    if x is None or isinstance(x, list) or jax.tree_util.all_leaves([x]):
        return _array("x", x)
    named = jax.tree_util.tree_leaves_with_path(x)
    if not named:
        raise ValueError(
            f"x is a {type(x).__name__} without arrays; expected some, samples along the first axis"
        )
    leaves = [_array(f"the leaf {path_name(path)!r} of x", leaf) for path, leaf in named]
    if len(counts := {leaf.shape[0] for leaf in leaves}) > 1:
        shapes = ", ".join(
            f"{path_name(path)} {leaf.shape}" for (path, _), leaf in zip(named, leaves, strict=True)
        )
        raise ValueError(f"the leaves of x have {sorted(counts)} samples; expected as many in all: {shapes}")
    return jax.tree.unflatten(jax.tree.structure(x), leaves)


def _array(what: str, x: object) -> HostArray:
    values = _checks.as_array(what, x)
    if jnp.issubdtype(values.dtype, jnp.complexfloating):
        raise TypeError(
            f"{what} has dtype {values.dtype}; expected real numbers: pass real and imaginary parts side by side"
        )
    _checks.finite(what, values)
    if values.ndim == 0 or values.shape[0] == 0:
        raise ValueError(
            f"{what} has shape {values.shape}: there is no sample; expected n ≥ 1 along the first axis"
        )
    return values


def samples(x: Any) -> int:
    """Return n, the samples in every leaf."""
    return int(jax.tree.leaves(x)[0].shape[0])


def part(x: Any, start: Any, count: int) -> Any:
    """Return some samples in a row."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, count), x)


def alone(sample: Any) -> Any:
    """Return one sample as a batch."""
    return jax.tree.map(lambda leaf: leaf[None], sample)


def flattened(y: Any, samples: int) -> Float[Array, "n k"]:
    """Return predictions as a row a sample: the leaves in the order of ``jax.tree.leaves``, each in C order."""
    return jnp.concatenate([jnp.reshape(leaf, (samples, -1)) for leaf in jax.tree.leaves(y)], axis=1)


def outputs_of(apply_fn: ApplyFn, params: Params, x: Any) -> int:
    """Return k, the outputs a sample."""
    count = samples(x)
    outputs = _size(_shape_of(apply_fn, params, x), count)
    alone = jax.eval_shape(apply_fn, params, jax.tree.map(lambda leaf: leaf[:1], x))
    if sum(leaf.size for leaf in jax.tree.leaves(alone)) != outputs:
        shapes = [leaf.shape for leaf in jax.tree.leaves(alone)]
        raise ValueError(
            f"apply_fn couples samples: it returns {outputs} numbers for each of {count} samples and shape "
            f"{', '.join(map(str, shapes))} for one; expected a row a sample for any number of samples"
        )
    return outputs


def _size(y: Any, samples: int) -> int:
    """Return the numbers a sample in predictions that are real floating numbers, a row a sample."""
    leaves = jax.tree_util.tree_leaves_with_path(y)
    if not leaves:
        raise ValueError(
            f"apply_fn returns {y!r}; expected an array of shape (n,), (n, k), …, or a tree of them"
        )
    for path, leaf in leaves:
        name = f" at {path_name(path)!r}" if path else ""
        if not leaf.shape or leaf.shape[0] != samples:
            raise ValueError(
                f"apply_fn returns shape {leaf.shape}{name} for {samples} samples; expected an array of shape (n,), "
                "(n, k), …, or a tree of them: samples along the first axis, and predictions only"
            )
        if not is_floating(leaf):
            advice = (
                "real and imaginary parts as two outputs"
                if leaf.dtype.kind == "c"
                else "the logits, not the classes"
            )
            raise TypeError(
                f"apply_fn returns predictions of dtype {leaf.dtype}{name}; expected real floating numbers: return "
                f"{advice}"
            )
    return sum(leaf.size for _, leaf in leaves) // samples


def _shape_of(apply_fn: ApplyFn, params: Params, x: Any) -> Any:
    try:
        return jax.eval_shape(apply_fn, params, x)
    except (TypeError, ValueError) as error:
        whole = [leaf for leaf in jax.tree.leaves(x) if not is_floating(leaf)]
        if not whole:
            raise
        raise TypeError(
            f"x has dtype {whole[0].dtype}, and apply_fn does not take it: expected real floating numbers, or integers "
            f"where apply_fn takes them: convert it first ({error})"
        ) from error
