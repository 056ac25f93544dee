"""``narrow-jax memorize`` and ``narrow-jax certify memorization``: Theorem 1."""

from __future__ import annotations

import argparse
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path

import jax

from narrow_jax import _checks, certificates, solvers
from narrow_jax.checkpoints import runs
from narrow_jax.cli.command import Answer, Command, option, overwrite, path
from narrow_jax.cli.config import (
    FIELDS,
    TrainConfig,
    build,
    claim,
    load_data,
    options_of,
    read_run,
    write_run,
)

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
        radius = math.inf if math.isnan(found.radius_used) else found.radius_used
        config = replace(config, width=found.params["w"].shape[1], radius=radius)
        arrays = {**found.params, "center": found.center}
        write_run(folder, arrays, config.to_json() | {"scale": found.scale}, data)
    written = None if kept else folder
    return Answer(proven, _record(found, written, seconds), _lines(found, written, seconds))


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
        *([] if found.certificate is None else _constants(found.certificate)),
        f"  written   {folder or 'nowhere'} in {seconds:.2f} s",
    ]


def _certify(args: argparse.Namespace) -> Answer:
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
        *_constants(found),
        f"{'proven' if region.holds else 'not proven'}: {region.reason}",
        "assumptions of the paper",
        *(f"  {check.verdict:17} {check.assumption}: {check.evidence}" for check in audit.checks),
    ]
    return Answer(found.holds, record, lines)


def _constants(found: certificates.Memorization) -> list[str]:
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

MEMORIZATION = Command(
    "memorization",
    help="an exact zero-loss net is near the net of a run (Theorem 1)",
    description="Prove that an exact zero-loss net lies near the net of a run and inside its ball, print the "
    "region without local minima around its start, and audit the assumptions. Exit status 1 if nothing is proven.",
    example="certify memorization --run runs/digits-memorize-0",
    options=[option("--run", "folder of `memorize` or `train`", dest="folder", type=path, required=True)],
    run=_certify,
)
