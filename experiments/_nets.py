"""The two nets that experiments compare, each with its start, its Jacobian and the cone of its output weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from jax.typing import ArrayLike

import narrow_jax as nj

Params = dict[str, jax.Array]


class Net(NamedTuple):
    """A net of one hidden layer; a ``cone`` that is empty is none."""

    name: str
    apply_fn: Callable[..., jax.Array]
    jacobian: Callable[..., Any]
    draw: Callable[..., Params]
    cone: dict[str, float]

    def start(self, key: jax.Array, **sizes: Any) -> Params:
        """Return a start, inside the cone."""
        return self.draw(key, **sizes, **self.cone)

    def regime(self, tx: optax.GradientTransformation, radius: ArrayLike) -> optax.GradientTransformation:
        """Return the optimizer under the constraints of the net."""
        cone: dict[str, Any] = {"zeta": None} | self.cone
        return nj.constraints.regime(tx, radius, **cone)


def too_narrow(x: ArrayLike, width: int) -> str | None:
    """Say why ``memorize`` takes no net of this even width for one label each: the rank of x; None if it does."""
    try:
        nj.jacobian.check_width(x, width, strict=True)
    except ValueError as refusal:
        return str(refusal)
    return None


def pairwise(activation: str = "tanh", **kappa: float) -> Net:
    """Return the paper's net: mirrored start, pairwise output, ζ = 1e-3, and κ = ∞ unless it is given."""
    return Net(
        "pairwise",
        partial(nj.models.pairwise_apply, activation=activation),
        partial(nj.jacobian.pairwise, activation=activation),
        nj.initializers.mirrored_lecun,
        {"zeta": 1e-3, **kappa},
    )


def standard(activation: str = "tanh") -> Net:
    """Return the usual net, from a plain start."""
    return Net(
        "standard",
        partial(nj.models.standard_apply, activation=activation),
        partial(nj.jacobian.standard, activation=activation),
        nj.initializers.lecun,
        {},
    )
