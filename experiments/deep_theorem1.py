"""Theorem 1 for deep nets: how few neurons memorise n random labels within ε = 0.1, over depth, n and dimension.

Command:  python -m experiments.deep_theorem1 [--quick] [--depths 1 2 3] [--raw-dir DIR]
          (--raw-dir: folder with the original files of MNIST, which is left out unless it is given or named)
Cost:     seven minutes on two cores beside other work, most of it compilation; ``--quick`` ten seconds, one small set.
Expected: ``memorize`` finds pairs of the fewest neurons that counts admit, or hardly more, and proves most of them;
          those that are not proven are made wider. In few dimensions depth buys width: n labels in 3 dimensions take
          2n/3 neurons in one hidden layer, and of the order of √n in two or three. In many it costs neurons.
          Close to the smallest widths the Jacobian is nearly square, hence the condition numbers.
Result:   as expected (docs/figures/deep_theorem1.*): 14 of 15 proven, in 2 to 4 steps. Neurons in 1, 2, 3 hidden
          layers: d = 3, n = 100: 68, 36, 42; n = 1000: 810, 188, 138 (not proven: rounding, times L of large weights);
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

from ._image_sets import pixels
from ._run import Figure, Record, Table, canvas, cells, digest, experiment, require_memory, table

RADIUS = 0.1
GAUSSIAN = {"quick": (40, 3), "d = 3": (100, 3), "d = 3, more": (1000, 3), "d = 20": (1000, 20)}
IMAGES = {"digits": 1797, "mnist": 2000}
WIDER, TRIALS = 1.2, 4
"""A net that is not proven is made so much wider, as long as there are no more than so many."""


def instance(name: str, raw_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a data set by name: Gaussian with Gaussian labels, or images with random ±1 labels."""
    if name in GAUSSIAN:
        rng = np.random.default_rng(0)
        return rng.normal(size=GAUSSIAN[name]), rng.normal(size=GAUSSIAN[name][0])
    data = nj.data.load(name, labels="random", samples=IMAGES[name], normalize="scale", raw_dir=raw_dir)
    return data.x.astype(float), data.y.astype(float)


def fewest(args: argparse.Namespace, dataset: str, depth: int) -> list[Record]:
    """Return the record of the first net that is proven, from the smallest equal widths that ``memorize`` finds.

    Where none of several is, it is that of the smallest.
    """
    x, y = instance(dataset, args.raw_dir)
    nets = [memorized(x, y, depth)]
    while not nets[-1]["proven"] and len(nets) < TRIALS:
        nets.append(memorized(x, y, [math.ceil(WIDER * width) for width in nets[-1]["widths"]]))
    record = {
        "dataset": dataset,
        "n": len(x),
        "depth": depth,
        "one_layer": nj.jacobian.admissible_width(x),
        "admitted": nj.jacobian.admissible_widths(x, depth),
        "not_proven": [net["widths"] for net in nets if not net["proven"]],
        **(nets[-1] if nets[-1]["proven"] else nets[0]),
    }
    return [record]


def memory_needed(x: np.ndarray, depth: int) -> float:
    """Return about how many bytes the widest net that is tried takes: a dozen Gram matrices, and what units give."""
    n, inputs = x.shape
    widest = max(nj.jacobian.admissible_widths(x, min(depth, 10)))  # the deeper, the narrower
    units = depth * widest * WIDER ** (TRIALS - 1)
    return 8 * n * (12 * n + 8 * (inputs + 4 * units))


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
        sizes = (
            r["dataset"].removesuffix(", more"),
            *(str(r[name]) for name in ("n", "depth", "neurons", "one_layer", "steps")),
        )
        small = (f"{r[name]:.0e}" for name in ("g", "sigma_min", "condition_number"))
        rows.append((*sizes, *small, "yes" if r["proven"] else "no"))
    headings = ("case", "n", "depth", "units", "2n/d", "steps", "g", "σ_min", "κ(J⁰)", "proof")
    return table(f"Random labels, ε = {RADIUS}", headings, rows)


def figure(content: Record) -> Figure:
    """Draw the neurons, and beside them the condition number of J at the start, over depth: a line a data set."""
    records = content["cells"]
    fig = canvas(10.5, 4.6)
    left, right = fig.subplots(1, 2)
    order = (*GAUSSIAN, *IMAGES)
    sets = sorted({(r["dataset"], r["n"]) for r in records}, key=lambda one: order.index(one[0]))
    for index, (name, n) in enumerate(sets):
        rows = [r for r in records if (r["dataset"], r["n"]) == (name, n)]
        rows.sort(key=lambda r: r["depth"])
        depths, color = [r["depth"] for r in rows], f"C{index}"
        name = name.removesuffix(", more")
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


def told(last: Record) -> str:
    """Say what an instance gave."""
    layers = "1 hidden layer" if last["depth"] == 1 else f"{last['depth']} hidden layers"
    proven = "proven" if last["proven"] else "not proven"
    return f"{last['dataset']}, n = {last['n']}, {layers}: {last['neurons']} neurons, {proven}"


@experiment(
    __doc__,
    "runs/deep_theorem1",
    figure,
    sizes={"depths": (1, 2, 3), "raw_dir": None},
    quick={"datasets": ("quick",), "depths": (1, 2)},
    options={"datasets": {"choices": (*GAUSSIAN, *IMAGES), "nargs": "+", "help": "data sets"}},
)
def main(args: argparse.Namespace) -> list[Table]:
    """Run all instances."""
    usual = [name for name in (*GAUSSIAN, *IMAGES) if name != "quick" and (name != "mnist" or args.raw_dir)]
    chosen, marks = args.datasets or usual, {}
    for name in chosen:
        if name in IMAGES:
            marks[name] = digest(pixels(name, IMAGES[name], args.raw_dir))
        x, _ = instance(name, args.raw_dir)
        for depth in args.depths:
            require_memory(memory_needed(x, depth), f"memorize with {depth:,} hidden layers on {name}")
    axes = {"dataset": chosen, "depth": args.depths}
    return [summary(cells(args, axes, partial(fewest, args), told, data=marks))]


if __name__ == "__main__":
    main()
