"""What users hand to training, as JAX can hold it, or one sentence that says what it is and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, SingleDeviceSharding

from narrow_jax import _checks
from narrow_jax._paths import path_name
from narrow_jax._typing import HostArray, Params

Transformation = Any
"""An ``optax.GradientTransformation``."""
RandomKey = Any
"""A key of ``jax.random``."""
Count = Any
"""An integer, of Python, NumPy or JAX."""


def pair(what: str, data: Any) -> tuple[Any, Any]:
    """Return x and y of ``(x, y)``."""
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    fields = "(data.x, data.y)" if hasattr(data, "x") and hasattr(data, "y") else "(x, y)"
    found = f"{type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else type(data).__name__
    raise TypeError(f"{what} is a {found}; expected a pair of arrays: pass {fields}")


def samples(what: str, value: Any) -> HostArray:
    """Return samples as an array; tables and lists of numbers are converted."""
    if isinstance(value, tuple):
        _checks.array(what, value)
    array = narrowed(what, _checks.as_array(what, value))
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(
            f"{what} has dtype {array.dtype}; expected real numbers: pass np.concatenate([x.real, x.imag], axis=-1) "
            "and put them together in apply_fn"
        )
    return array


def targets(what: str, value: Any) -> HostArray:
    """Return targets as an array in the dtype that JAX gives it."""
    return narrowed(what, as_targets(what, value))


def as_targets(what: str, value: Any) -> HostArray:
    """Return targets as an array; tables and lists of numbers are converted."""
    if isinstance(value, tuple | Mapping):
        raise TypeError(
            f"{what} is a {type(value).__name__} of {len(value)}; expected one array: join labels and weights as "
            "columns, np.stack([labels, weights], axis=1), and take them apart in a loss(outputs, y) of your own"
        )
    try:
        return _checks.as_array(what, value)
    except TypeError as error:
        words = np.asarray(value)
        if words.dtype.kind not in "OUST" or not all(isinstance(word, str) for word in words.ravel()):
            raise
        raise TypeError(
            f"{what} holds words such as {str(words.ravel()[0])!r}; expected numbers: pass "
            f"np.unique({what.split()[-1]}, return_inverse=True)[1] with loss='cross_entropy'"
        ) from error


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
    leaf = narrowed(name, _checks.array(name, leaf))
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        raise TypeError(
            f"{name} has dtype {leaf.dtype}, which has no gradient; expected floating numbers: keep counts and tables "
            "in model_state or in apply_fn"
        )
    return leaf


def transformation(tx: Any) -> Any:
    """Return an optax transformation."""
    if isinstance(tx, optax.MultiSteps):
        return optax.GradientTransformationExtraArgs(
            tx.init, tx.update
        )  # its own method leaves the arguments out
    if hasattr(tx, "init") and hasattr(tx, "update"):
        return tx
    if name := getattr(tx, "__name__", ""):
        raise TypeError(
            f"tx is {name} itself; expected a gradient transformation: call it, such as {name}(1e-2)"
        )
    raise TypeError(
        f"tx is a {type(tx).__name__}; expected a gradient transformation, such as optax.adam(1e-2)"
    )


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


def random_key(key: Any) -> Any:
    """Return a typed random key, None for None; the words of a key of the old style are one."""
    if key is None or jnp.issubdtype(_checks.key("key", key).dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(jnp.asarray(key))


def narrowed(what: str, array: HostArray) -> HostArray:
    """Return the array in the dtype that JAX gives it: without x64 float32 for float64.

    Raises:
        ValueError: entries that this dtype cannot hold.
    """
    dtype = jax.eval_shape(lambda a: a, array).dtype
    if dtype == array.dtype:
        return array
    values = np.asarray(array)
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    exact = not jnp.issubdtype(dtype, jnp.inexact)
    lost = narrow != values if exact else np.isfinite(values) & ~np.isfinite(narrow)
    if lost.any():
        first = tuple(int(i) for i in np.argwhere(lost)[0])
        raise ValueError(
            f"{what} is {array.dtype} and {int(lost.sum())} of its entries do not fit into {dtype}, which JAX makes of "
            f"it while x64 is off; the first is {values[first]} at index {first}: shift or scale them, or call "
            "jax.config.update('jax_enable_x64', True) before the first array is made"
        )
    return narrow


def devices_of(array: Any) -> list[jax.Device] | None:
    """Return the devices among which an array is shared, None for one device."""
    devices = array.devices() if isinstance(array, jax.Array) else ()
    return sorted(devices, key=lambda device: device.id) if len(devices) > 1 else None


def on_one_device(tree: Any) -> Any:
    """Return the tree with what lies on a mesh on its first device: a mesh's axes would be part of every type."""

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or not isinstance(leaf.sharding, NamedSharding):
            return leaf
        return jax.device_put(leaf, SingleDeviceSharding(leaf.sharding.mesh.devices.flat[0]))

    return jax.tree.map(place, tree)


def row(rows: Any, number: int) -> np.ndarray:
    """Return one sample of a source of samples."""
    sample = rows[number]
    if isinstance(sample, tuple | Mapping):
        first = next(iter(sample)) if isinstance(sample, Mapping) else 0
        raise TypeError(
            f"sample {number} is a {type(sample).__name__} of {len(sample)}; expected the array of one sample: pass "
            f"x=grain.MapDataset.source(rows).map(lambda row: row[{first!r}]), and the targets of all as the array y"
        )
    return np.asarray(_checks.as_array(f"sample {number}", sample))
