"""What is proven of gradient descent, followed along training: the loss, and the distance from the start."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks
from narrow_jax._typing import Array, HostArray, Params
from narrow_jax.certificates.narrow_nets.convergence_of_gradient_descent import GradientDescent
from narrow_jax.certificates.pyramidal_nets.equation21_invariants import Broken
from narrow_jax.certificates.pyramidal_nets.measured_norms import EVALUATION
from narrow_jax.models import Activations, mlp_activations, mlp_layers
from narrow_jax.monitors import Monitor, require_certificate

NAME = "broken_bound"
BOUNDS = ("‖θ − θ⁰‖ ≤ R", "½‖f − y‖² ≤ loss_bound(k)")
"""Recorded as 1 and 2, the first that is broken."""


class _Watch(NamedTuple):
    """What the monitor carries: the start, the certificate's numbers, the targets, and how many records there were."""

    start: Params
    unit: Array
    radius: Array
    residual: Array
    logs: Array
    bend: Array
    y: Array
    records: Array


class GradientDescentBound(Monitor):
    """‖θ_k − θ⁰‖ ≤ R and ½‖f − y‖² ≤ ``loss_bound(k)`` along a run of gradient descent.

    Records 0 while both hold, else a code of the first that is broken: ``first_broken`` reads it. The loss is judged up
    to the rounding of f in the dtype of the run, and where records are some steps apart by the bound at the first step
    after the record before.

    Args:
        certificate: of the start, with the learning rate of the run.
        y: the targets.
        activation: σ, or a sequence with one a hidden layer.
        every: steps between records, as in ``fit``: 1 to see every step.

    Raises:
        ValueError: a certificate that does not hold, ``every`` below 1.
        TypeError: no certificate of ``gradient_descent``, targets that are no array.

    Example:
        >>> import optax
        >>> import narrow_jax as nj
        >>> x = jax.random.normal(jax.random.key(0), (6, 4))
        >>> y = jnp.sign(x[:, :1])
        >>> params = nj.initializers.mirrored_lecun(jax.random.key(1), inputs=4, width=16)
        >>> params["v"] = 1024 * params["v"]
        >>> c = nj.certificates.gradient_descent(params, x, y)
        >>> frozen = optax.partition({"w": optax.sgd(c.learning_rate), "v": optax.set_to_zero()}, {"w": "w", "v": "v"})
        >>> watch = GradientDescentBound(c, y)
        >>> result = nj.fit(nj.models.pairwise_apply, params, frozen, (x, y), steps=50, every=1, monitors=[watch])
        >>> print(watch.first_broken(result.history))
        None

    Reference:
        docs/proofs/gradient_descent.md.
    """

    def __new__(
        cls, certificate: GradientDescent, y: HostArray, activation: Activations = "tanh", every: int = 1
    ) -> GradientDescentBound:
        """Return the monitor of a run."""
        _checks.count("every", every)
        require_certificate(certificate, GradientDescent, "gradient_descent")
        _checks.array("y", y)
        if not certificate.holds:
            raise ValueError(
                f"the certificate does not hold: {certificate.reason}; expected one that bounds the run"
            )
        return super().__new__(
            cls,
            NAME,
            lambda params, x: _begin(certificate, params, y),
            lambda watch, params, x: _look(activation, every, certificate.wrt, watch, params, x),
        )

    def first_broken(self, history: Mapping[str, np.ndarray]) -> Broken | None:
        """Return which bound broke first and when, from the history of ``fit``; None if both held."""
        codes = np.asarray(history[NAME])
        (broken,) = np.nonzero(codes)
        if not broken.size:
            return None
        return Broken(BOUNDS[int(codes[broken[0]]) - 1], int(history["step"][broken[0]]))


