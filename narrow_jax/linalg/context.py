"""Where work runs and in which precision: float64 whatever the setting outside; on the host or not."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


WITHOUT_FLOAT64 = ("tpu",)
"""Platforms whose hardware has no float64: nothing is proven there."""

SINGLE = np.dtype("float32")

EMULATION = "CUBLAS_EMULATE_DOUBLE_PRECISION"
"""The environment variable by which cuBLAS is told to emulate products of float64 (1) or not to (0)."""


def emulated() -> bool:
    """Return whether a GPU here may make products of float64 of narrower ones, whose errors are not those of float64.

    It may where the environment says so; where that says nothing, on cards that are made for it, of compute capability
    10 and above.

    Reference:
        NVIDIA, cuBLAS, section "Floating point emulation".
    """
    asked = os.environ.get(EMULATION)
    if asked is not None:
        return asked.strip() != "0"
    cards = (
        re.fullmatch(r"(\d+)\.\d+", getattr(device, "compute_capability", ""))
        for device in jax.local_devices()
    )
    return any(card is not None and int(card[1]) >= 10 for card in cards)


def on_cpu(tree: object) -> bool:
    """Return whether the host works on these concrete arrays.

    NumPy's, unless JAX may not use the host's CPU; those in its memory; and those of hardware without float64, which
    ``at_host`` fetches.
    """
    platforms = _platforms(tree)
    return platforms <= {"cpu", *WITHOUT_FLOAT64} and (bool(platforms) or _has_cpu())


def _platforms(tree: object) -> set[str]:
    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    return {device.platform for leaf in arrays for device in leaf.devices()}


def at_host(tree: T) -> T:
    """Return the tree with the arrays of hardware without float64 in the memory of the host; others as they are."""
    if _platforms(tree).isdisjoint(WITHOUT_FLOAT64):
        return tree
    cpu = _cpu()
    return jax.tree.map(lambda leaf: jax.device_put(leaf, cpu) if isinstance(leaf, jax.Array) else leaf, tree)


def place(tree: object) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which JAX works where the arrays are: on the host though the machine has an accelerator."""
    return _host() if on_cpu(tree) else contextlib.nullcontext()


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Turn float64 on, and work on the host where the machine's accelerator has none, or may emulate it."""
    unlike = jax.default_backend() in WITHOUT_FLOAT64 or emulated()
    with jax.enable_x64(True), _host() if unlike else contextlib.nullcontext():
        yield


def _host() -> contextlib.AbstractContextManager[Any]:
    if jax.default_backend() == "cpu":  # naming the default would compile everything anew
        return contextlib.nullcontext()
    return jax.default_device(_cpu())


def _cpu() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise RuntimeError(
            f"float64 is computed on the CPU here, and JAX may use {jax.default_backend()} only: add cpu to "
            "JAX_PLATFORMS, as in 'tpu,cpu', or leave it unset"
        ) from error


def _has_cpu() -> bool:
    try:
        return bool(_cpu())
    except RuntimeError:
        return False


def machine_memory() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def dtype_of(*leaves: Any) -> np.dtype:
    """Return the dtype that numbers of these have in JAX: without x64, NumPy's float64 is float32 there."""
    found = jnp.result_type(*leaves)
    return ambient() if found == np.float64 else found


def ambient() -> np.dtype:
    """Return the dtype of floats outside of any float64 context: what results are cast to in traced code."""
    return jnp.zeros((), float).dtype


FEW = 2**23
"""Entries of a Jacobian up to which its formulas are evaluated by NumPy: seconds of compiling saved at the first call.

Later calls of 300 × 1,200 are faster, too; of 1,000 × 3,000 they take a tenth longer, and beyond it grows.
"""


def at_hand(J: Any) -> Any:
    """Return a Jacobian operator with its floats as NumPy's if it has few entries, else as JAX's, to be compiled."""
    return placed(J, math.prod(J.shape))


def placed(tree: T, entries: int) -> T:
    """Return the tree with its floats as NumPy's, or as JAX's where the Jacobian of what they make has many entries."""
    return floats(tree, np.asarray if entries <= FEW else jnp.asarray)


def floats(tree: T, convert: Callable[[Any], Any]) -> T:
    """Return the tree with its arrays of floats converted; keys, integers and what is no array stay."""

    def one(leaf: Any) -> Any:
        floating = isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return convert(leaf) if floating else leaf

    return jax.tree.map(one, tree)


