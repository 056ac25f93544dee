"""Figure 5: test accuracy of a residual net over the width of its last stage, under the regime and under plain SGD.

Command:  python -m experiments.narrow_fig5 --dataset digits|cifar10|cifar100|svhn [--size cpu|gpu] [--quick]
Cost:     not measured yet. ``--quick``: 200 digits, one block. ``cpu``: ResNet-18 with a quarter of the channels and
          half of the blocks, 5,000 images. ``gpu``: the whole ResNet-18, all images, for an accelerator.
          Run again after an interruption: cells are kept.
Expected: the paper's two messages: at the full width the regime is above plain SGD; the narrow net comes close to the
          full one under the regime, and not under SGD.
Measured: not recorded yet at full size.
Writes:   DIR/summary.json (settings, machine, one record a width, method and seed) and DIR/figure.png.

One optimizer for all: SGD with momentum 0.9, weight decay 5e-4, a step size that falls as a cosine. The regime is the
mirrored start with the pairwise head, the last stage in a ball of radius ε, the head in its cone; plain SGD is the net
with the usual head and start. The images come from the original files (NARROW_JAX_RAW); ``svhn`` and ``cifar100`` are
the subsets of 5,000 + 1,000 images there at the size ``cpu``.

Reference: "When Expressivity Meets Trainability", section 5 and Figure 5.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

import narrow_jax as nj
from experiments._cells import machine, resumed

FOLDER = Path("runs/narrow_fig5")
SUBSETS = {"cifar100": "cifar100_subset", "svhn": "svhn_cropped_subset"}
WHOLE = {"svhn": "svhn_cropped"}
DATASETS = ("digits", "cifar10", "cifar100", "svhn")


@dataclass(frozen=True)
class Settings:
    """Everything that a cell depends on beside its width, radius and seed."""

    dataset: str
    samples: int | None
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    radii: tuple[float, ...]
    seeds: int
    epochs: int
    batch_size: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4


def settings(dataset: str, size: str, seeds: int) -> Settings:
    """Return the settings of a size: "quick", "cpu" or "gpu"."""
    if size == "quick":
        return Settings("digits", 200, (), (1,), (8,), (1.0,), seeds, epochs=4)
    if size == "cpu":
        samples = {"digits": 1400, "cifar10": 5000}.get(dataset)
        return Settings(
            dataset, samples, (16, 32, 64), (1,) * 4, (16, 32, 64, 128), (1.0, 10.0, 100.0), seeds, 10
        )
    widths, radii = (64, 128, 256, 512), (1.0, 10.0, 100.0, 1000.0)
    return Settings(dataset, None, (64, 128, 256), (2,) * 4, widths, radii, seeds, epochs=30)


def load(s: Settings, size: str) -> nj.data.Dataset:
    """Return the images, normalised by one mean and one deviation."""
    names = SUBSETS if size == "cpu" else WHOLE
    return nj.data.load(
        names.get(s.dataset, s.dataset),
        samples=s.samples,
        normalize="standardize",
        test_fraction=0.2 if s.dataset == "digits" else 0.0,
    )


def images(x: np.ndarray, data: nj.data.Dataset) -> np.ndarray:
    """Return rows as images."""
    assert data.image_shape is not None
    return x.reshape(-1, *data.image_shape)


@functools.cache
def optimizer(
    s: Settings, radius: float | None, steps: int, net: nj.models.ResNet
) -> optax.GradientTransformation:
    """Return SGD, in the regime if there is a radius; the same object for all seeds, so that nothing compiles twice."""
    rate = optax.cosine_decay_schedule(s.learning_rate, steps)
    sgd = optax.chain(optax.add_decayed_weights(s.weight_decay), optax.sgd(rate, momentum=s.momentum))
    return sgd if radius is None else nj.constraints.regime(sgd, radius, labels=net.labels)


def accuracy(forward: nj.models.Stateful, result: nj.FitResult, x: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of the test images that are classified rightly, 500 at a time."""

    @jax.jit
    def classes(params: Any, state: Any, x: Any) -> Any:
        return jnp.argmax(forward(params, state, x, train=False)[0], axis=1)

    parts = [classes(result.params, result.model_state, x[i : i + 500]) for i in range(0, len(x), 500)]
    return float(np.mean(np.concatenate(parts) == labels))


