"""One helper per kind of bad input. Every message says what was received, what was expected, what to do.

Values inside a traced function (``jit``, ``vmap``, ``grad``) cannot be looked at: there the checks of
values pass, and only shapes, dtypes and structure are checked.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Abstract, HostArray, Params

T = TypeVar("T")


def concrete(value: object) -> np.ndarray | None:
    """Return the value as a NumPy array, or None while it is traced."""
    try:
        return np.asarray(jax.random.key_data(value) if is_key(value) else value)
    except jax.errors.TracerArrayConversionError:
        return None


def _from(value: object, *packages: str) -> bool:
    """Return whether a class of one of the packages is among the value's: nothing is imported to tell."""
    names = [cls.__module__ + "." for cls in type(value).__mro__]
    return any(name.startswith(package + ".") for name in names for package in packages)


def _is_numeric(value: Any) -> bool:
    """Return whether the value has a shape and a dtype of numbers or booleans."""
    try:
        dtype = jnp.dtype(value.dtype)
    except (AttributeError, TypeError):
        return False
    return hasattr(value, "shape") and (jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_))


def is_key(value: object) -> TypeGuard[jax.Array]:
    """Return whether the value is an array of typed random keys."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def is_nnx(value: object) -> bool:
    """Return whether the value is a module of Flax NNX."""
    return _from(value, "flax.nnx.module")


# What an object is, and what to do with it: the first row that fits. No attribute is read before.
_OBJECTS: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (lambda o: o is None, "None", "pass one"),
    (
        is_nnx,
        "an nnx.Module",
        "split it, graphdef, state = nnx.split(model), and pass the state as params with "
        "apply_fn = lambda state, x: nnx.merge(graphdef, state)(x)",
    ),
    (
        lambda o: _from(o, "flax.linen.module"),
        "a Flax module",
        "pass module.apply as the function and variables = module.init(key, x) as the params",
    ),
    (lambda o: _from(o, "narrow_jax.data"), "a {type} of nj.data", "pass its arrays, such as .x and .y"),
    (
        lambda o: isinstance(o, tuple) and hasattr(o, "init") and hasattr(o, "update"),
        "a gradient transformation",
        "it goes where tx is asked for",
    ),
    (is_key, "a random key", "draw from it first, such as jax.random.normal(key, shape)"),
    (lambda o: isinstance(o, str | bytes), "a {type} ({value!r})", "encode text as numbers first"),
    (
        lambda o: isinstance(o, bool | int | float | complex) and not _is_numeric(o),
        "the number {value!r}",
        "pass np.asarray({value!r}, np.float32)",
    ),
    (lambda o: isinstance(o, list), "a list", "pass np.asarray({what}, np.float32)"),
    (
        lambda o: isinstance(o, tuple | Mapping),
        "a {type} of {length}",
        "several inputs are not supported; join them along the last axis, such as np.concatenate(…, axis=-1), "
        "and take them apart in apply_fn",
    ),
    (
        lambda o: _from(o, "pandas", "polars"),
        "a {type} of a data frame library",
        "pass {what}.to_numpy(dtype=np.float32), categories and strings encoded as numbers and missing values "
        "filled in first",
    ),
    (lambda o: _from(o, "scipy.sparse"), "a sparse {type}", "pass {what}.toarray()"),
    (lambda o: _from(o, "jax.experimental.sparse"), "a sparse {type}", "pass {what}.todense()"),
    (
        lambda o: isinstance(o, np.ma.MaskedArray) and np.ma.is_masked(o),
        "an array with masked entries",
        "fill them in or remove them first; a mask would be ignored",
    ),
    (lambda o: _is_numeric(o) and not isinstance(o, type), "", ""),
    (
        lambda o: isinstance(o, np.ndarray | np.generic),
        "an array of dtype {dtype}",
        "encode categories, text and dates as numbers first; objects that are numbers become them by "
        "{what}.astype(np.float32)",
    ),
    (callable, "the callable {name}", "pass what it returns"),
    (lambda o: hasattr(o, "__array__"), "a {type}", "pass np.asarray({what})"),
    (lambda o: True, "a {type}", "pass a NumPy or JAX array"),
)


def _described(what: str, value: object) -> tuple[str, str]:
    """Return what the value is and what to do, or nothing if it is an array of numbers or booleans."""
    noun, advice = next((noun, advice) for fits, noun, advice in _OBJECTS if fits(value))
    words = {
        "what": what if what.isidentifier() else "it",
        "value": value,
        "type": type(value).__name__,
        "name": getattr(value, "__name__", type(value).__name__),
        "length": len(value) if isinstance(value, tuple | Mapping) else "",
        "dtype": getattr(value, "dtype", None),
    }
    return noun.format(**words), advice.format(**words)


def _misfit(what: str, value: object) -> str:
    noun, advice = _described(what, value)
    return f"{what} is {noun}; expected an array of numbers: {advice}" if noun else ""


def array(what: str, value: T) -> T:
    """Return the value if it is an array of numbers or booleans, traced or not; otherwise say what it is."""
    misfit = _misfit(what, value)
    if misfit:
        raise TypeError(misfit)
    return value


def as_array(what: str, value: object) -> Any:
    """Return arrays as they are, lists and tables of numbers as NumPy arrays; say what anything else is."""
    table = _from(value, "pandas", "polars")
    if (_is_numeric(value) and not table) or isinstance(value, str | bytes | Mapping) or value is None:
        return array(what, value)
    try:
        converted = np.asarray(value)
    except (TypeError, ValueError) as error:  # rows of unequal length, objects that refuse
        raise TypeError(f"{_misfit(what, value)} ({error})") from None
    return converted if _is_numeric(converted) else array(what, value)


def function(
    what: str,
    value: T,
    form: str = "(params, x) ↦ predictions",
    such_as: str = "nj.models.pairwise_apply or module.apply",
) -> T:
    """Return the value if it is a function of that form; otherwise say what it is."""
    module = _from(value, "flax.nnx.module", "flax.linen.module")
    if callable(value) and not module:
        return value
    noun, advice = _described(what, value)
    advice = advice if module else f"pass one, such as {such_as}"
    raise TypeError(f"{what} is {noun or 'an array'}; expected a function {form}: {advice}")


def key(what: str, value: object) -> HostArray:
    """Return the value if it is one random key: a typed one, or the words of a key of the old style."""
    if is_key(value) and value.ndim == 0:
        return value
    if isinstance(value, jax.Array | np.ndarray) and value.ndim == 1 and value.dtype == np.uint32:
        return value
    if is_key(value):
        raise TypeError(
            f"{what} has shape {value.shape}; expected one random key: pass {what}[0], or jax.vmap over them"
        )
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        raise TypeError(f"{what} is {value}; expected a random key: pass jax.random.key({value})")
    raise TypeError(
        f"{what} is {type(value).__name__} {value!r:.60}; expected a random key: pass jax.random.key(seed)"
    )


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


def _number(what: str, value: object, holds: Callable[[float], bool], expected: str) -> None:
    """Require one number of which a condition holds."""
    number = concrete(value)
    if number is None:
        return
    if number.dtype.kind not in "iuf" and not jnp.issubdtype(number.dtype, jnp.floating):
        raise TypeError(f"{what} is {value!r}; expected a number")
    if number.ndim:
        raise ValueError(f"{what} has shape {number.shape}; expected one number")
    if not holds(float(number)):
        raise ValueError(f"{what} is {float(number)}; expected {expected}")


def radius(value: object) -> None:
    """Require a ball's radius: ≥ 0, infinity allowed (no ball)."""
    expected = "a number ≥ 0 (0 freezes the weights, infinity means no ball)"
    _number("radius", value, lambda radius: radius >= 0, expected)