def in_default_precision(tree: T) -> T:
    """Return the tree with NumPy's numbers of 64 bits as JAX has them: of 32 bits without x64.

    Cast by NumPy, since JAX knows the constants of a program by their identity: where it has seen such an array under
    float64, the array stays float64, which JAX warns of.
    """
    if ambient() == np.float64:
        return tree
    with np.errstate(over="ignore"):  # infinity then, as in JAX
        return jax.tree.map(lambda leaf: _narrowed(leaf) if isinstance(leaf, np.ndarray) else leaf, tree)


def tracing() -> bool:
    """Return whether JAX traces something around this call."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def concrete() -> contextlib.AbstractContextManager[Any]:
    """Return the context in which numbers are numbers, also where something else is traced around them."""
    return jax.ensure_compile_time_eval() if tracing() else contextlib.nullcontext()


def as_numpy(run: Callable[[], T]) -> T:
    """Return what runs under float64 on the host, its arrays as NumPy's, which outlive it as they are.

    Numbers they are also where something else is traced around it. NumPy warns of what bounds expect, such as infinity
    where nothing is known: not here.
    """
    with jax.enable_x64(True), _host(), concrete(), np.errstate(all="ignore"):
        return jax.tree.map(np.asarray, run())


@functools.cache
def by_platform(
    exact: Callable[..., T], single: Callable[..., T], unproven: Callable[..., T] | None = None
) -> Callable[..., T]:
    """Return f(*args) = exact(*args), and single(*args), in the same dtypes, where it is lowered for hardware without
    float64; unproven(*args) for a GPU where that may emulate it.

    What a machine has itself does not matter: a program may be compiled for another. The arguments are constants to
    differentiation.

    Example:
        >>> f = by_platform(lambda x: x + 1, lambda x: x - 1)
        >>> float(jax.jit(f)(1.0)), "subtract" in jax.jit(f).trace(1.0).lower(lowering_platforms=("tpu",)).as_text()
        (2.0, True)
    """

    @functools.partial(jax.jit, static_argnames="doubtful")
    def lowered(args: tuple[Any, ...], doubtful: bool) -> T:
        expected = jax.eval_shape(exact, *args)

        def estimate(*args: Any) -> T:
            found = single(*jax.tree.map(_narrowed, args))
            return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), found, expected)

        others = dict.fromkeys(WITHOUT_FLOAT64, estimate)
        if doubtful and unproven is not None:
            others["cuda"] = unproven
        return jax.lax.platform_dependent(*args, default=exact, **others)

    def called(*args: Any) -> T:
        with jax.enable_x64(True):  # before the call: NumPy's float64 would become float32 on the way in
            return lowered(jax.lax.stop_gradient(args), emulated())

    return called


def _narrowed(leaf: Any) -> Any:
    """Return numbers of 64 bits as those of 32."""
    narrow = {"float64": "float32", "int64": "int32", "uint64": "uint32"}.get(str(leaf.dtype))
    return leaf if narrow is None else leaf.astype(narrow)


def isolated(f: Callable[..., Any], x64: bool = True, batched: Callable[..., Any] | None = None) -> Any:
    """Return f traced with x64 as stated, and traced so again where ``vmap`` reaches it after the context has ended.

    JAX batches the body of a jitted function, a loop or a scan when it comes to it: outside of the context, where it
    would cut float64 down to float32. Here ``vmap`` finds f itself instead of its equations.
    The arguments are constants to differentiation: attach derivatives outside.

    Args:
        f: a pure function of pytrees of arrays.
        x64: whether 64-bit numbers are on inside.
        batched: the function to map instead of f.

    Example:
        >>> import jax.numpy as jnp
        >>> bytes_inside = isolated(lambda x: x * jnp.zeros((), float).dtype.itemsize)
        >>> jax.vmap(jax.jit(lambda x: bytes_inside(x)))(jnp.ones(2)).tolist()
        [8.0, 8.0]
    """

    def inside(*args: Any) -> Any:
        with jax.enable_x64(x64):
            return f(*args)

    mappable = jax.custom_batching.custom_vmap(inside)

    @mappable.def_vmap
    def _vmap(axis_size: int, in_batched: list[Any], *args: Any) -> Any:
        axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched))
        mapped = jax.vmap(batched or f, in_axes=axes, axis_size=axis_size)
        out = isolated(mapped, x64)(*args)
        return out, jax.tree.map(lambda _: True, out)

    def called(*args: Any) -> Any:
        with jax.enable_x64(x64):  # before the call: NumPy's float64 would become float32 on the way in
            return mappable(*jax.lax.stop_gradient(args))

    return called
