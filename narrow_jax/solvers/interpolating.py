"""An interpolating net of any architecture, near its start: two copies of a model, solved by Newton's method."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from narrow_jax import _checks, initializers, jacobian, models
from narrow_jax._host import host_only
from narrow_jax._printing import brief
from narrow_jax._typing import Array, Float, HostArray, Params, Samples
from narrow_jax.certificates import distinct_samples
from narrow_jax.jacobian import AutodiffJacobian
from narrow_jax.labels import leaf_names
from narrow_jax.linalg import EvaluatedJacobian, context
from narrow_jax.models import Features
from narrow_jax.solvers.newton import Factor, Interpolation, Path, Theta

TOLERANCE = 1e-20
"""Solved when the loss is at most this times ½‖y‖²."""


class Interpolated(NamedTuple):
    """What ``interpolate`` found.

    Fields:
        params: {"plus": w₊, "minus": w₋, "v": (h, k)} for ``nj.models.pairwise(features)``, NumPy float64.
        center: the mirrored start, with v⁰: params have v = scale · v⁰.
        scale: a power of two, ≥ 1.
        loss: ½‖y − f‖².
        residual: y − f, (n, k).
        radius_used: ε.
        history: "loss", "scale", "damping" and "distance" after each step, the first entry at the start.
        status: "estimate" where a net was found that interpolates as far as can be computed: that an exact one is near
            is not proven, for want of a Lipschitz constant; "not_converged" or "rank_deficient".
        message: what the status means here, and what to do.
    """

    params: Params
    center: Params
    scale: float
    loss: float
    residual: np.ndarray
    radius_used: float
    history: dict[str, np.ndarray]
    status: str
    message: str

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())


@host_only
def interpolate(
    features: Features,
    w: Params,
    x: HostArray,
    y: Samples,
    radius: float = math.inf,
    *,
    v: HostArray | None = None,
    steps: int = 40,
    progress: bool | None = None,
) -> Interpolated:
    """Find weights with which two copies of a model interpolate the labels, in a ball around equal copies.

    f(x) = (φ(x; w₊) − φ(x; w₋))V is 0 at w₊ = w₋ = w, and f = y is solved for w₊ and w₋ by Newton with minimum-norm
    steps, V = s·V⁰ as in ``memorize``. Any φ that is smooth in w serves: a convolutional net, a transformer block.

    Args:
        features: ``features(w, x) -> (n, h)``, or a Linen module, whose variables w are; the same function of w and x
            at every call.
        w: where both copies start; floating leaves.
        x: data, samples along the first axis.
        y: labels, (n,) or (n, k).
        radius: ε > 0 of the ball of both copies together.
        v: V⁰, (h, k); None for that of ``mirrored_lecun`` with the key 0.
        steps: Newton steps at most.
        progress: show a progress bar; by default where the standard error is a terminal.

    Returns:
        ``Interpolated``; see its ``status``.

    Raises:
        ValueError: ε ≤ 0, features of another shape than (n, h), samples that influence each other, labels that do not
            fit, non-finite values.
        TypeError: no function, leaves or labels that are not real floating numbers.
        MemoryBudgetError: the Jacobian does not fit.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(6, 4))
        >>> w = {"kernel": jax.random.normal(jax.random.key(0), (4, 5)), "bias": jnp.zeros(5)}
        >>> found = interpolate(lambda w, x: jnp.sin(x @ w["kernel"] + w["bias"]), w, x, x[:, 0] ** 2, radius=0.1)
        >>> found.status, found.loss < 1e-16
        ('estimate', True)

    Reference:
        docs/proofs/theorem1.md; Theorem 1 of "When Expressivity Meets Trainability" for any features.
    """
    _checks.radius(radius)
    if radius == 0:
        raise ValueError("radius is 0, which freezes w at the start, where f = 0; expected a number > 0")
    _checks.count("steps", steps)
    x = _checks.as_array("x", x)
    labels = _labels(x, y)
    samples = distinct_samples(np.asarray(x).reshape(len(labels), -1), labels, vanishing=False)
    if samples.clash:
        raise ValueError(samples.clash)
    with context.float64():
        center = _center(features, w, x, labels, v)
        J = jacobian.autodiff(models.pairwise(features), center, x[samples.kept], wrt=("plus", "minus"))
        equations = CopiesOnData(J)
        problem = Interpolation(
            equations=equations,
            y=np.asarray(labels[samples.kept]).reshape(-1),
            start=np.asarray(ravel_pytree(equations.copies(center))[0]),
            radius=float(radius),
            preconditioner=partial(Factor.of, dtype="float64"),
        )
        first = problem.preconditioner(equations.jacobian(problem.start))
        regular = bool(first.pivot > len(labels) * np.finfo(np.float64).eps)
        path = problem.solve(first, TOLERANCE, steps if regular else 0, progress)
        found = _concluded(equations, center, path, labels[samples.kept], problem.radius, regular)
        left = np.asarray(models.pairwise(features)(found.params, x)) - labels if samples.repeated else None
        return found if left is None else found._replace(residual=-left, loss=float(np.sum(left**2) / 2))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CopiesOnData:
    """f(θ; V) of two copies at the samples: their Jacobian at the start, which knows model, data and V."""

    J: AutodiffJacobian

    @staticmethod
    def copies(params: Params) -> Params:
        """Return both copies, without V."""
        return {name: params[name] for name in ("minus", "plus")}

    def params(self, theta: Theta) -> Params:
        """Return the weights as the net has them."""
        _, unravel = ravel_pytree(self.copies(self.J.params))
        return {**unravel(jnp.asarray(theta)), "v": self.J.params["v"]}

    @jax.jit
    def predict(self, theta: Theta) -> Float[Array, " r"]:
        """Return f, rows (i, c)."""
        return self.J.plan.apply_fn(self.params(theta), self.J.x).reshape(-1)

    @jax.jit
    def jacobian(self, theta: Theta) -> EvaluatedJacobian:
        """Return J with respect to both copies, as computed."""
        return dataclasses.replace(self.J, params=self.params(theta)).evaluate()


def _labels(x: HostArray, y: Samples) -> Float[np.ndarray, "n k"]:
    labels = np.asarray(_checks.as_array("y", y))
    labels = labels[:, None] if labels.ndim == 1 else labels
    labels = np.asarray(_checks.real_matrix("y", labels), float)
    _checks.finite("y", labels)
    if labels.shape[:1] != np.shape(x)[:1]:
        raise ValueError(f"x has shape {np.shape(x)} and y {labels.shape}; expected one row a sample in both")
    return labels


def _center(features: Features, w: Params, x: HostArray, labels: np.ndarray, v: HostArray | None) -> Params:
    """Return {"plus": w, "minus": w, "v": V⁰} in float64."""
    models.pairwise(features)  # checks what the features are
    for name, leaf in zip(leaf_names(w), jax.tree.leaves(w), strict=True):
        if not jnp.issubdtype(jnp.result_type(_checks.array("a leaf of w", leaf)), jnp.floating):
            raise TypeError(
                f"the leaf {name!r} of w is {jnp.result_type(leaf)}; expected real floating numbers, since all of w is "
                "trained: let features close over the rest"
            )
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), w)
    phi = models.features_of(features)(wide, x)
    if v is None:
        units = phi.shape[-1] if getattr(phi, "ndim", 0) == 2 else 1
        draw = initializers.mirrored_lecun(
            jax.random.key(0), inputs=1, width=2 * units, outputs=labels.shape[1], dtype=jnp.float64
        )
        v = draw["v"]
    v = _checks.real_matrix("v", v)
    if v.shape[1] != labels.shape[1]:
        raise ValueError(f"v has shape {v.shape} and y {labels.shape}; expected a column of v for each of y")
    if not np.isfinite(np.asarray(phi)).all():
        raise ValueError("features(w, x) are not finite at the start; expected finite numbers")
    return {"plus": wide, "minus": wide, "v": jnp.asarray(v, jnp.float64)}


def _concluded(
    equations: CopiesOnData, center: Params, path: Path, labels: np.ndarray, radius: float, regular: bool
) -> Interpolated:
    scaled = dataclasses.replace(equations.J, params={**center, "v": path.scale * center["v"]})
    found = CopiesOnData(scaled)
    left = labels - np.asarray(found.predict(path.theta)).reshape(labels.shape)
    loss, steps = float(np.sum(left**2) / 2), len(path.history["loss"]) - 1
    if not regular:
        status, message = (
            "rank_deficient",
            (
                f"the Jacobian at the start has no full row rank: {labels.size} equations and "
                f"{path.theta.size} weights. Take a wider model, another start, or remove samples that are equal"
            ),
        )
    elif path.solved:
        status, message = (
            "estimate",
            f"loss {loss:.3g} after {steps} Newton steps; an exact net is not proven",
        )
    else:
        status, message = (
            "not_converged",
            (f"the loss is {loss:.3g} after {steps} steps: take a wider model, or enlarge the radius"),
        )
    return Interpolated(
        params=jax.tree.map(np.asarray, found.params(path.theta)),
        center=jax.tree.map(np.asarray, center),
        scale=path.scale,
        loss=loss,
        residual=left,
        radius_used=radius,
        history=path.history,
        status=status,
        message=message,
    )
