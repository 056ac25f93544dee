"""Problem (7) to a KKT point: Levenberg–Marquardt steps in the feasible set, then Newton on the natural residual."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _printing, initializers
from narrow_jax._host import host_only
from narrow_jax._printing import brief
from narrow_jax._typing import Array, Key, Params, Samples
from narrow_jax.certificates import Constrained, Point, constrained, measure, start_gradient
from narrow_jax.linalg import context
from narrow_jax.models import Activations
from narrow_jax.solvers.descent import Descent, Trial
from narrow_jax.solvers.descent_by_products import ProductDescent

DENSE, DENSE_DEEP = 8000, 1000
"""Most hidden weights for matrices of 8·p² bytes, with one hidden layer and several: beyond, by products.

In a deep pair all weights couple, and the Hessian takes p products.
"""

# Measured by ``python -m benchmarks.kkt_constants`` over 30 problems: 1,288 steps in all, and all converge.

SLOW, NEAR = 0.9, 100
"""Newton's method, which is drawn to any KKT point, starts where a step leaves more than this of the loss, or where the
residual is at most so many tolerances.

0.6: 1,509 steps and one failure; 0.975: 1,280; 25 and 400: no other.
"""

ENOUGH = 0.1
"""The share of the predicted decrease that has to come true. 0.025: 1,326 steps; 0.4: 1,332, and higher losses."""

HALF = 0.5
"""What Newton's step may leave of the residual. 0.9: 1,325 steps; 0.125: 1,322 and one failure."""

FIRST_MU, LEAST_MU = 1e-3, 1e-15
"""Dampings. First 2.5e-4: 1,209 steps, 4e-3: 1,127, and higher losses; 1e-6: 1,419, 1: 1,943 and 3 failures.

Least 1e-18 and 1e-12: the same steps; 1e-6: 1,999 and 3 failures.
"""

GOOD, SHRINK = 0.5, 4
"""Above this share of the predicted decrease μ shrinks by this factor.

0.125: 1,256 steps, 0.9: 1,348; by 2: 1,735, by 16: 1,133.
"""

GROW, TRIALS = 6, 12
"""After a failure μ grows by this factor, so often. 2: 1,263 steps, 24: 1,141; 3 times: 1,221, 48 times: 1,300."""

SHIFTS = (1e-14, 1e-11, 1e-8, 1e-4)
"""Multiples of residual·‖H‖ that are added to the Hessian: large ones hold still what the loss hardly depends on.

The first alone: 1,704 steps and 2 failures, the last alone: 2,957 and 7; without the last: 1,436, without the first:
1,316; all times 4: 1,344.
"""

LARGEST_SHIFT = 1e-2
"""The residual's part in the shift, at most. 0.0025: 1,223 steps; 0.04: 1,289; 1: 1,301."""

LEVEL, FLOOR = 1e-9, 1e-25
"""What the loss may rise, relatively and over the first gradient, where the residual halves.

0 to 1e-6, and 0 to 1e-22: the same steps.
"""

RESOLVED = 1e-12
"""A relative change of the loss below that is rounding. 1e-15 and 1e-9: the same steps."""

LONGEST_PAUSE = 8
"""Steps without Newton's method after failures in a row, at most. 2: 1,256 steps; 32: 1,334."""


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

    params: Params
    center: Params
    loss: float
    residual: float
    history: dict[str, np.ndarray]
    converged: bool

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())


