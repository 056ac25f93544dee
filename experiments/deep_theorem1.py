"""Theorem 1 for deep nets: how few neurons memorise n random labels within ε = 0.1, over depth, n and dimension.

Command:  python -m experiments.deep_theorem1 [--quick] [--raw-dir DIR] [--out DIR]
          (--raw-dir: folder with the original files of MNIST; without it Gaussian data and digits only)
Cost:     four and a half minutes on two cores, most of it compilation, 4.3 GB; ``--quick`` ten seconds, one small set.
Expected: ``memorize`` finds pairs of the fewest neurons that counts admit, or hardly more, and proves most of them;
          those that are not proven are made wider. In few dimensions depth buys width: n labels in 3 dimensions take
          2n/3 neurons in one hidden layer, and of the order of √n in two or three. In many it costs neurons.
          Close to the smallest widths the Jacobian is nearly square, hence the condition numbers.
Result:   as expected (docs/figures/deep_theorem1.*): 14 of 15 proven, in 2 or 3 steps. Neurons in 1, 2, 3 hidden
          layers: d = 3, n = 100: 68, 36, 42; n = 1000: 808, 188, 138 (not proven: rounding, times L of large weights);
          d = 20, n = 1000: 100, 96, 108; 1,797 digits: 66, 92, 120; 2,000 images of MNIST: 8, 16, 24.
Writes:   runs/deep_theorem1/summary.json (one record a data set, n and depth) and figure.png.

Reference: "When Expressivity Meets Trainability", Theorem 1; docs/proofs/jacobian.md and theorem1.md.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

import narrow_jax as nj
from experiments._run import Figure, Findings, Record, Table, canvas, experiment, path, say, table

RADIUS = 0.1
DEPTHS, QUICK_DEPTHS = (1, 2, 3), (1, 2)
GAUSSIAN, IMAGES = {3: (100, 1000), 20: (1000,)}, {"digits": 1797, "mnist": 2000}
WIDER, TRIALS = 1.2, 4
"""A net that is not proven is made so much wider, as long as there are no more than so many."""

Instance = tuple[str, np.ndarray, np.ndarray]


def instances(quick: bool, raw_dir: Path | None) -> list[Instance]:
    """Return the data sets by name, Gaussian ones with Gaussian labels and images with random ±1 labels."""
    rng = np.random.default_rng(0)
    if quick:
        return [("d = 3", rng.normal(size=(40, 3)), rng.normal(size=40))]
    found = [(f"d = {d}", rng.normal(size=(n, d)), rng.normal(size=n)) for d in GAUSSIAN for n in GAUSSIAN[d]]
    for name in ("digits", "mnist") if raw_dir else ("digits",):
        n = IMAGES[name]
        data = nj.data.load(name, labels="random", samples=n, normalize="scale", raw_dir=raw_dir)
        found.append((name, data.x.astype(float), data.y.astype(float)))
    return found


def fewest(name: str, x: np.ndarray, y: np.ndarray, depth: int) -> Record:
    """Return the record of the first net that is proven, from the smallest equal widths that ``memorize`` finds.

    Where none of several is, it is that of the smallest.
    """
    nets = [memorized(x, y, depth)]
    while not nets[-1]["proven"] and len(nets) < TRIALS:
        nets.append(memorized(x, y, [math.ceil(WIDER * width) for width in nets[-1]["widths"]]))
    return {
        "dataset": name,
        "n": len(x),
        "depth": depth,
        "one_layer": nj.jacobian.admissible_width(x),
        "admitted": nj.jacobian.admissible_widths(x, depth),
        "not_proven": [net["widths"] for net in nets if not net["proven"]],
        **(nets[-1] if nets[-1]["proven"] else nets[0]),
    }


def memorized(x: np.ndarray, y: np.ndarray, widths: int | list[int]) -> Record:
    """Return what is found of one net."""
    started = time.perf_counter()
    m = nj.memorize(jax.random.key(0), x, y, widths=widths, radius=RADIUS, progress=False)
    seconds = time.perf_counter() - started
    sizes = [w.shape[1] for w in m.params["plus"].values()]
    s, c = nj.sigma_min(nj.jacobian.pairwise_mlp(m.center, x), certify=False), m.certificate
    return {
        "widths": sizes,
        "neurons": 2 * sum(sizes),
        "proven": c is not None and c.holds,
        "message": m.message,
        "steps": len(m.history["loss"]) - 1,
        "loss": m.loss,
        "weight_scale": m.weight_scale,
        "condition_number": float(s.sigma_max / s.value),
        "sigma_min": 0.0 if c is None else c.sigma,
        "g": math.inf if c is None else c.g,
        "seconds": round(seconds, 1),
    }


def summary(records: list[Record]) -> Table:
    """Return the records as a table for the terminal."""
    rows = []
    for r in records:
        sizes = (r["dataset"], *(str(r[name]) for name in ("n", "depth", "neurons", "one_layer", "steps")))
        small = (f"{r[name]:.0e}" for name in ("g", "sigma_min", "condition_number"))
        rows.append((*sizes, *small, "yes" if r["proven"] else "no"))
    headings = ("case", "n", "depth", "units", "2n/d", "steps", "g", "σ_min", "κ(J⁰)", "proof")
    return table(f"Random labels, ε = {RADIUS}", headings, rows)


def figure(records: list[Record]) -> Figure:
    """Draw the neurons, and beside them the condition number of J at the start, over depth: a line a data set."""
    fig = canvas(10.5, 4.6)
    left, right = fig.subplots(1, 2)
    for index, (name, n) in enumerate(dict.fromkeys((r["dataset"], r["n"]) for r in records)):
        rows = [r for r in records if (r["dataset"], r["n"]) == (name, n)]
        depths, color = [r["depth"] for r in rows], f"C{index}"
        left.semilogy(depths, [r["neurons"] for r in rows], "o-", color=color, label=f"{name}, n = {n}")
        doubtful = [r for r in rows if not r["proven"]]
        open_circles = {"color": color, "markerfacecolor": "white", "markersize": 7}
        left.plot([r["depth"] for r in doubtful], [r["neurons"] for r in doubtful], "o", **open_circles)
        left.axhline(rows[0]["one_layer"], color=color, linestyle=":", linewidth=1)
        right.semilogy(depths, [r["condition_number"] for r in rows], "o-", color=color)
    for axes, label in ((left, "neurons (dotted: 2n/d; open: not proven)"), (right, "κ of J at the start")):
        axes.set(xlabel="hidden layers", ylabel=label, xticks=sorted({r["depth"] for r in records}))
    fig.legend(loc="outside right center")
    proven = sum(r["proven"] for r in records)
    fig.suptitle(
        f"Fewest neurons that fit n random labels within ε = {RADIUS} of the start: {proven} of {len(records)} proven"
    )
    return fig


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
    records = []
    for name, x, y in instances(args.quick, args.raw_dir):
        for depth in QUICK_DEPTHS if args.quick else DEPTHS:
            records.append(fewest(name, x, y, depth))
            say(f"{name}, n = {len(x)}, {layers(depth)}: {records[-1]['neurons']} neurons")
    return Findings(records, partial(figure, records), [summary(records)])


if __name__ == "__main__":
    main()
