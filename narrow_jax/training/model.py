"""The model of a run: a user's function and start, as the loop takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from narrow_jax import _checks, losses, models
from narrow_jax._typing import Array, HostArray, KeyPath, Leaf, Params
from narrow_jax.data import Dataset, arrays
from narrow_jax.labels import difference, path_name
from narrow_jax.losses import Loss
from narrow_jax.models import Stateful


class Start(NamedTuple):
    """What a run begins from: params, the model's other variables, the state of an earlier run's optimizer."""

    params: Params
    model_state: Params = None
    opt_state: optax.OptState = None


@dataclass(frozen=True)
class Model:
    """A model as ``(params, state, x, train) -> (outputs, state)``; equal for equal functions, for jit's cache."""

    apply_fn: Callable[..., Any]
    has_state: bool

    def __call__(self, params: Params, state: Params, x: Array, train: bool) -> tuple[Any, Params]:
        """Return the outputs and the state after them, in evaluation the one given.

        It comes back in the structure in which it was given: dict or FrozenDict.
        """
        if not self.has_state:
            return self.apply_fn(params, x), state
        result = self.apply_fn(params, state, x, train=train)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(
                f"apply_fn returned a {type(result).__name__}; with model_state expected a pair (outputs, state)"
            )
        outputs, after = result
        if not train:
            return outputs, state
        if other := difference(state, after):
            raise ValueError(
                f"apply_fn returns another model_state than it was given: at {other}; expected the same variables "
                "before and after a step: pass all that it updates, and no others"
            )
        return outputs, jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(after))


def model(apply_fn: object, model_state: Params) -> Model:
    """Return the model of a function of params and samples, and of variables if there are some."""
    kind = type(apply_fn)
    if model_state is None and isinstance(apply_fn, Stateful):
        raise TypeError(
            "apply_fn is an nj.models.Stateful and model_state is None; expected the module's variables beside its "
            "params: pass model_state=, what init gives without 'params'"
        )
    of_flax = kind.__module__.startswith("flax.") or any(
        cls.__module__.startswith(("flax.linen.", "flax.nnx.")) for cls in kind.__mro__
    )
    if not callable(apply_fn) or of_flax:
        raise TypeError(
            f"apply_fn is a {kind.__name__}; expected a function apply_fn(params, x): pass module.apply of a Flax "
            "module with variables = module.init(key, x) as params, or nj.models.Stateful(module) with model_state"
        )
    return Model(apply_fn, model_state is not None)


def params_tree(params: Params) -> Params:
    """Return params, a tree of floating arrays."""
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        others = ", ".join(name for name in params if name != "params")
        raise ValueError(
            f"params are all variables of a Flax module, {others} beside the params, and all of them would be trained: "
            "pass params=variables['params'] and the rest as model_state, with nj.models.Stateful(module)"
        )
    if not jax.tree.leaves(params):
        raise ValueError(
            f"params are {params!r:.60}, without any leaf; expected a tree of arrays, such as init gives"
        )

    def floating(path: KeyPath, leaf: Leaf) -> HostArray:
        name = f"params[{path_name(path)}]" if path else "params"
        array = arrays.narrowed(name, _checks.array(name, leaf))
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            raise TypeError(
                f"{name} has dtype {array.dtype}, which has no gradient; expected floating numbers: keep counts and "
                "tables in model_state or in apply_fn"
            )
        return array

    return jax.tree_util.tree_map_with_path(floating, params)


def taken_apart(data: Any, loss: str | Loss) -> Any:
    """Return x and y of a data set, as the loss takes them; other data as they are.

    Raises:
        ValueError: cross-entropy on real targets.
    """
    if not isinstance(data, Dataset):
        return data
    if losses.name_of(loss) != "cross_entropy":
        return data.x, data.y
    if data.labels is None:
        raise ValueError(f"{data.name!r} has real targets and no classes: use loss='squared'")
    return data.x, data.labels


def kept_model(
    apply_fn: Callable[..., Any], variables: tuple[Params, Params], data: Any, x: Array, loss: Loss
) -> models.Model:
    """Return the model that a run leaves, with what its data say about raw inputs and targets."""
    params, state = variables
    name, maps = losses.name_of(loss), dict[str, Any]()
    if isinstance(data, Dataset):
        maps = {"normalizer": data.normalizer, "target_map": data.target_map, "classes": data.names}
        maps["columns"] = data.columns
    return models.Model(
        apply_fn, params, state, loss=name, inputs=jax.ShapeDtypeStruct(x.shape[1:], x.dtype), **maps
    )