@host_only
def solve_kkt(
    key: Key[Array, ""],
    x: Samples,
    y: Samples,
    width: int | None = None,
    radius: float = math.inf,
    *,
    widths: Sequence[int] | None = None,
    weight_scale: float = 1.0,
    zeta: float | None = 1e-3,
    kappa: float = math.inf,
    activation: Activations = "tanh",
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
    halves ‖Φ‖ and does not raise the loss, or lowers the loss as its model predicts. Beyond 8,000 hidden weights, or
    1,000 of a deep pair, both by products and conjugate gradients.

    Where m < 2n/d and ε is small the infimum is not attained: v grows without bound and the residual falls with it.
    The loop then ends at the tolerance, or, from ε = 0.01 down, at the rounding of the gradient. Deep pairs with fewer
    hidden weights than labels often need more than 300 steps: ``converged`` tells.

    Args:
        key: random key of the start.
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        width: m, of one hidden layer.
        radius: ε; infinity for no ball.
        widths: of the hidden layers of each half, for a deep pair.
        weight_scale: what LeCun's hidden weights are multiplied by.
        zeta: ζ.
        kappa: κ.
        activation: name or ``Activation``; for deep pairs also a sequence with one a layer.
        model: "pairwise" from a mirrored start, or "standard", of one hidden layer from a plain one: a ball and free v.
        tolerance: of the residual.
        steps: at most.
        progress: show a progress bar; by default where the standard error is a terminal.

    Returns:
        ``KKTSolution``.

    Raises:
        ValueError: bad ε, ζ, κ, width, widths or model, data that do not fit.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(6, 4))
        >>> s = solve_kkt(jax.random.key(0), x, x[:, 0] ** 2, width=4, radius=0.1)
        >>> s.converged, bool(np.linalg.norm(s.params["w"] - s.center["w"]) <= 0.1 + 1e-12)
        (True, True)
        >>> deep = solve_kkt(jax.random.key(0), x, x[:, 0] ** 2, widths=(3, 3), radius=0.1)
        >>> deep.converged, deep.params["plus"]["w2"].shape
        (True, (3, 3))

    Reference:
        Problem (7) of "When Expressivity Meets Trainability"; Qi and Sun, "A nonsmooth version of Newton's method"
        (1993); Transtrum and Sethna, "Improvements to the Levenberg–Marquardt algorithm" (2012), on acceleration.
    """
    _checks.choice("model", model, ("pairwise", "standard"))
    _checks.positive("tolerance", tolerance)
    _checks.count("steps", steps)
    x, y = _checks.real_data(x, y)
    draw = _draw(width, widths, weight_scale, model)
    cone = {"zeta": zeta or 1e-3, "kappa": kappa} if model == "pairwise" else {}
    with context.float64():
        center = draw(key, inputs=x.shape[1], outputs=y.shape[1], dtype=jnp.float64, **cone)
        problem = constrained(center, x, y, radius, zeta if cone else None, kappa, activation)
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


def _draw(
    width: int | None, widths: Sequence[int] | None, weight_scale: float, model: str
) -> Callable[..., Params]:
    """Return the initializer of the start, what it is made of checked."""
    if (width is None) == (widths is None) or (widths is not None and model == "standard"):
        raise ValueError(
            f"width is {width}, widths is {widths} and model is {model!r}; expected width, of a net with one hidden "
            "layer, or widths, of the layers of a deep pair"
        )
    _checks.positive("weight_scale", weight_scale)
    if widths is not None:
        return partial(initializers.mirrored_mlp, widths=widths, scale=weight_scale)
    _checks.count("width", width)
    draw: Callable[..., Params] = initializers.lecun if model == "standard" else initializers.mirrored_lecun

    def one_hidden(*args: Key[Array, ""], **options: object) -> Params:
        drawn = draw(*args, width=width, **options)
        return {**drawn, "w": weight_scale * drawn["w"]}

    return one_hidden


def _descend(problem: Constrained, tolerance: float, steps: int, show: bool | None) -> list[Iterate]:
    """Return the start and the point after each step."""
    unit = start_gradient(problem)
    few = problem.hidden <= (DENSE if isinstance(problem.w0, jax.Array) else DENSE_DEEP)
    offers = Descent if few else ProductDescent

    def measured(point: Point) -> Iterate:
        return Iterate(point, *measure(problem, point, unit))

    path = [measured(problem.project(problem.point(problem.start)))]
    search = Search(measured, FLOOR * unit)
    with _printing.bar(steps, show) as advance:
        for step in range(steps):
            here = path[-1]
            advance(step, here.loss)
            if here.residual <= tolerance:
                break
            slow = step > 0 and (here.loss > SLOW * path[-2].loss or here.residual <= NEAR * tolerance)
            descent = offers.at(problem, here.point)
            found, search = search.step(descent.damped, descent.newton, here, slow)
            if found is None:
                break
            path.append(found)
    return path


class Iterate(NamedTuple):
    """A feasible point with its loss and its relative residual, and whether Newton's method led to it."""

    point: Point
    loss: float
    residual: float
    newton: bool = False


