"""Theorem 1 on instances: the smallest width that works, the nice region, and the certificate.

Command:  python -m experiments.narrow_theorem1 [--quick] [--n N --d D] [--activation σ] [--out DIR]
Cost:     two minutes on two cores; ``--quick`` a few seconds and one small instance.
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
from functools import partial

import jax
import numpy as np

import narrow_jax as nj

from ._nets import too_narrow
from ._run import Figure, Record, Table, canvas, cells, experiment, require_memory, table

INPUTS = {100: 10, 200: 20, 400: 40, 1000: 50}
"""d of each n."""
FACTORS = (0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
RADIUS = 0.1


def instance(args: argparse.Namespace, n: int, factor: float) -> list[Record]:
    """Return the record of one instance at the even width nearest to factor·2n/d."""
    rng, d = np.random.default_rng(0), args.d or INPUTS[n]
    x, y = rng.normal(size=(n, d)), rng.normal(size=n)
    needed = nj.jacobian.admissible_width(x)
    width = max(2, 2 * round(factor * needed / 2))
    if width == needed and factor < 1:
        width -= 2
    record = {"n": n, "factor": factor, "d": d, "width": width, "width_needed": needed}
    options = {"activation": args.activation}
    if refusal := too_narrow(x, width):
        return [record | {"status": "refused", "reason": refusal, "holds": False, "epsilon0": 0.0}]
    m = nj.memorize(jax.random.key(0), x, y, width=width, radius=RADIUS, progress=False, **options)
    region = nj.certificates.nice_region(m.center, x, **options)
    record |= {
        "status": m.status,
        "reason": m.message,
        "steps": len(m.history.get("loss", [0])) - 1,
        "loss": m.loss,
        "holds": m.certificate is not None and m.certificate.holds,
        "epsilon0": region.radius,
    }
    return [record]


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


def figure(content: Record) -> Figure:
    """Draw ε₀ over the width."""
    records = content["cells"]
    fig = canvas(6.5, 4.2)
    axes = fig.subplots()
    for n, d in sorted({(r["n"], r["d"]) for r in records}):
        rows = [r for r in records if (r["n"], r["d"]) == (n, d) and r["epsilon0"] > 0]
        rows.sort(key=lambda r: r["width"])
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


@experiment(
    __doc__,
    "runs/narrow_theorem1",
    figure,
    sizes={"n": None, "d": None, "activation": "tanh"},
    quick={"n": 40, "d": 8},
)
def main(args: argparse.Namespace) -> list[Table | str]:
    """Run all instances."""
    if (args.n is None) != (args.d is None):
        raise argparse.ArgumentError(None, "--n and --d go together")
    sizes = [args.n] if args.n else list(INPUTS)
    n, d = max(sizes), args.d or max(INPUTS.values())
    require_memory(16 * n * (n + 3 * max(n, d)), f"memorize with {n:,} samples of {d:,} inputs")
    records = cells(args, {"n": sizes, "factor": FACTORS}, partial(instance, args), told)
    wide = [r["holds"] for r in records if r["width"] >= r["width_needed"]]
    return [summary(records), f"Proven: {sum(wide)} of {len(wide)} instances with m ≥ 2n/d."]


def told(last: Record) -> str:
    """Say what an instance gave."""
    return f"n = {last['n']}, d = {last['d']}, m = {last['width']}: {last['status']}"


if __name__ == "__main__":
    main()
