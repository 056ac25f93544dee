"""``narrow-jax spectrum``."""

from __future__ import annotations

import argparse
import time
from typing import Any

import narrow_jax as nj
from narrow_jax import _checks, _progress
from narrow_jax.checkpoints import strict_json
from narrow_jax.cli.config import (
    HelpFormatter,
    TrainConfig,
    add_folders,
    add_options,
    add_overwrite,
    build,
    load_data,
    memory_budget,
    path,
    read_run,
    to_json,
)
from narrow_jax.spectra import METHODS

OPTIONS = ("dataset", "labels", "classes", "samples", "normalize", "model", "width", "activation", "seed")

_DEFAULTS = TrainConfig(samples=200)
"""All digits with their ten classes are 17,970 rows, whose work takes many minutes."""
_MANY_ROWS = 5000


def add(commands: Any) -> None:
    """Add the command to the parser."""
    spectrum = commands.add_parser(
        "spectrum",
        help="the smallest singular value of the Jacobian, with a proven interval",
        formatter_class=HelpFormatter,
        description="Print σ_min of the n × md Jacobian of a net on a data set: of a start drawn for the "
        "options below, or of the params of a run. Exit status 1 if nothing is proven.",
        epilog="Example: narrow-jax spectrum --dataset digits --normalize whiten --width 120",
    )
    spectrum.set_defaults(run=run)
    add_options(spectrum, OPTIONS, _DEFAULTS)
    spectrum.add_argument(
        "--run",
        dest="folder",
        type=path,
        help="folder of a run: its params, or those of its newest checkpoint, data and model",
    )
    spectrum.add_argument("--method", default="auto", help="auto, gram, qr or dense")
    spectrum.add_argument("--memory-budget", type=float, help="GiB that may be used (default: no limit)")
    spectrum.add_argument("--plot", type=path, help="draw all singular values into this file")
    add_overwrite(spectrum, "figure")
    add_folders(spectrum)
    spectrum.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    """Print σ_min with its interval; 1 if it is not certified."""
    _checks.choice("method", args.method, METHODS)
    budget = memory_budget(args.memory_budget)
    if args.plot is not None and nj.plots.check(args.plot).exists() and not args.overwrite:
        raise FileExistsError(
            f"{args.plot} is there already: choose another file, or replace it with --overwrite"
        )
    config, params = _config(args)
    data = load_data(config, args.raw_dir, args.data_dir)
    _, jacobian, start, _ = build(config, data)
    J = jacobian(start if params is None else params, data.x)
    if (rows := J.shape[0]) > _MANY_ROWS:
        _progress.say(
            f"J has {rows:,} rows: the work grows with their cube, and a matrix of their products takes "
            f"{8 * rows**2 / 2**30:.1f} GiB; fewer samples are fewer rows"
        )
    started = time.perf_counter()
    s = nj.sigma_min(J, method=args.method, memory_budget=budget)
    result = _result(J, s, time.perf_counter() - started)
    if args.plot is not None:
        nj.plots.spectrum(nj.singular_values(J, memory_budget=budget), s, args.plot)
    if args.json:
        print(strict_json.dumps({"config": to_json(config), "result": result}))
    else:
        _print(result, s.message)
    return 0 if s.certified else 1


def _config(args: argparse.Namespace) -> tuple[TrainConfig, Any]:
    """Return the config of the options and no params, or both of a run."""
    if args.folder is None:
        return TrainConfig(**{name: getattr(args, name) for name in OPTIONS}), None
    config, params, _ = read_run(args.folder)
    if given := [name for name in OPTIONS if getattr(args, name) != getattr(_DEFAULTS, name)]:
        raise ValueError(
            f"--run names data and model of its own, and --{given[0]} was given too: leave out one of the two"
        )
    return config, params


def _result(J: Any, s: nj.SigmaMin, seconds: float) -> dict[str, Any]:
    return {
        "status": s.status,
        "sigma_min": float(s.value),
        "lower": float(s.lower),
        "upper": float(s.upper),
        "sigma_max": float(s.sigma_max),
        "condition_number": float(s.sigma_max / s.value) if s.value > 0 else None,
        "rank": J.shape[0] if s.certified else int(nj.singular_values(J).rank),
        "rows": J.shape[0],
        "columns": J.shape[1],
        "method": s.method,
        "seconds": round(seconds, 3),
    }


def _print(result: dict[str, Any], message: str) -> None:
    print(f"{result['status']}: {message}")
    print(f"  σ_min   {result['sigma_min']:.15g}")
    print(f"  within  [{result['lower']:.15g}, {result['upper']:.15g}]")
    print(f"  σ_max   {result['sigma_max']:.6g}")
    if result["condition_number"] is not None:
        print(f"  κ       {result['condition_number']:.6g}")
    print(f"  rank    {result['rank']} of {result['rows']} rows")
    size = f"{result['rows']} × {result['columns']}"
    print(f"  matrix  {size}, method {result['method']}, {result['seconds']} s")
