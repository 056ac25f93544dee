"""Problem (7) to a KKT point: Levenberg–Marquardt steps in the feasible set, then Newton on the natural residual."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _progress, activations, initializers
from narrow_jax._typing import Array, Key, Samples
from narrow_jax.activations import Activation
from narrow_jax.certificates import Constrained, Point, constrained, measure, start_gradient
from narrow_jax.solvers.descent import Descent
from narrow_jax.solvers.search import FLOOR, Iterate, Search

WEIGHTS = 8000
"""Most hidden weights: Newton's matrix is dense, 8·p² bytes."""

SLOW, NEAR = 0.9, 100
"""Newton's method, which is drawn to any KKT point, starts where a step leaves more than this of the loss, or where the
residual is at most so many tolerances.

``python -m benchmarks.kkt_constants``, 1,288 steps: 0.6: 1,509 and one failure; 0.975: 1,280; 25 and 400: no other.
"""


class KKTSolution(NamedTuple):
    """What ``solve_kkt`` found.

    Fields:
        params: the weights, NumPy float64, feasible.
        center: the start.
        loss: ½‖y − f‖².
        residual: as ``nj.certificates.natural_residual``; 0 at KKT points.
        history: "loss" and "residual" after each step, "newton" where it was a Newton step.
        converged: residual ≤ tolerance.
    """

    params: dict[str, np.ndarray]
    center: dict[str, np.ndarray]
    loss: float
    residual: float
    history: dict[str, np.ndarray]
    converged: bool


def solve_kkt(
    key: Key[Array, ""],
    x: Samples,
    y: Samples,
    width: int,
    radius: float,
    *,
    zeta: float | None = 1e-3,
    kappa: float = math.inf,
    activation: str | Activation = "tanh",
    model: str = "pairwise",
    tolerance: float = 1e-8,
    steps: int = 300,
    progress: bool | None = None,
) -> KKTSolution:
    """Solve ``min ½‖y − f(w; v)‖²`` over the ball and the cone to a KKT point.

    In the coordinates ŵ = (w − w⁰)/s, v̂ = s·v. Far away, θ ← θ + Δ with Δ from the better of two damped models over
    the feasible set: JᵀJ, and the exact Hessian with, where the ball pushes back, the curvature of its sphere; the
    damping from the ratio of actual to predicted decrease. Where that slows down, Newton's method on
    Φ(θ) = θ − P(θ − ∇) with the generalised Jacobian of the exact projections and the exact Hessian, kept where it
    halves ‖Φ‖ and does not raise the loss, or lowers the loss as its model predicts.

    Where m < 2n/d and ε is small the infimum is not attained: v grows without bound and the residual falls with it.
    The loop then ends at the tolerance, or, from ε = 0.01 down, at the rounding of the gradient.

    Args:
        key: random key of the start.
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        width: m.
        radius: ε.
        zeta: ζ.
        kappa: κ.
        activation: name or ``Activation``.
        model: "pairwise" from a mirrored start, or "standard" from a plain one: a ball and free v.
        tolerance: of the residual.
        steps: at most.
        progress: show a progress bar; by default where the standard error is a terminal.

    Returns:
        ``KKTSolution``.

    Raises:
        ValueError: bad ε, ζ, κ, width or model, too many weights, data that do not fit.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(6, 4))
        >>> s = solve_kkt(jax.random.key(0), x, x[:, 0] ** 2, width=4, radius=0.1)
        >>> s.converged, bool(np.linalg.norm(s.params["w"] - s.center["w"]) <= 0.1 + 1e-12)
        (True, True)

    Reference:
        Problem (7) of "When Expressivity Meets Trainability"; Qi and Sun, "A nonsmooth version of Newton's method"
        (1993); Transtrum and Sethna, "Improvements to the Levenberg–Marquardt algorithm" (2012), on acceleration.
    """
    _checks.choice("model", model, ("pairwise", "standard"))
    _checks.positive("tolerance", tolerance)
    _checks.count("steps", steps)
    x, y = _checks.real_data(x, y)
    inputs = x.shape[1]
    _checks.count("width", width)
    if inputs * width > WEIGHTS:
        raise ValueError(
            f"{inputs} × {width} hidden weights; expected at most {WEIGHTS}: Newton's matrix is dense"
        )
    draw = {"inputs": inputs, "width": width, "outputs": y.shape[1], "dtype": jnp.float64}
    with jax.enable_x64(True):
        if model == "pairwise":
            center = initializers.mirrored_lecun(key, **draw, zeta=zeta or 1e-3, kappa=kappa)
        else:
            center, zeta = initializers.lecun(key, **draw), None
        problem = constrained(center, x, y, radius, zeta, kappa, activations.get(activation))
        path = _descend(problem, tolerance, steps, progress)
        params = jax.tree.map(np.asarray, problem.params(path[-1].point))
    fields = ("loss", "residual", "newton")
    return KKTSolution(
        params=params,
        center=jax.tree.map(np.asarray, center),
        loss=path[-1].loss,
        residual=path[-1].residual,
        history={name: np.array([getattr(iterate, name) for iterate in path]) for name in fields},
        converged=path[-1].residual <= tolerance,
    )


def _descend(problem: Constrained, tolerance: float, steps: int, show: bool | None) -> list[Iterate]:
    """Return the start and the point after each step."""
    unit = start_gradient(problem)

    def measured(point: Point) -> Iterate:
        return Iterate(point, *measure(problem, point, unit))

    path = [measured(problem.project(problem.point({"w": problem.w0, "v": problem.v0})))]
    search = Search(measured, FLOOR * unit)
    with _progress.bar(steps, show) as advance:
        for step in range(steps):
            here = path[-1]
            advance(step, here.loss)
            if here.residual <= tolerance:
                break
            slow = step > 0 and (here.loss > SLOW * path[-2].loss or here.residual <= NEAR * tolerance)
            descent = Descent.at(problem, here.point)
            found, search = search.step(descent.damped, descent.newton, here, slow)
            if found is None:
                break
            path.append(found)
    return path
