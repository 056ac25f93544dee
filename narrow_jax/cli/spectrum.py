"""``narrow-jax spectrum``."""

from __future__ import annotations

import argparse
import time
from typing import Any

from narrow_jax import _checks, _printing, plots, spectra
from narrow_jax._typing import Params
from narrow_jax.cli.command import Answer, memory_budget
from narrow_jax.cli.commands import DRAWN, SPECTRUM
from narrow_jax.cli.config import build, load_data, read_run
from narrow_jax.cli.train_config import TrainConfig

_MANY_ROWS = 5000


def run(args: argparse.Namespace) -> Answer:
    """Enclose σ_min of a start or of a run; no if it is not certified."""
    _checks.choice("method", args.method, spectra.METHODS)
    budget = memory_budget(args.memory_budget)
    if args.plot is not None and plots.check(args.plot).exists() and not args.overwrite:
        raise FileExistsError(
            f"{args.plot} is there already: choose another file, or replace it with --overwrite"
        )
    config, params = _config(args)
    data = load_data(config, args.raw_dir, args.data_dir)
    built = build(config, data)
    J = built.jacobian(built.params if params is None else params, data.x)
    if (rows := J.shape[0]) > _MANY_ROWS:
        _printing.say(
            f"J has {rows:,} rows: the work grows with their cube, and a matrix of their products takes "
            f"{8 * rows**2 / 2**30:.1f} GiB; fewer samples are fewer rows"
        )
    started = time.perf_counter()
    s = spectra.sigma_min(J, method=args.method, memory_budget=budget)
    result = _result(J, s, time.perf_counter() - started)
    if args.plot is not None:
        values = spectra.singular_values(J, memory_budget=budget)
        plots.spectrum(values, s).figure.savefig(plots.check(args.plot))
    return Answer(s.certified, {"config": config.to_json(), "result": result}, _lines(result, s.message))


def _config(args: argparse.Namespace) -> tuple[TrainConfig, Params | None]:
    """Return the config of the options and no params, or both of a run."""
    if args.folder is None:
        return TrainConfig.of(args, SPECTRUM, DRAWN), None
    config, params, _ = read_run(args.folder)
    if given := [name for name in SPECTRUM if getattr(args, name) is not None]:
        raise ValueError(
            f"--run names data and model of its own, and --{given[0]} was given too: leave out one of the two"
        )
    return config, params


def _result(J: Any, s: spectra.SigmaMin, seconds: float) -> dict[str, Any]:
    return {
        "status": s.status,
        "sigma_min": float(s.value),
        "lower": float(s.lower),
        "upper": float(s.upper),
        "sigma_max": float(s.sigma_max),
        "condition_number": float(s.sigma_max / s.value) if s.value > 0 else None,
        "rank": J.shape[0] if s.certified else int(spectra.singular_values(J).rank),
        "rows": J.shape[0],
        "columns": J.shape[1],
        "method": s.method,
        "seconds": round(seconds, 3),
    }


def _lines(r: dict[str, Any], message: str) -> list[str]:
    kappa = r["condition_number"]
    return [
        f"{r['status']}: {message}",
        f"  σ_min   {r['sigma_min']:.15g}",
        f"  within  [{r['lower']:.15g}, {r['upper']:.15g}]",
        f"  σ_max   {r['sigma_max']:.6g}",
        *([] if kappa is None else [f"  κ       {kappa:.6g}"]),
        f"  rank    {r['rank']} of {r['rows']} rows",
        f"  matrix  {r['rows']} × {r['columns']}, method {r['method']}, {r['seconds']} s",
    ]
