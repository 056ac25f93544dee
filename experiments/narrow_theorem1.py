"""Theorem 1 on instances: the smallest width that works, the nice region, and the certificate.

Command:  python -m experiments.narrow_theorem1 [--quick] [--out DIR]
Cost:     three minutes on two cores; ``--quick`` a few seconds and one small instance.
Expected: from m = 2n/d on (the smallest even width with h·rank(x) ≥ n) every instance is solved within ε = 0.1 and
          certified; one pair less is refused. ε₀ is tiny at m = 2n/d, where the useful half of J is square, and grows
          with m.
Result:   as expected (docs/figures/narrow_theorem1.*): 24 of 24 instances proven, in 2 or 3 steps; ε₀ from 3e-5 … 2e-4
          at m = 2n/d to 4e-2 at three times that.
Writes:   runs/narrow_theorem1/summary.json (one record an instance and width) and figure.png.

Reference: "When Expressivity Meets Trainability", Theorem 1 and Remark 1.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial

import jax
import numpy as np

import narrow_jax as nj
from experiments._run import Figure, Findings, Record, Table, canvas, experiment, say, table

SIZES, QUICK_SIZES = ((100, 10), (200, 20), (400, 40), (1000, 50)), ((40, 8),)
FACTORS, QUICK_FACTORS = (0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0), (0.9, 1.0, 1.5)
RADIUS = 0.1


def instance(n: int, d: int, factor: float) -> Record:
    """Return the record of one instance at the even width nearest to factor·2n/d."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, d)), rng.normal(size=n)
    needed = nj.jacobian.admissible_width(x)
    width = max(2, 2 * round(factor * needed / 2))
    if width == needed and factor < 1:
        width -= 2
    record = {"n": n, "d": d, "width": width, "width_needed": needed}
    try:
        m = nj.memorize(jax.random.key(0), x, y, width=width, radius=RADIUS, progress=False)
    except ValueError as refusal:
        return record | {"status": "refused", "reason": str(refusal), "holds": False, "epsilon0": 0.0}
    region = nj.certificates.nice_region(m.center, x)
    return record | {
        "status": m.status,
        "reason": m.message,
        "steps": len(m.history.get("loss", [0])) - 1,
        "loss": m.loss,
        "holds": m.certificate is not None and m.certificate.holds,
        "epsilon0": region.radius,
    }


def summary(records: list[Record]) -> Table:
    """Return the records as a table for the terminal."""
    rows = []
    for r in records:
        names = (str(r[name]) for name in ("n", "d", "width", "width_needed", "status"))
        loss = f"{r['loss']:.1e}" if "loss" in r else ""
        proven = "yes" if r["holds"] else "no"
        rows.append((*names, loss, str(r.get("steps", "")), proven, f"{r['epsilon0']:.2e}"))
    headings = ("n", "d", "m", "2n/d", "status", "loss", "steps", "proven", "ε₀")
    return table(f"Gaussian x and y, ε = {RADIUS}", headings, rows)


def figure(records: list[Record]) -> Figure:
    """Draw ε₀ over the width, filled where the certificate holds."""
    fig = canvas(6.5, 4.2)
    axes = fig.subplots()
    for n, d in dict.fromkeys((r["n"], r["d"]) for r in records):
        rows = [r for r in records if (r["n"], r["d"]) == (n, d) and r["epsilon0"] > 0]
        ratio = [r["width"] / r["width_needed"] for r in rows]
        axes.semilogy(ratio, [r["epsilon0"] for r in rows], "o-", label=f"n = {n}, d = {d}")
    axes.axvline(1, color="black", linestyle=":", linewidth=1)
    axes.annotate(" proven", (1, 0.02), xycoords=("data", "axes fraction"), ha="left")
    axes.annotate("refused ", (1, 0.02), xycoords=("data", "axes fraction"), ha="right")
    axes.set(xlabel="width m over 2n/d", ylabel="proven radius ε₀ of the nice region")
    axes.set_xlim(left=0.7)
    axes.set_title(f"Theorem 1: exact zero-loss nets within ε = {RADIUS}")
    axes.legend()
    return fig


@experiment(__doc__, "runs/narrow_theorem1", quick="one small instance")
def main(args: argparse.Namespace) -> Findings:
    """Run all instances."""
    sizes, factors = (QUICK_SIZES, QUICK_FACTORS) if args.quick else (SIZES, FACTORS)
    records = []
    for (n, d), factor in itertools.product(sizes, factors):
        records.append(instance(n, d, factor))
        say(f"n = {n}, d = {d}, m = {records[-1]['width']}: {records[-1]['status']}")
    wide = [r["holds"] for r in records if r["width"] >= r["width_needed"]]
    proven = f"Proven: {sum(wide)} of {len(wide)} instances with m ≥ 2n/d."
    return Findings(records, partial(figure, records), [summary(records), proven])


if __name__ == "__main__":
    main()
