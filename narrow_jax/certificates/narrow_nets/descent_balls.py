"""Gradient descent within a ball: for which steps the path stays inside, and how fast the residual falls there.

Only numbers: what of a start the proof uses (docs/proofs/gradient_descent.md). Every result is rounded to the safe
side; the search among balls need not be.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from narrow_jax.linalg import rounding as fl

COARSE, FINE = 11, 7
"""Balls tried over the whole range, and again between the neighbours of the best."""
RANGE = 2.0**20
"""The largest ball tried, in units of the smallest possible: beyond, a step gains less than a millionth."""
SHRINKINGS = 12
_BELOW = 1 - 1e-9
"""What a proposed step stays below its limit, for the rounding of the check."""


class Start(NamedTuple):
    """What is known at θ⁰.

    Fields:
        sigma: σ₀ ≤ σ_min(J(θ⁰)).
        beta: β₀ ≥ ‖J(θ⁰)‖.
        residual: ‖r⁰‖ or more.
        cap: no path may be longer.
        lipschitz: R ↦ L, a Lipschitz constant of J on the ball of radius R.
    """

    sigma: float
    beta: float
    residual: float
    cap: float
    lipschitz: Callable[[float], float]


class Ball(NamedTuple):
    """A ball around θ⁰ and the Lipschitz constant of J on it."""

    radius: float
    lipschitz: float


class Course(NamedTuple):
    """What is proven of gradient descent with one step size; the fields are those of ``GradientDescent``."""

    learning_rate: float
    radius: float
    lipschitz: float
    beta: float
    q: float
    g: float
    alpha: float
    first_rate: float
    late_rate: float
    bend: float

    @property
    def rate(self) -> float:
        """Return the share of the residual that a step removes in the long run."""
        return max(self.first_rate, self.late_rate)


def course(start: Start, ball: Ball, eta: float) -> Course | None:
    """Return what is proven of steps η > 0 whose path is sure to stay in the ball; None if it is not.

    q = ηM/2 < 1, η' = ‖r⁰‖/((1−q)σ₀), g = Lη'/σ₀ < ½, R = 2η'/(1 + √(1−2g)) at most the ball's radius and the cap.
    """
    if not eta > 0:
        return None
    square = _curvature(start, ball)
    beta = (start.beta + ball.lipschitz * ball.radius) * (1 + fl.SLACK)
    q = fl.product_up(0.5, eta, square)
    if not q < 1:
        return None
    reach = fl.product_up(start.residual, over=fl.product_down((1 - q) * (1 - fl.SLACK), start.sigma))
    g = fl.product_up(ball.lipschitz, reach, over=start.sigma)
    if not g < 0.5:
        return None
    root = math.sqrt((1 - 2 * g) * (1 - fl.SLACK)) * (1 - fl.SLACK)
    radius = fl.product_up(2.0, reach, over=(1 + root) * (1 - fl.SLACK))
    if not radius <= min(ball.radius, start.cap):
        return None
    alpha = fl.product_down(start.sigma, root)
    share = min(fl.product_down(eta, alpha, alpha), 1.0)
    late, bend = _late(start, ball, eta, beta, share)
    first = fl.product_down(share, (1 - q) * (1 - fl.SLACK))
    return Course(
        learning_rate=eta,
        radius=radius,
        lipschitz=ball.lipschitz,
        beta=beta,
        q=q,
        g=g,
        alpha=alpha,
        first_rate=first,
        late_rate=late,
        bend=bend,
    )


def _curvature(start: Start, ball: Ball) -> float:
    """Return M = β_R² + L‖r⁰‖."""
    beta = start.beta + ball.lipschitz * ball.radius
    return (fl.product_up(beta, beta) + fl.product_up(ball.lipschitz, start.residual)) * (1 + 4 * fl.SLACK)


def _late(start: Start, ball: Ball, eta: float, beta: float, share: float) -> tuple[float, float]:
    """Return ηα² and ½Lη‖r⁰‖/(1 − ηα²) where ηβ_R² ≤ 1 and Lη‖r⁰‖ ≤ 1; (0, 0) elsewhere."""
    bent = fl.product_up(ball.lipschitz, eta, start.residual)
    if not (fl.product_up(eta, beta, beta) <= 1 and bent <= 1 and share < 1):
        return 0.0, 0.0
    bend = fl.product_up(0.5, bent, over=(1 - share) * (1 - fl.SLACK))
    return (share, bend) if bend < 1 else (0.0, 0.0)


def span(start: Start, ball: Ball) -> float:
    """Return φ(R) = σ₀R − ½LR²: steps that are small enough stay in the ball if it is above ‖r⁰‖."""
    return start.sigma * ball.radius - ball.lipschitz * ball.radius * ball.radius / 2


def largest_step(start: Start, ball: Ball) -> float:
    """Return the largest step that stays in the ball, 2(1 − ‖r⁰‖/φ(R))/M; not above 0 if there is none."""
    reached = span(start, ball)
    if not reached > 0:
        return -math.inf
    return 2 * (1 - start.residual / reached) / _curvature(start, ball) * _BELOW


def fastest_step(start: Start, ball: Ball) -> float:
    """Return the step with the largest proven ηα² in the ball."""
    beta = start.beta + ball.lipschitz * ball.radius
    bent = ball.lipschitz * start.residual
    gain = 2 * (1 - math.sqrt(2 * bent) / start.sigma) / _curvature(start, ball)
    limits = [fl.product_down(1.0, over=fl.product_up(beta, beta)), gain, largest_step(start, ball)]
    return min(limits + ([1 / bent] if bent else [])) * _BELOW


def speed(start: Start, ball: Ball) -> float:
    """Return the largest proven rate in the ball, below 0 where there is none."""
    eta = fastest_step(start, ball)
    found = course(start, ball, eta) if eta > 0 else None
    return found.rate if found else min(eta, 0.0) - 1.0


def best_ball(start: Start, low: float, value: Callable[[Ball], float]) -> Ball | None:
    """Return the ball of the largest value among radii from ``low`` up; None if there is no room above it.

    φ falls from where LR reaches σ₀ on.
    """
    slope = start.lipschitz(low)
    high = min(start.cap, RANGE * low, start.sigma / slope if slope else math.inf)
    if not (math.isfinite(slope) and 0 < low < high):
        return None
    for radii in (COARSE, FINE):
        tried = np.geomspace(low, high, radii)
        balls = [Ball(float(r), start.lipschitz(float(r))) for r in tried]
        best = max(range(radii), key=lambda i: value(balls[i]))
        low, high = float(tried[max(best - 1, 0)]), float(tried[min(best + 1, radii - 1)])
    return balls[best]


def least_path(start: Start) -> float:
    """Return ‖r⁰‖/σ₀: no ball below holds the path."""
    return fl.product_up(start.residual, over=start.sigma)


def widest_ball(start: Start) -> Ball | None:
    """Return the ball that allows the largest step; None if no step is small enough for any."""
    low = least_path(start)
    # φ ≤ σ₀²/(2L), L at least that of the smallest ball: seen at once
    if not (low < start.cap and 2 * start.lipschitz(low) * low < start.sigma):
        return None
    ball = best_ball(start, low, functools.partial(largest_step, start))
    return ball if ball and settled(start, ball, largest_step(start, ball)) else None


def settled(start: Start, ball: Ball, eta: float) -> Course | None:
    """Return the course of steps η after the ball is shrunk to where the path is sure to stay, again and again."""
    found = course(start, ball, eta)
    for _ in range(SHRINKINGS):
        if not found or found.radius > 0.999 * ball.radius:
            break
        ball = Ball(found.radius, start.lipschitz(found.radius))
        found = course(start, ball, eta) or found
    return found
