"""Equation (21) of "Global Convergence of Deep Networks": the invariants of the proof, followed along training."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from narrow_jax import _checks, activations, models
from narrow_jax._typing import Array, HostArray, Params
from narrow_jax.activations import Activation
from narrow_jax.certificates.pyramidal_nets.measured_norms import EVALUATION
from narrow_jax.certificates.pyramidal_nets.theorem3_2_convergence import PyramidalCertificate
from narrow_jax.monitors import Monitor, require_certificate

NAME = "broken_invariant"
LAYERS = 1000
"""A code is a multiple of this for the kind of invariant, plus the layer where there is one."""


class Invariant(enum.Enum):
    """What (21) keeps, in the order in which a record names it; the layer goes where the braces are."""

    SMALLEST = "σ_min(W_{}) ≥ λ/2"
    LARGEST = "‖W_{}‖ ≤ (3/2)λ̄"
    FEATURES = "σ_min(F_1) ≥ λ_F/2"
    LOSS = "Φ ≤ (1 − ηα₀)^r Φ(θ_0)"

    @property
    def code(self) -> int:
        """Return what is recorded where it is broken, but for the layer."""
        return LAYERS * (1 + list(Invariant).index(self))

    @classmethod
    def named(cls, code: int) -> str:
        """Return the invariant, with its layer, that was recorded as this code."""
        kind, layer = divmod(code, LAYERS)
        return list(cls)[kind - 1].value.format(layer)


class Broken(NamedTuple):
    """The invariant that broke first, and the first recorded step at which it was broken."""

    invariant: str
    step: int


class _Watch(NamedTuple):
    """What the monitor carries: the start, the limits of (21), the targets, and how many records there were."""

    start: list[Array]
    first_features: Array
    radii: Array
    smallest: Array
    largest: Array
    lambda_f: Array
    root: Array
    log_factor: Array
    y: Array
    records: Array


class PyramidalInvariants(Monitor):
    """σ_min(W_l) ≥ λ_l/2, ‖W_l‖ ≤ (3/2)λ̄_l, σ_min(F_1) ≥ λ_F/2 and Φ(θ_r) ≤ (1 − ηα₀)^r Φ(θ_0): (21).

    Records 0 while all hold, else a code of the first that is broken, in that order: ``first_broken`` reads it.
    While no layer has left the ball that the proof keeps it in, Weyl's inequality gives the first three, and a record
    costs about one forward pass; singular values are computed only beyond. The last is judged up to the rounding of
    Φ, and where records are some steps apart by the bound at the first step after the record before.

    Args:
        certificate: of the start, with the learning rate of the run.
        y: the targets.
        activation: σ.
        every: steps between records, as in ``fit``: 1 to see every step.

    Raises:
        ValueError: another activation than the certificate's, ``every`` below 1.
        TypeError: no certificate of ``pyramidal``, targets that are no array.

    Example:
        >>> import optax
        >>> import narrow_jax as nj
        >>> sigma = nj.activations.smooth_leaky_relu(gamma=0.5, beta=1.0)
        >>> x, y = jnp.eye(2), jnp.full((2, 1), 0.1)
        >>> params = {"w1": 8 * jnp.eye(2), "w2": jnp.zeros((2, 1))}
        >>> c = nj.certificates.pyramidal(params, x, y, sigma)
        >>> watch = PyramidalInvariants(c, y, sigma)
        >>> result = nj.fit(lambda p, x: nj.models.mlp_apply(p, x, sigma), params, optax.sgd(c.learning_rate),
        ...                 (x, y), steps=50, every=1, monitors=[watch])
        >>> print(watch.first_broken(result.history))
        None

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", (21).
    """

    def __new__(
        cls, certificate: PyramidalCertificate, y: HostArray, activation: str | Activation, every: int = 1
    ) -> PyramidalInvariants:
        """Return the monitor of a run."""
        _checks.count("every", every)
        require_certificate(certificate, PyramidalCertificate, "pyramidal")
        _checks.array("y", y)
        sigma = activations.check(activations.get(activation))
        own = sigma.min_derivative, sigma.sup_second_derivative
        if own != (certificate.gamma, certificate.beta):
            raise ValueError(
                f"the certificate is of an activation with γ = {certificate.gamma:g}, β = {certificate.beta:g}, and "
                f"{sigma.name} has {own[0]:g} and {own[1]:g}; expected the activation that was certified"
            )
        return super().__new__(
            cls,
            NAME,
            lambda params, x: _begin(certificate, sigma, params, x, y),
            lambda watch, params, x: _look(sigma, every, watch, params, x),
        )

    def first_broken(self, history: Mapping[str, np.ndarray]) -> Broken | None:
        """Return which invariant broke first and when, from the history of ``fit``; None if all held."""
        codes = np.asarray(history[NAME])
        (broken,) = np.nonzero(codes)
        if not broken.size:
            return None
        return Broken(Invariant.named(int(codes[broken[0]])), int(history["step"][broken[0]]))


def _begin(
    certificate: PyramidalCertificate, sigma: Activation, params: Params, x: HostArray, y: HostArray
) -> _Watch:
    weights = [jnp.asarray(w) for w in models.mlp_layers(params)]
    dtype = weights[0].dtype
    return _Watch(
        start=weights,
        first_features=sigma(jnp.asarray(x) @ weights[0]),
        radii=_below(certificate.paper.radii, dtype),
        smallest=_below([value / 2 for value in certificate.lambdas], dtype),
        largest=_above([1.5 * value for value in certificate.lambda_bars], dtype),
        lambda_f=_below(certificate.lambda_f / 2, dtype),
        root=_above(np.sqrt(2) * np.sqrt(certificate.initial_loss), dtype),
        log_factor=jnp.asarray(max(certificate.paper.log_factor, -1e30), dtype),  # 0 · ∞ is not 0
        y=jnp.asarray(y),
        records=jnp.zeros((), jnp.int32),
    )


def _above(values: float | Sequence[float] | np.ndarray, dtype: DTypeLike) -> Array:
    """Return upper limits in the dtype of the weights, rounded up: never 0, infinite beyond its largest number."""
    limits = jnp.finfo(dtype)
    with np.errstate(over="ignore"):
        raised = np.maximum(values, float(limits.tiny)) * (1 + float(limits.eps))
        return jnp.asarray(np.asarray(raised).astype(dtype))


def _below(values: float | Sequence[float] | np.ndarray, dtype: DTypeLike) -> Array:
    """Return lower limits, and radii within which nothing need be computed, rounded down."""
    limits = jnp.finfo(dtype)
    lowered = np.minimum(values, float(limits.max)) * (1 - float(limits.eps))
    return jnp.asarray(np.asarray(lowered).astype(dtype))


def _look(sigma: Activation, every: int, watch: _Watch, params: Params, x: HostArray) -> tuple[_Watch, Array]:
    x, weights = jnp.asarray(x), [jnp.asarray(w) for w in models.mlp_layers(params)]
    features = sigma(x @ weights[0])
    moved = jnp.stack([jnp.linalg.norm(w - w0) for w, w0 in zip(weights, watch.start, strict=True)])
    near = jnp.all(moved <= watch.radii) & (
        jnp.linalg.norm(features - watch.first_features) <= watch.lambda_f
    )
    spectral = jax.lax.cond(
        near, lambda: jnp.zeros((), jnp.int32), lambda: _spectral(watch, weights, features)
    )
    # the step of this record lies after that of the record before
    step = jnp.maximum((watch.records - 1) * every + 1, 0).astype(watch.root.dtype)
    root, rounding = _residual(sigma, weights, x, watch)
    falls = root <= watch.root * jnp.exp(step / 2 * watch.log_factor) + rounding
    code = jnp.where(spectral > 0, spectral, jnp.where(falls, 0, Invariant.LOSS.code)).astype(jnp.int32)
    return watch._replace(records=watch.records + 1), code


def _spectral(watch: _Watch, weights: list[Array], features: Array) -> Array:
    """Return the code of the first of the first three invariants that is broken, by singular values."""
    # thin: the whole of a wide layer's singular vectors would be reserved, n_1 × n_1, though none is asked for
    values = [jnp.linalg.svd(w, full_matrices=False, compute_uv=False) for w in weights]
    code = jnp.zeros((), jnp.int32)
    smallest = jnp.linalg.svd(features, full_matrices=False, compute_uv=False)[-1]
    code = jnp.where(smallest < watch.lambda_f, Invariant.FEATURES.code, code)
    for layer in range(len(weights), 0, -1):  # the first layer has the last word
        broken = values[layer - 1][0] > watch.largest[layer - 1]
        code = jnp.where(broken, Invariant.LARGEST.code + layer, code)
    for layer in range(len(weights), 2, -1):
        broken = values[layer - 1][-1] < watch.smallest[layer - 1]
        code = jnp.where(broken, Invariant.SMALLEST.code + layer, code)
    return code.astype(jnp.int32)


def _residual(sigma: Activation, weights: list[Array], x: Array, watch: _Watch) -> tuple[Array, Array]:
    """Return ‖F_L − Y‖ and a bound of its rounding, as ``measured_norms.forward`` has it."""
    unit = jnp.finfo(watch.root.dtype).eps / 2
    layer, error = x, jnp.zeros_like(watch.root)
    for index, (w, norm) in enumerate(zip(weights, watch.largest, strict=True), start=1):
        rounding = len(w) * unit * jnp.linalg.norm(layer) * jnp.linalg.norm(w)
        product = layer @ w
        last = index == len(weights)
        layer = product if last else sigma(product)
        error = error * norm + rounding + (0 if last else EVALUATION) * unit * jnp.linalg.norm(product)
    root = jnp.linalg.norm(layer - watch.y)
    size = jnp.linalg.norm(watch.y) + x.shape[0] * (root + watch.root)
    return root, error + 8 * unit * size
