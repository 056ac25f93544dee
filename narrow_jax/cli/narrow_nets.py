"""``narrow-jax certify memorization | nice-region | kkt | descent | gradient-bound``: theorems on the net of a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from narrow_jax import _checks, certificates
from narrow_jax._typing import Params
from narrow_jax.cli.command import Answer, Command, Option, option, path, switch
from narrow_jax.cli.config import TrainConfig, build, load_data, read_run
from narrow_jax.cli.memorize import constants
from narrow_jax.data import Dataset

RUN = option("--run", "folder of `memorize` or `train`", dest="folder", type=path, required=True)


class Run(NamedTuple):
    """A run: its config, its params, its start, the one saved or the one that `train` drew, and its data."""

    config: TrainConfig
    params: Params
    center: Params
    data: Dataset

    @staticmethod
    def of(args: argparse.Namespace) -> Run:
        """Return the run of ``--run``."""
        config, params, center = read_run(args.folder)
        data = load_data(config, args.raw_dir, args.data_dir)
        return Run(config, params, center or jax.tree.map(jax.device_get, build(config, data).params), data)

    @staticmethod
    def squared(args: argparse.Namespace) -> Run:
        """Return the run of ``--run``, which has to be trained on a squared loss."""
        run = Run.of(args)
        if run.config.loss == "cross_entropy":
            raise ValueError("the run was trained on cross-entropy; the theorem speaks of the squared loss")
        return run

    @property
    def zeta(self) -> float | None:
        """Return ζ; None where v is free."""
        return None if self.config.model == "standard" else self.config.zeta


def _memorization(args: argparse.Namespace) -> Answer:
    """Judge whether an exact net is near, and print the region and the assumptions beside it."""
    config, params, center, data = Run.of(args)
    found = certificates.memorization(params, center, data.x, data.y, config.radius, config.activation)
    region = certificates.nice_region(center, data.x, config.activation, y=data.y)
    record = {"memorization": found._asdict(), "nice_region": region._asdict(), "assumptions": None}
    lines = [_verdict(found), *constants(found), _verdict(region)]
    if config.widths is None:  # the paper's are those of one hidden layer
        audit = certificates.assumptions(data.x, data.y, config.width, config.activation)
        record["assumptions"] = audit._asdict() | {"checks": [check._asdict() for check in audit.checks]}
        checks = (f"  {check.verdict:17} {check.assumption}: {check.evidence}" for check in audit.checks)
        lines += ["assumptions of the paper", *checks]
    return Answer(found.holds, record, lines)


def _nice_region(args: argparse.Namespace) -> Answer:
    """Judge the surroundings of the start of a run."""
    config, _, center, data = Run.of(args)
    return _answer(certificates.nice_region(center, data.x, config.activation, y=data.y))


def _kkt(args: argparse.Namespace) -> Answer:
    """Judge the params of a run as a point of problem (7)."""
    run = Run.squared(args)
    config, params, center, data = run
    radius, zeta, kappa = config.radius, run.zeta, config.kappa
    return _answer(certificates.kkt(params, center, data.x, data.y, radius, zeta, kappa, config.activation))


def _descent(args: argparse.Namespace) -> Answer:
    """Judge gradient descent from the params of a run, or from its start."""
    if args.target_loss is not None:
        _checks.positive("target loss", args.target_loss)
    config, params, center, data = Run.squared(args)
    point, ball = (center, config.radius) if args.from_start else (params, float("inf"))
    found = certificates.gradient_descent(point, data.x, data.y, config.activation, wrt=args.wrt, radius=ball)
    target = float(found.loss_bound(0)) / 1e4 if args.target_loss is None else args.target_loss
    return _answer(found, {"target_loss": target, "steps": found.steps_to(target)})


def _gradient_bound(args: argparse.Namespace) -> Answer:
    """Bound the loss of a run by its gradient."""
    config, params, _, data = Run.squared(args)
    return _answer(certificates.gradient_bound(params, data.x, data.y, config.activation))


def _answer(found: Any, more: Mapping[str, object] | None = None) -> Answer:
    """Return the verdict of a certificate, and all its constants, one a line."""
    record = found._asdict() | dict(more or {})
    rest = {name: value for name, value in record.items() if name not in ("holds", "reason")}
    return Answer(found.holds, record, [_verdict(found), *(_line(*entry) for entry in rest.items())])


def _line(name: str, value: object) -> str:
    words = name.replace("_", " ")
    return f"  {words:18} {value:.6g}" if isinstance(value, float) else f"  {words:18} {value}"


def _verdict(found: Any) -> str:
    return f"{'proven' if found.holds else 'not proven'}: {found.reason}"


def _kind(
    name: str,
    text: str,
    description: str,
    run: Callable[[argparse.Namespace], Answer],
    options: Sequence[Option] = (),
) -> Command:
    """Return a kind of ``certify`` that reads a run."""
    return Command(
        name,
        help=text,
        description=f"{description} Exit status 1 if nothing is proven.",
        example=f"certify {name} --run runs/digits-memorize-0",
        options=[RUN, *options],
        run=run,
    )


KINDS = (
    _kind(
        "memorization",
        "an exact zero-loss net is near the net of a run (Theorem 1)",
        "Prove that an exact zero-loss net lies near the net of a run and inside its ball, print the region without "
        "local minima around its start, and audit the assumptions.",
        _memorization,
    ),
    _kind(
        "nice-region",
        "the radius around the start of a run without bad stationary points (Theorem 1)",
        "Prove that every stationary point within a radius of the start of a run has loss 0.",
        _nice_region,
    ),
    _kind(
        "kkt",
        "how far a run is from a KKT point of problem (7), and whether those have loss 0 (Theorem 2)",
        "Measure how far the net of a run is from a KKT point of the constrained problem (7), and prove that such "
        "points have loss 0.",
        _kkt,
    ),
    _kind(
        "descent",
        "gradient descent from the net of a run, or from its start, provably converges",
        "Prove that full-batch gradient descent on ½ Σ (y − f)² reaches loss 0: with which steps, how fast, and how "
        "far away. From the net of a run without a ball, or with --from-start from its start, inside its ball.",
        _descent,
        [
            switch("--from-start", "judge the start of the run"),
            option(
                "--wrt",
                "w: the hidden weights move; all: the output weights too",
                choices=("w", "all"),
                default="w",
            ),
            option(
                "--target-loss", "count the steps to it (default: a ten-thousandth of the loss)", type=float
            ),
        ],
    ),
    _kind(
        "gradient-bound",
        "what the gradient at the net of a run proves of its loss",
        "Bound the loss ½ Σ (y − f)² of a run by its gradient and the smallest singular value of its Jacobian.",
        _gradient_bound,
    ),
)
