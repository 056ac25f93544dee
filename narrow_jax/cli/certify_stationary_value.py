"""``narrow-jax certify stationary-value``."""

from __future__ import annotations

import argparse
import time
from typing import Any

import narrow_jax as nj
from narrow_jax import _checks
from narrow_jax.certificates import CUTOFFS, METHODS
from narrow_jax.checkpoints import strict_json
from narrow_jax.cli.config import (
    HelpFormatter,
    TrainConfig,
    add_folders,
    load_data,
    memory_budget,
    path,
    read_run,
    to_json,
)


def add(kinds: Any) -> None:
    """Add the kind to the parser."""
    kind = kinds.add_parser(
        "stationary-value",
        help="the loss that a deep net must have at every differentiable stationary point",
        formatter_class=HelpFormatter,
        description="Print how far the squared loss of a run is from the value that it must have at a "
        "differentiable stationary point, and what each layer contributes. For nets without biases whose "
        "activations are ReLU, leaky ReLUs or the absolute value. Exit status 1 if the loss is not that value.",
        epilog="Example: narrow-jax train --model standard --activation relu --radius inf --out runs/relu; "
        "narrow-jax certify stationary-value --run runs/relu",
    )
    kind.set_defaults(run=run)
    kind.add_argument(
        "--run", dest="folder", type=path, required=True, help="folder of a run: params and data"
    )
    kind.add_argument(
        "--cutoff", default="nr", help="singular values that count as 0: nr, golub-van-loan, lapack"
    )
    kind.add_argument("--method", default="auto", help="auto, dense, qr, cholesky or lsmr")
    kind.add_argument("--tolerance", type=float, default=1e-6, help="largest gap, as a fraction of ½‖Y‖²")
    kind.add_argument("--memory-budget", type=float, help="GiB that may be used (default: no limit)")
    add_folders(kind)
    kind.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    """Print the verdict and its constants; 1 if the loss is not the stationary value."""
    _checks.choice("cutoff", args.cutoff, CUTOFFS)
    _checks.choice("method", args.method, METHODS)
    budget = memory_budget(args.memory_budget)
    config, params, _ = read_run(args.folder)
    params = _deep(params, config)
    data = load_data(config, args.raw_dir, args.data_dir)
    started = time.perf_counter()
    s = nj.certificates.stationary_value(
        params,
        data.x,
        data.y,
        config.activation,
        args.cutoff,
        args.method,
        memory_budget=budget,
        tolerance=args.tolerance,
    )
    result = s._asdict() | {
        "layers": None if s.layers is None else s.layers.tolist(),
        "units": None if s.units is None else [unit.tolist() for unit in s.units],
        "seconds": round(time.perf_counter() - started, 3),
    }
    if args.json:
        print(strict_json.dumps({"config": to_json(config), "result": result}))
    else:
        _print(result)
    return 0 if s.holds else 1


def _deep(params: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Return the params as a deep net has them: those of a standard net are w1 and w2."""
    if config.loss == "cross_entropy":
        raise ValueError("the run was trained on cross-entropy; the theorem speaks of the squared loss")
    if set(params) != {"w", "v"}:
        return params
    if config.model != "standard":
        raise ValueError(
            "the pairs of a pairwise net share output weights; the theorem needs --model standard"
        )
    return {"w1": params["w"], "w2": params["v"]}


def _print(r: dict[str, Any]) -> None:
    print(f"{'yes' if r['holds'] else 'no'}: {r['reason']}")
    print(f"  loss        {r['loss']:.10g}")
    print(f"  value       {r['value']:.10g}, {r['status']}")
    print(
        f"  gap         {r['gap']:.6g}" + (f" <= {r['gap_bound']:.6g}" if r["gap_bound"] is not None else "")
    )
    print(f"  ½‖Y‖²       {r['baseline']:.10g}")
    if r["layers"] is not None:
        print(f"  layers      {', '.join(f'{term:.6g}' for term in r['layers'])}")
    print(f"  ‖∇L‖        {r['gradient_norm']:.6g}")
    if r["ranks"] is not None:
        print(f"  σ           {r['sigma_r']:.6g} to {r['sigma_max']:.6g}")
        print(f"  rank        {', '.join(f'{rank} ({name})' for name, rank in r['ranks'].items())}")
    print(f"  zeros       {r['zeros']} pre-activations, {r['kinks']} at a kink")
    print(f"  matrix      {r['shape'][0]} × {r['shape'][1]}, method {r['method']}, {r['seconds']} s")
