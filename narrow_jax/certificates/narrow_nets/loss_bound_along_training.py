"""The loss that a run can have at most by how far it is from a KKT point, followed along training."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from narrow_jax import _checks
from narrow_jax._typing import Array, HostArray, Params, Samples
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.jacobian import Net, pairwise, pairwise_mlp, plain
from narrow_jax.linalg import Jacobian
from narrow_jax.models import Activations, pairwise_apply, pairwise_mlp_apply
from narrow_jax.monitors import Monitor, SigmaMinMonitor
from narrow_jax.projections import l2_norm


class _Watch(NamedTuple):
    """What the monitor carries: w⁰, V⁰, L(V⁰) on the ball, the targets, and what tracks σ_min."""

    center: Params
    v: Array
    slope: Array
    y: Array
    tracked: object


class LossBound(Monitor):
    """½‖f − y‖² at most, at each record of a run of problem (7), feasible or not: small near KKT points.

    ½((‖ρ_w‖ + δ/D)/(σ_min(J) − ½LD))² as in ``kkt``, with σ_min as ``SigmaMinMonitor`` tracks it and without rounding:
    an estimate; ``kkt(…).loss_bound`` at a point is proven. Infinity where the denominator is not positive or w has
    left the ball, NaN where σ_min does not settle. L is that of the start on the ball, times the growth of V's norms.

    Args:
        center: the mirrored start, of a pairwise net or a deep pair.
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        radius: ε, which D may reach.
        activation: name or ``Activation``; for deep pairs also a sequence with one a layer.
        name: the key in the history.

    Raises:
        ValueError: a start that is not mirrored, x or y that do not fit, ε < 0, no ball with several hidden layers, an
            activation that is not smooth.
        TypeError: arrays that are not real floating numbers.

    Example:
        >>> import numpy as np, optax
        >>> import narrow_jax as nj
        >>> x = np.random.default_rng(0).normal(size=(6, 4))
        >>> y = np.sin(x[:, :1])
        >>> start = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=8)
        >>> tx = nj.constraints.regime(optax.sgd(0.1), radius=0.02)
        >>> watch = LossBound(start, x, y, radius=0.02)
        >>> result = nj.fit(nj.models.pairwise_apply, start, tx, (x, y), steps=20, monitors=[watch])
        >>> bool((result.history["loss_bound"][1:] < np.inf).all())
        True

    Reference:
        docs/proofs/theorem2.md, "At any point".
    """

    def __new__(
        cls,
        center: Params,
        x: HostArray,
        y: Samples,
        radius: float,
        activation: Activations = "tanh",
        name: str = "loss_bound",
    ) -> LossBound:
        """Return the monitor of a run from this start."""
        _checks.radius(radius)
        data, labels = _checks.real_data(x, y)
        center = plain(center)
        net = Net.of(center, activation, "center")
        if not net.mirrored:
            raise ValueError(
                "center is not mirrored: f(w⁰; v) = 0 is what the bound rests on; expected the start of a pair, as "
                "nj.initializers.mirrored_lecun and mirrored_mlp draw it"
            )
        constants.check_outputs(labels, net.v)
        slope = lipschitz(net, data, float(radius))
        if not math.isfinite(slope):
            raise ValueError(_unknown(net, radius))
        jacobian, predict = _functions(net)
        tracker = SigmaMinMonitor(jacobian)

        def begin(params: Params, x: HostArray) -> _Watch:
            dtype = jnp.result_type(*jax.tree.leaves(params))
            start = jax.tree.map(lambda leaf: jnp.array(leaf, dtype), _hidden(center))
            v, steepness, targets = (jnp.asarray(number, dtype) for number in (net.v, slope, labels))
            return _Watch(start, v, steepness, targets, tracker.init(params, jnp.asarray(x)))

        def look(watch: _Watch, params: Params, x: HostArray) -> tuple[_Watch, Array]:
            tracked, sigma = tracker.update(watch.tracked, params, jnp.asarray(x))
            bound = _bound(lambda p: predict(p, x), watch, plain(params), sigma, radius)
            return watch._replace(tracked=tracked), bound

        return super().__new__(cls, name, begin, look)


def _functions(
    net: Net,
) -> tuple[Callable[[Params, HostArray], Jacobian], Callable[[Params, HostArray], Array]]:
    """Return the Jacobian and f as functions of params and x."""
    if "w" in net.params:
        (sigma,) = net.sigmas
        return lambda p, x: pairwise(p, x, sigma), lambda p, x: pairwise_apply(p, x, sigma)
    sigmas = net.sigmas
    return lambda p, x: pairwise_mlp(p, x, sigmas), lambda p, x: pairwise_mlp_apply(p, x, sigmas)


def _hidden(params: Params) -> Params:
    return {name: leaf for name, leaf in params.items() if name not in ("v", "center")}


def _unknown(net: Net, radius: float) -> str:
    if math.isinf(radius) and len(net.sigmas) > 1:
        return "radius is inf; expected a ball: with several hidden layers L grows with it"
    return f"{constants.unbounded(net.sigmas)} and no bound is known; use a smooth activation"


def _bound(
    predict: Callable[[Params], Array], watch: _Watch, params: Params, sigma: Array, radius: float
) -> Array:
    """Return ½((‖ρ_w‖ + δ/D)/(σ − ½LD))²; at D = 0 ½(‖Jᵀr‖/σ)²."""
    v, hidden = params["v"], _hidden(params)
    f, pull = jax.vjp(lambda w: predict({**w, "v": v}), hidden)
    r = f - watch.y
    (gradient,) = pull(r)
    moved = jax.tree.map(jnp.subtract, hidden, watch.center)
    apart = l2_norm(moved)
    length = jnp.where(apart > 0, apart, 1.0)
    inward = jnp.maximum(-_dot(moved, gradient) / length**2, 0.0)
    rho = l2_norm(jax.tree.map(lambda g, step: g + inward * step, gradient, moved))
    growth = jnp.where(apart > 0, jnp.maximum(-jnp.vdot(r, f), 0.0) / length, 0.0)
    left = sigma - watch.slope * _grown(v, watch.v) * apart / 2
    known = (left > 0) & (apart <= radius * (1 + 1e-5))
    size = (rho + growth) / jnp.where(known, left, 1.0)
    return jnp.where(jnp.isnan(sigma), jnp.nan, jnp.where(known, size**2 / 2, jnp.inf))


def _dot(a: Params, b: Params) -> Array:
    return functools.reduce(operator.add, jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))


def _grown(v: Array, start: Array) -> Array:
    """Return by how much L grew at most: it is linear in ‖V‖₂ and max_j‖V_j,:‖, the largest row."""
    rows = [jnp.max(jnp.linalg.norm(a, axis=1)) for a in (v, start)]
    norms = [jnp.linalg.norm(a, 2) for a in (v, start)]
    return jnp.maximum(rows[0] / rows[1], norms[0] / norms[1])
