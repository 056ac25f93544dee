"""``narrow-jax certify pyramidal``."""

from __future__ import annotations

import argparse
from typing import Any

import jax
import numpy as np

from narrow_jax import _checks, activations, certificates, initializers, solvers
from narrow_jax.checkpoints import runs
from narrow_jax.cli.command import Answer, Command, option, path, switch
from narrow_jax.cli.config import TrainConfig, load_data, options_of

OPTIONS = ("dataset", "labels", "classes", "samples", "normalize", "seed")
STARTS = ("search", *initializers.PYRAMIDS)


def run(args: argparse.Namespace) -> Answer:
    """Judge gradient descent from a start that is searched, drawn or given."""
    sigma = (
        activations.smooth_leaky_relu(args.gamma, args.beta)
        if args.activation is None
        else activations.get(args.activation)
    )
    for name in ("learning_rate", "target_loss"):
        if (value := getattr(args, name)) is not None:
            _checks.positive(name.replace("_", " "), value)
    for layer, width in enumerate(args.widths, start=1):
        _checks.count(f"width n_{layer}", width)
    given = None if args.params is None else runs.read_npz(args.params)
    data = load_data(TrainConfig.of(args, OPTIONS), args.raw_dir, args.data_dir)
    x, y = data.x, data.y * np.float32(args.targets_scale)
    if args.sphere:
        x = on_sphere(x)
    params = _start(args, x, y, sigma) if given is None else given
    certificate = certificates.pyramidal(params, x, y, sigma, args.learning_rate)
    target = certificate.initial_loss / 1e4 if args.target_loss is None else args.target_loss
    options = {name: getattr(args, name) for name in (*OPTIONS, "sphere", "targets_scale")}
    record = {"data": options} | _plain(certificate, target)
    return Answer(certificate.holds, record, _lines(certificate, target))


def on_sphere(x: np.ndarray) -> np.ndarray:
    """Return the rows scaled to norm √d.

    Raises:
        ValueError: a row is zero.
    """
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError(f"sample {int(np.argmin(norms))} is zero and has no direction: leave --sphere out")
    return x * (np.sqrt(x.shape[1]) / norms).astype(x.dtype)


def _start(args: argparse.Namespace, x: np.ndarray, y: np.ndarray, sigma: activations.Activation) -> Any:
    key, widths = jax.random.key(args.seed), (*args.widths, y.shape[1])
    if args.start == "search":
        return solvers.pyramidal_start(key, x, y, widths, sigma).params
    return initializers.pyramidal(key, inputs=x.shape[1], widths=widths, variant=args.start)


def _plain(certificate: certificates.PyramidalCertificate, target: float) -> dict[str, Any]:
    result: dict[str, Any] = certificate._asdict()
    for name in ("paper", "sharper"):
        guarantee = result[name]
        result[name] = guarantee._asdict() | {
            "log10_rate": guarantee.log10_rate,
            "steps": guarantee.steps_to(target),
        }
    return result | {"target_loss": target}


def _lines(c: certificates.PyramidalCertificate, target: float) -> list[str]:
    lines = [
        f"{'holds' if c.holds else 'does not hold'}: {c.reason}",
        f"  condition (4)   {c.condition4:+.4g} in log10, to be ≥ 0",
        f"  condition (5)   {c.condition5:+.4g}",
        f"  λ_F             {c.lambda_f:.6g}",
        f"  λ_l             {', '.join(f'{value:.4g}' for value in c.lambdas)}",
        f"  λ̄_l             {', '.join(f'{value:.4g}' for value in c.lambda_bars)}",
        f"  ‖X‖₂, ‖X‖_F     {c.x_norm:.6g}, {c.x_frobenius:.6g}",
        f"  Φ(θ_0)          {c.initial_loss:.6g}",
        f"  γ, β            {c.gamma:g}, {c.beta:g}",
        f"  weights that the first step leaves, below rounding: {100 * c.unmoved:.1f} %",
    ]
    for name, g in (("paper", c.paper), ("sharper", c.sharper)):
        lines += [
            f"{name}: {g.reason}",
            f"  log10 α, Q, D   {g.log10_alpha:.4f}, {g.log10_q:.4f}, {g.log10_distance:.4f}",
            f"  step η          {g.learning_rate:.4g}, at most 10^{g.log10_max_learning_rate:.4f}",
            f"  rate ηα         10^{g.log10_rate:.4f} a step",
            f"  steps to Φ = {target:.3g}: {g.steps_to(target):.4g}",
        ]
    return lines


COMMAND = Command(
    "pyramidal",
    help="does gradient descent on a deep pyramidal net provably converge, and how fast",
    description="Check Theorem 3.2 of Nguyen and Mondelli (one wide layer, then a pyramid) for a start on a data "
    "set: one found by search, a draw, or given weights. Exit status 1 if the theorem does not hold.",
    example="certify pyramidal --dataset digits --samples 20 --sphere --widths 100 10",
    options=[
        *options_of(OPTIONS),
        switch("--sphere", "scale each sample to norm √d"),
        option("--targets-scale", "factor of the targets", type=float, default=1.0),
        option(
            "--widths",
            "hidden widths n_1 … n_{L−1}; n_L comes from the data",
            type=int,
            nargs="+",
            default=[100],
        ),
        option(
            "--start", "search (section 3.1), or a draw of that variant", choices=STARTS, default="search"
        ),
        option("--params", "npz file with the weights w1, w2, … instead of a start", type=path),
        option("--gamma", "γ of activation (2), its smallest slope", type=float, default=0.5),
        option("--beta", "β of activation (2), the bound of σ''", type=float, default=1.0),
        option("--activation", f"instead of activation (2): {', '.join(activations.names())}"),
        option("--learning-rate", "step to judge (default: the largest certified)", type=float),
        option("--target-loss", "count the steps to it (default: Φ(θ_0)/10⁴)", type=float),
    ],
    run=run,
)
