"""Figure 1: the stationary value J(θ) over depth and width, at the start and after training.

Command:  python -m experiments.depth_width_fig1 --dataset synthetic|digits|mnist|cifar10|svhn [--paper] [--quick]
Cost:     CPU size (5 depths × 5 widths up to 20; 5,000 synthetic or 1,000 image samples): minutes on two cores.
          ``--paper``: widths up to 50, 10,000 images, hours. Run again after an interruption: cells are kept.
Expected: J decreases with depth, with width and with training; the summary lists where it does not.
Measured: ``--dataset synthetic``, 1 seed: J falls with width in every row but not always with depth: it rises in
          20 of 105 comparisons, 12 of them with depth at the start, 5 with depth after training, 3 with training
          (width 4, where a net of depth 5 dies and keeps ½‖Y‖²). Depth 5, width 20: 0.202 of ½‖Y‖² at the start,
          0.072 after training. 2 min 47 s on two cores (docs/figures/depth_width_synthetic.*).
Writes:   DIR/summary.json (settings, one record a cell and seed, the exceptions) and DIR/figure.png.

The images come from the original files (NARROW_JAX_RAW); ``svhn`` there is the subset of SVHN's test split.

Reference: "Effect of Depth and Width on Local Minima in Deep Learning", section 4.3 and appendix C.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import narrow_jax as nj

from ._nets import Params
from ._run import Figure, Findings, Record, canvas, cells, content, experiment

FOLDER = "runs/depth_width_fig1"
LEARNING_RATE = 0.01
IMAGES = {"mnist": ("mnist", 24, 8), "cifar10": ("cifar10", 28, 12), "svhn": ("svhn_cropped_subset", 28, 12)}
DATASETS = ("synthetic", "digits", *IMAGES)
VALUES = ("value", "loss", "gap", "baseline", "ranks", "shape", "kinks", "status", "method")


@dataclass(frozen=True)
class Settings:
    """Everything that a cell depends on beside its depth and width."""

    dataset: str
    samples: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    epochs: int
    seeds: int

    @property
    def momentum(self) -> float:
        """Return the momentum of appendix C."""
        return 0.9 if self.dataset == "synthetic" else 0.5

    @property
    def batch_size(self) -> int:
        """Return the batch size of appendix C, or all samples if there are fewer."""
        return min(self.samples, 200 if self.dataset == "synthetic" else 64)


def settings(dataset: str, size: str, seeds: int) -> Settings:
    """Return the settings of a size: "quick", "cpu" or "paper"."""
    if size == "quick":
        return Settings(dataset, 100, (1, 2), (3, 6), epochs=2, seeds=seeds)
    depths = (1, 2, 3, 4, 5)
    if size == "cpu":
        samples = 5000 if dataset == "synthetic" else 1000
        return Settings(dataset, samples, depths, (4, 8, 12, 16, 20), epochs=40, seeds=seeds)
    samples = {"synthetic": 5000, "digits": 1797}.get(dataset, 10_000 if dataset != "svhn" else 5000)
    return Settings(dataset, samples, depths, (10, 20, 30, 40, 50), epochs=40, seeds=seeds)


def load(dataset: str, samples: int) -> nj.data.Dataset:
    """Return the teacher's set, or images made small and grey."""
    if dataset == "synthetic":
        return nj.data.load("teacher", samples=samples)
    if dataset == "digits":
        return nj.data.load("digits", samples=samples)
    name, crop, size = IMAGES[dataset]
    return nj.data.shrink(nj.data.load(name, samples=samples), crop, size)


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


