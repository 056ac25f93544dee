"""Figure 4: loss and σ_min over width × ε, for the pairwise regime and for the standard net with the ball added.

Command:  python -m experiments.narrow_fig4 [--quick] [--steps N] [--kappa K] [--out DIR]
Cost:     8.5 minutes on two cores at 5,000 steps; ``--quick`` under a minute, one width, two radii, 100 steps.
Expected: three columns: PGD as the paper writes it, PGD (Adam) in the coordinates of the ball, and the KKT solver. In
          the bare coordinates small balls stay at high loss in either net: one step size cannot serve both layers. At
          the KKT points the pairwise net reaches loss 0 at every ε from m = 2n/d = 20 on, and the standard net only
          where ε lets it travel. "Regular training fails when the net is narrow" does not reproduce: at ε = 1000 the
          standard net does well.
Result:   as expected (docs/narrow_fig4.json, .png). All 50 KKT points have a residual ≤ 9e-9. ε ≤ 1, pairwise net: KKT
          solver below 2e-15 from m = 20 on, and at ε = 1 from m = 12; PGD in the ball's coordinates 1e-3 … 4 at m = 20
          and below 1e-8 at m = 40; PGD above 10 everywhere. Standard net, ε ≤ 1: above 10 everywhere, except for the
          KKT solver at m = 40 and ε = 1, which ends at 3e-18. ε ≥ 10: both nets below 2e-14 from m = 12 on, except for
          PGD at m = 12 (1e-3) and 20 (1e-10).
Writes:   runs/narrow_fig4/summary.json (one record a method, net, width and radius) and figure.png.

n = 200, d = 20, Gaussian x and y, tanh, float64 (the paper does not state its n, d and axes); in each cell the best
of a step-size grid, the median of the seeds. All runs of a width are one vmapped call.

Reference: "When Expressivity Meets Trainability", Figure 4.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

import narrow_jax as nj
from experiments import _cells

N, D = 200, 20
WIDTHS, RADII = (4, 8, 12, 20, 40), (0.1, 0.3, 1.0, 10.0, 1000.0)
QUICK_N, QUICK_D, QUICK_WIDTHS, QUICK_RADII = 40, 8, (8,), (0.1, 1000.0)
PGD_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
SEEDS = (0, 1, 2)
NETS = ("pairwise", "standard")
METHODS = ("PGD", "PGD in ball coordinates", "KKT solver")
FOLDER = Path("runs/narrow_fig4")


def first_order(
    x: Any, y: Any, net: str, width: int, radii: Any, steps: int, kappa: float, scaled: bool
) -> list[dict[str, Any]]:
    """Return the records of one width: the best step size in each cell, the median over seeds."""
    paired = net == "pairwise"
    cone: dict[str, Any] = {"zeta": 1e-3, "kappa": kappa} if paired else {}
    draw: Any = partial(nj.initializers.mirrored_lecun, **cone) if paired else nj.initializers.lecun

    def setup(radius: Any, rate: Any, seed: Any) -> Any:
        params = draw(jax.random.key(seed), inputs=x.shape[1], width=width, dtype=jnp.float64)
        if scaled:
            adam = optax.adam(optax.cosine_decay_schedule(rate, steps))
            return params, nj.constraints.regime(adam, radius, **({"zeta": None} | cone))
        return params, optax.chain(optax.sgd(rate), nj.constraints.project(radius, **cone))

    apply_fn = nj.models.pairwise_apply if paired else nj.models.standard_apply
    grid = {"radius": list(radii), "rate": list(ADAM_RATES if scaled else PGD_RATES), "seed": list(SEEDS)}
    result = nj.sweep(apply_fn, setup, (x, y), grid=grid, steps=steps, every=steps, progress=False)
    loss = np.where(result.diverged, np.inf, result.history["loss"][..., -1])
    records = []
    for i, radius in enumerate(radii):
        best = int(np.argmin(np.median(loss[i], axis=1)))
        seed = int(np.argsort(loss[i, best])[len(SEEDS) // 2])
        params = {name: np.asarray(leaf[i, best, seed]) for name, leaf in result.params.items()}
        records.append(record(net, width, radius, float(np.median(loss[i, best])), params, x))
        records[-1] |= {"method": METHODS[int(scaled)], "rate": grid["rate"][best]}
    return records


def kkt_points(x: Any, y: Any, net: str, width: int, radii: Any, kappa: float) -> list[dict[str, Any]]:
    """Return the records of the KKT solver, from the start of seed 0."""
    records = []
    for radius in radii:
        key, ratio = jax.random.key(0), kappa if net == "pairwise" else np.inf
        s = nj.solvers.solve_kkt(key, x, y, width, radius, kappa=ratio, model=net, progress=False)
        records.append(record(net, width, radius, s.loss, s.params, x))
        records[-1] |= {"method": METHODS[2], "residual": s.residual}
    return records


def record(net: str, width: int, radius: float, loss: float, params: Any, x: Any) -> dict[str, Any]:
    """Return one cell: its loss, and σ_min of the Jacobian there; 0 where there are more samples than weights."""
    operator = nj.jacobian.pairwise if net == "pairwise" else nj.jacobian.standard
    sigma = nj.sigma_min(operator(params, np.asarray(x)), certify=False)
    return {"net": net, "width": width, "radius": radius, "loss": loss, "sigma_min": float(sigma.value)}


def figure(records: list[dict[str, Any]], path: Path) -> None:
    """Draw one heat map a method, net and quantity."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    widths = sorted({r["width"] for r in records})
    radii = sorted({r["radius"] for r in records})
    canvas = Figure(figsize=(12, 11), layout="constrained")
    rows = [(quantity, net) for quantity in ("loss", "sigma_min") for net in NETS]
    limits = {"loss": LogNorm(1e-20, 1e2, clip=True), "sigma_min": LogNorm(1e-4, 1e2, clip=True)}
    for axes_row, (quantity, net) in zip(canvas.subplots(4, 3), rows, strict=True):
        for axes, method in zip(axes_row, METHODS, strict=True):
            cells = {
                (r["width"], r["radius"]): r[quantity]
                for r in records
                if (r["net"], r["method"]) == (net, method)
            }
            values = np.array([[cells[width, radius] for radius in radii] for width in widths])
            shown = axes.imshow(
                np.maximum(values, 1e-30), norm=limits[quantity], origin="lower", aspect="auto"
            )
            for i, row in enumerate(values):
                for j, value in enumerate(row):
                    dark = limits[quantity](max(value, 1e-30)) < 0.6
                    color = "white" if dark else "black"
                    axes.text(j, i, f"{value:.0e}", ha="center", va="center", fontsize=7, color=color)
            axes.set_xticks(range(len(radii)), [f"{radius:g}" for radius in radii])
            axes.set_yticks(range(len(widths)), [str(width) for width in widths])
            net_name = "pairwise regime" if net == "pairwise" else "standard net + ball"
            axes.set_title(f"{net_name}, {method}", fontsize=9)
            axes.set(xlabel="ε", ylabel="width")
        label = "loss" if quantity == "loss" else "σ_min(J)"
        canvas.colorbar(shown, ax=axes_row, label=label)
    canvas.savefig(path, dpi=110)


