"""Programs compiled for accelerators that are not here: what XLA says of them. They are never run.

Needs the compilers, which ``make aot`` installs into a folder of their own: libtpu, and the CUDA plugin of JAX. Neither
a driver nor a device. What a program takes in memory, which collectives and which library calls are in it, is true of
the machine that it is for; how long it runs is not known.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import sys
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

LOCK = Path("/tmp/libtpu_lockfile")
"""What libtpu locks while a process uses it."""

PATIENCE = 300.0
"""Seconds to wait for another process that uses libtpu."""

H100 = Path(__file__).parents[1] / "tests" / "aot" / "h100_target.txt"
"""What XLA asks a driver about the card, written down."""

_COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"


class UnavailableError(RuntimeError):
    """The compilers cannot be used here; the message says why, and what to do."""


class Target(NamedTuple):
    """Machines to compile for: their name, JAX's name for the platform, how many there are, the bytes of one."""

    name: str
    platform: str
    topology: str
    memory: int


V5E = Target("TPU v5e", "tpu", "v5e:2x2", 16 * 10**9)
H100_1 = Target("H100", "cuda", "1x1x1", 80 * 10**9)
H100_8 = Target("8 H100", "cuda", "1x1x8", 80 * 10**9)


def wheels() -> list[str]:
    """Return what pip has to install, of the versions that the JAX at hand goes with.

    Example:
        >>> [wheel.split("==")[0] for wheel in wheels()]
        ['libtpu', 'jax-cuda12-plugin', 'jax-cuda12-pjrt']
    """
    tpu = next(
        re.split(r"[; ]", line)[0] for line in metadata.requires("jax") or [] if line.startswith("libtpu==")
    )
    jaxlib = metadata.version("jaxlib")
    return [tpu, f"jax-cuda12-plugin=={jaxlib}", f"jax-cuda12-pjrt=={jaxlib}"]


def missing(platform: str) -> str:
    """Return why nothing can be compiled for this platform, or nothing."""
    prefix = {"tpu": "libtpu", "cuda": "jax-cuda12"}[platform]
    for wheel in wheels():
        name, wanted = wheel.split("==")
        if not name.startswith(prefix):
            continue
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"{name} is not installed, which compiles for {platform} without one: run make aot"
        if not (found + ".").startswith(wanted.removesuffix("*").rstrip(".") + "."):
            return (
                f"{name} is {found}, and jax {metadata.version('jax')} goes with {wheel}: "
                "remove the folder build/aot and run make aot"
            )
    return ""


@functools.cache
def devices(target: Target) -> list[Any]:
    """Return the devices of a target, which know their compiler and nothing else.

    Raises:
        UnavailableError: the wheels are missing or of another version, another process keeps libtpu, or the compiler
            knows no such topology.
    """
    reason = missing(target.platform)
    if reason:
        raise UnavailableError(reason)
    if target.platform == "tpu":
        _wait(PATIENCE)
    try:
        if target.platform == "tpu":
            found = topologies.get_topology_desc(target.topology, platform="tpu")
        else:
            found = topologies.get_topology_desc(
                platform="cuda", topology=target.topology, target_config=H100.read_text()
            )
    except jax.errors.JaxRuntimeError as error:
        if "lockfile" in str(error):  # taken between the look and the call
            raise UnavailableError(_taken(0.0)) from error
        example = {"tpu": V5E.topology, "cuda": f"{H100_1.topology} or {H100_8.topology}"}[target.platform]
        raise UnavailableError(
            f"{target.topology!r} is no topology that the compiler for {target.platform} knows; expected one such "
            f"as {example}: {error}"
        ) from error
    return list(found.devices)


def _wait(patience: float) -> None:
    """Return once no other process uses libtpu: of two, the second one fails."""
    began = time.monotonic()
    while LOCK.exists() and _locked():
        if time.monotonic() - began > patience:
            raise UnavailableError(_taken(patience))
        if time.monotonic() - began < 1:
            print(f"waiting for the process that holds {LOCK} …", file=sys.stderr)
        time.sleep(min(1.0, patience))


def _locked() -> bool:
    try:
        file = os.open(LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _taken(waited: float) -> str:
    return (
        f"another process uses libtpu, which only one can, and holds {LOCK}; waited {waited:.0f} s: let it end and try "
        "again"
    )


class Compiled(NamedTuple):
    """What XLA says of a program.

    Args:
        seconds: to lower and compile it.
        bytes: arguments, outputs and temporaries on one device, what shares its place counted once.
        temporary: temporaries alone.
        collectives: how often each one is in the program.
        custom_calls: what it calls that is not made of XLA's own operations.
        float64: whether anything in what was lowered is float64.
    """

    seconds: float
    bytes: int
    temporary: int
    collectives: dict[str, int]
    custom_calls: tuple[str, ...]
    float64: bool


def compiled(lowered: Any, started: float, options: dict[str, Any] | None = None) -> Compiled:
    """Return what XLA says of a program that was lowered, from ``started`` on.

    Args:
        lowered: of ``jax.jit(f).lower(…)`` with arguments that lie on devices of a target.
        started: from ``time.perf_counter()``.
        options: of the compiler.
    """
    float64 = bool(re.search(r"[<x]f64\b", lowered.as_text()))
    program = lowered.compile(compiler_options=options)
    seconds = time.perf_counter() - started
    memory, text = program.memory_analysis(), program.as_text()
    return Compiled(
        seconds=round(seconds, 2),
        bytes=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        collectives=dict(Counter(re.findall(rf"[\s)]({_COLLECTIVES})(?:-start)?\(", text))),
        custom_calls=tuple(sorted(set(re.findall(r'custom_call_target="([^"]+)"', text)))),
        float64=float64,
    )


if __name__ == "__main__":
    print(*wheels(), sep="\n")
