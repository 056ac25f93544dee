"""``narrow-jax certify memorization | nice-region | kkt | descent | gradient-bound``: theorems on the net of a run."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from narrow_jax import _checks, certificates
from narrow_jax._typing import Params
from narrow_jax.cli.command import Answer, Command, Option, option, path, switch
from narrow_jax.cli.config import TrainConfig, build, load_data, read_run
from narrow_jax.cli.proofs import answer, constants, verdict
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
    lines = [verdict(found), *constants(found), verdict(region)]
    if config.widths is None:  # the paper's are those of one hidden layer
        audit = certificates.assumptions(data.x, data.y, config.width, config.activation)
        record["assumptions"] = audit._asdict() | {"checks": [check._asdict() for check in audit.checks]}
        checks = (f"  {check.verdict:17} {check.assumption}: {check.evidence}" for check in audit.checks)
        lines += ["assumptions of the paper", *checks]
    return Answer(found.holds, record, lines)


def _nice_region(args: argparse.Namespace) -> Answer:
    """Judge the surroundings of the start of a run."""
    config, _, center, data = Run.of(args)
    return answer(certificates.nice_region(center, data.x, config.activation, y=data.y))


def _kkt(args: argparse.Namespace) -> Answer:
    """Judge the params of a run as a point of problem (7)."""
    run = Run.squared(args)
    config, params, center, data = run
    radius, zeta, kappa = config.radius, run.zeta, config.kappa
    return answer(certificates.kkt(params, center, data.x, data.y, radius, zeta, kappa, config.activation))


def _descent(args: argparse.Namespace) -> Answer:
    """Judge gradient descent from the params of a run, or from its start, inside its ball as `train` runs it."""
    if args.target_loss is not None:
        _checks.positive("target loss", args.target_loss)
    _checks.positive("v_scale", args.v_scale)
    run = Run.squared(args)
    config, params, center, data = run
    point, asked = dict(params), {"wrt": args.wrt}
    if args.from_start:
        point, asked = dict(center), asked | {"radius": config.radius, "coordinates": "ball"}
        if args.wrt == "all":
            asked |= {"zeta": run.zeta, "kappa": math.inf if run.zeta is None else config.kappa}
    point["v"] = args.v_scale * point["v"]
    found = certificates.gradient_descent(point, data.x, data.y, config.activation, **asked)
    target = float(found.loss_bound(0)) / 1e4 if args.target_loss is None else args.target_loss
    steps = found.steps_to(target)
    record = found._asdict() | {"target_loss": target, "steps": steps}
    if found.holds:
        lines = [*_course(found), f"  steps      {steps:.6g} to loss {target:.6g}"]
    else:
        larger = found.scale is not None and found.scale > 1
        lines = (
            _start(found)
            + [f"  try        --v-scale {args.v_scale * (found.scale or 1):.12g} (`train` takes it too)"]
            * larger
        )
    return Answer(found.holds, record, [verdict(found), *lines])


def _start(c: certificates.GradientDescent) -> list[str]:
    """Return what is measured at the start, one a line."""
    return [
        f"  residual   {c.residual:.6g}, its rounding {c.rounding:.3g}; rows {c.rows}",
        f"  σ_min      ≥ {c.sigma:.6g} at the start",
        f"  ‖J‖        ≤ {c.beta:.6g}",
    ]


def _course(c: certificates.GradientDescent) -> list[str]:
    """Return what is proven of gradient descent, one a line."""
    return [
        f"  η          {c.learning_rate:.6g}; the largest found {c.max_learning_rate:.6g}",
        f"  rate       {c.rate:.6g} of the residual a step in the long run, {c.first_rate:.6g} from the first",
        f"  path       ≤ {c.radius:.6g}, in units of {c.unit:.6g}; ‖θ − θ⁰‖ ≤ {c.distance_bound():.6g}",
        *_start(c),
        f"  α          {c.alpha:.6g} ≤ σ_min along the path",
        f"  L          {c.lipschitz:.6g}",
        f"  q          {c.q:.6g} (steps: < 1 is needed)",
        f"  g          {c.g:.6g} (path: < ½ is needed)",
    ]


def _gradient_bound(args: argparse.Namespace) -> Answer:
    """Bound the loss of a run by its gradient."""
    config, params, _, data = Run.squared(args)
    return answer(certificates.gradient_bound(params, data.x, data.y, config.activation))


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
            switch("--from-start", "judge the start of the run, in the coordinates of `train`"),
            option("--v-scale", "multiply the output weights by that first", type=float, default=1.0),
            option(
                "--wrt",
                "w: the hidden weights move; all: the output weights too, as in `train`",
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
