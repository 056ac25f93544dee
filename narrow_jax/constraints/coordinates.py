"""``ball_coordinates``: any optimizer in coordinates in which a small ball is well scaled."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from narrow_jax import _checks
from narrow_jax._typing import Array, ArrayLike, Params, Tree
from narrow_jax.constraints.bounds import Radius, current, require_like_start, said
from narrow_jax.constraints.wrapping import accepted, transformation, translated
from narrow_jax.labels import Labels, at_picked, label_tree, masked_like, pick, require_selected
from narrow_jax.projections import working


class BallCoordinatesState(NamedTuple):
    """State of ``ball_coordinates``.

    Fields:
        step: updates so far.
        center: w⁰ at the leaves labelled "w", masked elsewhere.
        scale: what a unit of the new coordinates is, s at "w", 1/s at "v", masked elsewhere; of the last update.
        inner: the inner optimizer's state.
    """

    step: Array
    center: Params
    scale: Params
    inner: optax.OptState

    def to_ball(self, params: Params) -> Params:
        """Return ŵ = (w − w⁰)/s, v̂ = s·v."""
        shifted = at_picked(lambda c, p: p - c, self.center, params)
        return _times(jax.tree.map(lambda factor: 1 / factor, self.scale), shifted)

    def from_ball(self, hat: Params) -> Params:
        """Return w = w⁰ + s·ŵ, v = v̂/s."""
        return at_picked(lambda c, x: x + c, self.center, _times(self.scale, hat))


def ball_coordinates(
    tx: optax.GradientTransformation, radius: Radius, labels: Labels | None = None
) -> optax.GradientTransformationExtraArgs:
    """Run an optimizer in the coordinates ŵ = (w − w⁰)/s, v̂ = s·v with s = min(ε, 1).

    In a small ball v must grow like 1/ε, and one step size cannot serve both blocks: in these coordinates
    the problem is well scaled. The change is exact for any inner optimizer: it sees the gradients and the
    params of the new coordinates (so weight decay pulls w to its centre), and the gradient and the functions of
    line searches, SAM and Sophia (``grad``, ``value_fn``, ``grad_fn``, ``obj_fn``) are translated too. A gradient
    that a line search keeps in its state stays in the new coordinates: do not reuse it through
    ``optax.value_and_grad_from_state``. Under ``optax.masked`` and ``optax.partition`` these functions are called
    with masked nodes for what is masked; those of ``nj.fit`` fill them in.

    Args:
        tx: any optax optimizer.
        radius: ε ≥ 0, or a schedule; s = 1 for ε = 0 and without a ball.
        labels: which leaves are "w" and "v"; None for ``by_name``.

    Raises:
        TypeError: no transformation, such as ``optax.adam`` uncalled.
        ValueError: bad ε; in ``init``: an unknown label, or a ball for no leaf; in ``update``: params missing or
            unlike those of ``init``.

    Example:
        >>> tx = ball_coordinates(optax.sgd(1.0), radius=0.1)
        >>> params = {"w": jnp.ones(1), "v": jnp.ones(1)}
        >>> updates, _ = tx.update(params, tx.init(params), params)
        >>> [f"{float(updates[name][0]):.2f}" for name in ("w", "v")]
        ['-0.01', '-100.00']
    """
    if not callable(radius):
        _checks.radius(radius)
    inner = optax.with_extra_args_support(transformation(tx))

    def init_fn(params: Params) -> BallCoordinatesState:
        marks, step = label_tree(labels, params), jnp.zeros((), jnp.int32)
        require_selected("ball_coordinates", marks, params, said("radius", radius))
        center, scale = pick("w", jnp.copy, marks, params), _scale(marks, current(radius, step))
        ball = BallCoordinatesState(step, center, scale, inner=())
        return ball._replace(inner=inner.init(ball.to_ball(params)))

    def update_fn(
        updates: Params, state: BallCoordinatesState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, BallCoordinatesState]:
        require_like_start("ball_coordinates", state.center, updates, params)
        scale = _scale(label_tree(labels, params), current(radius, state.step))
        now = state._replace(scale=scale)
        extra = translated(
            accepted(inner.update, extra),
            now.from_ball,
            lambda gradient: _times(scale, masked_like(gradient, updates)),
        )
        updates, inner_state = inner.update(_times(scale, updates), state.inner, now.to_ball(params), **extra)
        return _times(scale, updates), now._replace(step=optax.safe_increment(state.step), inner=inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _scale(marks: Tree, radius: ArrayLike) -> Params:
    """Return the units of the new coordinates with s = min(ε, 1), and s = 1 for ε = 0, masked at free leaves."""
    if not isinstance(radius, jax.Array):
        radius = np.minimum(radius, 1)  # an infinity is not computed with: JAX_DEBUG_INFS would report it
    radius = jnp.asarray(radius, float)
    s = jnp.where(
        radius > 0, jnp.minimum(radius, 1), jnp.ones_like(radius)
    )  # a large ε spoils the free problem
    factor = {"w": s, "v": 1 / s}
    # copies: no buffer can be donated twice
    return jax.tree.map(lambda mark: jnp.copy(factor[mark]) if mark in factor else optax.MaskedNode(), marks)


def _times(scale: Params, tree: Params) -> Params:
    """Multiply the leaves by their units: gradients in, updates out."""

    def times(factor: Array, leaf: Array) -> Array:
        wide = working(leaf)
        return (wide * factor.astype(wide.dtype)).astype(leaf.dtype)

    return at_picked(times, scale, tree)