def zeta(value: object) -> None:
    """Require the cone's lower bound: > 0 and finite."""
    expected = "a finite number > 0, the paper uses 1e-3"
    _number("zeta", value, lambda zeta: 0 < zeta < math.inf, expected)


def kappa(value: object) -> None:
    """Require the cone's ratio: ≥ 1, infinity allowed (no upper bound)."""
    expected = "max|v|/min|v| ≥ 1 (1: all entries equal, infinity: no bound)"
    _number("kappa", value, lambda kappa: kappa >= 1, expected)


def positive(what: str, value: object) -> None:
    """Require a finite number > 0, such as a learning rate."""
    _number(what, value, lambda number: 0 < number < math.inf, "a finite number > 0")


def count(what: str, value: Any, minimum: int = 1, maximum: float = math.inf) -> int:
    """Return an integer ≥ ``minimum``, such as a number of steps, as Python's own: NumPy's too are none for JSON."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if concrete(value) is None:
        raise TypeError(
            f"{what} is traced; expected an integer ≥ {minimum} that is known before tracing: shapes and counts cannot "
            "be an axis of nj.sweep or an argument of jit; loop over them"
        )
    if number is None or isinstance(value, bool) or not minimum <= number <= maximum:
        most = "" if maximum == math.inf else f" and ≤ {maximum}"
        raise ValueError(f"{what} is {value!r}; expected an integer ≥ {minimum}{most}")
    return number


def batch_size(value: Any, samples: int) -> int:
    """Return a number of samples a batch that the data have."""
    size = count("batch_size", value)
    if size > samples:
        raise ValueError(f"batch_size is {size} and there are {samples} samples; use at most {samples}")
    return size


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
    if dtype is None:
        raise TypeError("dtype is None; expected a floating dtype such as float32")
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype is {dtype}; expected a floating dtype such as float32")
    if dtype == jnp.float64 and jnp.zeros((), dtype=float).dtype != jnp.float64:
        raise ValueError(
            "float64 was asked for while x64 is off: call jax.config.update('jax_enable_x64', True) "
            "before the first array is made, set JAX_ENABLE_X64=1, or ask for float32"
        )
    return dtype


def finite(what: str, array: object) -> None:
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


def same_dtype(what: str, array: Abstract, params: Params) -> None:
    """Require floating data in a dtype that the params have: nothing is cast silently."""
    have = {leaf.dtype for leaf in jax.tree.leaves(params)}
    if jnp.issubdtype(array.dtype, jnp.floating) and have and array.dtype not in have:
        names = " and ".join(sorted(map(str, have)))
        raise TypeError(
            f"{what} is {array.dtype} and the params are {names}; nothing is cast silently: "
            f"pass {what}.astype({names!r}) or draw the params with dtype={str(array.dtype)!r}"
        )


def real_matrix(what: str, array: object) -> Any:
    """Return the array if it is a matrix of real floating numbers; NumPy and JAX arrays stay as they are."""
    matrix = as_array(what, array)
    if not jnp.issubdtype(matrix.dtype, jnp.floating):
        raise TypeError(
            f"{what} has dtype {matrix.dtype}; expected real floating numbers: convert it with .astype(float) first"
        )
    if matrix.ndim != 2:
        raise ValueError(f"{what} has shape {matrix.shape}; expected a matrix (two axes)")
    return matrix


def real_data(x: object, y: object) -> tuple[np.ndarray, np.ndarray]:
    """Return x (n, d) and y (n, k), a vector as one column, in float64: samples that fit together, real and finite."""
    x, y = as_array("x", x), as_array("y", y)
    samples(x, y)
    x, y = np.asarray(x), np.asarray(y)
    y = y[:, None] if y.ndim == 1 else y
    for name, array in (("x", x), ("y", y)):
        real_matrix(name, array)
        finite(name, array)
    return x.astype(float), y.astype(float)


class MemoryBudgetError(MemoryError):
    """The plan of a computation exceeds the stated budget; the message names the bytes and what would fit."""


def memory(budget: int, needs: Mapping[str, int], option: str, what: str) -> None:
    """Raise unless ``needs[option]`` bytes are within the budget."""
    memory_budget(budget)
    if needs[option] <= budget:
        return
    fitting = [f"{name!r} ({size:,} bytes)" for name, size in needs.items() if size <= budget]
    advice = (
        f"would fit: {', '.join(fitting)}" if fitting else f"nothing fits below {min(needs.values()):,} bytes"
    )
    raise MemoryBudgetError(
        f"{what} with {option!r} needs {needs[option]:,} bytes and memory_budget is {budget:,}: {advice}"
    )


def memory_budget(budget: object) -> None:
    """Require None or a positive whole number of bytes."""
    if budget is None:
        return
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer) or budget <= 0:
        raise ValueError(
            f"memory_budget is {budget!r}; expected a positive number of bytes, an int, or None for no limit"
        )


def weights(params: Any, what: str = "params") -> tuple[Any, Any]:
    """Return the leaves w and v of a one-hidden-layer net, NumPy or JAX arrays as they are.

    Args:
        params: {"w": (d, m), "v": (m/2, k) or (m, k)}; that they fit together is not checked.
        what: the name of ``params`` in messages.

    Raises:
        ValueError: no such leaf, not a matrix, non-finite values.
        TypeError: a leaf that is not real floating numbers.
    """
    one_hidden(params, what)
    w, v = (real_matrix(name, params[name]) for name in ("w", "v"))
    finite("w", w)
    finite("v", v)
    return w, v


def one_hidden(params: Any, what: str = "params") -> None:
    """Require a mapping with the leaves of a one-hidden-layer net; runs may keep its start beside, as "center"."""
    if not isinstance(params, Mapping) or {"w", "v"} != set(params) - {"center"}:
        found = sorted(params) if isinstance(params, Mapping) else type(params).__name__
        raise ValueError(
            f"{what} is {found}; expected a dict with the leaves 'w' (d, m) and 'v', without biases"
        )
