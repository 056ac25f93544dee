"""Theorem 1 for deep nets: how few neurons memorise n random labels within ε = 0.1, over depth, n and dimension.

Command:  python -m experiments.deep_theorem1 [--quick] [--raw-dir DIR] [--out DIR]
          (--raw-dir: folder with the original files of MNIST; without it Gaussian data and digits only)
Cost:     COST; ``--quick`` a few seconds and one small data set.
Expected: ``memorize`` finds pairs of the fewest neurons that counts admit, or hardly more, and proves them. In few
          dimensions depth buys width: n labels in 3 dimensions take 2n/3 neurons in one hidden layer, and of the order
          of √n in two or three. In many dimensions (digits, MNIST) there is little to buy. The Jacobian is nearly
          square at those widths, hence the condition numbers.
Result:   RESULT
Writes:   runs/deep_theorem1/summary.json (one record a data set, n and depth) and figure.png.

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
GAUSSIAN = {3: (100, 300, 1000), 20: (300, 1000)}
IMAGES = {"digits": (500, 1797), "mnist": (1000, 2000)}

Instance = tuple[str, np.ndarray, np.ndarray]


def instances(quick: bool, raw_dir: Path | None) -> list[Instance]:
    """Return the data sets by name, Gaussian ones with Gaussian labels and images with random ±1 labels."""
    rng = np.random.default_rng(0)
    if quick:
        return [("d = 3", rng.normal(size=(40, 3)), rng.normal(size=40))]
    found = [(f"d = {d}", rng.normal(size=(n, d)), rng.normal(size=n)) for d in GAUSSIAN for n in GAUSSIAN[d]]
    for name in ("digits", "mnist") if raw_dir else ("digits",):
        for n in IMAGES[name]:
            data = nj.data.load(name, labels="random", samples=n, normalize="scale", raw_dir=raw_dir)
            found.append((name, data.x.astype(float), data.y.astype(float)))
    return found


def memorized(name: str, x: np.ndarray, y: np.ndarray, depth: int) -> Record:
    """Return the record of the net with the smallest equal widths that ``memorize`` finds."""
    started = time.perf_counter()
    m = nj.memorize(jax.random.key(0), x, y, widths=depth, radius=RADIUS, progress=False)
    seconds = time.perf_counter() - started
    widths = [w.shape[1] for w in m.params["plus"].values()]
    s = nj.sigma_min(nj.jacobian.pairwise_mlp(m.center, x), certify=False)
    record = {
        "dataset": name,
        "n": len(x),
        "depth": depth,
        "widths": widths,
        "widths_admitted": nj.jacobian.admissible_widths(x, depth),
        "neurons": 2 * sum(widths),
        "one_layer": nj.jacobian.admissible_width(x),
        "status": m.status,
        "loss": m.loss,
        "steps": len(m.history["loss"]) - 1,
        "weight_scale": m.weight_scale,
        "condition_number": float(s.sigma_max / s.value),
        "seconds": round(seconds, 1),
    }
    c = m.certificate
    constants = (False, math.inf, 0.0) if c is None else (c.holds, c.g, c.sigma)
    return record | dict(zip(("proven", "g", "sigma_min"), constants, strict=True))


def summary(records: list[Record]) -> Table:
    """Return the records as a table for the terminal."""
    rows = []
    for r in records:
        sizes = (r["dataset"], *(str(r[name]) for name in ("n", "depth", "neurons", "one_layer", "steps")))
        small = (f"{r[name]:.0e}" for name in ("g", "sigma_min", "condition_number"))
        rows.append((*sizes, *small, "yes" if r["proven"] else "no"))
    headings = ("case", "n", "depth", "neurons", "2n/d", "steps", "g", "σ_min", "κ(J⁰)", "proven")
    return table(f"Random labels, ε = {RADIUS}", headings, rows)


def figure(records: list[Record]) -> Figure:
    """Draw the neurons, and below the condition number of J at the start, over n: a column a data set."""
    names = list(dict.fromkeys(r["dataset"] for r in records))
    fig = canvas(3.6 * len(names) + 0.6, 6.4)
    panels = fig.subplots(2, len(names), squeeze=False, sharex="col", sharey="row")
    for name, above, below in zip(names, *panels, strict=True):
        rows = [r for r in records if r["dataset"] == name]
        draw(above, rows, "neurons")
        draw(below, rows, "condition_number")
        above.set_title(name)
        above.plot([r["n"] for r in rows], [r["one_layer"] for r in rows], "k:", label="2n/d", zorder=0)
        below.set_xlabel("samples n")
    panels[0][0].set_ylabel("neurons")
    panels[1][0].set_ylabel("κ of J at the start")
    panels[0][0].legend()
    proven = sum(r["proven"] for r in records)
    fig.suptitle(
        f"Pairs that fit n random labels exactly within ε = {RADIUS} of their start: {proven} of {len(records)} proven"
    )
    return fig


def draw(axes: Axes, rows: list[Record], name: str) -> None:
    """Draw a field over n, one line a depth; open circles where nothing is proven."""
    for depth in dict.fromkeys(r["depth"] for r in rows):
        own = [r for r in rows if r["depth"] == depth]
        [line] = axes.loglog([r["n"] for r in own], [r[name] for r in own], "o-", label=layers(depth))
        doubtful = [r for r in own if not r["proven"]]
        axes.plot(
            [r["n"] for r in doubtful],
            [r[name] for r in doubtful],
            "o",
            color=line.get_color(),
            markerfacecolor="white",
        )


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
            records.append(memorized(name, x, y, depth))
            say(
                f"{name}, n = {len(x)}, {layers(depth)}: {records[-1]['neurons']} neurons, {records[-1]['status']}"
            )
    return Findings(records, partial(figure, records), [summary(records)])


if __name__ == "__main__":
    main()
