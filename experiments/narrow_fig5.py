"""Figure 5: test accuracy of a residual net over the width of its last stage, under the regime and under plain SGD.

Command:  python -m experiments.narrow_fig5 --dataset digits|cifar10|cifar100|svhn [--size cpu|gpu] [--quick]
          python -m experiments.narrow_fig5 --dataset restricted-imagenet --images DIR [--size cpu|gpu]
Cost:     ``--quick``: 200 digits, one block, seconds. ``cpu``: ResNet-18 with a quarter of the channels and half of the
          blocks, 5,000 images: 16 cells a seed, on two cores some 20 seconds each for 920 images of Restricted
          ImageNet, not timed for 5,000 images. ``gpu``: the whole ResNet-18, all images, for an accelerator.
          Run again after an interruption: cells are kept.
Expected: the paper's two messages: at the full width the regime is above plain SGD; the narrow net comes close to the
          full one under the regime, and not under SGD.
Measured: ``--dataset restricted-imagenet --seeds 3`` on 920 training and 230 test images of 64 × 64: test accuracy at
          widths 16, 32, 64, 128: regime with ε = 1 43.0, 48.3, 47.2, 44.9 %, plain SGD 43.8, 41.2, 41.9, 47.4 %; one
          standard deviation over seeds is 0.4 to 4.5 points, and the binomial error of 230 test images 3.3 points for
          every number. With it the largest difference, 7.1 points at width 32, is one and a half of its deviations:
          these images are too few to tell the methods apart. ε = 0.1 is too small for the narrowest net, ε = 10 is
          never reached. 18 minutes on two cores
          (docs/figures/narrow_fig5_restricted_imagenet.*). Not recorded at the size ``gpu``.
Writes:   DIR/summary.json (settings, machine, one record a width, method and seed) and DIR/figure.png.

One optimizer for all: SGD with momentum 0.9, weight decay 5e-4, a step size that falls as a cosine. The regime is the
mirrored start with the pairwise head, the last stage in a ball of radius ε, the head in its cone; plain SGD is the net
with the usual head and start. The images come from the original files (NARROW_JAX_RAW); ``svhn`` and ``cifar100`` are
the subsets of 5,000 + 1,000 images there at the size ``cpu``. ``restricted-imagenet`` streams the files of DIR/train
and tests on DIR/val (one folder a class, named by its WordNet number), cut to 64 × 64 at the size ``cpu``, else to
224 × 224.

Reference: "When Expressivity Meets Trainability", section 5 and Figure 5.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import narrow_jax as nj

from ._image_sets import RESTRICTED, FromBytes, ImageSet, accuracy, in_arrays, in_files, scaled
from ._run import Figure, Findings, Record, canvas, cells, experiment, machine, path

FOLDER = "runs/narrow_fig5"
SUBSETS = {"cifar100": "cifar100_subset", "svhn": "svhn_cropped_subset"}
WHOLE = {"svhn": "svhn_cropped"}
DATASETS = ("digits", "cifar10", "cifar100", "svhn", RESTRICTED)


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
    stem: str = "small"
    pixels: int | None = None
    batch_size: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4


def settings(dataset: str, size: str, seeds: int) -> Settings:
    """Return the settings of a size: "quick", "cpu" or "gpu"."""
    if size == "quick":
        return Settings("digits", 200, (), (1,), (8,), (1.0,), seeds, epochs=4)
    stem, pixels = ("imagenet", 64 if size == "cpu" else 224) if dataset == RESTRICTED else ("small", None)
    whole = Settings(
        dataset,
        samples=None,
        channels=(64, 128, 256),
        blocks=(2,) * 4,
        widths=(64, 128, 256, 512),
        radii=(1.0, 10.0, 100.0, 1000.0),
        seeds=seeds,
        epochs=30,
        stem=stem,
        pixels=pixels,
    )
    if size == "gpu":
        return whole
    return replace(
        whole,
        samples={"digits": 1400, "cifar10": 5000}.get(dataset),
        channels=(16, 32, 64),
        blocks=(1,) * 4,
        widths=(16, 32, 64, 128),
        radii=(0.1, 1.0, 10.0),
        epochs=10,
    )


def load(s: Settings, size: str, folder: Path | None) -> ImageSet:
    """Return the images: those of Restricted ImageNet from files in ``folder``."""
    if s.pixels is None:
        return in_arrays((SUBSETS if size == "cpu" else WHOLE).get(s.dataset, s.dataset), s.samples)
    if folder is None:
        raise SystemExit(f"{RESTRICTED} is read from files: pass --images DIR with DIR/train and DIR/val")
    return in_files(folder, s.pixels)


@functools.cache
def optimizer(
    s: Settings, radius: float | None, steps: int, net: nj.models.ResNet
) -> optax.GradientTransformation:
    """Return SGD, in the regime if there is a radius; the same object for all seeds, so that nothing compiles twice."""
    rate = optax.cosine_decay_schedule(s.learning_rate, steps)
    sgd = optax.chain(optax.add_decayed_weights(s.weight_decay), optax.sgd(rate, momentum=s.momentum))
    return sgd if radius is None else nj.constraints.regime(sgd, radius, labels=net.labels)


@functools.cache
def init_of(net: nj.models.ResNet) -> Callable[..., dict[str, Any]]:
    """Return ``net.init`` in one program, the same for all seeds."""
    return jax.jit(net.init)


def cell(
    s: Settings, data: ImageSet, width: int, radius: float | None, seed: int, progress: bool
) -> list[Record]:
    """Train one net; without a radius it is the usual one under plain SGD."""
    started = time.perf_counter()
    net = nj.models.ResNet(
        channels=(*s.channels, width),
        blocks=s.blocks,
        outputs=data.outputs,
        head="dense" if radius is None else "pairwise",
        stem=s.stem,
    )
    first = scaled(data.first) if data.in_bytes else data.first
    state = init_of(net)(jax.random.key(seed, impl="rbg"), first)  # rbg: a quarter of the time to compile
    params = state.pop("params")
    steps = s.epochs * (data.samples // s.batch_size)
    forward = FromBytes(nj.models.Stateful(net)) if data.in_bytes else nj.models.Stateful(net)
    result = nj.fit(
        forward,
        params,
        optimizer(s, radius, steps, net),
        data.train,
        steps=steps,
        every=steps,
        loss="cross_entropy",
        batch_size=s.batch_size,
        key=jax.random.key(seed),
        model_state=state,
        callbacks=[nj.callbacks.Progress(progress)],
    )
    record = {
        "width": width,
        "radius": radius,
        "seed": seed,
        "test_accuracy": accuracy(forward, result, data.test, data.test_labels),
        "test_images": len(data.test_labels),
        "train_accuracy": float(result.history["accuracy"][-1]),
        "loss": float(result.history["loss"][-1]),
        "diverged": bool(result.diverged),
        "distance": None if radius is None else float(result.history["distance"][-1]),
        "seconds": round(time.perf_counter() - started, 1),
    }
    return [record]


def name_of(radius: float | None) -> str:
    """Return the name of a method for people."""
    return "plain SGD" if radius is None else f"regime, ε = {radius:g}"


def figure(records: list[Record], s: Settings) -> Figure:
    """Draw the mean over seeds against the width, with error bars of one standard deviation.

    Thick ones are over seeds; thin ones have the binomial error √(p(1 − p)/n) of n test images too.
    """
    fig = canvas(7.5, 5.2)
    axes = fig.subplots()
    images = records[0]["test_images"]
    for place, radius in enumerate((*s.radii, None)):
        curve = [
            [r["test_accuracy"] for r in records if (r["width"], r["radius"]) == (width, radius)]
            for width in s.widths
        ]
        means, over_seeds = np.mean(curve, axis=1), np.std(curve, axis=1)
        color = "black" if radius is None else f"C{place}"
        x = np.arange(len(s.widths)) + 0.14 * (place - len(s.radii) / 2)  # beside each other
        both = np.sqrt(over_seeds**2 + means * (1 - means) / images)
        axes.errorbar(x, 100 * means, 100 * both, fmt="none", color=color, capsize=4, elinewidth=1)
        axes.errorbar(
            x,
            100 * means,
            100 * over_seeds,
            fmt="--s" if radius is None else "-o",
            color=color,
            elinewidth=4,
            label=name_of(radius),
        )
    axes.set_xticks(range(len(s.widths)), [str(width) for width in s.widths])
    axes.set(xlabel="channels of the last stage", ylabel="test accuracy (%)")
    axes.set_title(
        f"{s.dataset}, {s.epochs} epochs\n"
        f"bars: thick over {s.seeds} seeds, thin with the binomial error of {images:,} test images"
    )
    fig.legend(loc="outside lower center", ncols=len(s.radii) + 1)
    return fig


def told(last: Record) -> str:
    """Say what a cell gave."""
    return (
        f"width {last['width']}, {name_of(last['radius'])}, seed {last['seed']}: test accuracy "
        f"{100 * last['test_accuracy']:.1f} %, {last['seconds']} s"
    )


@experiment(
    __doc__,
    FOLDER,
    quick="200 digits, one width, one radius",
    options={
        "--dataset": {"choices": DATASETS, "default": "cifar10"},
        "--images": {"type": path, "help": f"folder of the images of {RESTRICTED}"},
        "--size": {"choices": ("cpu", "gpu"), "default": "cpu", "help": "how large nets and data are"},
        "--seeds": {"type": int, "help": "seeds a cell (default: 5, with --quick 1)"},
    },
)
def main(args: argparse.Namespace) -> Findings:
    """Run the cells that are missing."""
    size = "quick" if args.quick else args.size
    s = settings(args.dataset, size, args.seeds or (1 if args.quick else 5))
    args.out = args.out or Path(FOLDER, s.dataset)
    train = functools.partial(cell, s, load(s, size, args.images), progress=not args.quick)
    axes = {"width": s.widths, "radius": (*s.radii, None), "seed": range(s.seeds)}
    records = cells(args.out, asdict(s), axes, train, told, machine=machine())
    return Findings(None, functools.partial(figure, records, s), [])


if __name__ == "__main__":
    main()
