"""What users hand over as data, as JAX can hold it, or one sentence that says what it is and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, labels
from narrow_jax._typing import HostArray, Tree


def pair(what: str, data: Any) -> tuple[Any, Any]:
    """Return x and y of ``(x, y)``."""
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    fields = "(data.x, data.y)" if hasattr(data, "x") and hasattr(data, "y") else "(x, y)"
    found = f"{type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else type(data).__name__
    raise TypeError(f"{what} is a {found}; expected a pair of arrays: pass {fields}")


def samples(what: str, value: Any) -> HostArray:
    """Return samples as an array in the dtype that JAX gives it; tables and lists of numbers are converted."""
    return narrowed(what, stored(what, value))


def stored(what: str, value: Any) -> HostArray:
    """Return samples as an array in their own dtype."""
    if isinstance(value, tuple):
        _checks.array(what, value)
    array = _checks.as_array(what, value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(
            f"{what} has dtype {array.dtype}; expected real numbers: pass np.concatenate([x.real, x.imag], axis=-1) "
            "and put them together in apply_fn"
        )
    return array


def targets(what: str, value: Any) -> HostArray:
    """Return targets as an array in the dtype that JAX gives it."""
    return narrowed(what, as_targets(what, value))


def each_target(take: Callable[[str, Any], HostArray], what: str, y: Any) -> Tree:
    """Return a tree of targets with ``take(name, leaf)`` at each leaf; dictionaries and tuples are trees."""
    if not (isinstance(y, Mapping | tuple) and jax.tree.leaves(y)):
        return take(what, y)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: take(f"{what}[{labels.path_name(path)}]", leaf), y
    )


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
