"""What the library answers, bit for bit: a digest for each named case, to be compared after a restructuring.

``python -m benchmarks.digests --out before.json`` records, ``--against before.json`` says what has changed since, and
exits 1 if something has. The cases are in ``benchmarks/digest_cases``; they use the public interface only, so that
they run on both sides of any change behind it. Digests are of one machine and one set of versions: another processor
or XLA rounds otherwise. All take five minutes on two cores, most of it compilation.

A result is taken apart into its leaves: numbers, arrays, texts. The digest of a case is that of their names and
contents, the order of fields and keys included. A case that raises is recorded as the exception that it raised, and
so are the warnings that it gave.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import hashlib
import json
import multiprocessing
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _timing
from benchmarks.digest_cases import CASES, FOLDER

SHOWN = 5
"""So many leaves of a case that differ are shown."""

LONG = 300
"""Characters of a leaf that are shown."""

FEW = 4
"""Arrays of up to this many entries are recorded with their entries, for whoever compares."""


class Raised(NamedTuple):
    """The exception of a case."""

    raised: str
    text: str


CHUNK = 16
"""So many cases a process takes at once: neighbours share compiled programs, which then are forgotten."""

Leaves = dict[str, str]


def main(argv: list[str] | None = None) -> int:
    """Compute, print, write or compare the digests; 1 if something differs."""
    args = _parser().parse_args(argv)
    names = [name for name in CASES if name.startswith(args.only)]
    before = None if args.against is None else json.loads(args.against.read_text())
    started, found = time.perf_counter(), {}
    for name, leaves in outcomes(names, args.jobs):
        found[name] = leaves
        if before is None:
            print(f"{digest(leaves)}  {name}{_raised(leaves)}", flush=True)
    print(f"{len(found)} cases in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if args.out is not None:
        args.out.write_text(json.dumps(record(found), indent=1, ensure_ascii=False) + "\n")
    return 0 if before is None else compare(before, record(found), args.only)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digests", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="PREFIX", help="only the cases whose names begin so")
    parser.add_argument("--out", type=_timing.path, metavar="FILE", help="write digests and leaves as JSON")
    parser.add_argument(
        "--against", type=_timing.path, metavar="FILE", help="print what differs from that file"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    return parser


def outcomes(names: Sequence[str], jobs: int) -> Iterator[tuple[str, Leaves]]:
    """Return each name with the leaves of its case, in this order, run here or in so many processes of their own."""
    chunks = [names[first : first + CHUNK] for first in range(0, len(names), CHUNK)]
    if jobs == 1:
        yield from together(chunks, map(leaves_of_all, chunks))
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from together(chunks, pool.map(leaves_of_all, chunks))


def together(chunks: Iterable[Sequence[str]], found: Iterable[list[Leaves]]) -> Iterator[tuple[str, Leaves]]:
    """Return each name of the chunks with what was found for it."""
    for names, leaves in zip(chunks, found, strict=True):
        yield from zip(names, leaves, strict=True)


def leaves_of_all(names: Sequence[str]) -> list[Leaves]:
    """Run the cases of these names, and forget their programs: those of all would fill gigabytes and memory maps."""
    found = [leaves_of(CASES[name]) for name in names]
    jax.clear_caches()
    return found


def record(found: Mapping[str, Leaves]) -> dict[str, Any]:
    """Return what a file holds: digests by name, the machine that made them, and the leaves."""
    return {
        "machine": _timing.machine("numpy", "scipy", "flax"),
        "digests": {name: digest(leaves) for name, leaves in found.items()},
        "leaves": dict(found),
    }


def compare(before: Mapping[str, Any], now: Mapping[str, Any], only: str = "") -> int:
    """Print the names whose digests differ or are on one side only, and what differs there; 1 if there are any."""
    if before["machine"] != now["machine"]:
        print(f"another machine or version: {before['machine']} before", file=sys.stderr)
    old, new = ({n: d for n, d in side["digests"].items() if n.startswith(only)} for side in (before, now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    for name in names:
        if name not in old or name not in new:
            print(f"{name}: {'new' if name in new else 'missing'}")
            continue
        print(name)
        for line in differences(before["leaves"][name], now["leaves"][name]):
            print(f"    {line}")
    print(f"{len(names)} of {len({**old, **new})} differ", file=sys.stderr)
    return 1 if names else 0


def differences(before: Leaves, now: Leaves) -> Iterator[str]:
    """Return the first leaves that differ, as they were and as they are."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if not names:
        yield "the same leaves in another order"
    for name in names[:SHOWN]:
        yield f"{name}: {_short(before.get(name, 'none'))}  →  {_short(now.get(name, 'none'))}"
    if len(names) > SHOWN:
        yield f"… and {len(names) - SHOWN} more"


