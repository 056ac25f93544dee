"""Values as strict JSON holds them: every reader can read what is written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np


def plain(value: object) -> Any:
    """Return a value as strict JSON can hold it.

    Scalars of NumPy and JAX become numbers, tuples and arrays lists, names words; what is infinite or not a number
    becomes the word ``"inf"``, ``"-inf"`` or ``"nan"``, since JSON has no such numbers.

    Raises:
        TypeError: two names of a dictionary that read the same, or a random key.

    Example:
        >>> plain({"steps": np.int64(30), "radius": float("inf"), 4: (np.float32(0.5), True)})
        {'steps': 30, 'radius': 'inf', '4': [0.5, True]}
    """
    if isinstance(value, Mapping):
        named = {str(name): plain(entry) for name, entry in value.items()}
        if len(named) < len(value):
            raise TypeError(
                f"two of the names {list(value)} read the same; expected names that differ as words"
            )
        return named
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        value = np.asarray(value).tolist()
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def dumps(value: object, indent: int | None = None) -> str:
    """Return the value as strict JSON.

    Raises:
        TypeError: JSON cannot hold it.

    Example:
        >>> dumps({"loss": np.float32("nan")})
        '{"loss": "nan"}'
    """
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def read(path: Path) -> dict[str, Any]:
    """Return the fields of a JSON file by name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no JSON, or JSON without names.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no file {path}; expected JSON: check the name and the folder"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); expected JSON: restore the file, or make it again"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} holds a {type(found).__name__}; expected fields by name: restore the file, or make it again"
        )
    return found


def lines_of(records: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Yield each record of a history as numbers by name, "step" first; what is not finite is None.

    Example:
        >>> list(lines_of({"loss": np.array([1.0, np.nan]), "step": np.array([0, 5])}))
        [{'step': 0, 'loss': 1.0}, {'step': 5, 'loss': None}]
    """
    names = sorted(records, key=lambda name: name != "step")
    for values in zip(*(records[name].tolist() for name in names), strict=True):
        finite = (value if math.isfinite(value) else None for value in values)
        yield dict(zip(names, finite, strict=True))


def as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config as it will be read back: tuples as lists, scalars of NumPy as numbers, infinity as a word.

    Raises:
        TypeError: JSON cannot hold it.

    Example:
        >>> as_json({"steps": np.int64(30), "radius": np.inf})
        {'steps': 30, 'radius': 'inf'}
    """
    try:
        return json.loads(dumps(dict(config)))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"config is to be saved as JSON: {error}; use numbers, words, lists, dictionaries"
        ) from error
