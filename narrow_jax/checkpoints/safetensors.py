"""Files of arrays in the format safetensors: a header in JSON, then bytes; nothing that runs, every dtype of JAX.

Eight bytes hold the length of the header, little-endian; the header names dtype, shape and place of each array. Files
are those of the package safetensors, which is not needed. What is written here carries its SHA-256 in the metadata of
the header, and is compared with it when it is read.

Reference:
    https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "C64": np.complex64,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ALIGNED = 8
_LENGTH = 8
_MOST_HEADER = 100_000_000


def check(arrays: Mapping[str, np.ndarray]) -> None:
    """Require arrays whose dtypes the format has.

    Raises:
        TypeError: another dtype.
    """
    for name, array in arrays.items():
        if array.dtype not in _NAMES:
            raise TypeError(
                f"{name!r} has dtype {array.dtype}; expected one of {', '.join(map(str, _NAMES))}: convert it first"
            )


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by their names.

    Raises:
        TypeError: as ``check``.
    """
    check(arrays)
    header: dict[str, Any] = {}
    end = 0
    for name, array in sorted(arrays.items()):
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    data = [_little(array).tobytes() for _, array in sorted(arrays.items())]
    text = json.dumps({"__metadata__": {"sha256": _digest(header, data)}} | header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH, "little") + text)
        file.writelines(data)


def _little(array: np.ndarray) -> np.ndarray:
    """Return the array in the order of bytes that the format has."""
    return np.ascontiguousarray(
        array, array.dtype.newbyteorder("<") if array.dtype.isbuiltin == 1 else array.dtype
    )


def _digest(header: Mapping[str, Any], data: Iterable[Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for part in data:
        digest.update(part)
    return digest.hexdigest()


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by their names.

    Raises:
        OSError: the file cannot be opened.
        ValueError: its bytes are no such file.
    """
    content = path.read_bytes()
    try:
        return _parsed(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); expected a whole file of the format safetensors"
        ) from error


def _parsed(content: bytes) -> dict[str, np.ndarray]:
    length = int.from_bytes(content[:_LENGTH], "little")
    if len(content) < _LENGTH or length > min(_MOST_HEADER, len(content) - _LENGTH):
        raise ValueError(f"a header of {length} bytes in {len(content)}")
    header = json.loads(content[_LENGTH : _LENGTH + length])
    said = header.pop("__metadata__", {}).get("sha256")
    data, end, arrays = memoryview(content)[_LENGTH + length :], 0, {}
    if said is not None and _digest(header, [data]) != said:
        raise ValueError("its SHA-256 is not the one in its header")
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(map(int, entry["shape"]))
        begin, stop = entry["data_offsets"]
        if begin != end or stop - begin != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
            raise ValueError(f"{name!r} lies from {begin} to {stop}")
        end = stop
        arrays[name] = np.frombuffer(data[begin:stop], dtype).reshape(shape)
    if end != len(data):
        raise ValueError(f"{len(data)} bytes of arrays where the header has {end}")
    return arrays
