"""The leaves of a saved state: their names, their bytes on the host, and back to where they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax.checkpoints import manifest

_REGISTERED = 2  # what numpy.dtype.isbuiltin says of bfloat16 and its kin


class Leaf(NamedTuple):
    """What the manifest knows of an array."""

    name: str
    shape: list[int]
    dtype: str
    sha256: str


def named(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name of each leaf, and the leaf as something with a shape and a dtype."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        yield name, leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def on_host(named: Iterable[tuple[str, Any]]) -> tuple[list[np.ndarray], list[Leaf]]:
    """Return the arrays, for a random key the numbers behind it, and what the manifest says of them."""
    arrays, leaves = [], []
    for name, leaf in named:
        array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        arrays.append(array)
        leaves.append(Leaf(name, list(leaf.shape), str(leaf.dtype), manifest.digest(array)))
    return arrays, leaves


def check_numbers(named: Iterable[tuple[str, Any]]) -> None:
    """Require arrays that every writer knows.

    Raises:
        TypeError: an array of something else than numbers, booleans or dates.
    """
    for name, leaf in named:
        dtype = np.dtype(bool) if _is_key(leaf) else np.dtype(leaf.dtype)
        known = dtype.kind in "biufcmM" and dtype.char not in "gG"  # no long doubles
        if not (known or dtype.isbuiltin == _REGISTERED):
            raise TypeError(
                f"{name!r} is an array of dtype {dtype}; expected numbers of 64 bits at most: leave it out of the "
                "state, words belong in the config"
            )


def check_names(names: list[str]) -> None:
    """Require one name a leaf.

    Raises:
        ValueError: a name that two leaves have.
    """
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise ValueError(
            f"two leaves of the state have the name {twice[0]!r}; expected a name of its own for each: leave slashes "
            "out of the names of dictionaries"
        )


def as_bits(array: np.ndarray) -> np.ndarray:
    """Return the array in a dtype that every writer knows: as integers where dtype or byte order are not the usual."""
    usual = array.dtype.isbuiltin == 1 and array.dtype.isnative  # bfloat16 and its kin are registered: 2
    return array if usual else array.view(f"u{array.dtype.itemsize}")


def from_bits(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return what ``as_bits`` was given; for a random key the numbers behind it."""
    return array if dtype.startswith("key<") else array.view(dtype)


def placed(array: np.ndarray, like: Any) -> Any:
    """Return the array as ``like`` is: a random key, a JAX array on the same devices, or a NumPy array."""
    if not isinstance(like, jax.Array):
        return array
    if _is_key(like):
        key = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
        return jax.device_put(key, like.sharding)
    # a weak type decides what dtypes the next step computes in, and device_put has none
    return like.at[...].set(array) if like.weak_type else jax.device_put(array, like.sharding)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
