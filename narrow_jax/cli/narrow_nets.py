"""``narrow-jax certify memorization | nice-region | kkt | descent | gradient-bound``: theorems on the net of a run."""

from __future__ import annotations

import argparse
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


def memorization(args: argparse.Namespace) -> Answer:
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


def nice_region(args: argparse.Namespace) -> Answer:
    """Judge the surroundings of the start of a run."""
    config, _, center, data = Run.of(args)
    return answer(certificates.nice_region(center, data.x, config.activation, y=data.y))


def kkt(args: argparse.Namespace) -> Answer:
    """Judge the params of a run as a point of problem (7)."""
    run = Run.squared(args)
    config, params, center, data = run
    radius, zeta, kappa = config.radius, run.zeta, config.kappa
    return answer(certificates.kkt(params, center, data.x, data.y, radius, zeta, kappa, config.activation))


def descent(args: argparse.Namespace) -> Answer:
    """Judge gradient descent from the params of a run, or from its start."""
    if args.target_loss is not None:
        _checks.positive("target loss", args.target_loss)
    config, params, center, data = Run.squared(args)
    point, ball = (center, config.radius) if args.from_start else (params, float("inf"))
    found = certificates.gradient_descent(point, data.x, data.y, config.activation, wrt=args.wrt, radius=ball)
    target = float(found.loss_bound(0)) / 1e4 if args.target_loss is None else args.target_loss
    return answer(found, {"target_loss": target, "steps": found.steps_to(target)})


def gradient_bound(args: argparse.Namespace) -> Answer:
    """Bound the loss of a run by its gradient."""
    config, params, _, data = Run.squared(args)
    return answer(certificates.gradient_bound(params, data.x, data.y, config.activation))
