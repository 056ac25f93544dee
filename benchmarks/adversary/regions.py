"""``nice_region`` and ``kkt``: singular points, and KKT points of loss > 0, by σ = sin on orthogonal samples.

For x_i = c_i e_i row i of J(w; v) has the norm |c_i|‖(v_j cos(c_i w_ij))_j‖, and the rows are orthogonal. It vanishes
where all c_i w_ij are odd multiples of π/2: the distance there is √Σ_j t_ij²/|c_i|, t_ij that of c_i w_ij from the
nearest of them. Theorem 1 is attained as t → 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import narrow_jax as nj
from benchmarks.adversary import exact, memorized
from benchmarks.adversary.exact import mp
from benchmarks.adversary.outcome import Outcome, call, judged

Rng = np.random.Generator
SAMPLES, INPUTS, UNITS = 3, 4, 4
RESIDUAL = 1e-9
"""``natural_residual`` is a number beside ‖∇̂‖ at the start; it is compared to this, in that unit."""


# nice_region


def nice_region(rng: Rng) -> list[Outcome]:
    """Check ε₀ against σ_min and L in 150 digits, and against the distance to a singular J where that is known."""
    if rng.random() < 0.5:
        net = memorized.start(rng)
        if rng.random() < 0.5:
            net = memorized.rescaled(net, int(rng.integers(-560, 440)), int(rng.integers(-200, 200)))
        if rng.random() < 0.3:  # x so small that ‖x‖² vanishes, w not
            net = memorized.start(rng)
            net = net._replace(x=np.ldexp(net.x[:3], int(rng.integers(-600, -400))))
        return [check_region(net.center, net.v, net.x, net.activation, math.inf, "random")]
    w, x, _ = near_singular(rng)
    return [check_region(w, np.ones((UNITS // 2, 1)), x, "sin", singular_distance(w, x), "near singular")]


def near_singular(rng: Rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mirrored w, orthogonal x, and odd multiples of π/2 from which the units of a sample are not far."""
    scales = 2.0 ** rng.integers(-3, 3, SAMPLES) * 2.0 ** rng.integers(-250, 250)
    x = np.eye(SAMPLES, INPUTS) * scales[:, None]
    far = rng.uniform(0, 1, (SAMPLES, UNITS // 2))
    far[rng.integers(SAMPLES)] *= 10 ** -rng.uniform(0, 12)
    odd = (rng.integers(-3, 3, far.shape) + 0.5) * np.pi
    z = np.concatenate([odd - far, rng.standard_normal((INPUTS - SAMPLES, UNITS // 2))])
    half = z / np.concatenate([scales, scales[:1]])[:, None]
    return np.concatenate([half, half], axis=1), x, odd


def singular_distance(w: np.ndarray, x: np.ndarray) -> Any:
    """Return how far the nearest w is at which a row of J vanishes."""
    distances = []
    for scale, row in zip(np.diag(x), w, strict=False):
        z = [mp.mpf(float(scale)) * entry for entry in exact.vector(row)]
        gaps = [q - (mp.floor(q / mp.pi) + mp.mpf(1) / 2) * mp.pi for q in z]
        distances.append(exact.norm(gaps) / abs(mp.mpf(float(scale))))
    return min(distances)


def check_region(
    w: np.ndarray, v: np.ndarray, x: np.ndarray, activation: str, singular: Any, case: str
) -> Outcome:
    """Return whether ε₀ is what the theorem says, and no singular point lies within it."""
    found = nj.certificates.nice_region({"w": w, "v": v}, x, activation)
    here = np.ones_like(v) if v.shape[1] == 1 else v
    k = memorized.gram(w, here, x, activation)
    misses = region_misses(found, here, x, activation, k)
    if found.holds and not found.radius <= singular * (1 + exact.EQUAL):
        misses.append(
            f"radius = {found.radius!r}, and J is singular at a distance of {mp.nstr(singular, 20)}"
        )
    text = call("nj.certificates.nice_region", {"w": w, "v": v}, x, activation)
    ratio = float(found.radius / singular) if found.holds and math.isfinite(found.radius) else 0.0
    return judged(case, misses, found.holds, text, tight=ratio)


def region_misses(found: Any, v: np.ndarray, x: np.ndarray, activation: str, k: exact.Matrix) -> list[str]:
    """Return which constants are on the wrong side, k being the Gram matrix there."""
    misses = []
    if found.sigma > 0 and not exact.at_least(k, found.sigma):
        misses.append(f"sigma = {found.sigma!r} is above σ_min = {mp.nstr(exact.smallest(k), 20)}")
    if not memorized.is_lipschitz(found.lipschitz, v, x, activation):
        misses.append(f"lipschitz = {found.lipschitz!r} is below L")
    front, rows = memorized.lipschitz(v, x, activation)
    full = front * exact.largest(exact.gram(rows)) * (1 - mp.mpf(10) ** -9)
    if found.holds and (math.isinf(found.radius) or not exact.at_least(k, mp.mpf(found.radius) * full)):
        misses.append(f"radius = {found.radius!r} is above σ_min/L")
    return misses


# kkt


def kkt(rng: Rng) -> list[Outcome]:
    """Check a problem with a KKT point of loss > 0, or the residual and the constants at random weights."""
    return KKT_CASES[rng.choice(3, p=[0.3, 0.3, 0.4])](rng)


def _on_the_sphere(rng: Rng) -> list[Outcome]:
    """One sample c e_1, w⁰ = 0, w_j± = ±(s/c) e_1, v_j = ζ: exact in float64, on the sphere of radius √m s/|c|.

    f = 2hζ sin s. With cos s > 0 > sin s and y > f, or cos s < 0 < sin s and y < f, the descent goes outward and lowers
    v: a KKT point whatever y is, of loss ½(y − f)² > 0.
    """
    rising = rng.random() < 0.5
    s = float(rng.uniform(1.5 * np.pi + 1e-3, 2 * np.pi) if rising else rng.uniform(np.pi / 2 + 1e-3, np.pi))
    c, zeta = 2.0 ** rng.integers(-600, 190), float(10 ** rng.uniform(-3, 1))
    w = np.zeros((INPUTS, UNITS))
    w[0] = np.array([1.0, 1.0, -1.0, -1.0]) * (s / c)
    v, x = np.full((UNITS // 2, 1), zeta), np.eye(1, INPUTS) * c
    gap = 10 ** rng.uniform(-6, 2)
    y = np.array([[UNITS * zeta * np.sin(s) + (gap if rising else -gap)]])
    problem = {"center": {"w": np.zeros_like(w), "v": v}, "x": x, "y": y, "radius": float(2 * s / c)}
    problem |= {"zeta": zeta, "kappa": float(rng.choice([1.0, 2.0, np.inf])), "activation": "sin"}
    return [check_kkt({"w": w, "v": v}, problem, "on the sphere", stuck=True)]


def _near_singular_start(rng: Rng) -> list[Outcome]:
    """A singular point within the ball, with both halves equal: f = 0 there, J_i = 0 and y_i ≠ 0 = y_l.

    It is a KKT point of loss ½y_i² for every v.
    """
    w, x, odd = near_singular(rng)
    zeta = float(10 ** rng.uniform(-3, 0))
    index = int(np.argmin([singular_distance(w[i : i + 1], x[i : i + 1, i : i + 1]) for i in range(SAMPLES)]))
    distance = singular_distance(w, x)
    radius = float(distance) * (
        1 + 10 ** rng.uniform(-14, 0.5) if rng.random() < 0.6 else rng.uniform(0.1, 1)
    )
    at = w.copy()
    at[index] = np.tile(odd[index] / x[index, index], 2)
    y = np.zeros((SAMPLES, 1))
    y[index] = rng.standard_normal()
    kappa = float(rng.choice([1.0, 3.0]))
    v = zeta * rng.uniform(1, kappa, (UNITS // 2, 1))
    problem = {"center": {"w": w, "v": v}, "x": x, "y": y, "radius": radius, "zeta": zeta}
    problem |= {"kappa": kappa, "activation": "sin"}
    return [check_kkt({"w": at, "v": v}, problem, "singular", stuck=mp.mpf(radius) >= distance)]


def _random_weights(rng: Rng) -> list[Outcome]:
    net = memorized.start(rng)
    radius, zeta = float(10 ** rng.uniform(-4, 1)), float(10 ** rng.uniform(-4, -1))
    away = rng.standard_normal(net.w.shape)
    w = net.center + away / np.linalg.norm(away) * radius * rng.choice([0.0, 0.5, 1.0, 1.5])
    v = net.v * rng.uniform(0.5, 2, net.v.shape)
    y = rng.standard_normal(net.y.shape)
    problem = {"center": {"w": net.center, "v": net.v}, "x": net.x, "y": y, "radius": radius, "zeta": zeta}
    problem |= {"kappa": float(rng.choice([1.0, 3.0, np.inf])), "activation": net.activation}
    return [check_kkt({"w": w, "v": v}, problem, "random", stuck=False, center=net)]


KKT_CASES = (_on_the_sphere, _near_singular_start, _random_weights)


def check_kkt(
    params: dict[str, np.ndarray], problem: dict[str, Any], case: str, stuck: bool, center: Any = None
) -> Outcome:
    """Return whether verdict, constants and residual are right; ``stuck``: there is a KKT point of loss > 0."""
    found = nj.certificates.kkt(params, **problem)
    misses = kkt_misses(params, problem, found, stuck)
    if center is not None or case == "on the sphere":
        reference, resolution = natural_residual(params, **problem)
        if not abs(found.residual - reference) <= RESIDUAL * (1 + reference) + resolution:
            misses.append(f"residual = {found.residual!r}, and {mp.nstr(reference, 17)} in 150 digits")
    return judged(case, misses, found.holds, call("nj.certificates.kkt", params, **problem))


def kkt_misses(params: dict[str, np.ndarray], problem: dict[str, Any], found: Any, stuck: bool) -> list[str]:
    """Return what is wrong beside the residual."""
    x, activation, center = problem["x"], problem["activation"], problem["center"]
    w, v = params["w"], params["v"]
    k = memorized.gram(w, v, x, activation)
    misses = ["holds at a KKT point of loss > 0"] if stuck and found.holds else []
    if found.sigma > 0 and not exact.at_least(k, found.sigma):
        misses.append(f"sigma = {found.sigma!r} is above σ_min")
    if not memorized.is_lipschitz(found.lipschitz, v, x, activation):
        misses.append(f"lipschitz = {found.lipschitz!r} is below L")
    if found.threshold > 0:
        ones = np.ones_like(v)
        front, rows = memorized.lipschitz(ones, x, activation)
        part = (
            front
            * exact.largest(exact.gram(rows))
            * (1 + mp.mpf(problem["kappa"]) / 2)
            * (1 - mp.mpf(10) ** -9)
        )
        if not exact.at_least(
            memorized.gram(center["w"], ones, x, activation), mp.mpf(found.threshold) * part
        ):
            misses.append(f"threshold = {found.threshold!r} is above σ_min/(S₂√λ_max(1 + κ/2))")
    f = memorized.forward(exact.matrix(w), exact.matrix(v), exact.matrix(x), activation)
    loss = sum((a - b) ** 2 for a, b in zip(f, exact.vector(problem["y"]), strict=True)) / 2
    scale = sum(a**2 + b**2 for a, b in zip(f, exact.vector(problem["y"]), strict=True))
    if not abs(found.loss - loss) <= mp.mpf(10) ** -11 * scale:
        misses.append(f"loss = {found.loss!r}, and {mp.nstr(loss, 17)} in 150 digits")
    return misses


def natural_residual(
    params: dict[str, np.ndarray],
    center: dict[str, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    zeta: float,
    kappa: float,
    activation: str,
) -> tuple[Any, Any]:
    """Return ‖θ̂ − P(θ̂ − t∇̂)‖/t‖∇̂₀‖, t = 1/max(‖∇̂₀‖, 1), in 150 digits, and what the rounding of θ̂ adds to it."""
    s = mp.mpf(min(radius, 1.0))
    w0 = exact.vector(center["w"])
    columns = params["v"].shape[1]

    def gradient(w: np.ndarray, v: np.ndarray) -> exact.Row:
        """∇̂ = (s∇_w, ∇_v/s)."""
        ws, vs, xs = (exact.matrix(a) for a in (w, v, x))
        f = memorized.forward(ws, vs, xs, activation)
        r = [a - b for a, b in zip(f, exact.vector(y), strict=True)]
        rows = memorized.jacobian(ws, vs, xs, activation)
        by_w = [s * mp.fdot(column, r) for column in exact.transposed(rows)]
        half, value = len(vs), exact.VALUES[activation]
        hidden = [[value(z) for z in row] for row in exact.product(xs, ws)]
        pairs = [[a - b for a, b in zip(row[:half], row[half:], strict=True)] for row in hidden]
        errors = [r[i : i + columns] for i in range(0, len(r), columns)]
        by_v = exact.product(exact.transposed(pairs), errors)
        return by_w + [entry / s for entry in exact.flat(by_v)]

    unit = exact.norm(gradient(center["w"], center["v"])) or mp.mpf(1)
    t = 1 / max(unit, mp.mpf(1))
    step = [t * entry for entry in gradient(params["w"], params["v"])]
    moved = [(a - b) / s for a, b in zip(exact.vector(params["w"]), w0, strict=True)]
    point = moved + [s * entry for entry in exact.vector(params["v"])]
    target = [a - b for a, b in zip(point, step, strict=True)]
    ball, cone = target[: len(w0)], target[len(w0) :]
    size = exact.norm(ball)
    reach = mp.mpf(radius) / s
    ball = [entry * min(mp.mpf(1), reach / size) for entry in ball] if size else ball
    signs = [mp.mpf(-1 if entry < 0 else 1) for entry in np.ravel(center["v"])]
    projected = list(cone)
    for c in range(columns):
        here = slice(c, None, columns)
        column = [a * b for a, b in zip(cone[here], signs[here], strict=True)]
        projected[here] = [
            a * b for a, b in zip(ratio_cone(column, zeta * s, kappa), signs[here], strict=True)
        ]
    distance = exact.norm([a - b for a, b in zip(point, ball + projected, strict=True)])
    return distance / (t * unit), mp.mpf(2) ** -50 * exact.norm(point) / (t * unit)


def ratio_cone(v: exact.Row, zeta: Any, kappa: float) -> exact.Row:
    """Return the projection onto {u ≥ ζ, max u ≤ κ min u}: clip(v, t, κt), Σ(t − v)₊ = κΣ(v − κt)₊ or t = ζ."""
    if math.isinf(kappa):
        return [max(entry, zeta) for entry in v]
    k = mp.mpf(kappa)

    def slope(t: Any) -> Any:
        return sum(max(t - q, 0) for q in v) - k * sum(max(q - k * t, 0) for q in v)

    corners = sorted({zeta, *(t for q in v for t in (q, q / k) if t > zeta)})
    left = max((t for t in corners if slope(t) <= 0), default=zeta)
    t = left
    if slope(zeta) < 0:
        raised = [q for q in v if q <= left]
        capped = [q for q in v if q / k > left]  # rounded as the corners are
        if raised or capped:
            t = (sum(raised) + k * sum(capped)) / (len(raised) + k**2 * len(capped))
    if all(q >= zeta for q in v) and max(v) <= k * min(v):
        return list(v)
    return [min(max(q, t), k * t) for q in v]