def cell(
    s: Settings, data: nj.data.Dataset, width: int, radius: float | None, seed: int, progress: bool
) -> dict[str, Any]:
    """Train one net; without a radius it is the usual one under plain SGD."""
    started = time.perf_counter()
    assert data.labels is not None and data.x_test is not None and data.labels_test is not None  # noqa: PT018
    net = nj.models.ResNet(
        channels=(*s.channels, width),
        blocks=s.blocks,
        outputs=int(data.labels.max()) + 1,
        head="dense" if radius is None else "pairwise",
    )
    x = images(data.x, data)
    state = jax.jit(net.init)(jax.random.key(seed, impl="rbg"), x[:1])  # a quarter of the time to compile
    params = state.pop("params")
    steps = s.epochs * (len(x) // s.batch_size)
    forward = nj.models.Stateful(net)
    result = nj.fit(
        forward,
        params,
        optimizer(s, radius, steps, net),
        (x, data.labels),
        steps=steps,
        every=steps,
        loss="cross_entropy",
        batch_size=s.batch_size,
        key=jax.random.key(seed),
        model_state=state,
        progress=progress,
    )
    return {
        "width": width,
        "radius": radius,
        "seed": seed,
        "test_accuracy": accuracy(forward, result, images(data.x_test, data), data.labels_test),
        "train_accuracy": float(result.history["accuracy"][-1]),
        "loss": float(result.history["loss"][-1]),
        "diverged": bool(result.diverged),
        "distance": None if radius is None else float(result.history["distance"][-1]),
        "seconds": round(time.perf_counter() - started, 1),
    }


def name_of(radius: float | None) -> str:
    """Return the name of a method for people."""
    return "plain SGD" if radius is None else f"regime, ε = {radius:g}"


def figure(records: list[dict[str, Any]], s: Settings, path: Path) -> None:
    """Draw the mean over seeds against the width, with error bars of one standard deviation."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = canvas.subplots()
    for radius in (*s.radii, None):
        curve = [
            [r["test_accuracy"] for r in records if (r["width"], r["radius"]) == (width, radius)]
            for width in s.widths
        ]
        axes.errorbar(
            range(len(s.widths)),
            [100 * np.mean(values) for values in curve],
            [100 * np.std(values) for values in curve],
            fmt="k--s" if radius is None else "-o",
            capsize=3,
            label=name_of(radius),
        )
    axes.set_xticks(range(len(s.widths)), [str(width) for width in s.widths])
    axes.set(xlabel="channels of the last stage", ylabel="test accuracy (%)")
    axes.set_title(f"{s.dataset}, {s.epochs} epochs; mean and deviation of seeds ({s.seeds})")
    axes.legend()
    canvas.savefig(path, dpi=120)


def main() -> None:
    """Run the cells that are missing, write records and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=DATASETS, default="cifar10")
    parser.add_argument("--size", choices=("cpu", "gpu"), default="cpu", help="how large nets and data are")
    parser.add_argument("--quick", action="store_true", help="200 digits, one width, one radius")
    parser.add_argument("--seeds", type=int, help="seeds a cell (default: 5, with --quick 1)")
    parser.add_argument("--out", type=Path, help=f"folder of the results (default: {FOLDER}/DATASET)")
    args = parser.parse_args()
    size = "quick" if args.quick else args.size
    s = settings(args.dataset, size, args.seeds or (1 if args.quick else 5))
    folder, console = args.out or FOLDER / s.dataset, Console()
    folder.mkdir(parents=True, exist_ok=True)
    path, data = folder / "summary.json", load(s, size)
    records = resumed(path, asdict(s))
    done = {(r["width"], r["radius"], r["seed"]) for r in records}
    cells = itertools.product(s.widths, (*s.radii, None), range(s.seeds))
    missing = [point for point in cells if point not in done]
    for index, (width, radius, seed) in enumerate(missing, start=1):
        records.append(cell(s, data, width, radius, seed, progress=not args.quick))
        content = {"settings": asdict(s), "machine": machine(), "cells": records}
        path.write_text(json.dumps(content, indent=1) + "\n")
        last = records[-1]
        console.print(
            f"{index}/{len(missing)}: width {width}, {name_of(radius)}, seed {seed}: test accuracy "
            f"{100 * last['test_accuracy']:.1f} %, {last['seconds']} s"
        )
    figure(records, s, folder / "figure.png")
    console.print(f"Written: {path}, {folder / 'figure.png'}")


if __name__ == "__main__":
    main()
