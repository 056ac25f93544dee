"""``narrow-jax certify pyramidal | stationary-value``: theorems on deep nets; ``narrow_nets`` has the other ones."""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np

from narrow_jax import _checks, activations, certificates, initializers, solvers
from narrow_jax.checkpoints import runs
from narrow_jax.cli.command import Answer, memory_budget
from narrow_jax.cli.commands import PYRAMIDAL
from narrow_jax.cli.config import load_data, read_run
from narrow_jax.cli.train_config import TrainConfig
from narrow_jax.data import sphere


def stationary_value(args: argparse.Namespace) -> Answer:
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
    return Answer(s.holds, {"config": config.to_json(), "result": result}, _gap(result))


def _deep(params: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Return the params as a deep net has them: those of a standard net are w1 and w2."""
    if config.loss == "cross_entropy":
        raise ValueError("the run was trained on cross-entropy; the theorem speaks of the squared loss")
    if "v" not in params:
        return params
    if config.model != "standard":
        raise ValueError(
            "the pairs of a pairwise net share output weights; the theorem speaks of runs of --model standard"
        )
    return {"w1": params["w"], "w2": params["v"]}


def _gap(r: dict[str, Any]) -> list[str]:
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


def pyramidal(args: argparse.Namespace) -> Answer:
    """Judge gradient descent from a start that is searched, drawn or given."""
    sigma = (
        activations.smooth_leaky_relu(args.gamma, args.beta)
        if args.activation is None
        else activations.get(args.activation)
    )
    for name in ("learning_rate", "target_loss"):
        if (value := getattr(args, name)) is not None:
            _checks.positive(name.replace("_", " "), value)
    for layer, width in enumerate(args.widths, start=1):
        _checks.count(f"width n_{layer}", width)
    given = None if args.params is None else runs.read_npz(args.params)
    config = TrainConfig.of(args, PYRAMIDAL)
    data = load_data(config, args.raw_dir, args.data_dir)
    x = (sphere(data) if args.sphere else data).x
    y = data.y * np.float32(args.targets_scale)
    params = _start(args, config.seed, x, y, sigma) if given is None else given
    certificate = certificates.pyramidal(params, x, y, sigma, args.learning_rate)
    target = certificate.initial_loss / 1e4 if args.target_loss is None else args.target_loss
    options = {name: value for name, value in config.to_json().items() if name in PYRAMIDAL}
    options |= {"sphere": args.sphere, "targets_scale": args.targets_scale}
    record = {"data": options} | _plain(certificate, target)
    return Answer(certificate.holds, record, _guarantees(certificate, target))


def _start(
    args: argparse.Namespace, seed: int, x: np.ndarray, y: np.ndarray, sigma: activations.Activation
) -> Any:
    key, widths = jax.random.key(seed), (*args.widths, y.shape[1])
    if args.start == "search":
        return solvers.pyramidal_start(key, x, y, widths, sigma).params
    return initializers.pyramidal(key, inputs=x.shape[1], widths=widths, variant=args.start)


def _plain(certificate: certificates.PyramidalCertificate, target: float) -> dict[str, Any]:
    result: dict[str, Any] = certificate._asdict()
    for name in ("paper", "sharper"):
        guarantee = result[name]
        result[name] = guarantee._asdict() | {
            "log10_rate": guarantee.log10_rate,
            "steps": guarantee.steps_to(target),
        }
    return result | {"target_loss": target}


def _guarantees(c: certificates.PyramidalCertificate, target: float) -> list[str]:
    lines = [
        f"{'holds' if c.holds else 'does not hold'}: {c.reason}",
        f"  condition (4)   {c.condition4:+.4g} in log10, to be ≥ 0",
        f"  condition (5)   {c.condition5:+.4g}",
        f"  λ_F             {c.lambda_f:.6g}",
        f"  λ_l             {', '.join(f'{value:.4g}' for value in c.lambdas)}",
        f"  λ̄_l             {', '.join(f'{value:.4g}' for value in c.lambda_bars)}",
        f"  ‖X‖₂, ‖X‖_F     {c.x_norm:.6g}, {c.x_frobenius:.6g}",
        f"  Φ(θ_0)          {c.initial_loss:.6g}",
        f"  γ, β            {c.gamma:g}, {c.beta:g}",
        f"  weights that the first step leaves, below rounding: {100 * c.unmoved:.1f} %",
    ]
    for name, g in (("paper", c.paper), ("sharper", c.sharper)):
        lines += [
            f"{name}: {g.reason}",
            f"  log10 α, Q, D   {g.log10_alpha:.4f}, {g.log10_q:.4f}, {g.log10_distance:.4f}",
            f"  step η          {g.learning_rate:.4g}, at most 10^{g.log10_max_learning_rate:.4f}",
            f"  rate ηα         10^{g.log10_rate:.4f} a step",
            f"  steps to Φ = {target:.3g}: {g.steps_to(target):.4g}",
        ]
    return lines
