"""What can be read from a function's jaxpr: the precision it computes in, and which rules of autodiff it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# they move numbers about and change none
_EXACT = {
    "broadcast_in_dim",
    "concatenate",
    "copy",
    "dynamic_slice",
    "gather",
    "optimization_barrier",
    "pad",
    "reshape",
    "rev",
    "select_n",
    "slice",
    "split",
    "squeeze",
    "stop_gradient",
    "transpose",
}
# how they compute cannot be seen
_OPAQUE = {"pure_callback", "io_callback", "ffi_call", "pallas_call"}
UNSEEN = "unknown precision"


def lowest(jaxpr: Any) -> str:
    """Return the lowest precision in which anything is computed that depends on the inputs: "float64" at best.

    Callbacks to the host and hand-written kernels compute in UNSEEN.

    Numbers of lower precision that are only made from integers or booleans, moved about, and cast up again are exact.

    Args:
        jaxpr: of ``jax.make_jaxpr``, traced with float64 inputs.

    Example:
        >>> import jax
        >>> with jax.enable_x64(True):
        ...     half = jax.make_jaxpr(lambda x: x.astype("bfloat16") + 1)(jnp.ones(3))
        >>> lowest(half)
        'bfloat16'
    """
    found, _ = _walk(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.invars))
    return max(sorted(found), key=eps, default="float64")


REVERSE_RULE_ONLY = "custom_vjp_call"
"""What calls a function with a rule of its own for reverse mode and none for forward."""

CONVOLUTION = "conv_general_dilated"


def uses(jaxpr: Any, primitive: str) -> bool:
    """Return whether a function, or one that it calls, uses a primitive, named by how its name begins."""
    return any(
        eqn.primitive.name.startswith(primitive)
        or any(uses(body, primitive) for body, _ in _inner(eqn, [True] * len(eqn.invars)))
        for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns
    )


def eps(name: str) -> float:
    """Return the rounding of a precision, that of bfloat16 where it is unknown."""
    return float(jnp.finfo("bfloat16" if name == UNSEEN else name).eps)


def _walk(jaxpr: Any, inputs: Sequence[bool]) -> tuple[set[str], list[bool]]:
    """Return the precisions below float64 in a jaxpr, and which outputs depend on the inputs that are marked."""
    depends = {var for var, marked in zip(jaxpr.invars, inputs, strict=True) if marked}
    found: set[str] = set()
    for eqn in jaxpr.eqns:
        marked = [_is_in(var, depends) for var in eqn.invars]
        if not any(marked):
            continue
        inner = list(_inner(eqn, marked))
        for body, marks in inner:
            found |= _walk(body, marks)[0]
        if not inner:
            found |= _lowered(eqn)
        depends |= set(eqn.outvars)
    return found, [_is_in(var, depends) for var in jaxpr.outvars]


def _is_in(var: Any, variables: set[Any]) -> bool:
    return not hasattr(var, "val") and var in variables  # literals have a value, and no hash


def _inner(eqn: Any, marked: list[bool]) -> Iterator[tuple[Any, list[bool]]]:
    """Yield the jaxprs within an equation and which of their inputs depend on marked ones, rather too many."""
    if eqn.primitive.name in _OPAQUE:
        return
    for value in eqn.params.values():
        for part in value if isinstance(value, tuple | list) else [value]:
            body: Any = getattr(part, "jaxpr", part)
            if hasattr(body, "eqns"):
                count = len(body.invars)
                loops = eqn.primitive.name in (
                    "scan",
                    "while",
                )  # what they carry may come to depend on the inputs
                yield body, [True] * count if loops or count != len(marked[-count:]) else marked[-count:]


def _lowered(eqn: Any) -> set[str]:
    """Return the precisions below float64 in which an equation computes."""
    name, params = eqn.primitive.name, eqn.params
    if name in _OPAQUE:
        return {UNSEEN}
    if name == "reduce_precision" and params["mantissa_bits"] < 52:
        return {"float32" if params["mantissa_bits"] >= 23 else "bfloat16"}
    if name == "dot_general" and (algorithm := _algorithm(params["precision"])):
        return {algorithm}
    if name in _EXACT:
        return set()
    if name == "convert_element_type" and not _inexact(eqn.invars[0]):
        return set()
    limits = [jnp.finfo(var.aval.dtype) for var in eqn.outvars if _inexact(var)]
    return {str(limit.dtype) for limit in limits if limit.nmant < 52}


def _algorithm(precision: Any) -> str:
    """Return the precision of a product whose algorithm is named, or nothing: else that of its arguments."""
    if isinstance(precision, jax.lax.DotAlgorithm):
        parts = [jnp.dtype(part).name for part in precision[:3]]
    elif isinstance(precision, jax.lax.DotAlgorithmPreset) and precision.name != "DEFAULT":
        parts = [part.replace("BF", "bfloat").replace("F", "float") for part in precision.name.split("_")]
    else:
        return ""
    if set(parts) == {"float64"}:
        return ""
    return "bfloat16" if "bfloat16" in parts else "float32"


def _inexact(var: Any) -> bool:
    return hasattr(var.aval, "dtype") and jnp.issubdtype(var.aval.dtype, jnp.inexact)
