"""Flax modules in the form that ``nj.fit`` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from narrow_jax._typing import HostArray, Params


@dataclass(frozen=True)
class Stateful:
    """A Linen module with variables beside its params, as ``apply_fn(params, state, x, train) -> (y, state)``.

    For ``nj.fit(…, model_state=state)``: in training mode the variables are updated, in evaluation mode they come back
    as they are. Equal for equal modules, so that a compiled loop is used again. ``module`` is called with
    ``(x, train=…)``.

    Example:
        >>> import jax, optax
        >>> import narrow_jax as nj
        >>> net = nj.models.ResNet(channels=(2,), blocks=(1,), outputs=2)
        >>> x, y = jax.numpy.linspace(0, 1, 96).reshape(6, 4, 4, 1), jax.numpy.array([0, 1, 0, 1, 1, 0])
        >>> state = jax.jit(net.init)(jax.random.key(0, impl="rbg"), x)
        >>> params = state.pop("params")
        >>> tx = nj.constraints.regime(optax.sgd(0.1, momentum=0.9), radius=1.0, labels=net.labels)
        >>> result = nj.fit(Stateful(net), params, tx, (x, y), steps=2, loss="cross_entropy", model_state=state)
        >>> sorted(result.model_state), result.history["loss"].round(4)[0]
        (['batch_stats'], np.float32(0.6931))
    """

    module: nn.Module

    def __call__(self, params: Params, state: Any, x: HostArray, train: bool) -> tuple[Any, Any]:
        """Return the outputs and the variables after them."""
        variables = {"params": params, **state}
        if not train:
            return self.module.apply(variables, x, train=False), state
        outputs, state = self.module.apply(variables, x, train=True, mutable=list(state))
        return outputs, state
