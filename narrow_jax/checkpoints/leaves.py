"""The leaves of a saved state: their names, their bytes on the host, and back to where they were."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._checks import is_key
from narrow_jax._typing import HostArray, Tree


class Leaf(NamedTuple):
    """What the manifest knows of an array."""

    name: str
    shape: list[int]
    dtype: str
    sha256: str

    @staticmethod
    def digest(array: np.ndarray) -> str:
        """Return the SHA-256 of the array's bytes."""
        return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()

    def array(self, bits: np.ndarray | None) -> np.ndarray:
        """Return what ``as_bits`` was given, empty for None; for a random key the numbers behind it."""
        if bits is None:
            return np.zeros(self.shape, self.dtype)
        return bits if self.dtype.startswith("key<") else bits.view(self.dtype)


def named(tree: Tree) -> Iterator[tuple[str, HostArray | np.generic]]:
    """Yield the name of each leaf, all of its path, and the leaf as something with a shape and a dtype."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        yield name, leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def on_host(named: Iterable[tuple[str, HostArray | np.generic]]) -> tuple[list[np.ndarray], list[Leaf]]:
    """Return the arrays, for a random key the numbers behind it, and what the manifest says of them."""
    arrays, leaves = [], []
    for name, leaf in named:
        array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        arrays.append(array)
        leaves.append(Leaf(name, list(leaf.shape), str(leaf.dtype), Leaf.digest(array)))
    return arrays, leaves


def check_numbers(named: Iterable[tuple[str, HostArray | np.generic]]) -> None:
    """Require arrays that every writer knows.

    Raises:
        TypeError: an array of something else than numbers, booleans or dates.
    """
    for name, leaf in named:
        dtype = np.dtype(bool) if is_key(leaf) else np.dtype(leaf.dtype)
        known = dtype.kind in "biufcmM" and dtype.char not in "gG"  # no long doubles
        if not (known or is_registered(dtype)):
            raise TypeError(
                f"{name!r} is an array of dtype {dtype}; expected numbers of 64 bits at most: leave it out of the "
                "state, words belong in the config"
            )


def check_names(leaves: Iterable[Leaf]) -> None:
    """Require one name a leaf.

    Raises:
        ValueError: a name that two leaves have.
    """
    times = Counter(leaf.name for leaf in leaves)
    if twice := sorted(name for name in times if times[name] > 1):
        raise ValueError(
            f"two leaves of the state have the name {twice[0]!r}; expected a name of its own for each: leave slashes "
            "out of the names of dictionaries"
        )


def is_registered(dtype: np.dtype) -> bool:
    """Return whether a dtype was registered with NumPy, as bfloat16 and its kin are: no file format knows it."""
    return dtype.isbuiltin == 2  # 1: NumPy's own


def as_bits(array: np.ndarray) -> np.ndarray:
    """Return the array in a dtype that every writer knows: as integers where dtype or byte order are not the usual."""
    usual = array.dtype.isbuiltin == 1 and array.dtype.isnative
    return array if usual else array.view(f"u{array.dtype.itemsize}")


def placed(array: np.ndarray, like: object) -> HostArray:
    """Return the array as ``like`` is: a random key, a JAX array on the same devices, or a NumPy array."""
    if not isinstance(like, jax.Array):
        return array
    if is_key(like):
        key = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
        return jax.device_put(key, like.sharding)
    # a weak type decides what dtypes the next step computes in, and device_put has none
    return like.at[...].set(array) if like.weak_type else jax.device_put(array, like.sharding)


def fingerprint(tree: Tree) -> str:
    """Return the SHA-256 of all leaves of a tree, their names, shapes and dtypes.

    Example:
        >>> fingerprint({"w": np.zeros(2)}) == fingerprint({"w": np.zeros(2)})
        True
        >>> fingerprint({"w": np.zeros(2)}) == fingerprint({"w": np.zeros(2, np.float32)})
        False
    """
    return hashlib.sha256(json.dumps(on_host(named(tree))[1]).encode()).hexdigest()


def described(array: HostArray) -> str:
    """Return shape, dtype and fingerprint of an array, for people.

    Example:
        >>> described(np.zeros((2, 3)))[:22]
        '(2, 3) float64 SHA-256'
    """
    return f"{array.shape} {array.dtype} SHA-256 {fingerprint(array)}"
