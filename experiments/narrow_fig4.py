"""Figure 4: loss and σ_min over width × ε, for the pairwise regime and for the standard net with the ball added.

Command:  python -m experiments.narrow_fig4 [--quick] [--steps N] [--kappa K] [--out DIR]
Cost:     8.5 minutes on two cores at 5,000 steps; ``--quick`` under a minute, one width, two radii, 100 steps.
Expected: three columns: PGD as the paper writes it, PGD (Adam) in the coordinates of the ball, and the KKT solver. In
          the bare coordinates small balls stay at high loss in either net: one step size cannot serve both layers. At
          the KKT points the pairwise net reaches loss 0 at every ε from m = 2n/d = 20 on, and the standard net only
          where ε lets it travel. "Regular training fails when the net is narrow" does not reproduce: at ε = 1000 the
          standard net does well.
Result:   as expected (docs/figures/narrow_fig4.*). All 50 KKT points have a residual ≤ 9e-9. ε ≤ 1, pairwise net: KKT
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
import itertools
import time
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.image import AxesImage

import narrow_jax as nj
from experiments._nets import STANDARD, Net, Params, pairwise
from experiments._run import Figure, Findings, Record, canvas, experiment, say

N, D = 200, 20
WIDTHS, RADII = (4, 8, 12, 20, 40), (0.1, 0.3, 1.0, 10.0, 1000.0)
QUICK_N, QUICK_D, QUICK_WIDTHS, QUICK_RADII = 40, 8, (8,), (0.1, 1000.0)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
SEEDS = (0, 1, 2)
NETS = ("pairwise", "standard")
METHODS = ("PGD", "PGD in ball coordinates", "KKT solver")


def first_order(
    x: np.ndarray, y: np.ndarray, net: Net, width: int, radii: Sequence[float], steps: int, scaled: bool
) -> list[Record]:
    """Return the records of one width: the best step size in each cell, the median over seeds."""

    def setup(radius: float, rate: float, seed: jax.Array) -> tuple[Params, optax.GradientTransformation]:
        params = net.start(jax.random.key(seed), inputs=x.shape[1], width=width, dtype=jnp.float64)
        if scaled:
            adam = optax.adam(optax.cosine_decay_schedule(rate, steps))
            return params, net.regime(adam, radius)
        return params, optax.chain(optax.sgd(rate), nj.constraints.project(radius, **net.cone))

    grid: Record = {"radius": list(radii), "rate": list(RATES), "seed": list(SEEDS)}
    result = nj.sweep(net.apply_fn, setup, (x, y), grid=grid, steps=steps, every=steps, progress=False)
    loss = np.where(result.diverged, np.inf, result.history["loss"][..., -1])
    records = []
    for i, radius in enumerate(radii):
        best = int(np.argmin(np.median(loss[i], axis=1)))
        seed = int(np.argsort(loss[i, best])[len(SEEDS) // 2])
        params = {name: np.asarray(leaf[i, best, seed]) for name, leaf in result.params.items()}
        records.append(cell(net, width, radius, float(np.median(loss[i, best])), params, x))
        records[-1] |= {"method": METHODS[int(scaled)], "rate": RATES[best]}
    return records


def kkt_points(x: np.ndarray, y: np.ndarray, net: Net, width: int, radii: Sequence[float]) -> list[Record]:
    """Return the records of the KKT solver, from the start of seed 0."""
    records = []
    key, kappa = jax.random.key(0), net.cone.get("kappa", np.inf)
    for radius in radii:
        s = nj.solvers.solve_kkt(key, x, y, width, radius, kappa=kappa, model=net.name, progress=False)
        records.append(cell(net, width, radius, s.loss, s.params, x))
        records[-1] |= {"method": METHODS[2], "residual": s.residual}
    return records


def cell(
    net: Net, width: int, radius: float, loss: float, params: dict[str, np.ndarray], x: np.ndarray
) -> Record:
    """Return one cell: its loss, and σ_min of the Jacobian there; 0 where there are more samples than weights."""
    sigma = nj.sigma_min(net.jacobian(params, x), certify=False)
    return {"net": net.name, "width": width, "radius": radius, "loss": loss, "sigma_min": float(sigma.value)}


def figure(records: list[Record]) -> Figure:
    """Draw one heat map a method, net and quantity."""
    fig = canvas(15, 14, dpi=110)
    rows = list(itertools.product(("loss", "sigma_min"), NETS))
    limits = {"loss": LogNorm(1e-20, 1e2, clip=True), "sigma_min": LogNorm(1e-4, 1e2, clip=True)}
    for axes_row, (quantity, net) in zip(fig.subplots(4, 3), rows, strict=True):
        for axes, method in zip(axes_row, METHODS, strict=True):
            cells = [r for r in records if (r["net"], r["method"]) == (net, method)]
            shown = heat_map(axes, cells, quantity, limits[quantity])
            net_name = "pairwise regime" if net == "pairwise" else "standard net + ball"
            axes.set_title(f"{net_name}, {method}")
        fig.colorbar(shown, ax=axes_row, label="loss" if quantity == "loss" else r"$\sigma_{\min}(J)$")
    return fig


def heat_map(axes: Axes, records: list[Record], quantity: str, limits: LogNorm) -> AxesImage:
    """Draw a quantity over width × ε, each cell with its number, zeros hatched."""
    widths, radii = (sorted({r[name] for r in records}) for name in ("width", "radius"))
    cells = {(r["width"], r["radius"]): r[quantity] for r in records}
    values = np.array([[cells[width, radius] for radius in radii] for width in widths])
    axes.grid(visible=False)
    axes.patch.set(hatch="///", edgecolor="0.7")
    shown = axes.imshow(np.ma.masked_equal(values, 0), norm=limits, origin="lower", aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        color = "white" if value and limits(value) < 0.6 else "black"
        axes.text(j, i, f"{value:.0e}" if value else "0", ha="center", va="center", color=color)
    axes.set_xticks(range(len(radii)), [f"{radius:g}" for radius in radii])
    axes.set_yticks(range(len(widths)), [str(width) for width in widths])
    axes.set(xlabel="ε", ylabel="width")
    return shown


@experiment(
    __doc__,
    "runs/narrow_fig4",
    quick="one width, two radii, 100 steps, n = 40",
    options={
        "--steps": {"type": int, "default": 5000, "help": "steps of the first-order methods"},
        "--kappa": {
            "type": float,
            "default": np.inf,
            "help": "κ of the pairwise net's cone; the paper's is 1",
        },
    },
)
def main(args: argparse.Namespace) -> Findings:
    """Run all widths."""
    n, d, widths, radii = (
        (QUICK_N, QUICK_D, QUICK_WIDTHS, QUICK_RADII) if args.quick else (N, D, WIDTHS, RADII)
    )
    steps, started = 100 if args.quick else args.steps, time.perf_counter()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(n, 1))
    records = []
    with jax.enable_x64(True):
        for width, net in itertools.product(widths, (pairwise(kappa=args.kappa), STANDARD)):
            for scaled in (False, True):
                records += first_order(x, y, net, width, radii, steps, scaled)
            records += kkt_points(x, y, net, width, radii)
            say(f"m = {width}, {net.name}: done after {time.perf_counter() - started:.0f} s")
    settings = {
        "n": n,
        "d": d,
        "steps": steps,
        "kappa": args.kappa,
        "seeds": len(SEEDS),
        "seconds": round(time.perf_counter() - started),
    }
    return Findings({"settings": settings, "records": records}, partial(figure, records), [])


if __name__ == "__main__":
    main()
