"""The paper's point on real data: random labels on 8×8 digits, learned inside a small ball.

Command:  make demo   (or: python -m experiments.demo [--quick])
Cost:     under 90 s on two cores; ``--quick`` a few seconds.
Expected: with the same optimizer in every row, the pairwise net under the constraints learns every label
          within ε = 0.1 of its start; the standard net of the same width cannot within the same ball
          (about 62 % of the labels); without the ball it can, by travelling far from its start.
Writes:   runs/demo/summary.json (one record a row) and runs/demo/figure.png.

Reference: "When Expressivity Meets Trainability", Theorem 1 and Figure 4.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import NamedTuple

import jax
import numpy as np
import optax

import narrow_jax as nj

from ._nets import Net, Params, pairwise, standard
from ._run import Figure, Record, Table, canvas, cells, experiment, say, table

WIDTH, RADIUS = 120, 0.1
LEARNING_RATE = 5e-3
POINTS = 300


class Row(NamedTuple):
    """One row of the table: a net, its start and its optimizer."""

    name: str
    net: Net
    params: Params
    tx: optax.GradientTransformation


def rows(inputs: int, steps: int) -> list[Row]:
    """Return the three runs that are compared: one optimizer, one width, one seed."""
    adam = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    return [
        Row(name, net, net.start(jax.random.key(0), inputs=inputs, width=WIDTH), net.regime(adam, radius))
        for name, net, radius in (
            ("pairwise, ball + cone", pairwise(), RADIUS),
            ("standard, same ball", standard(), RADIUS),
            ("standard, no ball", standard(), math.inf),
        )
    ]


def run(row: Row, data: nj.data.Dataset, steps: int) -> list[Record]:
    """Train one row and return its record."""
    say(f"{row.name}: {steps} full-batch steps")
    started = time.perf_counter()
    result = nj.fit(
        row.net.apply_fn,
        row.params,
        row.tx,
        (data.x, data.y),
        steps=steps,
        callbacks=[nj.callbacks.Progress(True)],
    )
    seconds = time.perf_counter() - started
    record = {
        "name": row.name,
        "loss": float(result.history["loss"][-1]),
        "accuracy": float(result.history["accuracy"][-1]),
        "sigma_min_start": float(nj.sigma_min(row.net.jacobian(row.params, data.x), certify=False).value),
        "sigma_min_end": float(nj.sigma_min(row.net.jacobian(result.params, data.x), certify=False).value),
        "distance_over_radius": float(result.history["distance"][-1]) / RADIUS,
        "seconds": round(seconds, 1),
        "curves": {name: thinned(result.history[name]) for name in ("step", "accuracy", "distance")},
    }
    return [record]


def thinned(values: np.ndarray) -> list[float]:
    """Return at most a few hundred values for a logarithmic axis, the first and the last among them."""
    places = np.unique(np.geomspace(1, len(values), POINTS).astype(int)) - 1
    return [float(f"{value:.5g}") for value in np.asarray(values, float)[places]]


def summary(records: list[Record]) -> Table:
    """Return the records as a table for the terminal."""
    title = f"Random ±1 labels on digits, width {WIDTH}, ε = {RADIUS}, same optimizer"
    headings = ("net", "loss", "learned", "σ_min\nstart", "σ_min\nend", "‖w−w⁰‖\n/ε", "time")
    numbers = ("loss", "accuracy", "sigma_min_start", "sigma_min_end", "distance_over_radius")
    rows = []
    for r in records:
        loss, learned, *others = (r[name] for name in numbers)
        shown = (f"{loss:.3g}", f"{100 * learned:.1f} %", *(f"{value:.3g}" for value in others))
        rows.append((r["name"], *shown, f"{r['seconds']:.1f} s"))
    return table(title, headings, rows)


def figure(content: Record) -> Figure:
    """Draw labels learned and distance from the start over the steps."""
    fig = canvas(10, 4)
    learned, distance = fig.subplots(1, 2)
    for record, style in zip(content["cells"], ("-", "--", "-"), strict=False):
        step, share, far = (np.array(record["curves"][name][1:]) for name in ("step", "accuracy", "distance"))
        learned.semilogx(step, 100 * share, style, label=record["name"])
        distance.loglog(step, far / RADIUS, style, label=record["name"])
    learned.set(xlabel="step", ylabel="random labels learned (%)", ylim=(45, 102))
    distance.set(xlabel="step", ylabel="distance from the start, ‖w − w⁰‖ / ε")
    distance.axhline(1, color="black", linestyle=":", linewidth=1)
    distance.annotate("the ball", (1, 1.08), xycoords=("axes fraction", "data"), ha="right")
    learned.legend(loc="center right")
    fig.suptitle(f"Random ±1 labels on digits: width {WIDTH}, ε = {RADIUS}")
    return fig


def verdict(records: list[Record]) -> str:
    """Say in words what the table shows."""
    regime, ball, free = ({**r, "learned": f"{100 * r['accuracy']:.1f} %"} for r in records)
    return (
        f"Within ε of its start the pairwise net under the constraints learns {regime['learned']} of the "
        f"labels, the standard net {ball['learned']}.\nWithout the ball the standard net learns "
        f"{free['learned']}, by leaving: it ends {free['distance_over_radius']:.0f} ε away."
    )


@experiment(
    __doc__,
    "runs/demo",
    figure,
    sizes={"samples": 1797, "steps": 5000},
    quick={"samples": 300, "steps": 200},
)
def main(args: argparse.Namespace) -> list[Table | str]:
    """Run the three rows."""
    data = nj.data.load("digits", labels="random", normalize="whiten", samples=args.samples)
    by_name = {row.name: row for row in rows(data.x.shape[1], args.steps)}
    records = cells(
        args, {"name": by_name}, lambda name: run(by_name[name], data, args.steps), lambda last: last["name"]
    )
    return [summary(records), verdict(records)]


if __name__ == "__main__":
    main()
