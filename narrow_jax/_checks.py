"""One helper per kind of bad input. Every message says what was received, what was expected, what to do.

Values inside a traced function (``jit``, ``vmap``, ``grad``) cannot be looked at: there the checks of
values pass, and only shapes, dtypes and structure are checked.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def concrete(value: Any) -> np.ndarray | None:
    """Return the value as a NumPy array, or None while it is traced."""
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        return None


def choice(what: str, value: str, options: Iterable[str]) -> str:
    """Return ``value`` if it is one of the options; otherwise name the close matches."""
    options = list(options)
    if isinstance(value, str) and value in options:
        return value
    given = repr(value) if isinstance(value, str | int | float | None) else f"of type {type(value).__name__}"
    known = {option.lower(): option for option in reversed(options)}
    word = value.lower() if isinstance(value, str) else ""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(known[match]) for match in close)}? " if close else ""
    raise ValueError(f"unknown {what} {given}: {hint}Expected one of {', '.join(options)}.")


def _scalar(what: str, value: Any) -> float | None:
    number = concrete(value)
    if number is None:
        return None
    if number.dtype.kind not in "iuf" and not jnp.issubdtype(number.dtype, jnp.floating):
        raise TypeError(f"{what} is {value!r}; expected a number")
    if number.ndim:
        raise ValueError(f"{what} has shape {number.shape}; expected one number")
    return float(number)


def radius(value: Any) -> None:
    """Require a ball's radius: ≥ 0, infinity allowed (no ball)."""
    number = _scalar("radius", value)
    if number is not None and not number >= 0:
        raise ValueError(
            f"radius is {number}; expected a number ≥ 0 (0 freezes the weights, infinity means no ball)"
        )


def zeta(value: Any) -> None:
    """Require the cone's lower bound: > 0 and finite."""
    number = _scalar("zeta", value)
    if number is not None and not 0 < number < math.inf:
        raise ValueError(f"zeta is {number}; expected a finite number > 0, the paper uses 1e-3")


def kappa(value: Any) -> None:
    """Require the cone's ratio: ≥ 1, infinity allowed (no upper bound)."""
    number = _scalar("kappa", value)
    if number is not None and not number >= 1:
        raise ValueError(
            f"kappa is {number}; expected max|v|/min|v| ≥ 1 (1: all entries equal, infinity: no bound)"
        )


def positive(what: str, value: Any) -> None:
    """Require a finite number > 0, such as a learning rate."""
    number = _scalar(what, value)
    if number is not None and not 0 < number < math.inf:
        raise ValueError(f"{what} is {number}; expected a finite number > 0")


def count(what: str, value: Any, minimum: int = 1) -> None:
    """Require an integer ≥ ``minimum``, such as a number of steps."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"{what} is {value!r}; expected an integer ≥ {minimum}")


def batch_size(value: Any, samples: int) -> None:
    """Require a number of samples a batch that the data have."""
    count("batch_size", value)
    if value > samples:
        raise ValueError(f"batch_size is {value} and there are {samples} samples; use at most {samples}")


def even_width(width: Any) -> None:
    """Require the width of a pairwise net: an even integer ≥ 2."""
    count("width", width, minimum=2)
    if width % 2:
        raise ValueError(
            f"width is {width}; expected an even number, since hidden units come in pairs: "
            f"use {width - 1 or 2} or {width + 1}"
        )


def floating_dtype(dtype: Any) -> jnp.dtype:
    """Return the dtype if it is floating and available, float64 only while x64 is on."""
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype is {dtype}; expected a floating dtype such as float32")
    if dtype == jnp.float64 and jnp.zeros((), dtype=float).dtype != jnp.float64:
        raise ValueError(
            "float64 was asked for while x64 is off: call jax.config.update('jax_enable_x64', True) "
            "before the first array is made, set JAX_ENABLE_X64=1, or ask for float32"
        )
    return dtype


def finite(what: str, array: Any) -> None:
    """Require finite entries: the message counts the others and names the first."""
    values = concrete(array)
    if values is None or not jnp.issubdtype(values.dtype, jnp.inexact):
        return
    bad = ~np.isfinite(values)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{what} has {int(bad.sum())} non-finite entries of {values.size}, the first is "
            f"{values[first]} at index {first}: remove or impute them first"
        )


def fits(what: str, array: Any) -> None:
    """Require numbers that stay what they are in the dtype that JAX gives them: int32 and float32 while x64 is off.

    Floats may be rounded; integers that would wrap and floats that would become infinite are refused.
    """
    values = concrete(array)
    if values is None or not jnp.issubdtype(values.dtype, jnp.number):
        return
    dtype = jax.dtypes.canonicalize_dtype(values.dtype)
    if dtype == values.dtype:
        return
    if jnp.issubdtype(dtype, jnp.integer):
        bad = (values < jnp.iinfo(dtype).min) | (values > jnp.iinfo(dtype).max)
    else:
        with np.errstate(over="ignore"):
            bad = np.isfinite(values) & ~np.isfinite(values.astype(dtype))
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{what} is {values.dtype} and {int(bad.sum())} of its entries do not fit into {dtype}, which JAX makes "
            f"of it while x64 is off; the first is {values[first]} at index {first}: shift or scale them, or call "
            "jax.config.update('jax_enable_x64', True) before the first array is made"
        )


def samples(x: Any, y: Any, what: str = "") -> None:
    """Require data that fit together: at least one sample, and as many rows in y as in x."""
    if jnp.ndim(x) < 2:
        raise ValueError(f"{what}x has shape {jnp.shape(x)}; expected (n, d): one row a sample")
    if jnp.shape(x)[0] == 0:
        raise ValueError(f"{what}x has shape {jnp.shape(x)}: there is no sample; expected n ≥ 1")
    if jnp.ndim(y) == 0 or jnp.shape(x)[0] != jnp.shape(y)[0]:
        raise ValueError(
            f"{what}x has {jnp.shape(x)[0]} samples and y has shape {jnp.shape(y)}; expected one row of y a sample"
        )


def same_dtype(what: str, array: Any, params: Any) -> None:
    """Require floating data in a dtype that the params have: nothing is cast silently."""
    have = {leaf.dtype for leaf in jax.tree.leaves(params)}
    if jnp.issubdtype(array.dtype, jnp.floating) and have and array.dtype not in have:
        names = " and ".join(sorted(map(str, have)))
        raise TypeError(
            f"{what} is {array.dtype} and the params are {names}; nothing is cast silently: "
            f"pass {what}.astype({names!r}) or draw the params with dtype={str(array.dtype)!r}"
        )


def real_matrix(what: str, array: Any) -> Any:
    """Return the array if it is a matrix of real floating numbers; NumPy and JAX arrays stay as they are."""
    array = array if hasattr(array, "dtype") else np.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{what} has dtype {array.dtype}; expected real floating numbers: convert it with .astype(float) first"
        )
    if array.ndim != 2:
        raise ValueError(f"{what} has shape {array.shape}; expected a matrix (two axes)")
    return array


def real_data(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return x (n, d) and y (n, k), a vector as one column, in float64: samples that fit together, real and finite."""
    samples(x, y)
    x, y = np.asarray(x), np.asarray(y)
    y = y[:, None] if y.ndim == 1 else y
    for name, array in (("x", x), ("y", y)):
        real_matrix(name, array)
        finite(name, array)
    return x.astype(float), y.astype(float)
