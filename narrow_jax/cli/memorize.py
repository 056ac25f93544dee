"""``narrow-jax memorize``."""

from __future__ import annotations

import argparse
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path

import jax

from narrow_jax import _checks, solvers
from narrow_jax.checkpoints import runs
from narrow_jax.cli.certify import constants
from narrow_jax.cli.command import Answer, Command, option, overwrite, path
from narrow_jax.cli.config import FIELDS, TrainConfig, claim, load_data, options_of, write_run
from narrow_jax.data import Dataset

OPTIONS = ("dataset", "labels", "classes", "samples", "normalize", "activation", "zeta", "kappa", "seed")


def run(args: argparse.Namespace) -> Answer:
    """Solve and write the run; no if it is not proven."""
    config = TrainConfig.of(args, OPTIONS)
    config.check()
    if args.width is not None:
        _checks.even_width(args.width)
    if args.radius is not None:
        _checks.radius(args.radius)
    folder = args.out or Path("runs") / f"{config.dataset}-memorize-{config.seed}"
    claim(folder, args.overwrite)
    data = load_data(config, args.raw_dir, args.data_dir)
    started = time.perf_counter()
    found = solvers.memorize(
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
    proven = found.certificate is not None and found.certificate.holds
    kept = not proven and bool(runs.occupied(folder))
    if kept:
        warnings.warn(f"nothing is proven and nothing written: the run in {folder} stays", stacklevel=2)
    else:
        _write(folder, found, config, data)
    written = None if kept else folder
    return Answer(proven, _record(found, written, seconds), _lines(found, written, seconds))


def _write(folder: Path, found: solvers.Memorized, config: TrainConfig, data: Dataset) -> None:
    """Write the run with the width, radius and scale that were found."""
    radius = math.inf if math.isnan(found.radius_used) else found.radius_used
    config = replace(config, width=found.params["w"].shape[1], radius=radius)
    arrays = {**found.params, "center": found.center}
    write_run(folder, arrays, config.to_json() | {"scale": found.scale}, data)


def _record(found: solvers.Memorized, folder: Path | None, seconds: float) -> dict[str, object]:
    (samples, outputs), certificate = found.residual.shape, found.certificate
    return {
        "status": found.status,
        "message": found.message,
        "loss": found.loss,
        "steps": max(len(found.history.get("loss", ())) - 1, 0),
        "samples": samples,
        "outputs": outputs,
        "width": found.params["w"].shape[1],
        "scale": found.scale,
        "radius": found.radius_used,
        "seconds": round(seconds, 2),
        "certificate": None if certificate is None else certificate._asdict(),
        "folder": None if folder is None else str(folder),
    }


def _lines(found: solvers.Memorized, folder: Path | None, seconds: float) -> list[str]:
    (n, k), width = found.residual.shape, found.params["w"].shape[1]
    return [
        f"{found.status}: {found.message}",
        f"  net       {width} hidden units, {n} samples, {k} outputs, v = {found.scale:g} · v⁰",
        *([] if found.certificate is None else constants(found.certificate)),
        f"  written   {folder or 'nowhere'} in {seconds:.2f} s",
    ]


COMMAND = Command(
    "memorize",
    help="find a narrow net with zero loss, and prove that it is there",
    description="Find a pairwise net that fits every label exactly, inside a ball around a mirrored start, by "
    "Newton's method. Writes params.npz (with the start), config.json and normalizer.npz. Exit status 1 if it is "
    "not proven.",
    example="memorize --dataset digits --labels random --normalize scale --width 80 --radius 0.1",
    options=[
        *options_of(OPTIONS),
        option("--width", f"{FIELDS['width']['help']} (default: the smallest that works)", type=int),
        option("--radius", "ε of the ball (default: ε₀ of Theorem 1)", type=float),
        option("--out", "folder of the run (default: runs/DATASET-memorize-SEED)", type=path),
        overwrite(),
    ],
    run=run,
)
