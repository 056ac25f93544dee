"""Architectures by name and fields: what is written of a net, and the function that is made of it again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from narrow_jax import activations
from narrow_jax.activations import Activation
from narrow_jax.models import precision
from narrow_jax.models.mlp import MLP, mlp_apply
from narrow_jax.models.one_hidden import PairwiseNet, StandardNet, pairwise_apply, standard_apply
from narrow_jax.models.pairwise_mlp import PairwiseMLP, pairwise_mlp_apply
from narrow_jax.models.resnet import ResNet
from narrow_jax.models.stateful import Stateful

Apply = Callable[..., Any]
FUNCTIONS: dict[str, Apply] = {
    function.__name__: function
    for function in (mlp_apply, pairwise_apply, pairwise_mlp_apply, standard_apply)
}
MODULES: dict[str, type[nn.Module]] = {
    module.__name__: module for module in (MLP, PairwiseMLP, PairwiseNet, ResNet, StandardNet)
}
_OWN = "own"


class _Unknown(Exception):  # noqa: N818
    """A part of a net that has no name here."""


def described(apply_fn: Apply) -> dict[str, Any]:
    """Return a net as JSON can hold it; of a function of the user's its name alone.

    Example:
        >>> described(functools.partial(pairwise_apply, activation="sin"))
        {'function': 'pairwise_apply', 'fields': {'activation': 'sin'}}
        >>> described(StandardNet(width=4).apply)["module"], described(lambda params, x: x)
        ('StandardNet', {'own': '<lambda>'})
    """
    try:
        return _described(apply_fn)
    except _Unknown:
        return {_OWN: getattr(apply_fn, "__qualname__", type(apply_fn).__name__)}


def is_own(architecture: Mapping[str, Any]) -> bool:
    """Return whether the function is the user's, and has to be given again."""
    return _OWN in architecture


def built(architecture: Mapping[str, Any]) -> Apply:
    """Return the function of a net that ``described`` wrote.

    Raises:
        ValueError: a name or field that this version does not have.
    """
    try:
        return _built(architecture)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the architecture {dict(architecture)} is unknown here ({error}); expected one of "
            f"{', '.join([*FUNCTIONS, *MODULES])} with its fields: use the version that wrote it"
        ) from error


def _described(apply_fn: Any) -> dict[str, Any]:
    if isinstance(apply_fn, precision.Bfloat16):
        return {"bfloat16": _described(apply_fn.apply_fn)}
    if isinstance(apply_fn, Stateful):
        return {"stateful": True, **_module(apply_fn.module)}
    owner = getattr(apply_fn, "__self__", None)
    if isinstance(owner, nn.Module) and apply_fn == owner.apply:
        return _module(owner)
    given: dict[str, Any] = {}
    while isinstance(apply_fn, functools.partial) and not apply_fn.args:
        apply_fn, given = apply_fn.func, apply_fn.keywords | given
    if apply_fn not in FUNCTIONS.values():
        raise _Unknown
    return {"function": apply_fn.__name__, "fields": {name: _plain(value) for name, value in given.items()}}


def _module(module: nn.Module) -> dict[str, Any]:
    if MODULES.get(type(module).__name__) is not type(module):
        raise _Unknown
    own = [field.name for field in fields(module) if field.name not in ("parent", "name")]
    return {
        "module": type(module).__name__,
        "fields": {name: _plain(getattr(module, name), name) for name in own},
    }


def _plain(value: Any, name: str = "") -> Any:
    """Return a field as JSON can hold it: a stock activation or a dtype by its name."""
    if name.endswith("dtype"):
        return jnp.dtype(value).name
    if isinstance(value, Activation):
        if value.units or _stock(value.name) != value:
            raise _Unknown
        return value.name
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, bool | int | float | str | None):
        return value
    raise _Unknown


def _stock(name: str) -> Activation | None:
    try:
        return activations.get(name)
    except ValueError:
        return None


def _built(architecture: Mapping[str, Any]) -> Apply:
    if "bfloat16" in architecture:
        return precision.bfloat16(_built(architecture["bfloat16"]))
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in architecture["fields"].items()
    }
    if "function" in architecture:
        function = FUNCTIONS[architecture["function"]]
        return functools.partial(function, **given) if given else function
    given |= {name: jnp.dtype(value) for name, value in given.items() if name.endswith("dtype")}
    module = MODULES[architecture["module"]](**given)
    return Stateful(module) if architecture.get("stateful") else module.apply
