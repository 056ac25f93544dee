"""What the cases share: the table that they are entered in, random numbers, small nets and their data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import narrow_jax as nj

Case = Callable[[], Any]

CASES: dict[str, Case] = {}
"""The cases by name, in the order in which they run."""

FOLDER = "digests-"
"""How the names of the folders begin that cases write to."""


def case(name: str, x64: bool = False) -> Callable[[Case], Case]:
    """Enter a function into the table; with ``x64`` a second time, where x64 is on."""

    def enter(function: Case) -> Case:
        enter_all("", {name: function}, x64)
        return function

    return enter


def enter_all(prefix: str, table: Mapping[str, Case], x64: bool | Collection[str] = False) -> None:
    """Enter the functions of a table; all with ``x64``, or those of these names, a second time, where x64 is on.

    Raises:
        ValueError: a name that is taken.
    """
    for name, function in table.items():
        versions = {prefix + name: function}
        if x64 is True or (x64 and name in x64):
            versions[f"{prefix}{name}, x64"] = partial(in_x64, function)
        if taken := set(versions) & set(CASES):
            raise ValueError(f"the names {taken} are taken")
        CASES.update(versions)


def in_x64(function: Case) -> Any:
    """Return what the function returns where x64 is on."""
    with jax.enable_x64(True):
        return function()


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for a case; texts name it ``<folder>``."""
    with tempfile.TemporaryDirectory(prefix=FOLDER) as made:
        yield Path(made)


def working() -> np.dtype[Any]:
    """Return float64 where x64 is on, else float32."""
    return jnp.zeros(()).dtype


def numbers(seed: int, *shape: int) -> np.ndarray:
    """Return standard normal numbers in the working dtype."""
    return np.random.default_rng(seed).normal(size=shape).astype(working())


def data(n: int = 12, inputs: int = 5, outputs: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and targets, independent of each other."""
    return numbers(n, n, inputs), numbers(n + 1000, n, outputs)


def start(
    width: int = 8, inputs: int = 5, outputs: int = 1, seed: int = 0, **cone: float
) -> dict[str, jax.Array]:
    """Return a mirrored start of the pairwise net."""
    return nj.initializers.mirrored_lecun(
        jax.random.key(seed), inputs=inputs, width=width, outputs=outputs, dtype=working(), **cone
    )


def net(width: int = 6, inputs: int = 4, outputs: int = 1, pairs: bool = True) -> dict[str, np.ndarray]:
    """Return weights of a pairwise or standard net that are not mirrored."""
    return {
        "w": numbers(width, inputs, width),
        "v": numbers(width + 1, width // 2 if pairs else width, outputs),
    }


def fit(tx: Any = None, **options: Any) -> dict[str, Any]:
    """Train the small pairwise net, or what the options name instead, for a few steps; with the result its repr."""
    given: dict[str, Any] = {"apply_fn": nj.models.pairwise_apply, "steps": 12, "callbacks": []} | options
    given = {"params": start(), "data": data()} | given
    result = nj.fit(tx=optax.sgd(1e-2) if tx is None else tx, **given)
    return {"result": result, "repr": repr(result)}


def sphere(samples: int, inputs: int) -> np.ndarray:
    """Return rows of norm √d."""
    x = np.random.default_rng(samples).normal(size=(samples, inputs))
    return (x * np.sqrt(inputs) / np.linalg.norm(x, axis=1, keepdims=True)).astype(working())
