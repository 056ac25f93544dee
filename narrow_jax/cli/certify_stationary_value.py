"""``narrow-jax certify stationary-value``."""

from __future__ import annotations

import argparse
import time
from typing import Any

from narrow_jax import _checks, certificates
from narrow_jax.cli.command import MEMORY_BUDGET, Answer, Command, memory_budget, option, path
from narrow_jax.cli.config import TrainConfig, load_data, read_run


def run(args: argparse.Namespace) -> Answer:
    """Judge the loss of a run by the stationary value."""
    _checks.choice("cutoff", args.cutoff, certificates.CUTOFFS)
    _checks.choice("method", args.method, certificates.METHODS)
    budget = memory_budget(args.memory_budget)
    config, params, _ = read_run(args.folder)
    params = _deep(params, config)
    data = load_data(config, args.raw_dir, args.data_dir)
    started = time.perf_counter()
    s = certificates.stationary_value(
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
    return Answer(s.holds, {"config": config.to_json(), "result": result}, _lines(result))


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


def _lines(r: dict[str, Any]) -> list[str]:
    bound = "" if r["gap_bound"] is None else f" <= {r['gap_bound']:.6g}"
    lines = [
        f"{'yes' if r['holds'] else 'no'}: {r['reason']}",
        f"  loss        {r['loss']:.10g}",
        f"  value       {r['value']:.10g}, {r['status']}",
        f"  gap         {r['gap']:.6g}{bound}",
        f"  ½‖Y‖²       {r['baseline']:.10g}",
    ]
    if r["layers"] is not None:
        lines.append(f"  layers      {', '.join(f'{term:.6g}' for term in r['layers'])}")
    lines.append(f"  ‖∇L‖        {r['gradient_norm']:.6g}")
    if r["ranks"] is not None:
        lines.append(f"  σ           {r['sigma_r']:.6g} to {r['sigma_max']:.6g}")
        lines.append(f"  rank        {', '.join(f'{rank} ({name})' for name, rank in r['ranks'].items())}")
    return [
        *lines,
        f"  zeros       {r['zeros']} pre-activations, {r['kinks']} at a kink",
        f"  matrix      {r['shape'][0]} × {r['shape'][1]}, method {r['method']}, {r['seconds']} s",
    ]


COMMAND = Command(
    "stationary-value",
    help="the loss that a deep net must have at every differentiable stationary point",
    description="Print how far the squared loss of a run is from the value that it must have at a "
    "differentiable stationary point, and what each layer contributes. For nets without biases whose "
    "activations are ReLU, leaky ReLUs or the absolute value. Exit status 1 if the loss is not that value.",
    example="train --model standard --activation relu --radius inf --out runs/relu; "
    "narrow-jax certify stationary-value --run runs/relu",
    options=[
        option("--run", "folder of a run: params and data", dest="folder", type=path, required=True),
        option("--cutoff", "singular values that count as 0: nr, golub-van-loan, lapack", default="nr"),
        option("--method", "auto, dense, qr, cholesky or lsmr", default="auto"),
        option("--tolerance", "largest gap, as a fraction of ½‖Y‖²", type=float, default=1e-6),
        MEMORY_BUDGET,
    ],
    run=run,
)
