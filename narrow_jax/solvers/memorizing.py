"""Theorem 1 as a solver: an interpolating pair, of any depth, in a ball around a mirrored start, by Newton's method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, certificates
from narrow_jax._host import host_only
from narrow_jax._printing import brief
from narrow_jax._typing import Array, Key, Params, Samples
from narrow_jax.activations import Activation
from narrow_jax.certificates import DistinctSamples, distinct_samples
from narrow_jax.jacobian import Net
from narrow_jax.linalg import EvaluatedJacobian, context, on_devices, on_tiles, tiles
from narrow_jax.models import Activations
from narrow_jax.solvers.large_factors import DeviceFactors, TileFactors
from narrow_jax.solvers.newton import Factor, Interpolation, LowRank, Path, Preconditioner
from narrow_jax.solvers.pairs import PairOnData
from narrow_jax.solvers.starts import Draw, Start
from narrow_jax.spectra import sigma_min


class Memorized(NamedTuple):
    """What ``memorize`` found.

    Fields:
        params: {"w": (d, m), "v": (m/2, k)}, or {"plus": {"w1", …}, "minus": {"w1", …}, "v"}, NumPy float64.
        center: the mirrored start, with v⁰: params have v = scale · v⁰.
        scale: a power of two, ≥ 1.
        weight_scale: what the draw of the hidden weights was multiplied by.
        loss: ½‖y − f‖².
        residual: y − f, (n, k).
        radius_used: ε.
        history: "loss", "scale", "damping" and "distance" after each step, the first entry at the start.
        certificate: ``nj.certificates.memorization`` of the result; None if it was not asked for or nothing was solved.
        status: "solved", "not_converged" or "rank_deficient".
        message: what the status means here, and what to do.
    """

    params: Params
    center: Params
    scale: float
    weight_scale: float
    loss: float
    residual: np.ndarray
    radius_used: float
    history: dict[str, np.ndarray]
    certificate: certificates.Memorization | None
    status: str
    message: str

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())


@host_only
def memorize(
    key: Key[Array, ""],
    x: Samples,
    y: Samples,
    width: int | None = None,
    radius: float | None = None,
    *,
    widths: Sequence[int] | int | None = None,
    weight_scale: float | None = None,
    activation: Activations = "tanh",
    zeta: float = 1e-3,
    kappa: float = math.inf,
    tolerance: float = 1e-20,
    steps: int = 40,
    method: str = "auto",
    dtype: str = "float64",
    memory_budget: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    certify: bool = True,
    progress: bool | None = None,
) -> Memorized:
    """Find a pairwise net, of one hidden layer or several, with zero loss inside a ball around a mirrored start.

    v = s·v⁰, and f(w; s·v⁰) = y is solved for w by Newton with minimum-norm steps δ = Jᵀ(JJᵀ)⁻¹(y − f), from w⁰, where
    f = 0. The scale s is such that the first step has length at most ε/2. A step that does not reduce the residual is
    damped; where that fails, or the ball would be left, s is doubled and w − w⁰ halved: the second-order error cancels
    in the pairs and the equations become linear.

    Samples that are equal, with equal labels, count once; zero samples with label 0 do not count.

    Args:
        key: random key of the start.
        x: data, (n, d).
        y: labels, (n,) or (n, k): real numbers or one-hot.
        width: m, even, of one hidden layer; None for the smallest that n, the rank of x and a factorisation admit.
        radius: ε > 0; None for ε₀ of Theorem 1, infinity for no ball.
        widths: of the hidden layers of each half, for a deep net; or how many layers, for the smallest equal widths.
        weight_scale: what LeCun's hidden weights are multiplied by; None for 1 with one hidden layer, and for the
            scale with the largest σ_min(J) with ``widths``: in low dimension LeCun's own are too small.
        activation: name or ``Activation``, one that is not smooth runs, but nothing is certified; for deep nets also a
            sequence with one a layer.
        zeta: lower bound of the start's v.
        kappa: largest ratio of the start's v within an output.
        tolerance: solved when the loss is at most this times ½‖y‖², or when ‖y − f‖ is below 1e-7 of ‖y‖ and rounding
            lets no step reduce it: the certificate then still tells whether an exact solution is there.
        steps: Newton steps at most.
        method: "cholesky" (a factor of JJᵀ, n·k × n·k), "cg" (no matrix), or "auto": the first where the machine's
            memory holds it, or a ``memory_budget`` is given.
        dtype: "float32" halves the memory of the factor; products and residuals stay float64. Of more than 8,192
            equations the factor is the lower triangle in float32, by tiles.
        memory_budget: bytes that the factor and the proof may take, by tiles, and in a file where that says so; None
            sets no limit.
        devices: deal the factor and the proof out over these, as ``sigma_min`` does; products stay on the host, and so
            does the proof where these have no float64.
        certify: prove that an exact solution is there.
        progress: show a progress bar; by default where the standard error is a terminal.

    Returns:
        ``Memorized``; see its ``status``.

    Raises:
        ValueError: contradictory labels (the samples are named), width odd or too small, widths too small or empty,
            both width and widths, ε ≤ 0, non-finite values, an activation without region ε₀ while ``radius`` is None.
        MemoryBudgetError: the budget does not hold the factor.
        TypeError: data that are not real floating numbers.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(6, 4))
        >>> m = memorize(jax.random.key(0), x, x[:, 0] ** 2, width=4, radius=0.1)
        >>> m.status, m.loss < 1e-16, m.certificate.holds
        ('solved', True, True)
        >>> m = memorize(jax.random.key(0), x, x[:, 0] ** 2, widths=(3, 3), radius=0.1)
        >>> m.status, m.certificate.holds, m.params["plus"]["w2"].shape
        ('solved', True, (3, 3))

    Reference:
        "When Expressivity Meets Trainability", Theorem 1 (i) and (5); docs/proofs/theorem1.md.
    """
    x, y = _checks.real_data(x, y)
    _check_options(radius, tolerance, steps, method, dtype)
    _checks.memory_budget(memory_budget)
    if devices is not None:
        devices = on_devices.require(devices, dtype)
        if method == "cg":
            raise ValueError(
                "method is 'cg' with devices; expected 'auto' or 'cholesky': it has no matrix to deal out"
            )
    draw = Draw.of(key, width, widths, y.shape[1], weight_scale, activation, zeta, kappa)
    samples = distinct_samples(x, y, vanishing=draw.vanishing)
    if samples.clash:
        raise ValueError(samples.clash)
    if not len(samples.kept):
        raise ValueError("every sample is 0: there is nothing to learn; f(0) = 0 whatever the weights")
    search = _Search(radius, tolerance, steps, method, dtype, memory_budget, devices, progress)
    found = _solved(draw, samples, x, y, search)
    if not certify or found.status != "solved":
        return found
    proving = devices if devices is None or on_devices.has_float64(devices) else None
    try:
        proof = certificates.memorization(
            found.params, found.center, x, y, found.radius_used, draw.sigmas, memory_budget, proving
        )
    except _checks.MemoryBudgetError as error:  # what was found is not lost
        return found._replace(message=f"{found.message}; not certified: {error}")
    return found._replace(certificate=proof, message=f"{found.message}; {proof.reason}")


class _Search(NamedTuple):
    """How a solution is looked for: options of ``memorize``."""

    radius: float | None
    tolerance: float
    steps: int
    method: str
    dtype: str
    memory_budget: int | None
    devices: Sequence[jax.Device] | None
    progress: bool | None

    def preconditioner(self, equations: int) -> Callable[[EvaluatedJacobian], Preconditioner]:
        """Return what approximates (JJᵀ)⁻¹: a factor where there is room for one, by tiles for many equations."""
        budget, method = self.memory_budget, self.method
        if self.devices is not None:
            if budget is not None:
                count = len(self.devices)
                need = on_devices.plan(equations, 0, count, self.dtype)
                _checks.memory(budget, {"cholesky": need}, "cholesky", f"memorize on each of {count} devices")
            return DeviceFactors(self.devices, self.dtype)
        if method == "auto":
            room = context.machine_memory() // 2  # the data need some, too
            whole = budget is not None or 4 * tiles.elements(equations, tiles.TILE) <= room
            method = "cholesky" if whole else "cg"
        if method == "cg":
            return LowRank.of
        squares = (2 if self.dtype == "float64" else 1) * 8 * equations**2
        if equations <= on_tiles.WHOLE and (budget is None or squares <= budget):
            return partial(Factor.of, dtype=self.dtype)
        try:
            return TileFactors(on_tiles.room_for(equations, 0, budget, "memorize"))
        except _checks.MemoryBudgetError as error:
            raise _checks.MemoryBudgetError(
                f"{error}; method='cg' takes no matrix, and many more steps"
            ) from None


def _solved(draw: Draw, samples: DistinctSamples, x: np.ndarray, y: np.ndarray, search: _Search) -> Memorized:
    """Return the result without a certificate, which needs the room of all that is needed here."""
    rows, labels = samples.of(x), samples.of(y)
    preconditioner = search.preconditioner(labels.size)
    with context.float64():
        data = jnp.asarray(rows)
        for start in draw.starts(data):
            pair, theta = PairOnData.of(start.center, data, draw.sigmas)
            first = preconditioner(pair.jacobian(theta))
            if first.pivot > len(rows) * np.finfo(search.dtype).eps:
                break
        else:
            return _deficient(start, x, y, samples.kept, draw.sigmas)
        given = search.radius
        problem = Interpolation(
            equations=pair,
            y=np.asarray(labels).reshape(-1),
            start=np.asarray(theta),
            radius=_nice_radius(start.center, rows, draw.sigmas) if given is None else float(given),
            preconditioner=preconditioner,
        )
        path = problem.solve(first, search.tolerance, search.steps, search.progress)
    return _concluded(start, pair, path, problem.radius, x, y)


def _check_options(radius: float | None, tolerance: float, steps: int, method: str, dtype: str) -> None:
    if radius is not None:
        _checks.radius(radius)
        if radius == 0:
            raise ValueError("radius is 0, which freezes w at the start, where f = 0; expected a number > 0")
    _checks.positive("tolerance", tolerance)
    _checks.count("steps", steps)
    _checks.choice("method", method, ("auto", "cholesky", "cg"))
    _checks.choice("dtype", dtype, ("float64", "float32"))


def _nice_radius(center: Params, x: np.ndarray, sigmas: tuple[Activation, ...]) -> float:
    region = certificates.nice_region(jax.tree.map(np.asarray, center), x, sigmas)
    if not region.holds:
        raise ValueError(f"radius is None and Theorem 1 gives no ε₀: {region.reason}. Pass a radius")
    return region.radius


def _concluded(
    start: Start, pair: PairOnData, path: Path, radius: float, x: np.ndarray, y: np.ndarray
) -> Memorized:
    """Return the result on all samples, repeated ones too."""
    center = jax.tree.map(np.asarray, start.center)
    with context.float64(), np.errstate(over="ignore"):
        data = pair.x if len(pair.x) == len(x) else jnp.asarray(x)
        scaled = replace(pair, x=data, v=jnp.asarray(path.scale * center["v"]))
        params = jax.tree.map(np.asarray, scaled.params(path.theta))
        left = np.asarray(y.reshape(-1) - scaled.predict(path.theta)).reshape(y.shape)
        loss = float(np.sum(left**2) / 2)
    steps = len(path.history["loss"]) - 1
    message = (
        f"loss {loss:.3g} after {steps} Newton steps"
        if path.solved
        else f"the loss is {loss:.3g} after {steps} steps: widen the net, enlarge the radius, bound kappa, or scale x "
        "and y to entries of size one, where w is near w⁰ with enough digits"
    )
    return Memorized(
        params=params,
        center=center,
        scale=path.scale,
        weight_scale=start.weight_scale,
        loss=loss,
        residual=left,
        radius_used=radius,
        history=path.history,
        certificate=None,
        status="solved" if path.solved else "not_converged",
        message=message,
    )


def _deficient(
    start: Start, x: np.ndarray, y: np.ndarray, kept: np.ndarray, sigmas: tuple[Activation, ...]
) -> Memorized:
    """Say which samples depend on each other: the largest entries of the left singular vector of σ_min."""
    center = jax.tree.map(np.asarray, start.center)
    s = sigma_min(Net.of(center, sigmas).jacobian(x[kept]), certify=False)
    weight = np.abs(np.asarray(s.vector)).reshape(len(kept), -1).max(axis=1)
    order = np.argsort(-weight)[:10]
    samples = sorted(int(kept[i]) for i in order if weight[i] > 0.3 * weight.max())
    loss = float(np.sum(y**2) / 2)
    record = {"loss": loss, "scale": 1.0, "damping": 0.0, "distance": 0.0}
    return Memorized(
        params=center,
        center=center,
        scale=1.0,
        weight_scale=start.weight_scale,
        loss=loss,
        residual=y,
        radius_used=math.nan,
        history={name: np.array([value]) for name, value in record.items()},
        certificate=None,
        status="rank_deficient",
        message=f"the Jacobian at the start has no full row rank at {start.name} (σ_min {float(s.value):.3g}, "
        f"σ_max {float(s.sigma_max):.3g}): samples {samples} depend on each other. Remove one of them if they are "
        f"parallel, scale x to entries of size one, or try {start.wider}",
    )