def _short(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG]}…"


def _raised(leaves: Leaves) -> str:
    return f"  (raises {leaves['raised'].removeprefix('str ')})" if "raised" in leaves else ""


def digest(leaves: Leaves) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of names and contents of all leaves."""
    return _sha256("\n".join(f"{name}\t{content}" for name, content in leaves.items()).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def leaves_of(case: Callable[[], Any]) -> Leaves:
    """Run a case and return the leaves of what it returned or raised, and of the warnings meant for users."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            leaves = list(taken_apart("", case()))
        except Exception as error:
            leaves = list(taken_apart("", Raised(type(error).__name__, str(error))))
        told = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    leaves += taken_apart("warnings", told) if told else []
    assert len(dict(leaves)) == len(leaves), "two leaves have one name"
    return dict(leaves)


def taken_apart(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Return name and content of each leaf of a result; containers give their kind.

    Raises:
        TypeError: something that is neither a container nor a leaf: nothing is left out in silence.
    """
    parts = _parts(value)
    if parts is None:
        yield name, _content(value)
        return
    kind, entries = parts
    yield name, kind
    for key, entry in entries:
        yield from taken_apart(f"{name}.{key}" if name else str(key), entry)


def _parts(value: Any) -> tuple[str, list[tuple[Any, Any]]] | None:
    """Return kind and named parts of a container, None of a leaf."""
    if isinstance(value, Mapping):
        return "dict", list(value.items())
    if hasattr(value, "_fields"):
        return type(value).__name__, list(zip(value._fields, value, strict=True))
    if isinstance(value, list | tuple):
        return type(value).__name__, list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    return None


def _content(value: Any) -> str:
    """Return what a leaf is: arrays by kind, dtype, shape and the digest of their bytes, texts without their folder."""
    if isinstance(value, str | enum.Enum):
        return f"str {_anywhere(str(value))}"
    if value is None or (
        isinstance(value, bool | int | float | complex) and not isinstance(value, np.generic)
    ):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, bytes):
        return f"bytes {_sha256(value)}"
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _array(value)
    if callable(value):
        return "function"
    raise TypeError(
        f"a {type(value).__name__} has no digest; expected numbers, arrays, texts or containers of them"
    )


def _array(value: Any) -> str:
    kind = "jax" if isinstance(value, jax.Array) else "numpy"
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        kind, value = "key", jax.random.key_data(value)
    weak = " weak" if getattr(value, "weak_type", False) else ""
    host = np.asarray(value)
    entries = f" {host.tolist()}" if host.size <= FEW else ""
    return f"{kind} {host.dtype}{weak} {host.shape} {_sha256(host.tobytes())}{entries}"


def _anywhere(text: str) -> str:
    """Return a text without what differs from run to run: the folder of the case, and addresses in memory."""
    text = re.sub(rf"[^\s'\"(]*/{FOLDER}[^/\s'\",;:)]*", "<folder>", text)
    return re.sub(r"0x[0-9a-f]{6,}", "0x…", text)


if __name__ == "__main__":
    sys.exit(main())
