"""``narrow-jax certify memorization | nice-region | kkt | descent | gradient-bound``: theorems on the net of a run."""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

import jax

from narrow_jax import _checks, certificates
from narrow_jax._typing import Params
from narrow_jax.cli.command import Answer
from narrow_jax.cli.config import build, load_data, read_run
from narrow_jax.cli.proofs import answer, constants, verdict
from narrow_jax.cli.train_config import TrainConfig
from narrow_jax.data import Dataset


class Run(NamedTuple):
    """A run: its config, its params, its start, saved by `memorize` or drawn anew as by `train`, and its data."""

    config: TrainConfig
    params: Params
    center: Params
    data: Dataset
    trained: bool

    @staticmethod
    def of(args: argparse.Namespace) -> Run:
        """Return the run of ``--run``."""
        config, params, center = read_run(args.folder)
        data = load_data(config, args.raw_dir, args.data_dir)
        start = center or jax.tree.map(jax.device_get, build(config, data).params)
        return Run(config, params, start, data, trained=center is None)

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


def memorization(args: argparse.Namespace) -> Answer:
    """Judge whether an exact net is near, and print the region and the assumptions beside it."""
    config, params, center, data, _ = Run.of(args)
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


def nice_region(args: argparse.Namespace) -> Answer:
    """Judge the surroundings of the start of a run."""
    config, _, center, data, _ = Run.of(args)
    return answer(certificates.nice_region(center, data.x, config.activation, y=data.y))


def kkt(args: argparse.Namespace) -> Answer:
    """Judge the params of a run as a point of problem (7)."""
    run = Run.squared(args)
    config, params, center, data, _ = run
    radius, zeta, kappa = config.radius, run.zeta, config.kappa
    return answer(certificates.kkt(params, center, data.x, data.y, radius, zeta, kappa, config.activation))


def descent(args: argparse.Namespace) -> Answer:
    """Judge gradient descent from the params of a run, or from its start, inside its ball as `train` runs it."""
    if args.target_loss is not None:
        _checks.positive("target loss", args.target_loss)
    _checks.positive("v_scale", args.v_scale)
    run = Run.squared(args)
    config, params, center, data, trained = run
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
    lines = (
        [*_course(found), f"  steps      {steps:.6g} to loss {target:.6g}"] if found.holds else _start(found)
    )
    if not found.holds and found.scale is not None:
        larger = args.v_scale * found.scale
        of_train = f" (of `train`: {config.v_scale * larger:.12g})" if trained and args.from_start else ""
        lines.append(f"  try        --v-scale {larger:.12g}{of_train}")
    if trained and args.wrt == "w":
        lines.append("  note       V stays as it is here; `train` moves it too: --wrt all")
    if config.loss != "squared":
        lines.append(f"  note       η is that of ½ Σ (y − f)², and the run's loss is {config.loss}")
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


def gradient_bound(args: argparse.Namespace) -> Answer:
    """Bound the loss of a run by its gradient."""
    config, params, _, data, _ = Run.squared(args)
    return answer(certificates.gradient_bound(params, data.x, data.y, config.activation))
