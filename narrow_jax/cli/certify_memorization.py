"""``narrow-jax certify memorization``: Theorem 1 and its assumptions on a run of ``memorize`` or ``train``."""

from __future__ import annotations

import argparse
from typing import Any

import jax

import narrow_jax as nj
from narrow_jax.checkpoints import strict_json
from narrow_jax.cli.config import HelpFormatter, TrainConfig, add_folders, build, load_data, path, read_run


def add(kinds: Any) -> None:
    """Add the kind to the parser."""
    parser = kinds.add_parser(
        "memorization",
        help="an exact zero-loss net is near the net of a run (Theorem 1)",
        formatter_class=HelpFormatter,
        description="Prove that an exact zero-loss net lies near the net of a run and inside its ball, print the "
        "region without local minima around its start, and audit the assumptions. Exit status 1 if nothing is proven.",
        epilog="Example: narrow-jax certify memorization --run runs/digits-memorize-0",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--run", dest="folder", type=path, required=True, help="folder of `memorize` or `train`"
    )
    add_folders(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    """Print the verdict and its constants; 1 if it does not hold."""
    config, params, center = read_run(args.folder)
    if config.model != "pairwise":
        raise ValueError(f"the run is of a {config.model} net: Theorem 1 speaks of pairwise nets")
    data = load_data(config, args.raw_dir, args.data_dir)
    center = center or start_of(config, data)
    found = nj.certificates.memorization(params, center, data.x, data.y, config.radius, config.activation)
    region = nj.certificates.nice_region(center, data.x, config.activation, y=data.y)
    audit = nj.certificates.assumptions(data.x, data.y, config.width, config.activation)
    report(found, region, audit, as_json=args.json)
    return 0 if found.holds else 1


def start_of(config: TrainConfig, data: nj.data.Dataset) -> Any:
    """Return the start that `train` drew for this config."""
    return jax.tree.map(jax.device_get, build(config, data)[2])


def report(
    found: nj.certificates.Memorization,
    region: nj.certificates.NiceRegion,
    audit: nj.certificates.Assumptions,
    as_json: bool,
) -> None:
    """Print the verdict first, then the constants, then the assumptions."""
    if as_json:
        checks = [check._asdict() for check in audit.checks]
        parts = {
            "memorization": found._asdict(),
            "nice_region": region._asdict(),
            "assumptions": audit._asdict() | {"checks": checks},
        }
        print(strict_json.dumps(parts))
        return
    print(f"{'proven' if found.holds else 'not proven'}: {found.reason}")
    print_constants(found)
    print(f"{'proven' if region.holds else 'not proven'}: {region.reason}")
    print("assumptions of the paper")
    for check in audit.checks:
        print(f"  {check.verdict:17} {check.assumption}: {check.evidence}")


def print_constants(found: nj.certificates.Memorization) -> None:
    """Print the constants of a memorization certificate."""
    print(f"  ρ         {found.rho:.6g}")
    print(f"  ‖w − w⁰‖  {found.distance:.6g}, ε = {found.radius:.6g}")
    print(f"  η̄         {found.eta:.6g} (residual {found.residual:.3g}, its rounding {found.rounding:.3g})")
    print(f"  σ_min     ≥ {found.sigma:.6g}")
    print(f"  L         {found.lipschitz:.6g}")
    print(f"  g         {found.g:.6g} (≤ ½ is needed)")