def _begin(certificate: GradientDescent, params: Params, y: HostArray) -> _Watch:
    dtype = jnp.result_type(*jax.tree.leaves(params))
    above = 1 + 4 * float(jnp.finfo(dtype).eps)
    rates = np.array([certificate.first_rate, certificate.late_rate])
    return _Watch(
        start=jax.tree.map(jnp.copy, params),
        unit=jnp.asarray(certificate.unit, dtype),
        radius=jnp.asarray(certificate.radius * above, dtype),
        residual=jnp.asarray(certificate.residual * above, dtype),
        logs=jnp.asarray(np.log1p(-np.minimum(rates, 1 - 2.0**-50)) / above, dtype),
        bend=jnp.asarray(certificate.bend * above, dtype),
        y=jnp.reshape(jnp.asarray(y, dtype), (len(y), -1)),
        records=jnp.zeros((), jnp.int32),
    )


def _look(
    activation: Activations, every: int, wrt: str, watch: _Watch, params: Params, x: HostArray
) -> tuple[_Watch, Array]:
    unit = jnp.finfo(watch.residual.dtype).eps / 2
    moved = _length(watch.unit, jax.tree.map(operator.sub, params, watch.start))
    near = moved <= watch.radius + 4 * unit * _length(watch.unit, watch.start, wrt)
    # the step of this record lies after that of the record before
    step = jnp.maximum((watch.records - 1) * every + 1, 0).astype(watch.residual.dtype)
    first, late = jnp.exp(step * watch.logs)
    share = jnp.minimum(first, late / (1 - watch.bend * (1 - late)))
    norm, rounding = _residual(activation, params, jnp.asarray(x), watch.y)
    low = norm <= watch.residual * share * (1 + 64 * unit) + rounding
    code = jnp.where(near, jnp.where(low, 0, 2), 1).astype(jnp.int32)
    return watch._replace(records=watch.records + 1), code


def _length(unit: Array, params: Params, wrt: str = "all") -> Array:
    """Return ‖(w/s, sV)‖, the length in the coordinates of the steps; of w alone for "w"."""
    outer = "v" if "v" in params else f"w{len(params)}"
    factors = {name: unit if name == outer else 1 / unit for name in params if wrt == "all" or name != outer}
    parts = [factors[name] * leaf for name in factors for leaf in jax.tree.leaves(params[name])]
    return jnp.sqrt(sum(jnp.sum(part**2) for part in parts))


def _residual(activation: Activations, params: Params, x: Array, y: Array) -> tuple[Array, Array]:
    """Return ‖f − y‖ and a bound of its rounding: E_l ≤ Lip(E_{l−1}‖W_l‖ + nu‖A_{l−1}‖‖W_l‖) + 64u(‖Z_l‖ + √size)."""
    unit = jnp.finfo(y.dtype).eps / 2
    halves, v = _layers(params)
    gap, error, size = jnp.zeros((), y.dtype), jnp.zeros((), y.dtype), jnp.zeros((), y.dtype)
    for half, sign in zip(halves, (1, -1), strict=False):
        a, moved = x, jnp.zeros((), y.dtype)
        for w, sigma in zip(half, mlp_activations(activation, len(half)), strict=True):
            norm, z = jnp.linalg.norm(w), a @ w
            moved = sigma.lipschitz * norm * (moved + len(w) * unit * jnp.linalg.norm(a))
            moved = moved + EVALUATION * unit * (jnp.linalg.norm(z) + math.sqrt(z.size))
            a = sigma(z)
        gap, error, size = gap + sign * a, error + moved, size + jnp.linalg.norm(a)
    norm = jnp.linalg.norm(gap @ v - y)
    rounding = (error + (len(v) + 2) * unit * size) * jnp.linalg.norm(v)
    return norm, rounding + 8 * unit * (norm + jnp.linalg.norm(y))


def _layers(params: Params) -> tuple[list[list[HostArray]], HostArray]:
    """Return W_1 … W_H of the net or of both halves of a pair, and V; traced or not."""
    if "plus" in params:
        return [mlp_layers(params["plus"]), mlp_layers(params["minus"])], params["v"]
    if "w" not in params:
        *hidden, v = mlp_layers(params)
        return [hidden], v
    w, v = params["w"], params["v"]
    return [[part] for part in jnp.split(w, w.shape[1] // v.shape[0], axis=1)], v
