"""``narrow-jax certify memorization``: Theorem 1 and its assumptions on a run of ``memorize`` or ``train``."""

from __future__ import annotations

import argparse

import jax

from narrow_jax import certificates
from narrow_jax.cli.command import Answer, Command, option, path
from narrow_jax.cli.config import build, load_data, read_run


def run(args: argparse.Namespace) -> Answer:
    """Judge the net of a run; its start is the one saved, or the one that `train` drew."""
    config, params, center = read_run(args.folder)
    if config.model != "pairwise":
        raise ValueError(f"the run is of a {config.model} net: Theorem 1 speaks of pairwise nets")
    data = load_data(config, args.raw_dir, args.data_dir)
    center = center or jax.tree.map(jax.device_get, build(config, data).params)
    found = certificates.memorization(params, center, data.x, data.y, config.radius, config.activation)
    region = certificates.nice_region(center, data.x, config.activation, y=data.y)
    audit = certificates.assumptions(data.x, data.y, config.width, config.activation)
    record = {
        "memorization": found._asdict(),
        "nice_region": region._asdict(),
        "assumptions": audit._asdict() | {"checks": [check._asdict() for check in audit.checks]},
    }
    lines = [
        f"{'proven' if found.holds else 'not proven'}: {found.reason}",
        *constants(found),
        f"{'proven' if region.holds else 'not proven'}: {region.reason}",
        "assumptions of the paper",
        *(f"  {check.verdict:17} {check.assumption}: {check.evidence}" for check in audit.checks),
    ]
    return Answer(found.holds, record, lines)


def constants(found: certificates.Memorization) -> list[str]:
    """Return the constants of a memorization certificate, one a line."""
    return [
        f"  ρ         {found.rho:.6g}",
        f"  ‖w − w⁰‖  {found.distance:.6g}, ε = {found.radius:.6g}",
        f"  η̄         {found.eta:.6g} (residual {found.residual:.3g}, its rounding {found.rounding:.3g})",
        f"  σ_min     ≥ {found.sigma:.6g}",
        f"  L         {found.lipschitz:.6g}",
        f"  g         {found.g:.6g} (≤ ½ is needed)",
    ]


COMMAND = Command(
    "memorization",
    help="an exact zero-loss net is near the net of a run (Theorem 1)",
    description="Prove that an exact zero-loss net lies near the net of a run and inside its ball, print the "
    "region without local minima around its start, and audit the assumptions. Exit status 1 if nothing is proven.",
    example="certify memorization --run runs/digits-memorize-0",
    options=[option("--run", "folder of `memorize` or `train`", dest="folder", type=path, required=True)],
    run=run,
)
