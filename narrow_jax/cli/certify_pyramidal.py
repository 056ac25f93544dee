"""``narrow-jax certify pyramidal``."""

from __future__ import annotations

import argparse
from typing import Any

import jax
import numpy as np

import narrow_jax as nj
from narrow_jax import _checks
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli.config import HelpFormatter, TrainConfig, add_folders, add_options, load_data, path

OPTIONS = ("dataset", "labels", "classes", "samples", "normalize", "seed")
STARTS = ("search", *nj.initializers.PYRAMIDS)


def add(kinds: Any) -> None:
    """Add the command to the parser."""
    parser = kinds.add_parser(
        "pyramidal",
        help="does gradient descent on a deep pyramidal net provably converge, and how fast",
        formatter_class=HelpFormatter,
        description="Check Theorem 3.2 of Nguyen and Mondelli (one wide layer, then a pyramid) for a start on a data "
        "set: one found by search, a draw, or given weights. Exit status 1 if the theorem does not hold.",
        epilog="Example: narrow-jax certify pyramidal --dataset digits --samples 20 --sphere --widths 100 10",
    )
    parser.set_defaults(run=run)
    add_options(parser, OPTIONS, TrainConfig())
    parser.add_argument("--sphere", action="store_true", help="scale each sample to norm √d")
    parser.add_argument("--targets-scale", type=float, default=1.0, help="factor of the targets")
    parser.add_argument(
        "--widths",
        type=int,
        nargs="+",
        default=[100],
        help="hidden widths n_1 … n_{L−1}; n_L comes from the data",
    )
    parser.add_argument(
        "--start", choices=STARTS, default="search", help="search (section 3.1), or a draw of that variant"
    )
    parser.add_argument("--params", type=path, help="npz file with the weights w1, w2, … instead of a start")
    parser.add_argument("--gamma", type=float, default=0.5, help="γ of activation (2), its smallest slope")
    parser.add_argument("--beta", type=float, default=1.0, help="β of activation (2), the bound of σ''")
    parser.add_argument(
        "--activation", help=f"instead of activation (2): {', '.join(nj.activations.names())}"
    )
    parser.add_argument("--learning-rate", type=float, help="step to judge (default: the largest certified)")
    parser.add_argument("--target-loss", type=float, help="count the steps to it (default: Φ(θ_0)/10⁴)")
    add_folders(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    """Print the verdict, then the constants; 1 if the theorem does not hold."""
    sigma = (
        nj.activations.smooth_leaky_relu(args.gamma, args.beta)
        if args.activation is None
        else nj.activations.get(args.activation)
    )
    for name in ("learning_rate", "target_loss"):
        if (value := getattr(args, name)) is not None:
            _checks.positive(name.replace("_", " "), value)
    for layer, width in enumerate(args.widths, start=1):
        _checks.count(f"width n_{layer}", width)
    given = None if args.params is None else runs.read_npz(args.params)
    data = load_data(
        TrainConfig(**{name: getattr(args, name) for name in OPTIONS}), args.raw_dir, args.data_dir
    )
    x, y = data.x, data.y * np.float32(args.targets_scale)
    if args.sphere:
        x = on_sphere(x)
    params = _start(args, x, y, sigma) if given is None else given
    certificate = nj.certificates.pyramidal(params, x, y, sigma, args.learning_rate)
    target = certificate.initial_loss / 1e4 if args.target_loss is None else args.target_loss
    if args.json:
        options = {name: getattr(args, name) for name in (*OPTIONS, "sphere", "targets_scale")}
        print(strict_json.dumps({"data": options} | _plain(certificate, target)))
    else:
        _print(certificate, target)
    return 0 if certificate.holds else 1


def on_sphere(x: np.ndarray) -> np.ndarray:
    """Return the rows scaled to norm √d.

    Raises:
        ValueError: a row is zero.
    """
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError(f"sample {int(np.argmin(norms))} is zero and has no direction: leave --sphere out")
    return x * (np.sqrt(x.shape[1]) / norms).astype(x.dtype)


def _start(args: argparse.Namespace, x: np.ndarray, y: np.ndarray, sigma: nj.activations.Activation) -> Any:
    key, widths = jax.random.key(args.seed), (*args.widths, y.shape[1])
    if args.start == "search":
        return nj.solvers.pyramidal_start(key, x, y, widths, sigma).params
    return nj.initializers.pyramidal(key, inputs=x.shape[1], widths=widths, variant=args.start)


def _plain(certificate: nj.certificates.PyramidalCertificate, target: float) -> dict[str, Any]:
    result: dict[str, Any] = certificate._asdict()
    for name in ("paper", "sharper"):
        guarantee = result[name]
        result[name] = guarantee._asdict() | {
            "log10_rate": guarantee.log10_rate,
            "steps": guarantee.steps_to(target),
        }
    return result | {"target_loss": target}


def _print(c: nj.certificates.PyramidalCertificate, target: float) -> None:
    print(f"{'holds' if c.holds else 'does not hold'}: {c.reason}")
    print(f"  condition (4)   {c.condition4:+.4g} in log10, to be ≥ 0")
    print(f"  condition (5)   {c.condition5:+.4g}")
    print(f"  λ_F             {c.lambda_f:.6g}")
    print(f"  λ_l             {', '.join(f'{value:.4g}' for value in c.lambdas)}")
    print(f"  λ̄_l             {', '.join(f'{value:.4g}' for value in c.lambda_bars)}")
    print(f"  ‖X‖₂, ‖X‖_F     {c.x_norm:.6g}, {c.x_frobenius:.6g}")
    print(f"  Φ(θ_0)          {c.initial_loss:.6g}")
    print(f"  γ, β            {c.gamma:g}, {c.beta:g}")
    print(f"  weights that the first step leaves, below rounding: {100 * c.unmoved:.1f} %")
    for name, g in (("paper", c.paper), ("sharper", c.sharper)):
        print(f"{name}: {g.reason}")
        print(f"  log10 α, Q, D   {g.log10_alpha:.4f}, {g.log10_q:.4f}, {g.log10_distance:.4f}")
        print(f"  step η          {g.learning_rate:.4g}, at most 10^{g.log10_max_learning_rate:.4f}")
        print(f"  rate ηα         10^{g.log10_rate:.4f} a step")
        print(f"  steps to Φ = {target:.3g}: {g.steps_to(target):.4g}")