def main() -> None:
    """Run all widths, write the record and the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one width, two radii, 100 steps, n = 40")
    parser.add_argument("--steps", type=int, default=5000, help="steps of the first-order methods")
    parser.add_argument(
        "--kappa", type=float, default=np.inf, help="κ of the pairwise net's cone; the paper's is 1"
    )
    parser.add_argument("--out", type=_cells.path, default=FOLDER, help="folder of the results")
    args = parser.parse_args()
    _cells.claim(args)
    n, d, widths, radii = (
        (QUICK_N, QUICK_D, QUICK_WIDTHS, QUICK_RADII) if args.quick else (N, D, WIDTHS, RADII)
    )
    steps = 100 if args.quick else args.steps
    console, started = Console(), time.perf_counter()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(n, 1))
    records = []
    with jax.enable_x64(True):
        for width in widths:
            for net in NETS:
                for scaled in (False, True):
                    records += first_order(x, y, net, width, radii, steps, args.kappa, scaled)
                records += kkt_points(x, y, net, width, radii, args.kappa)
                seconds = time.perf_counter() - started
                console.print(f"m = {width}, {net}: done after {seconds:.0f} s")
    settings = {
        "n": n,
        "d": d,
        "steps": steps,
        "kappa": args.kappa,
        "seeds": len(SEEDS),
        "seconds": round(seconds),
    }
    _cells.record(args.out, {"settings": settings, "records": records})
    figure(records, args.out / "figure.png")
    console.print(f"Written: {args.out / 'summary.json'}, {args.out / 'figure.png'}")


if __name__ == "__main__":
    main()