def train(data: nj.data.Dataset, sizes: tuple[int, ...], s: Settings) -> tuple[Params, nj.FitResult]:
    """Train all seeds of a cell in one call; return the starts and the result, seeds along the first axis."""

    def setup(seed: jax.Array) -> tuple[Params, optax.GradientTransformation]:
        return draw(jax.random.key(seed), sizes), optax.sgd(LEARNING_RATE, momentum=s.momentum)

    steps = s.epochs * (len(data.x) // s.batch_size)
    seeds = np.arange(s.seeds)
    result = nj.sweep(
        nj.models.mlp_apply,
        setup,
        (data.x, data.y),
        grid={"seed": seeds},
        steps=steps,
        every=steps,
        loss=mean_loss,
        batch_size=s.batch_size,
        key=jax.random.key(0),
        progress=False,
    )
    return jax.vmap(lambda seed: setup(seed)[0])(seeds), result


def cell(data: nj.data.Dataset, s: Settings, depth: int, width: int) -> list[Record]:
    """Return the records of a cell, one a seed."""
    started = time.perf_counter()
    starts, result = train(data, (data.x.shape[1], *[width] * depth, data.y.shape[1]), s)
    trained_in = time.perf_counter() - started
    records = []
    for seed in range(s.seeds):
        record: Record = {"depth": depth, "width": width, "seed": seed}
        for when, params in (("initial", starts), ("trained", result.params)):
            one = jax.tree.map(lambda leaf: np.asarray(leaf[seed]), params)  # noqa: B023
            value = nj.certificates.stationary_value(one, data.x, data.y, contributions=False)
            record[when] = {name: getattr(value, name) for name in VALUES}
        record["diverged"] = bool(np.asarray(result.diverged)[seed])
        record["seconds_of_training"] = round(trained_in, 2)
        record["seconds"] = round(time.perf_counter() - started, 2)
        records.append(record)
    return records


def mean_values(records: list[Record], s: Settings, when: str) -> np.ndarray:
    """Return J over depth × width, the mean of the seeds."""
    return np.array(
        [
            [
                np.mean([r[when]["value"] for r in records if (r["depth"], r["width"]) == (depth, width)])
                for width in s.widths
            ]
            for depth in s.depths
        ]
    )


def exceptions(records: list[Record], s: Settings) -> list[str]:
    """Return where J does not decrease with width, depth or training."""
    maps = {when: mean_values(records, s, when) for when in ("initial", "trained")}
    slack = 1e-9 * records[0]["initial"]["baseline"]
    found = []
    for when, values in maps.items():
        for i, j in np.argwhere(np.diff(values, axis=1) > slack):
            found.append(f"{when}: depth {s.depths[i]}, width {s.widths[j]} to {s.widths[j + 1]}")
        for i, j in np.argwhere(np.diff(values, axis=0) > slack):
            found.append(f"{when}: width {s.widths[j]}, depth {s.depths[i]} to {s.depths[i + 1]}")
    for i, j in np.argwhere(maps["trained"] > maps["initial"] + slack):
        found.append(f"training: depth {s.depths[i]}, width {s.widths[j]}")
    return found


def figure(records: list[Record], s: Settings) -> Figure:
    """Draw the two heat maps with one scale of colours."""
    fig = canvas(12, 5)
    panels = fig.subplots(1, 2)
    baseline = records[0]["initial"]["baseline"]
    maps = [mean_values(records, s, when) / baseline for when in ("initial", "trained")]
    top = max(values.max() for values in maps)
    for panel, values, title in zip(panels, maps, ("initial", "trained"), strict=True):
        panel.grid(visible=False)
        image = panel.imshow(values, origin="lower", cmap="viridis", vmin=0, vmax=top)
        for (i, j), value in np.ndenumerate(values):
            panel.text(
                j, i, f"{value:.3f}", ha="center", va="center", color="black" if value > top / 2 else "white"
            )
        panel.set_xticks(range(len(s.widths)), s.widths)
        panel.set_yticks(range(len(s.depths)), s.depths)
        panel.set(xlabel="width", ylabel="depth", title=title)
    fig.colorbar(image, ax=panels, label="J(θ) / ½‖Y‖²")
    fig.suptitle(
        f"Stationary value, {s.dataset}, {s.samples:,} samples; without a net ½‖Y‖² = {baseline:.4g}"
    )
    return fig


def told(last: Record) -> str:
    """Say what a cell gave."""
    return (
        f"depth {last['depth']}, width {last['width']}: J {last['initial']['value']:.5g} → "
        f"{last['trained']['value']:.5g}, loss {last['trained']['loss']:.5g}, {last['seconds']} s"
    )


@experiment(
    __doc__,
    FOLDER,
    quick="2 × 2 cells, 100 samples, 2 epochs",
    paper="the paper's numbers of samples, widths up to 50",
    options={
        "--dataset": {"choices": DATASETS, "default": "synthetic"},
        "--seeds": {"type": int, "default": 1, "help": "seeds a cell, trained in one call"},
    },
)
def main(args: argparse.Namespace) -> Findings:
    """Run the cells that are missing, say where J does not decrease."""
    s = settings(args.dataset, "quick" if args.quick else "paper" if args.paper else "cpu", args.seeds)
    args.out = args.out or Path(FOLDER, s.dataset)
    axes = {"depth": s.depths, "width": s.widths}
    records = cells(args.out, asdict(s), axes, partial(cell, load(s.dataset, s.samples), s), told)
    found = exceptions(records, s)
    comparisons = 2 * (len(s.depths) * (len(s.widths) - 1) + len(s.widths) * (len(s.depths) - 1))
    comparisons += len(s.depths) * len(s.widths)
    text = [f"J increases in {len(found)} of {comparisons} comparisons", *(f"  {f}" for f in found)]
    return Findings(content(asdict(s), records, increases=found), partial(figure, records, s), text)


if __name__ == "__main__":
    main()
