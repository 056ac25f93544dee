"""Why the stationary value J of a random start need not fall with depth: what each layer takes off ½‖Y‖².

Command:  python -m experiments.depth_width_starts [--samples N] [--depths …] [--widths …] [--seeds S] [--quick]
          [--out DIR]
Cost:     eleven minutes on one busy core, four on one that is less so; ``--quick`` a few seconds.
Expected: with ReLU J rises with depth in narrow nets, beyond the standard errors of ten seeds, and with |z| it falls.
          The first layer's columns of D, which alone come near linear regression on the inputs, are cut by the gates of
          every layer above; what the other layers add does not make up for it.
Measured: J over ½‖Y‖² at depths 1 to 5, mean of ten seeds (docs/figures/depth_width_starts.*). ReLU, width 4: 0.38,
          0.57, 0.59, 0.58, 0.70 (standard errors 0.01 to 0.05); the first layer takes off 0.62, 0.40, 0.37, 0.38, 0.27,
          all others together 0.04 at most. Width 12: 0.275, 0.278, 0.304, 0.343, 0.335. Leaky ReLU with slope ½: 0.27
          to 0.33 at width 4, and a fall from 0.252 to 0.203 at width 12. |z|: 0.993 to 0.986, and 0.977 to 0.878.
          Linear regression on the inputs leaves 0.255: three quarters of the target are linear.
Writes:   runs/depth_width_starts/summary.json (one record a cell and seed) and figure.png.

The teacher of Figure 1, weights drawn as there. Their scale cannot matter: J is the same for any positive multiples of
the layers, since D changes by factors of its columns only.

Reference: "Effect of Depth and Width on Local Minima in Deep Learning", Theorem 1, section 4.3 and appendix C.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial

import jax
import numpy as np
from matplotlib.axes import Axes
from rich.console import RenderableType

import narrow_jax as nj

from ._run import Figure, Record, canvas, cells, experiment, require_memory, table
from .depth_width_fig1 import draw

ACTIVATIONS = {
    "relu": nj.activations.get("relu"),
    "leaky ½": nj.activations.leaky_relu(0.5),
    "|z|": nj.activations.get("abs"),
}


def cell(data: nj.data.Dataset, seeds: int, activation: str, depth: int, width: int) -> list[Record]:
    """Return the records of a cell, one a seed; shares are of ½‖Y‖²."""
    sizes = (data.x.shape[1], *[width] * depth, data.y.shape[1])
    records = []
    for seed in range(seeds):
        params = draw(jax.random.key(seed), sizes)
        j = nj.certificates.stationary_value(params, data.x, data.y, ACTIVATIONS[activation])
        record = {"activation": activation, "depth": depth, "width": width, "seed": seed}
        assert j.layers is not None  # those of an iteration only
        record |= {"value": j.value / j.baseline, "layers": j.layers / j.baseline}
        records.append(record | {"ranks": j.ranks, "weights": j.shape[1], "status": j.status})
    return records


def linear(data: nj.data.Dataset) -> float:
    """Return what linear regression on the inputs leaves of ½‖Y‖², as a share."""
    params = draw(jax.random.key(0), (data.x.shape[1], 1, data.y.shape[1]))
    return nj.certificates.regression_value(params, data.x, data.y, layers=[0]) / float(
        np.sum(np.square(data.y, dtype=float)) / 2
    )


def chosen(records: list[Record], **wanted: object) -> list[Record]:
    """Return the records with these fields."""
    return [r for r in records if wanted.items() <= r.items()]


def levels(records: list[Record], name: str) -> list[int]:
    """Return the values of a field."""
    return sorted({r[name] for r in records})


def mean_and_error(records: list[Record]) -> tuple[float, float]:
    """Return mean and standard error of J over ½‖Y‖², the error of one seed as 0."""
    values = [r["value"] for r in records]
    return float(np.mean(values)), float(np.std(values, ddof=len(values) > 1) / np.sqrt(len(values)))


def figure(content: Record) -> Figure:
    """Draw J over the depth, and what each layer takes off."""
    records = content["cells"]
    fig = canvas(13, 4.2, dpi=110)
    widths = levels(records, "width")
    values, *bars = fig.subplots(1, 1 + len(widths))
    for style, width in zip(("-", "--", ":", "-."), widths, strict=False):
        for color, activation in enumerate(ACTIVATIONS):
            found = chosen(records, activation=activation, width=width)
            depths = levels(found, "depth")
            shares = [mean_and_error(chosen(found, depth=depth)) for depth in depths]
            mean, error = zip(*shares, strict=True)
            label = f"{activation}, width {width}"
            values.errorbar(depths, mean, error, fmt=style, color=f"C{color}", label=label, capsize=2)
    regression = content["settings"]["linear"]
    values.axhline(regression, color="0.5", linewidth=1, label="linear regression on inputs")
    values.set(xlabel="depth", ylabel="J(θ) / ½‖Y‖² at the start", ylim=(0, 1.45))
    values.legend(fontsize=7, ncols=2, loc="upper center")
    for axes, width in zip(bars, widths, strict=True):
        stacked(axes, chosen(records, activation="relu", width=width))
        axes.set(xlabel="depth", ylim=(0, 1.05), title=f"ReLU, width {width}")
    bars[0].set_ylabel("share of ½‖Y‖² that a layer takes off")
    bars[-1].legend(fontsize=7, loc="upper right")
    return fig


def stacked(axes: Axes, records: list[Record]) -> None:
    """Draw what the layers take off, one bar a depth; the layers after the second are one part."""
    depths = levels(records, "depth")
    layers = [np.mean([r["layers"] for r in chosen(records, depth=depth)], axis=0) for depth in depths]
    bottom = np.zeros(len(depths))
    parts = {"first layer": slice(0, 1), "second layer": slice(1, 2), "later layers": slice(2, None)}
    for name, part in parts.items():
        height = np.array([np.sum(taken[part]) for taken in layers])
        axes.bar(depths, height, bottom=bottom, label=name)
        bottom += height
    axes.set_xticks(depths)


def told(last: Record) -> str:
    """Say what a cell gave."""
    return (
        f"{last['activation']}, depth {last['depth']}, width {last['width']}: J {last['value']:.3f} of ½‖Y‖²"
    )


@experiment(
    __doc__,
    "runs/depth_width_starts",
    figure,
    sizes={"samples": 5000, "depths": (1, 2, 3, 4, 5), "widths": (4, 12), "seeds": 10},
    quick={"samples": 200, "depths": (1, 3), "widths": (3,), "seeds": 2},
)
def main(args: argparse.Namespace) -> list[RenderableType]:
    """Run the cells that are missing."""
    columns = max(args.widths) * (11 + max(args.depths) * max(args.widths))
    require_memory(
        8 * (9 * min(args.samples, columns) ** 2 + 4 * args.samples * max(args.depths) * max(args.widths)),
        f"D of {args.samples:,} samples and {columns:,} weights",
    )
    data = nj.data.load("teacher", samples=args.samples)
    axes = {"activation": ACTIVATIONS, "depth": args.depths, "width": args.widths}
    records = cells(args, axes, partial(cell, data, args.seeds), told, linear=linear(data))
    rows = []
    for activation, width in itertools.product(ACTIVATIONS, args.widths):
        found = chosen(records, activation=activation, width=width)
        shares = (mean_and_error(chosen(found, depth=depth)) for depth in args.depths)
        rows.append(
            (f"{activation}, {width}", *(f"{mean:.3f}({1000 * error:.0f})" for mean, error in shares))
        )
    headings = ("net", *(f"H = {depth}" for depth in args.depths))
    return [
        table("J / ½‖Y‖² at the start (standard error of the last digits)", headings, rows),
        f"Linear regression on the inputs leaves {linear(data):.3f} of ½‖Y‖²",
    ]


if __name__ == "__main__":
    main()
