"""``narrow-jax memorize``: Theorem 1."""

from __future__ import annotations

import argparse
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from narrow_jax import _checks, solvers
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli.command import Answer
from narrow_jax.cli.commands import MEMORIZE
from narrow_jax.cli.config import apply_fn_of, check, claim, load_data, trained, write_run
from narrow_jax.cli.proofs import constants
from narrow_jax.cli.train_config import TrainConfig


def run(args: argparse.Namespace) -> Answer:
    """Solve and write the run; no if it is not proven."""
    config = TrainConfig.of(args, MEMORIZE)
    check(config)
    widths = _sizes(args)
    if args.radius is not None:
        _checks.radius(args.radius)
    folder = args.out or Path("runs") / f"{config.name}-memorize-{config.seed}"
    claim(folder, args.overwrite)
    data = load_data(config, args.raw_dir, args.data_dir)
    started = time.perf_counter()
    found = solvers.memorize(
        jax.random.key(config.seed),
        data.x,
        data.y,
        args.width,
        args.radius,
        widths=widths,
        weight_scale=args.weight_scale,
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
        config = replace(config, radius=radius, **_net(found))
        results = {"scale": found.scale} | _weight_scale(found)
        model = trained(apply_fn_of(config), found.params, data)
        text = strict_json.dumps(_record(found, folder, seconds), indent=2) + "\n"
        more = {"summary.json": lambda path: path.write_text(text)}
        write_run(folder, config.to_json() | results, model, more, start=found.center)
    written = None if kept else folder
    return Answer(proven, _record(found, written, seconds), _lines(found, written, seconds))


def _sizes(args: argparse.Namespace) -> list[int] | int | None:
    """Return what ``solvers.memorize`` takes as widths: the layers, how many there are, or none for one.

    Raises:
        ValueError: more than one of --width, --widths and --depth, or a number that is no size.
    """
    given = [f"--{name}" for name in ("width", "widths", "depth") if getattr(args, name) is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given; expected one of them: each says which net")
    if args.width is not None:
        _checks.even_width(args.width)
    if args.depth is not None:
        _checks.count("depth", args.depth)
    for layer, width in enumerate(args.widths or (), start=1):
        _checks.count(f"the width of layer {layer}", width)
    return args.depth if args.widths is None else args.widths


def _net(found: solvers.Memorized) -> dict[str, Any]:
    """Return the width, or the widths, of the net."""
    if "w" in found.params:
        return {"width": found.params["w"].shape[1]}
    half = found.params["plus"]
    return {"widths": tuple(half[f"w{layer}"].shape[1] for layer in range(1, len(half) + 1))}


def _weight_scale(found: solvers.Memorized) -> dict[str, float]:
    """Return the scale of the hidden weights of the start, where it is not LeCun's."""
    return {} if found.weight_scale == 1 else {"weight_scale": found.weight_scale}


def _record(found: solvers.Memorized, folder: Path | None, seconds: float) -> dict[str, object]:
    (samples, outputs), certificate = found.residual.shape, found.certificate
    return {
        "status": found.status,
        "message": found.message,
        "loss": found.loss,
        "steps": max(len(found.history.get("loss", ())) - 1, 0),
        "samples": samples,
        "outputs": outputs,
        **_net(found),
        "scale": found.scale,
        **_weight_scale(found),
        "radius": found.radius_used,
        "seconds": round(seconds, 2),
        "certificate": None if certificate is None else certificate._asdict(),
        "folder": None if folder is None else str(folder),
    }


def _lines(found: solvers.Memorized, folder: Path | None, seconds: float) -> list[str]:
    n, k = found.residual.shape
    widths = _net(found)
    units = f"{widths['width']}" if "width" in widths else " + ".join(f"2 × {w}" for w in widths["widths"])
    scales = "".join(f", w = {scale:.3g} · LeCun's" for scale in _weight_scale(found).values())
    return [
        f"{found.status}: {found.message}",
        f"  net       {units} hidden units, {n} samples, {k} outputs, v = {found.scale:g} · v⁰{scales}",
        *([] if found.certificate is None else constants(found.certificate)),
        f"  written   {folder or 'nowhere'} in {seconds:.2f} s",
    ]
