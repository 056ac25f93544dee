"""Figure 1: the stationary value J(θ) over depth and width, at the start and after training.

Command:  python -m experiments.depth_width_fig1 --dataset synthetic|digits|mnist|cifar10|svhn [--samples N]
          [--depths …] [--widths …] [--epochs E] [--seeds S] [--raw-dir DIR] [--paper] [--quick] [--out DIR]
Cost:     synthetic: seven minutes on one busy core; mnist 45, widths 4 to 12 of cifar10 48, of svhn 26. ``--quick``
          about 15 s. Run again after an interruption: cells are kept.
Expected: J decreases with depth, with width and with training; the text lists where it does not, and by how much.
Measured: ``--dataset synthetic``, 3 seeds: J falls with width and with training everywhere, and with depth after
          training but for width 4 (nets die) and a tie at width 8; at the start it rises in 15 of 20 steps of depth, 4
          of them by more than two standard errors, at widths 4 and 12 (experiments.depth_width_starts says why). Depth
          5, width 20: 0.220 of ½‖Y‖² at the start, 0.068 after training (docs/figures/depth_width_fig1_synthetic.*).
          ``--dataset mnist``, 10,000 images: J falls with width everywhere and with training in 21 of 25 cells; with
          depth it rises in all 20 steps at the start, 7 of them beyond two standard errors, and in 13 of 20 after
          training. Depth 3, width 20: 0.520 at the start, 0.225 after training.
          ``--widths 4 8 12`` for ``cifar10``, 10,000 images, and ``svhn``: with width it falls but for one step; with
          depth it rises in 11 and 5 of 12 steps at the start, in 6 and 5 after training; with training in 12 and 14 of
          15 cells: at the paper's step size nets die, those with one hidden layer first. The mean over seeds decides
          (docs/reproduction.md): J falls with width on all four sets, with training on the first two and not on the
          others, with depth on none at the start; after training that is open.
Writes:   runs/depth_width_fig1/DATASET/summary.json (one record a cell and seed) and figure.png.

The paper's sizes are 5,000 samples of its teacher, 10,000 images and 40 epochs; widths here are 4 to 20. ``svhn`` is a
subset of SVHN's test split with 5,000 images. "Silent" samples find a layer with all units off: their rows of D are 0,
so that J keeps all of their ½‖y‖². On the synthetic set they hold 0.05 (depth 1) to 0.22 (depth 5) of ½‖Y‖² at width 4,
0.01 at width 8 and nothing from width 12 on.

Reference: "Effect of Depth and Width on Local Minima in Deep Learning", section 4.3 and appendix C.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import RenderableType
from rich.table import Table

import narrow_jax as nj

from ._nets import Params
from ._run import Figure, Record, canvas, cells, digest, experiment, require_memory, table

LEARNING_RATE = 0.01
IMAGES = {"mnist": ("mnist", 24, 8), "cifar10": ("cifar10", 28, 12), "svhn": ("svhn_cropped_subset", 28, 12)}
SAMPLES = {"synthetic": 5000, "digits": 1797, "mnist": 10_000, "cifar10": 10_000, "svhn": 5000}
"""Those of the paper, or all that there are."""

VALUES = (
    "value",
    "loss",
    "gap",
    "gap_bound",
    "gradient_norm",
    "baseline",
    "ranks",
    "shape",
    "kinks",
    "status",
    "method",
)
TIMES = {"initial": "at the start", "trained": "after training"}


def load(args: argparse.Namespace) -> nj.data.Dataset:
    """Return the teacher's set, or images made small and grey."""
    if args.dataset == "synthetic":
        return nj.data.load("teacher", samples=args.samples)
    if args.dataset == "digits":
        return nj.data.load("digits", samples=args.samples)
    name, crop, size = IMAGES[args.dataset]
    return nj.data.shrink(nj.data.load(name, samples=args.samples, raw_dir=args.raw_dir), crop, size)


def draw(key: jax.Array, sizes: tuple[int, ...]) -> Params:
    """Draw weights N(0, 1/d_l) in layer l, d_l its own width."""
    keys = jax.random.split(key, len(sizes) - 1)
    return {
        f"w{layer}": jax.random.normal(k, (fan_in, fan_out)) / jnp.sqrt(fan_out)
        for layer, (k, fan_in, fan_out) in enumerate(zip(keys, sizes, sizes[1:], strict=False), start=1)
    }


