"""Theorem 1 for deep nets: how many neurons memorise n random labels within ε = 0.1, over depth, width and dimension.

Command:  python -m experiments.deep_theorem1 [--quick] [--raw-dir DIR] [--out DIR]
          (--raw-dir: folder with the original files of MNIST; without it Gaussian data and digits only)
Cost:     COST; ``--quick`` a few seconds and one small data set.
Expected: in few dimensions depth buys width: n labels in 3 dimensions take 2n/3 neurons in one hidden layer, and of
          order of √n in two or three. The fewest neurons that counts admit make a square Jacobian, whose σ_min is tiny;
          half as many again are solved in a few steps and proven. In many dimensions (digits, MNIST) depth buys nothing.
Result:   RESULT
Writes:   runs/deep_theorem1/summary.json (one record a data set, n, depth and width) and figure.png.

Reference: "When Expressivity Meets Trainability", Theorem 1; docs/deep.md, sections 1 and 4.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes

import narrow_jax as nj
from experiments._run import Figure, Findings, Record, Table, canvas, experiment, path, say, table

RADIUS = 0.1
DEPTHS, QUICK_DEPTHS = (1, 2, 3), (1, 2)
FACTORS, QUICK_FACTORS = (1.0, 1.2, 1.5), (1.2,)
GAUSSIAN, IMAGES = (100, 300, 1000), {"digits": (300, 1000, 1797), "mnist": (300, 1000, 2000)}

Instance = tuple[str, np.ndarray, np.ndarray]


def instances(quick: bool, raw_dir: Path | None) -> list[Instance]:
    """Return the data sets by name, Gaussian ones with Gaussian labels and images with random ±1 labels."""
    rng = np.random.default_rng(0)
    if quick:
        return [("d = 3", rng.normal(size=(40, 3)), rng.normal(size=40))]
    found = [(f"d = {d}", rng.normal(size=(n, d)), rng.normal(size=n)) for d in (3, 20) for n in GAUSSIAN]
    for name in ("digits", "mnist") if raw_dir else ("digits",):
        for n in IMAGES[name]:
            data = nj.data.load(name, labels="random", samples=n, normalize="scale", raw_dir=raw_dir)
            found.append((name, data.x.astype(float), data.y.astype(float)))
    return found


def memorized(name: str, x: np.ndarray, y: np.ndarray, depth: int, factor: float) -> Record:
    """Return the record of one net: equal widths, ``factor`` times the smallest that counts admit."""
    smallest = nj.jacobian.admissible_widths(x, depth)[0]
    widths = (math.ceil(factor * smallest),) * depth
    started = time.perf_counter()
    m = nj.memorize(jax.random.key(0), x, y, widths=widths, radius=RADIUS, progress=False)
    seconds = time.perf_counter() - started
    J = nj.jacobian.pairwise_mlp(m.center, x)
    record = {
        "dataset": name,
        "n": len(x),
        "depth": depth,
        "widths": widths,
        "factor": factor,
        "neurons": 2 * sum(widths),
        "one_layer": nj.jacobian.admissible_width(x),
        "status": m.status,
        "loss": m.loss,
        "steps": len(m.history["loss"]) - 1,
        "weight_scale": m.weight_scale,
        "condition_number": float(nj.condition_number(J)),
        "seconds": round(seconds, 2),
    }
    c = m.certificate
    constants = (False, math.inf, 0.0) if c is None else (c.holds, c.g, c.sigma)
    return record | dict(zip(("proven", "g", "sigma_min"), constants, strict=True))


def fewest(records: list[Record], name: str, n: int, depth: int) -> Record | None:
    """Return the record of the fewest neurons that are proven to be enough."""
    proven = [r for r in records if (r["dataset"], r["n"], r["depth"], r["proven"]) == (name, n, depth, True)]
    return min(proven, key=lambda r: r["neurons"]) if proven else None


def cases(records: list[Record]) -> list[tuple[str, int]]:
    """Return the data sets, by name and n, in their order."""
    return list(dict.fromkeys((r["dataset"], r["n"]) for r in records))


def summary(records: list[Record]) -> Table:
    """Return the smallest nets that are proven as a table for the terminal."""
    rows = []
    for name, n in cases(records):
        for depth in sorted({r["depth"] for r in records}):
            r = fewest(records, name, n, depth)
            if r is None:
                rows.append((name, str(n), str(depth), *["none"] * 7))
                continue
            numbers = (r["neurons"], r["one_layer"], r["steps"], r["seconds"])
            small = (f"{r[field]:.1e}" for field in ("g", "sigma_min", "condition_number"))
            rows.append((name, str(n), str(depth), *map(str, numbers), *small))
    headings = ("case", "n", "depth", "neurons", "2n/rank", "steps", "seconds", "g", "σ_min", "κ(J⁰)")
    return table(f"Fewest neurons proven to fit random labels within ε = {RADIUS}", headings, rows)


def figure(records: list[Record]) -> Figure:
    """Draw the fewest proven neurons over n, and below g over the neurons at the largest n."""
    names = list(dict.fromkeys(r["dataset"] for r in records))
    fig = canvas(4.2 * len(names), 7)
    panels = fig.subplots(2, len(names), squeeze=False)
    for name, above, below in zip(names, *panels, strict=True):
        rows = [r for r in records if r["dataset"] == name]
        draw_neurons(above, rows)
        draw_constants(below, [r for r in rows if r["n"] == max(r["n"] for r in rows)])
        above.set_title(f"{name}: random labels")
    panels[0][0].legend()
    panels[1][0].legend()
    fig.suptitle(f"Exact zero-loss pairs, proven within ε = {RADIUS} of their start")
    return fig


def draw_neurons(axes: Axes, rows: list[Record]) -> None:
    """Draw the fewest neurons that are proven to be enough, one line a depth, beside 2n/d."""
    cases_of = {r["n"]: r["one_layer"] for r in rows}
    axes.loglog(cases_of.keys(), cases_of.values(), "k:", label="2n/rank x")
    for depth in sorted({r["depth"] for r in rows}):
        found = [r for n in cases_of if (r := fewest(rows, rows[0]["dataset"], n, depth))]
        axes.loglog([r["n"] for r in found], [r["neurons"] for r in found], "o-", label=layers(depth))
    axes.set(xlabel="samples n", ylabel="neurons, fewest proven")


def draw_constants(axes: Axes, rows: list[Record]) -> None:
    """Draw g over the neurons, one line a depth; crosses where nothing is proven."""
    for depth in sorted({r["depth"] for r in rows}):
        own = [r for r in rows if r["depth"] == depth]
        proven = [r for r in own if r["proven"]]
        [line] = axes.loglog(
            [r["neurons"] for r in proven], [r["g"] for r in proven], "o-", label=layers(depth)
        )
        open_ones = [r["neurons"] for r in own if not r["proven"]]
        axes.plot(open_ones, [0.5] * len(open_ones), "x", color=line.get_color())
    axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
    axes.set(xlabel=f"neurons, n = {rows[0]['n']}", ylabel="g, to be at most ½")


def layers(depth: int) -> str:
    """Return a number of hidden layers in words."""
    return "1 hidden layer" if depth == 1 else f"{depth} hidden layers"


@experiment(
    __doc__,
    "runs/deep_theorem1",
    quick="one small data set",
    options={"--raw-dir": {"type": path, "help": "folder with the original files of MNIST"}},
)
def main(args: argparse.Namespace) -> Findings:
    """Run all instances."""
    depths, factors = (QUICK_DEPTHS, QUICK_FACTORS) if args.quick else (DEPTHS, FACTORS)
    records = []
    for name, x, y in instances(args.quick, args.raw_dir):
        for depth in depths:
            records += [memorized(name, x, y, depth, factor) for factor in factors]
            proven = sum(r["proven"] for r in records[-len(factors) :])
            say(f"{name}, n = {len(x)}, {layers(depth)}: {proven} of {len(factors)} widths proven")
    return Findings(records, partial(figure, records), [summary(records)])


if __name__ == "__main__":
    main()
