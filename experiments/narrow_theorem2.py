"""Theorem 2 measured: the loss at KKT points of problem (7) over ε, beside the radius below which it is proven to be 0.

Command:  python -m experiments.narrow_theorem2 [--quick] [--out DIR]
Cost:     a minute on two cores; ``--quick`` seconds, three radii.
Expected: the paper states loss O(ε²) at KKT points. Below ε₀/(1 + κ/2) the loss is proven to be 0, and above it the
          solver ends at its floor too where m ≥ 2n/d: there is no slope to measure. Where m < 2n/d the loss of
          small balls is positive.
Result:   as expected (docs/figures/narrow_theorem2.*). m = 16 and 24: zero at every ε, proven for all KKT points below
          ε = 6.7e-3 and 1.1e-2. m = 8 < 2n/d = 10: 3.2 at ε = 0.001, 1.9 at 0.1, zero from 0.3 on: no ε² law. Residuals
          at most 1e-8 but for m = 8 and ε ≤ 0.03 (4e-7 … 4e-6), where v grows without bound.
Writes:   runs/narrow_theorem2/summary.json (one record a width and radius) and figure.png.

Reference: "When Expressivity Meets Trainability", problem (7) and Theorem 2.
"""

from __future__ import annotations

import argparse
import itertools
import math
from functools import partial

import jax
import numpy as np

import narrow_jax as nj
from experiments._run import Figure, Findings, Record, Table, canvas, experiment, say, table

N, D, KAPPA = 40, 8, 2.0
WIDTHS, QUICK_WIDTHS = (8, 16, 24), (16,)
RADII, QUICK_RADII = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0), (0.003, 0.1, 1.0)
FLOOR = 1e-16
"""Losses below are the solver's floor: residuals f − y of about 1e-9 an entry."""


def cell(width: int, radius: float) -> Record:
    """Return the record of one KKT point."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, D)), rng.normal(size=N)
    s = nj.solvers.solve_kkt(jax.random.key(0), x, y, width, radius, kappa=KAPPA, progress=False)
    c = nj.certificates.kkt(s.params, s.center, x, y, radius, kappa=KAPPA)
    return {
        "width": width,
        "radius": radius,
        "loss": s.loss,
        "residual": s.residual,
        "steps": len(s.history["loss"]) - 1,
        "threshold": c.threshold,
        "proven_here": c.here,
        "proven_everywhere": c.everywhere,
        "reason": c.reason,
    }


def slope(records: list[Record]) -> str:
    """Say the slope of log loss over log ε where the loss is 100 times above the floor; "zero" if it is nowhere."""
    points = [(math.log(r["radius"]), math.log(r["loss"])) for r in records if r["loss"] > 100 * FLOOR]
    if len(points) < 2:
        return "zero"
    radii, losses = np.array(points).T
    return f"slope {np.polyfit(radii, losses, 1)[0]:.2f} of log loss over log ε"


def summary(records: list[Record]) -> Table:
    """Return the records as a table for the terminal."""
    rows = []
    for r in records:
        proven = "for all" if r["proven_everywhere"] else "here" if r["proven_here"] else "no"
        loss = f"{r['loss']:.2g}" if r["loss"] > 100 * FLOOR else "zero"
        cells = (str(r["width"]), f"{r['radius']:g}", loss, f"{r['residual']:.1e}", str(r["steps"]))
        rows.append((*cells, f"{r['threshold']:.2e}", proven))
    headings = ("m", "ε", "loss", "residual", "steps", "proven 0 below", "loss 0 proven")
    return table(f"KKT points of (7): n = {N}, d = {D}, κ = {KAPPA}, 2n/d = {2 * N // D}", headings, rows)


def figure(records: list[Record]) -> Figure:
    """Draw loss over ε, one line a width, with the proven thresholds."""
    fig = canvas(6.5, 4.2)
    axes = fig.subplots()
    for index, width in enumerate(dict.fromkeys(r["width"] for r in records)):
        rows = [r for r in records if r["width"] == width]
        color = f"C{index}"
        shown = [max(r["loss"], FLOOR) for r in rows]
        axes.loglog([r["radius"] for r in rows], shown, "o-", color=color, label=f"m = {width}")
        if rows[0]["threshold"] > 0:
            axes.axvline(rows[0]["threshold"], color=color, linestyle=":", linewidth=1)
    axes.axhspan(FLOOR / 10, 100 * FLOOR, color="0.9")
    axes.annotate("zero, to the solver's floor", (0.02, 2 * FLOOR), xycoords=("axes fraction", "data"))
    axes.set(
        xlabel="ε (dotted: below, every KKT point is proven to have loss 0)", ylabel="loss at the KKT point"
    )
    axes.legend()
    return fig


@experiment(__doc__, "runs/narrow_theorem2", quick="one width, three radii")
def main(args: argparse.Namespace) -> Findings:
    """Solve every cell."""
    widths, radii = (QUICK_WIDTHS, QUICK_RADII) if args.quick else (WIDTHS, RADII)
    records = []
    for width, radius in itertools.product(widths, radii):
        records.append(cell(width, radius))
        say(f"m = {width}, ε = {radius:g}: loss {records[-1]['loss']:.2g}")
    slopes = [f"m = {width}: {slope([r for r in records if r['width'] == width])}" for width in widths]
    return Findings(records, partial(figure, records), [summary(records), *slopes])


if __name__ == "__main__":
    main()