Damped = Callable[[float, bool], Trial]
"""Of μ: the minimiser of the exact model (True), or of that with JᵀJ, damped by μ or by as much as it takes."""

Newton = Callable[[float], Trial]
"""Of the shift: the point of Newton's method for a Hessian that is shifted by this much, relatively."""


@dataclass(frozen=True)
class Search:
    """Keeps what lowers the loss as predicted, and what halves the residual.

    Args:
        measured: gives loss and residual of a point.
        floor: a loss that is rounding.
        mu: the dampings with which the exact model and that with JᵀJ are tried first.
        pause: so many steps go without Newton's method after it failed the last time.
        waiting: how many of them are left.
    """

    measured: Callable[[Array], Iterate]
    floor: float
    mu: tuple[float, float] = field(default_factory=lambda: (FIRST_MU, FIRST_MU))
    pause: int = 1
    waiting: int = 0

    def step(
        self, damped: Damped, newton: Newton, here: Iterate, slow: bool
    ) -> tuple[Iterate | None, Search]:
        """Return Newton's point if it halves the residual, else the lower of it and the damped one; the next search.

        Newton's method, which is drawn to any KKT point, is tried first where progress is slow, and last where
        rounding hides what the loss would lose. None: nothing helps.
        """
        tried = slow and not self.waiting
        solved = self.newton(newton, here) if tried else None
        pause = 1 if solved else min(2 * self.pause, LONGEST_PAUSE) if tried else self.pause
        waiting = max(self.waiting - 1, 0) if not tried else 0 if solved else pause
        following = replace(self, pause=pause, waiting=waiting)
        if solved and solved.residual <= HALF * here.residual:
            return solved, following
        lower, mu = self.damped(damped, here)
        if lower and (solved is None or lower.loss < solved.loss):
            return lower, replace(following, mu=mu)
        return solved or (None if tried else self.newton(newton, here)), following

    def newton(self, offer: Newton, here: Iterate) -> Iterate | None:
        """Return Newton's point of least residual if that is at most half, else one that lowers the loss.

        The second kind moves along a valley, which the first kind keeps to.
        """
        best, lower = None, None
        for shift in SHIFTS:
            trial = offer(shift * min(here.residual, LARGEST_SHIFT))
            found, predicted = self.measured(trial.point)._replace(newton=True), float(trial.predicted)
            level = found.loss <= here.loss * (1 + LEVEL) + self.floor
            if level and found.residual <= HALF * (best or here).residual:
                best = found
            drop = here.loss - found.loss
            if lower is None and drop > max(ENOUGH * predicted, RESOLVED * here.loss) and predicted > 0:
                lower = found
        return best or lower

    def damped(self, offer: Damped, here: Iterate) -> tuple[Iterate | None, tuple[float, float]]:
        """Return the lower of the points of both models, that of the exact one if it needs no more μ; the next μ."""
        exact, mu = self._decrease(lambda mu: offer(mu, True), here, self.mu[0])
        if exact and mu <= self.mu[0]:
            return exact, (mu, self.mu[1])
        gauss, gauss_mu = self._decrease(lambda mu: offer(mu, False), here, self.mu[1])
        found = [point for point in (exact, gauss) if point]
        return min(found, key=lambda point: point.loss, default=None), (mu, gauss_mu)

    def _decrease(self, offer: Newton, here: Iterate, first: float) -> tuple[Iterate | None, float]:
        """Return the first point, over growing μ, whose decrease is ENOUGH of the predicted one, and the next μ."""
        mu = first
        for _ in range(TRIALS):
            trial = offer(mu)
            found, predicted, mu = self.measured(trial.point), float(trial.predicted), float(trial.damping)
            decrease = here.loss - found.loss
            if predicted > 0 and decrease > ENOUGH * predicted:
                return found, max(mu / SHRINK, LEAST_MU) if decrease > GOOD * predicted else mu
            mu = GROW * mu
        return None, first
