"""``narrow-jax memorize``."""

from __future__ import annotations

import argparse
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

import narrow_jax as nj
from narrow_jax import _checks
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli.certify_memorization import print_constants
from narrow_jax.cli.config import (
    HELP,
    HelpFormatter,
    TrainConfig,
    add_folders,
    add_options,
    add_overwrite,
    check,
    claim,
    load_data,
    path,
    to_json,
    write_run,
)

OPTIONS = ("dataset", "labels", "classes", "samples", "normalize", "activation", "zeta", "kappa", "seed")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "memorize",
        help="find a narrow net with zero loss, and prove that it is there",
        formatter_class=HelpFormatter,
        description="Find a pairwise net that fits every label exactly, inside a ball around a mirrored start, by "
        "Newton's method. Writes params.npz (with the start), config.json and normalizer.npz. Exit status 1 if it is "
        "not proven.",
        epilog="Example: narrow-jax memorize --dataset digits --labels random --normalize scale --width 80 "
        "--radius 0.1",
    )
    parser.set_defaults(run=run)
    add_options(parser, OPTIONS, TrainConfig())
    parser.add_argument("--width", type=int, help=f"{HELP['width']} (default: the smallest that works)")
    parser.add_argument("--radius", type=float, help="ε of the ball (default: ε₀ of Theorem 1)")
    parser.add_argument("--out", type=path, help="folder of the run (default: runs/DATASET-memorize-SEED)")
    add_overwrite(parser)
    add_folders(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    """Solve, write the run, print the verdict; 1 if it is not proven."""
    config = TrainConfig(**{name: getattr(args, name) for name in OPTIONS})
    check(config)
    if args.width is not None:
        _checks.even_width(args.width)
    if args.radius is not None:
        _checks.radius(args.radius)
    folder = args.out or Path("runs") / f"{config.dataset}-memorize-{config.seed}"
    claim(folder, args.overwrite)
    data = load_data(config, args.raw_dir, args.data_dir)
    started = time.perf_counter()
    found = nj.memorize(
        jax.random.key(config.seed),
        data.x,
        data.y,
        args.width,
        args.radius,
        activation=config.activation,
        zeta=config.zeta,
        kappa=config.kappa,
        progress=False if args.json else None,
    )
    seconds = time.perf_counter() - started
    width = found.params["w"].shape[1]
    config = replace(
        config, width=width, radius=math.inf if math.isnan(found.radius_used) else found.radius_used
    )
    proven = found.certificate is not None and found.certificate.holds
    if kept := not proven and runs.occupied(folder):
        warnings.warn(f"nothing is proven and nothing written: the run in {folder} stays", stacklevel=2)
    else:
        arrays = {**found.params, "center": found.center}
        write_run(folder, arrays, to_json(config) | {"scale": found.scale}, data)
    _print(found, None if kept else folder, seconds, as_json=args.json)
    return 0 if proven else 1


def _print(found: nj.Memorized, folder: Path | None, seconds: float, as_json: bool) -> None:
    certificate = found.certificate
    (n, k), width = found.residual.shape, found.params["w"].shape[1]
    if as_json:
        summary = {
            "status": found.status,
            "message": found.message,
            "loss": found.loss,
            "steps": max(len(found.history.get("loss", ())) - 1, 0),
            "samples": n,
            "outputs": k,
            "width": width,
            "scale": found.scale,
            "radius": found.radius_used,
            "seconds": round(seconds, 2),
            "certificate": None if certificate is None else certificate._asdict(),
            "folder": None if folder is None else str(folder),
        }
        print(strict_json.dumps(summary))
        return
    print(f"{found.status}: {found.message}")
    print(f"  net       {width} hidden units, {n} samples, {k} outputs, v = {found.scale:g} · v⁰")
    if certificate is not None:
        print_constants(certificate)
    print(f"  written   {folder or 'nowhere'} in {seconds:.2f} s")
