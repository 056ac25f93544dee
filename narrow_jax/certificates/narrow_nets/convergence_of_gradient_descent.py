"""Gradient descent converges: the third open question of "When Expressivity Meets Trainability", for any smooth net."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax._typing import Float, HostArray, Params, Samples
from narrow_jax.certificates.narrow_nets.constants import unproven_rank
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import distinct_samples
from narrow_jax.certificates.narrow_nets.descent_balls import (
    Ball,
    Course,
    Start,
    best_ball,
    fastest_step,
    largest_step,
    least_path,
    settled,
    span,
    speed,
    widest_ball,
)
from narrow_jax.certificates.narrow_nets.moving_weights import Setting, cone_distance, read
from narrow_jax.certificates.narrow_nets.residuals import Residuals, norms, residuals
from narrow_jax.jacobian import Net
from narrow_jax.linalg import rounding as fl
from narrow_jax.models import Activations
from narrow_jax.spectra import SigmaMin, sigma_min

WRT = ("w", "all")
COORDINATES = ("plain", "ball")
_SMALLEST_UNIT = 2.0**-60
ROOM = 4
"""How far ``scale`` raises φ above ‖r⁰‖: then α² is at least about ¾σ₀², and the rate near its best."""

DOUBLINGS = 40
"""How often V that moves too is doubled beyond what frozen V needs."""


class GradientDescent(NamedTuple):
    """Whether full-batch gradient descent on ½‖f − y‖² is proven to reach loss 0, how fast, and how far from the start.

    Fields:
        holds: the verdict, for steps of ``learning_rate``.
        reason: why, in words.
        learning_rate: η that all bounds speak of: the one asked for, else the one with the fastest proven rate.
        max_learning_rate: the largest step found for which the theorem holds; it holds for every smaller one too.
        rate: the share of ‖f − y‖ that a step removes in the long run, the larger of the next two.
        first_rate: ηα²(1−q), the share that every step removes.
        late_rate: ηα² where ηβ² ≤ 1, else 0: what a step removes when the residual is small.
        bend: c with ‖r_k‖ ≤ (1−a)^k‖r⁰‖/(1 − c(1 − (1−a)^k)), a the ``late_rate``.
        radius: R: the whole path is not longer, in the coordinates of the steps.
        unit: s of the coordinates (w − w⁰)/s and sV in which the steps are taken; 1 for plain ones.
        sigma: σ₀, proven lower bound of σ_min(J) at the start, over samples that are distinct.
        lipschitz: L, a Lipschitz constant of J on a ball that holds the path; as σ₀, β and α of the same coordinates.
        beta: a bound of ‖J‖₂ on that ball.
        alpha: σ₀√(1−2g), a lower bound of σ_min(J) along the path.
        q: ηM/2 with M = β² + L‖r⁰‖; below 1.
        g: L‖r⁰‖/((1−q)σ₀²); below ½ where the theorem applies.
        residual: ‖r⁰‖ = ‖f − y‖ at the start, rounded up.
        rounding: what of it is a bound of rounding.
        scale: a power of two; with V multiplied by it the theorem holds for some step. 1 where it holds as it is, None
            where no such number is known, as for what is no mirrored pair.
        rows: equations n·k after samples that follow from others are dropped.
        wrt: which weights move, "w" or "all".
    """

    holds: bool
    reason: str
    learning_rate: float
    max_learning_rate: float
    rate: float
    first_rate: float
    late_rate: float
    bend: float
    radius: float
    unit: float
    sigma: float
    lipschitz: float
    beta: float
    alpha: float
    q: float
    g: float
    residual: float
    rounding: float
    scale: float | None
    rows: int
    wrt: str

    @property
    def initial_loss(self) -> float:
        """Return ½‖r⁰‖², rounded up."""
        return fl.product_up(0.5, self.residual, self.residual)

    def loss_bound(self, steps: int | HostArray) -> float | Float[np.ndarray, ...]:
        """Return what the loss ½‖f − y‖² is at most after that many steps; infinite where nothing is proven."""
        k = np.asarray(steps, float)
        if not self.holds:
            bound = np.where(k == 0, self.initial_loss, np.inf)
        else:
            share = np.minimum(_kept(self.first_rate, k), self._late(k))
            bound = fl.at_least_normal(share**2 * (1 + 4 * fl.SLACK)) * self.initial_loss
            bound = np.where(k == 0, self.initial_loss, np.minimum(bound, self.initial_loss))
        return bound if bound.ndim else float(bound)

    def steps_to(self, target_loss: float) -> float:
        """Return after how many steps the loss ½‖f − y‖² is sure to be at most this; infinity if that is not proven."""
        if target_loss >= self.initial_loss:
            return 0.0
        if not (self.holds and target_loss > 0):
            return math.inf
        share = math.sqrt(target_loss) / math.sqrt(self.initial_loss) * (1 - 8 * fl.SLACK)
        steps = [_steps(self.first_rate, share)]
        if self.late_rate > 0:
            steps.append(_steps(self.late_rate, share * (1 - self.bend) / (1 - share * self.bend)))
        return min(steps)

    def distance_bound(self) -> float:
        """Return a bound of ‖θ_k − θ⁰‖ for all k, and of the length of the whole path; infinite if none is proven.

        Of the weights as they are, in whatever coordinates the steps are taken.
        """
        if self.unit == 1:
            return self.radius
        if self.wrt == "w":
            return fl.product_up(self.unit, self.radius)
        return fl.product_up(self.radius, over=self.unit)

    def _late(self, k: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
        """Return x/(1 − c(1 − x)) with x = (1−a)^k."""
        kept = _kept(self.late_rate, k)
        return kept / (1 - self.bend * (1 - kept)) * (1 + 8 * fl.SLACK)


def _kept(rate: float, k: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """Return (1 − rate)^k, rounded up."""
    log = math.log1p(-rate) if rate < 1 else -math.inf
    with np.errstate(invalid="ignore", under="ignore"):
        power = np.exp(np.where(k == 0, 0.0, k * log) * (1 - 2 * fl.SLACK))
    return np.where(k == 0, 1.0, power * (1 + fl.SLACK))


def _steps(rate: float, share: float) -> float:
    """Return the smallest k with (1 − rate)^k ≤ share."""
    decay = -math.log1p(-rate) * (1 - 4 * fl.SLACK) if rate < 1 else math.inf
    wanted = -math.log(share) * (1 + 4 * fl.SLACK) if share > 0 else math.inf
    if not decay > 0 or math.isinf(wanted):
        return math.inf
    return float(max(math.ceil(wanted / decay), 1)) if wanted / decay < 1e308 else math.inf


@host_only
def gradient_descent(
    params: Params,
    x: Samples,
    y: Samples,
    activation: Activations = "tanh",
    *,
    wrt: str = "w",
    radius: float = math.inf,
    learning_rate: float | None = None,
    zeta: float | None = None,
    kappa: float = math.inf,
    coordinates: str = "plain",
) -> GradientDescent:
    """Gradient descent from here reaches loss 0, at a rate, without leaving a ball: is it proven?

    With r = f − y, σ₀ ≤ σ_min(J(θ⁰)), L a Lipschitz constant of J on the ball of radius R, M = (‖J(θ⁰)‖ + LR)² + L‖r⁰‖,
    a step η < 2/M, q = ηM/2, η' = ‖r⁰‖/((1−q)σ₀), g = Lη'/σ₀ < ½ and R ≥ 2η'/(1 + √(1−2g)):
    ‖r_{k+1}‖ ≤ (1 − ηα²(1−q))‖r_k‖ with α = σ₀√(1−2g), and the whole path is at most R. So the projections of problem
    (7) never act, and projected and plain descent are the same.

    The loss is ½‖f − y‖² (``loss="squared"``): a step size for a·½‖f − y‖² is that for it divided by a. Rounding is
    included in all constants; the gradient steps themselves are taken to be exact.

    Args:
        params: the start: a net of one hidden layer {"w", "v"}, pairwise or standard, a deep pair {"plus", "minus",
            "v"}, or a deep net {"w1", …}.
        x: data, (n, d).
        y: labels, (n,) or (n, k).
        activation: name or ``Activation``, or a sequence with one a hidden layer.
        wrt: "w": the hidden weights move and V does not; "all": V moves too, with the same step.
        radius: ε ≥ 0: the hidden weights have to stay within it.
        learning_rate: η to judge; None for the one with the fastest proven rate.
        zeta: for ``wrt="all"``, of the cone |V| ≥ ζ that V must not touch; None if there is none.
        kappa: the same of max|V|/min|V| ≤ κ in each column.
        coordinates: in which the steps are taken: "plain", or "ball" for those of ``constraints.regime`` and
            ``ball_coordinates`` with this radius, (w − w⁰)/s and sV with s = min(ε, 1).

    Returns:
        ``GradientDescent``.

    Raises:
        ValueError: params of no known net or without a hidden layer, shapes that do not fit, no sample, non-finite
            values, another ``wrt`` or coordinates, a negative radius, a learning rate or ζ that is not positive,
            κ < 1, a cone for a V that does not move.
        TypeError: arrays that are not real floating numbers.

    Example:
        >>> import jax, narrow_jax as nj
        >>> x = np.random.default_rng(0).normal(size=(6, 4))
        >>> params = nj.initializers.mirrored_lecun(jax.random.key(3), inputs=4, width=16)
        >>> c = gradient_descent(params, x, np.sign(x[:, 0]))
        >>> c.holds, c.scale
        (False, 2048.0)
        >>> c = gradient_descent({**params, "v": c.scale * params["v"]}, x, np.sign(x[:, 0]))
        >>> c.holds, c.steps_to(1e-6) < 1e5, c.loss_bound(np.arange(2)).shape
        (True, True, (2,))

    Reference:
        docs/proofs/gradient_descent.md. "When Expressivity Meets Trainability" leaves it open in its section 6.
    """
    net, x, y = read(params, x, y, activation)
    _check(wrt, radius, learning_rate, zeta, kappa)
    _checks.choice("coordinates", coordinates, COORDINATES)
    unit = min(float(radius), 1.0) if coordinates == "ball" and radius > 0 else 1.0
    setting = Setting(net, x, wrt == "all", float(radius), zeta, float(kappa), unit)
    left, samples = residuals(net, x, y), distinct_samples(x, y, net.vanishing)
    found = _unproven(setting, left, len(samples.kept) * y.shape[1])
    if samples.clash:
        return found._replace(reason=samples.clash)
    if unit < _SMALLEST_UNIT:
        return found._replace(
            reason=f"steps of ε² = {radius:.3g}² are lost in float32: take plain coordinates"
        )
    if found.residual == 0 or not samples.kept.size:
        if setting.outer and cone_distance(net.v, zeta, float(kappa)) < 0:
            return found._replace(reason="V is outside the cone, into which the first step projects it")
        return _nothing_to_learn(found, learning_rate)
    if not all(math.isfinite(sigma.sup_second_derivative) for sigma in net.sigmas):
        return found._replace(reason=_unbounded(net))
    smallest = sigma_min(setting.moving(samples.kept))
    beta = setting.norm(norms(setting.moving()).jacobian, left.features)
    start = setting.start(setting.smallest(float(smallest.lower)), beta, found.residual)
    found = found._replace(sigma=start.sigma, beta=beta)
    obstacle = _obstacle(net, start, smallest)
    if obstacle:
        return found._replace(reason=obstacle)
    return _judged(setting, start, found, learning_rate)


def _check(wrt: str, radius: float, learning_rate: float | None, zeta: float | None, kappa: float) -> None:
    _checks.choice("wrt", wrt, WRT)
    _checks.radius(radius)
    _checks.kappa(kappa)
    if learning_rate is not None:
        _checks.positive("learning rate", learning_rate)
    if zeta is not None:
        _checks.zeta(zeta)
    if wrt == "w" and not (zeta is None and kappa == math.inf):
        raise ValueError(
            f"zeta is {zeta} and kappa {kappa} with wrt 'w', where V does not move and so stays in its cone: leave "
            "both out, or pass wrt='all'"
        )


def _unproven(setting: Setting, left: Residuals, rows: int) -> GradientDescent:
    """Return the certificate of which nothing is proven."""
    residual = (left.norm + left.rounding) * (1 + fl.SLACK)
    return GradientDescent(
        holds=False,
        reason="",
        learning_rate=math.nan,
        max_learning_rate=0.0,
        rate=0.0,
        first_rate=0.0,
        late_rate=0.0,
        bend=0.0,
        radius=math.inf,
        unit=setting.unit,
        sigma=0.0,
        lipschitz=math.inf,
        beta=math.inf,
        alpha=0.0,
        q=math.inf,
        g=math.inf,
        residual=residual if math.isfinite(residual) else math.inf,
        rounding=left.rounding,
        scale=None,
        rows=rows,
        wrt="all" if setting.outer else "w",
    )


def _nothing_to_learn(found: GradientDescent, learning_rate: float | None) -> GradientDescent:
    return found._replace(
        holds=True,
        reason="the loss is exactly 0 at the start: there is nothing to learn",
        learning_rate=math.inf if learning_rate is None else float(learning_rate),
        max_learning_rate=math.inf,
        rate=1.0,
        first_rate=1.0,
        radius=0.0,
        g=0.0,
        q=0.0,
        scale=1.0,
    )


def _obstacle(net: Net, start: Start, smallest: SigmaMin) -> str:
    """Return why nothing can be proven whatever the step; empty if something may be."""
    if any(sigma.value is None for sigma in net.sigmas) and not net.mirrored:
        return "the rounding error of the activation is not known: use tanh, sigmoid, softplus or sin"
    if not math.isfinite(start.residual):
        return "the rounding error of f is not bounded: x, the weights or y are too large or too small; rescale them"
    if not start.sigma > 0:
        return unproven_rank(net, smallest)
    if not math.isfinite(start.beta):
        return "‖J‖ is not bounded: x or the weights are too large; rescale them"
    return ""


def _unbounded(net: Net) -> str:
    names = [sigma.name for sigma in net.sigmas if not math.isfinite(sigma.sup_second_derivative)]
    return (
        f"σ' of {names[0]} jumps: J is not Lipschitz and the theorem does not apply; use a smooth activation"
    )


def _judged(
    setting: Setting, start: Start, found: GradientDescent, learning_rate: float | None
) -> GradientDescent:
    """Return the verdict: the ball that allows the largest step decides, the one of the fastest rate is the default."""
    widest = widest_ball(start)
    if widest is None:
        scale = _scale(setting, found)
        return found._replace(reason=_too_far(start, scale, setting.net.paired), scale=scale)
    limit = largest_step(start, widest)
    found = found._replace(max_learning_rate=limit, scale=1.0)
    course = (
        _fastest(start, widest) if learning_rate is None else settled(start, widest, float(learning_rate))
    )
    if course is None:
        reason = f"the step {learning_rate:.3g} is not proven to converge: the largest found is {limit:.3g}"
        return found._replace(reason=reason, learning_rate=float(learning_rate or limit))
    within = f"{course.radius:.3g}{_where(found)}"
    reason = f"loss 0 is reached within {within}: a step removes {course.rate:.3g} of the residual"
    return found._replace(holds=True, reason=reason, rate=course.rate, **course._asdict())


def _where(found: GradientDescent) -> str:
    return "" if found.unit == 1 else f" in units of {found.unit:.3g}"


def _fastest(start: Start, widest: Ball) -> Course | None:
    """Return the course with the largest rate that was found."""
    ball = best_ball(start, least_path(start), functools.partial(speed, start)) or widest
    proven = settled(start, ball, fastest_step(start, ball))
    return proven or settled(start, widest, largest_step(start, widest))


def _too_far(start: Start, scale: float | None, paired: bool) -> str:
    low = least_path(start)
    if start.cap < 0:
        return "V is outside the cone of ζ and κ, or at its edge (with κ = 1 always): freeze V, or widen the cone"
    if start.cap == 0:
        where = "ε = 0 freezes the hidden weights"
    elif not low < start.cap:
        where = f"the path may be {low:.3g} long, and ε or the cone of V leaves room for {max(start.cap, 0.0):.3g}"
    else:
        g = fl.product_up(start.lipschitz(low), low, over=start.sigma)
        where = f"no ball holds the path of any step: L‖r⁰‖/σ² = {g:.3g} ≥ ½ on the smallest, or grows to it on others"
    if scale:
        return f"{where}; multiply V by {scale:.0f}"
    near = "; start from a mirrored pair, for which a larger V serves, or nearer to the labels"
    return where if paired else where + near


def _scale(setting: Setting, found: GradientDescent) -> float | None:
    """Return a power of two such that V times it is proven to converge; None if none is known.

    While V is frozen, σ₀, L and so φ are proportional to V: the ball of the largest φ is sought once. V that moves adds
    to L a share that falls as V grows.
    """
    if not setting.net.mirrored:
        return None
    start = setting._replace(outer=False).start(found.sigma, found.beta, found.residual)
    slope = start.lipschitz(0.0)
    top = min(start.cap, start.sigma / slope if slope else math.inf)
    best = best_ball(start._replace(cap=top), top / 2**10, functools.partial(span, start))
    reached = span(start, best) if best else 0.0
    if not (best and reached > 0):
        return None
    wanted = math.ceil(math.log2(ROOM) + math.log2(start.residual) - math.log2(reached))
    for power in range(max(wanted, 1), max(wanted, 1) + DOUBLINGS):
        scale = math.ldexp(1.0, power)
        start = setting.start(found.sigma, found.beta, found.residual, scale)
        radius = min(best.radius, start.cap)
        if radius > 0 and ROOM * start.residual <= span(start, Ball(radius, start.lipschitz(radius))):
            return scale
    return None
