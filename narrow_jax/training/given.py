"""What users hand over to be trained, as JAX can hold it, or one sentence that says what it is and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, SingleDeviceSharding

from narrow_jax import _checks
from narrow_jax._typing import HostArray, Params
from narrow_jax.data import given
from narrow_jax.labels import path_name

RandomKey = Any
"""A key of ``jax.random``."""
Count = Any
"""An integer, of Python, NumPy or JAX."""


def params_tree(params: Params) -> Params:
    """Return params, a tree of floating arrays."""
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        others = ", ".join(name for name in params if name != "params")
        raise ValueError(
            f"params are all variables of a Flax module, {others} beside the params, and all of them would be trained: "
            "pass params=variables['params'] and the rest as model_state, with nj.models.Stateful(module)"
        )
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError(
            f"params are {params!r:.60}, without any leaf; expected a tree of arrays, such as init gives"
        )
    return jax.tree_util.tree_map_with_path(_param, params)


def _param(path: tuple[Any, ...], leaf: Any) -> HostArray:
    name = f"params[{path_name(path)}]" if path else "params"
    leaf = given.narrowed(name, _checks.array(name, leaf))
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        raise TypeError(
            f"{name} has dtype {leaf.dtype}, which has no gradient; expected floating numbers: keep counts and tables "
            "in model_state or in apply_fn"
        )
    return leaf


def model(apply_fn: Any) -> Any:
    """Return a function of params and samples."""
    kind = type(apply_fn)
    if callable(apply_fn) and not kind.__module__.startswith("flax.") and not _is_module(kind):
        return apply_fn
    raise TypeError(
        f"apply_fn is a {kind.__name__}; expected a function apply_fn(params, x): pass module.apply of a Flax module "
        "with variables = module.init(key, x) as params, or nj.models.Stateful(module) with model_state"
    )


def _is_module(kind: type) -> bool:
    return any(cls.__module__.startswith(("flax.linen.", "flax.nnx.")) for cls in kind.__mro__)


def on_one_device(tree: Any) -> Any:
    """Return the tree with what lies on a mesh on its first device: a mesh's axes would be part of every type."""

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or not isinstance(leaf.sharding, NamedSharding):
            return leaf
        return jax.device_put(leaf, SingleDeviceSharding(leaf.sharding.mesh.devices.flat[0]))

    return jax.tree.map(place, tree)