def mean_loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean over samples of ½‖ŷ − y‖²."""
    return jnp.sum((outputs - y) ** 2) / (2 * len(y))


def train(
    data: nj.data.Dataset, sizes: tuple[int, ...], args: argparse.Namespace
) -> tuple[Params, nj.FitResult]:
    """Train all seeds of a cell in one call, with momentum and batches of appendix C; return starts and result."""
    momentum, batch = (0.9, 200) if args.dataset == "synthetic" else (0.5, 64)
    batch = min(batch, len(data.x))

    def setup(seed: jax.Array) -> tuple[Params, optax.GradientTransformation]:
        return draw(jax.random.key(seed), sizes), optax.sgd(LEARNING_RATE, momentum=momentum)

    steps, seeds = args.epochs * (len(data.x) // batch), np.arange(args.seeds)
    result = nj.sweep(
        nj.models.mlp_apply,
        setup,
        (data.x, data.y),
        grid={"seed": seeds},
        steps=steps,
        every=steps,
        loss=mean_loss,
        batch_size=batch,
        key=jax.random.key(0),
        progress=False,
    )
    return jax.vmap(lambda seed: setup(seed)[0])(seeds), result


def cell(data: nj.data.Dataset, args: argparse.Namespace, depth: int, width: int) -> list[Record]:
    """Return the records of a cell, one a seed."""
    started = time.perf_counter()
    starts, result = train(data, (data.x.shape[1], *[width] * depth, data.y.shape[1]), args)
    records = []
    for seed in range(args.seeds):
        record: Record = {"depth": depth, "width": width, "seed": seed}
        for when, params in (("initial", starts), ("trained", result.params)):
            record[when] = measured({name: np.asarray(leaf[seed]) for name, leaf in params.items()}, data)
        record["diverged"] = bool(np.asarray(result.diverged)[seed])
        record["seconds"] = round((time.perf_counter() - started), 2)
        records.append(record)
    return records


def measured(params: dict[str, np.ndarray], data: nj.data.Dataset) -> Record:
    """Return J beside what explains it: dead units, and the share of ½‖Y‖² that is on silent samples."""
    found = nj.certificates.stationary_value(params, data.x, data.y, contributions=False)
    *hidden, _ = params.values()
    features, dead, silent = np.asarray(data.x, float), 0, np.zeros(len(data.x), bool)
    for w in hidden:
        features = np.maximum(features @ w, 0)
        dead += int(np.sum(~features.any(axis=0)))
        silent |= ~features.any(axis=1)
    record = {name: getattr(found, name) for name in VALUES}
    return record | {"dead_units": dead, "silent": float(np.sum(data.y[silent] ** 2) / np.sum(data.y**2))}


class Map(NamedTuple):
    """A share of ½‖Y‖² over depth × width, mean and standard error of the seeds; nan where it was not measured."""

    depths: list[int]
    widths: list[int]
    mean: np.ndarray
    error: np.ndarray


def value(record: Record, when: str) -> float:
    """Return J over ½‖Y‖²."""
    return record[when]["value"] / record[when]["baseline"]


def gain(record: Record) -> float:
    """Return how much lower J over ½‖Y‖² is after training."""
    return value(record, "initial") - value(record, "trained")


def mapped(records: list[Record], share: Callable[[Record], float]) -> Map:
    """Return a share over depth × width."""
    depths, widths = (sorted({r[name] for r in records}) for name in ("depth", "width"))
    mean, error = np.full((2, len(depths), len(widths)), np.nan)
    for (i, depth), (j, width) in itertools.product(enumerate(depths), enumerate(widths)):
        of_seeds = [share(r) for r in records if (r["depth"], r["width"]) == (depth, width)]
        mean[i, j] = np.mean(of_seeds) if of_seeds else np.nan
        error[i, j] = np.std(of_seeds, ddof=1) / np.sqrt(len(of_seeds)) if len(of_seeds) > 1 else np.nan
    return Map(depths, widths, mean, error)


class Step(NamedTuple):
    """A comparison that should be a fall: when, along what, where, the rise, and its standard error."""

    when: str
    along: str
    where: str
    rise: float
    error: float

    @property
    def clear(self) -> bool:
        """Whether it is a rise by more than two standard errors."""
        return self.rise > 2 * self.error


def comparisons(records: list[Record]) -> list[Step]:
    """Return what J does from each width to the next, from each depth to the next, and in training."""
    steps = []
    for when, words in TIMES.items():
        j = mapped(records, partial(value, when=when))
        for (a, low), (b, high) in itertools.pairwise(enumerate(j.widths)):
            for i, depth in enumerate(j.depths):
                rise, error = j.mean[i, b] - j.mean[i, a], np.hypot(j.error[i, a], j.error[i, b])
                where = f"{words}, depth {depth}, width {low} to {high}"
                steps.append(Step(when, "width", where, rise, error))
        for (a, low), (b, high) in itertools.pairwise(enumerate(j.depths)):
            for i, width in enumerate(j.widths):
                rise, error = j.mean[b, i] - j.mean[a, i], np.hypot(j.error[a, i], j.error[b, i])
                where = f"{words}, width {width}, depth {low} to {high}"
                steps.append(Step(when, "depth", where, rise, error))
    gained = mapped(records, gain)
    for (i, depth), (k, width) in itertools.product(enumerate(gained.depths), enumerate(gained.widths)):
        where = f"in training, depth {depth}, width {width}"
        steps.append(Step("trained", "training", where, -gained.mean[i, k], gained.error[i, k]))
    return [step for step in steps if not np.isnan(step.rise)]


def exceptions(records: list[Record]) -> list[Step]:
    """Return where J rises."""
    return [step for step in comparisons(records) if step.rise > 1e-9]


def figure(content: Record) -> Figure:
    """Draw the two heat maps with one scale of colours; cells that were not run are hatched."""
    s, records = content["settings"], content["cells"]
    fig = canvas(12, 5)
    panels = fig.subplots(1, 2)
    maps = [mapped(records, partial(value, when=when)) for when in TIMES]
    top = max(np.nanmax(j.mean) for j in maps)
    for panel, j, title in zip(panels, maps, TIMES.values(), strict=True):
        panel.grid(visible=False)
        panel.patch.set(hatch="///", edgecolor="0.7")
        image = panel.imshow(
            np.ma.masked_invalid(j.mean), origin="lower", cmap="viridis", vmin=0, vmax=top, aspect="auto"
        )
        for (row, column), mean in np.ndenumerate(j.mean):
            error = j.error[row, column]
            text = f"{mean:.3f}" + ("" if np.isnan(error) else f"\n± {error:.3f}")
            color = "black" if mean > top / 2 else "white"
            if not np.isnan(mean):
                panel.text(column, row, text, ha="center", va="center", color=color)
        panel.set_xticks(range(len(j.widths)), j.widths)
        panel.set_yticks(range(len(j.depths)), j.depths)
        panel.set(xlabel="width", ylabel="depth", title=title)
    fig.colorbar(image, ax=panels, label="J(θ) / ½‖Y‖²")
    seeds = "one seed" if s["seeds"] == 1 else f"mean of {s['seeds']} seeds"
    baseline = records[0]["initial"]["baseline"]
    fig.suptitle(
        f"Stationary value, {s['dataset']}, {s['samples']:,} samples, {seeds}; without a net ½‖Y‖² = {baseline:.4g}"
    )
    return fig


def told(last: Record) -> str:
    """Say what a cell gave."""
    return (
        f"depth {last['depth']}, width {last['width']}: J {last['initial']['value']:.5g} → "
        f"{last['trained']['value']:.5g}, loss {last['trained']['loss']:.5g}, {last['seconds']} s"
    )


def starts(records: list[Record]) -> Table:
    """Return what nets are like at the start, by depth, over all widths."""
    rows = []
    for depth in sorted({r["depth"] for r in records}):
        found = [r["initial"] for r in records if r["depth"] == depth]
        ranks = [r["ranks"]["nr"] / r["shape"][1] for r in found]
        agree = np.mean([len(set(r["ranks"].values())) == 1 for r in found])
        silent, dead = (np.mean([r[name] for r in found]) for name in ("silent", "dead_units"))
        share = np.mean([r["value"] / r["baseline"] for r in found])
        row = f"{share:.3f}", f"{np.mean(ranks):.3f}", f"{agree:.0%}", f"{silent:.3f}", f"{dead:.2f}"
        rows.append((str(depth), *row))
    headings = (
        "depth",
        "J / ½‖Y‖²",
        "rank of D\nper weight",
        "cutoffs\nagree",
        "½‖Y‖² on silent\nsamples",
        "dead\nunits",
    )
    return table("At the start, means of all widths and seeds", headings, rows)


@experiment(
    __doc__,
    "runs/depth_width_fig1",
    figure,
    sizes={
        "samples": None,
        "depths": (1, 2, 3, 4, 5),
        "widths": (4, 8, 12, 16, 20),
        "epochs": 40,
        "seeds": 3,
        "raw_dir": None,
    },
    quick={"samples": 100, "depths": (1, 2), "widths": (3, 6), "epochs": 2, "seeds": 2},
    paper={"widths": (10, 20, 30, 40, 50)},
    options={"dataset": {"choices": SAMPLES, "default": "synthetic", "help": "data set"}},
)
def main(args: argparse.Namespace) -> list[RenderableType]:
    """Run the cells that are missing, say where J does not decrease."""
    args.samples = args.samples or SAMPLES[args.dataset]
    data = load(args)
    args.samples, inputs = data.x.shape
    rows, outputs = data.y.size, data.y.shape[1]
    depth, width = max(args.depths), max(args.widths)
    columns = width * (inputs + (depth - 1) * width + outputs)
    require_memory(
        8 * (9 * min(rows, columns) ** 2 + 4 * rows * (depth * width + outputs)),
        f"D of depth {depth} and width {width}, {rows:,} × {columns:,},",
    )
    axes = {"depth": args.depths, "width": args.widths}
    records = cells(args, axes, partial(cell, data, args), told, data=digest(data.x, data.y))
    found, all_steps = exceptions(records), comparisons(records)
    clear = sum(step.clear for step in found)
    return [
        f"J rises in {len(found)} of {len(all_steps)} comparisons, in {clear} of them by more than two standard errors",
        *(f"  {step.where}: {step.rise:.4f} ± {step.error:.4f} of ½‖Y‖²" for step in found),
        starts(records),
    ]


if __name__ == "__main__":
    main()
