"""Figure 5: test accuracy of a residual net over the width of its last stage, under the regime and under plain SGD.

Command:  python -m experiments.narrow_fig5 --dataset digits|cifar10|cifar100|svhn [--size cpu|gpu] [--quick]
          python -m experiments.narrow_fig5 --dataset restricted-imagenet --images DIR [--size cpu|gpu]
          (and --samples, --widths, --radii, --seeds, --epochs, --raw-dir)
Cost:     ``--quick``: 200 digits, one block, seconds. ``cpu``, 16 nets a seed: CIFAR-10 two minutes a net on one
          busy core, 920 images from files 25 seconds. ``gpu``: for an accelerator; not run on one yet, its
          training is compiled for one by ``make aot``. Run again after an interruption: cells are kept.
Expected: the paper's two messages: at the full width the regime is above plain SGD; the narrow net comes close to the
          full one under the regime, and not under SGD. ``gpu`` on CIFAR-10: 94 %, and after how many epochs.
Measured: neither message is seen beyond the errors. CIFAR-10 (docs/figures/narrow_fig5_cifar10.*), three seeds, test
          accuracy at widths 16, 32, 64, 128: plain SGD 61.0, 62.2, 61.5, 63.5 %; ε = 10, which only the widest net
          reaches, 60.0, 61.8, 62.3, 63.0 %; ε = 1 57.7, 59.0, 59.9, 61.5 %; ε = 0.1 49.4, 51.6, 52.5, 53.3 %; the error
          from 10,000 test images is 0.5 points. Plain SGD travels 7 to 12: ε = 1 costs 1.6 to 3.3 points, ε = 0.1 9 to
          12, at every width, and the narrowest net is 2.5 to 4 points below the widest with and without the regime.
          Restricted ImageNet (docs/figures/narrow_fig5_restricted_imagenet.*), 920 training and 230 test images, three
          seeds: ε = 1 40.9, 46.4, 46.8, 47.4 %, plain SGD 46.1, 44.5, 45.7, 43.8 %; a standard deviation over seeds is
          0.5 to 5.4 points and the error from 230 test images 3.3: too few to tell the methods apart. The same seeds on
          two cores instead of one had given 43.0, 48.3, 47.2, 44.9 and 43.8, 41.2, 41.9, 47.4 %.
Writes:   runs/narrow_fig5/DATASET/summary.json (one record a width, radius and seed; plain SGD has none), figure.png.

One optimizer for all: SGD with momentum 0.9, weight decay 5e-4, a step size that falls as a cosine. The regime is the
mirrored start with the pairwise head, the last stage in a ball of radius ε, the head in its cone; plain SGD is the net
with the usual head and start. ``cpu``: ResNet-18 with a quarter of the channels and half of the blocks; images of 32 ×
32 are folded to 16 × 16 pixels of 12 colours, images of files cut to 64 × 64; 25,000 training images and four epochs of
CIFAR-10, ten epochs of the others, of ``svhn`` and ``cifar100`` the subsets of 5,000 + 1,000 images. ``gpu``: the whole
ResNet-18, all images, cropped and flipped inside the compiled step, bfloat16, files cut to 224 × 224; the test images
are looked at after every second epoch. ``restricted-imagenet`` streams the files of DIR/train and tests on DIR/val (one
folder a class, named by its WordNet number).

Reference: "When Expressivity Meets Trainability", section 5 and Figure 5.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from rich.table import Table

import narrow_jax as nj

from ._image_sets import (
    RESTRICTED,
    FromBytes,
    ImageSet,
    accuracy,
    crop_and_flip,
    in_arrays,
    in_files,
)
from ._run import Figure, Record, canvas, cells, experiment, path, require_memory, table

SUBSETS = {"cifar100": "cifar100_subset", "svhn": "svhn_cropped_subset"}
WHOLE = {"svhn": "svhn_cropped"}
DATASETS = ("digits", "cifar10", "cifar100", "svhn", RESTRICTED)
GOAL = 0.94
"""Test accuracy of CIFAR-10 that a whole ResNet-18 is expected to reach."""


class Recipe(NamedTuple):
    """How nets are made and trained, whatever their width, radius and seed.

    Fields:
        channels: of all stages but the last.
        blocks: of each stage.
        pixels: of images from files.
        batch_size: images a step.
        whole: all images, cropped and flipped, in bfloat16, looked at on the way.
        learning_rate, momentum, weight_decay: of SGD.
    """

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    pixels: int
    batch_size: int = 100
    whole: bool = False
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4


RECIPES = {
    "tiny": Recipe((), (1,), 16),
    "cpu": Recipe((16, 32, 64), (1, 1, 1, 1), 64),
    "gpu": Recipe((64, 128, 256), (2, 2, 2, 2), 224, batch_size=128, whole=True),
}
GRIDS: dict[str, Record] = {
    "tiny": {"widths": [8], "radii": [1.0], "seeds": 1, "epochs": 4},
    "cpu": {"widths": [16, 32, 64, 128], "radii": [0.1, 1.0, 10.0], "seeds": 3, "epochs": 10},
    "gpu": {"widths": [64, 512], "radii": [1.0, 10.0, 100.0], "seeds": 5, "epochs": 30},
}
"""The sizes that are taken where none is given; as many images as there are."""
CIFAR10_ON_CPU = {"samples": 25_000, "epochs": 4}


def load(args: argparse.Namespace) -> ImageSet:
    """Return the images: those of Restricted ImageNet from files."""
    if args.dataset == RESTRICTED:
        if args.images is None:
            raise argparse.ArgumentError(
                None, f"{RESTRICTED} is read from files: pass --images DIR with DIR/train and DIR/val"
            )
        return in_files(args.images, RECIPES[args.size].pixels, args.samples)
    whole = RECIPES[args.size].whole
    name = (WHOLE if whole else SUBSETS).get(args.dataset, args.dataset)
    return in_arrays(name, args.samples, args.raw_dir, fold=name != "digits" and not whole)


def net_of(recipe: Recipe, dataset: str, outputs: int, width: int, radius: float | None) -> nj.models.ResNet:
    """Return the net: without a radius the usual one."""
    return nj.models.ResNet(
        channels=(*recipe.channels, width),
        blocks=recipe.blocks,
        outputs=outputs,
        head="dense" if radius is None else "pairwise",
        stem="imagenet" if dataset == RESTRICTED else "small",
    )


def forward_of(recipe: Recipe, net: nj.models.ResNet, in_bytes: bool) -> Callable[..., Any]:
    """Return the net as ``nj.fit`` takes it."""
    forward: Callable[..., Any] = nj.models.Stateful(net)
    forward = nj.precision.bfloat16(forward) if recipe.whole else forward
    return FromBytes(forward) if in_bytes else forward


@functools.cache
def optimizer(
    recipe: Recipe, radius: float | None, steps: int, net: nj.models.ResNet
) -> optax.GradientTransformation:
    """Return SGD, in the regime if there is a radius; the same object for all seeds, so that nothing compiles twice."""
    rate = optax.cosine_decay_schedule(recipe.learning_rate, steps)
    sgd = optax.chain(
        optax.add_decayed_weights(recipe.weight_decay), optax.sgd(rate, momentum=recipe.momentum)
    )
    return sgd if radius is None else nj.constraints.regime(sgd, radius, labels=net.labels)


@functools.cache
def init_of(net: nj.models.ResNet) -> Callable[..., dict[str, Any]]:
    """Return ``net.init`` in one program, the same for all seeds."""
    return jax.jit(net.init)


class Looks(nj.callbacks.Callback):
    """Looks at the test images after every second record, the last one too.

    Args:
        score: accuracy on them, of params and variables.
        epoch: steps of an epoch.
    """

    def __init__(self, score: Callable[[Any, Any], float], epoch: int) -> None:
        """Begin the clock."""
        self.score, self.epoch, self.began = score, epoch, time.perf_counter()
        self.seen: list[Record] = []

    def start(self, run: nj.callbacks.Run) -> nj.callbacks.Run:
        """Ask to be told as often as possible."""
        return run.looked_at(1)

    def record(self, told: nj.callbacks.Told) -> None:
        """Note the test accuracy after so many epochs and seconds."""
        seconds = round(time.perf_counter() - self.began, 1)
        found = self.score(told.state.params, told.state.model_state)
        self.seen.append({"epoch": told.step // self.epoch, "seconds": seconds, "test_accuracy": found})


def cell(
    args: argparse.Namespace, data: ImageSet, seed: int, width: int, radius: float | None
) -> list[Record]:
    """Train one net; without a radius it is the usual one under plain SGD."""
    recipe = RECIPES[args.size]
    batch_size = min(recipe.batch_size, data.samples)
    epoch = data.samples // batch_size
    steps = args.epochs * epoch
    net = net_of(recipe, args.dataset, data.outputs, width, radius)
    # rbg: a quarter of the time to compile
    state = init_of(net)(jax.random.key(seed, impl="rbg"), data.first)
    params = state.pop("params")
    forward = forward_of(recipe, net, data.in_bytes)
    looks = Looks(lambda params, state: accuracy(forward, params, state, *data.test), epoch)
    result = nj.fit(
        forward,
        params,
        optimizer(recipe, radius, steps, net),
        data.train,
        steps=steps,
        every=epoch if recipe.whole else steps,
        loss="cross_entropy",
        batch_size=batch_size,
        key=jax.random.key(seed),
        augment=crop_and_flip if recipe.whole else None,
        model_state=state,
        callbacks=[looks, nj.callbacks.Progress()],
    )
    last, there = net.last_stage, result.params
    moved = jax.tree.map(lambda now, before: now - before, there[last], params[last])
    record = {
        "width": width,
        "radius": radius,
        "seed": seed,
        "test_accuracy": looks.seen[-1]["test_accuracy"],
        "test_images": len(data.test[1]),
        "train_accuracy": float(result.history["accuracy"][-1]),
        "loss": float(result.history["loss"][-1]),
        "diverged": bool(result.diverged),
        "distance": float(optax.tree.norm(moved)),
        "looks": looks.seen,
    }
    return [record]


def name_of(radius: float | None) -> str:
    """Return the name of a method for people."""
    return "plain SGD" if radius is None else f"regime, ε = {radius:g}"


def figure(content: Record) -> Figure:
    """Draw the mean over seeds against the width, with error bars of one standard deviation.

    Thick ones are over seeds; thin ones have the binomial error √(p(1 − p)/n) of n test images too.
    """
    s, records = content["settings"], content["cells"]
    widths = sorted({r["width"] for r in records})
    radii = {r["radius"] and float(r["radius"]) for r in records}
    methods = sorted(radii, key=lambda radius: (radius is None, radius))
    fig = canvas(7.5, 5.2)
    axes = fig.subplots()
    for place, radius in enumerate(methods):
        x, mean, over_seeds = np.array(
            [
                (
                    widths.index(width) + 0.14 * (place - (len(methods) - 1) / 2),
                    *mean_and_deviation(accuracies),
                )
                for width in widths
                if (accuracies := accuracies_of(records, width, radius))
            ]
        ).T
        color = "black" if radius is None else f"C{place}"
        both = np.sqrt(over_seeds**2 + mean * (1 - mean) / records[0]["test_images"])
        axes.errorbar(x, 100 * mean, 100 * both, fmt="none", color=color, capsize=4, elinewidth=1)
        axes.errorbar(
            x,
            100 * mean,
            100 * over_seeds,
            fmt="--s" if radius is None else "-o",
            color=color,
            elinewidth=4,
            label=name_of(radius),
        )
    axes.set_xticks(range(len(widths)), map(str, widths))
    axes.set(xlabel="channels of the last stage", ylabel="test accuracy (%)")
    axes.set_title(
        f"{s['dataset']}, {s['epochs']} epochs, {seeds_of(records)}\n"
        f"bars: thick over seeds, thin with the binomial error of {records[0]['test_images']:,} test images"
    )
    fig.legend(loc="outside lower center", ncols=len(methods))
    return fig


def accuracies_of(records: list[Record], width: int, radius: float | None) -> list[float]:
    """Return the test accuracies of a width and method, one a seed."""
    return [
        r["test_accuracy"]
        for r in records
        if (r["width"], r["radius"] and float(r["radius"])) == (width, radius)
    ]


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """Return mean and standard deviation, which of one value is 0."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def seeds_of(records: list[Record]) -> str:
    """Say how many seeds there are: fewer of some cells while a run is not at its end."""
    counts = {len(accuracies_of(records, r["width"], r["radius"] and float(r["radius"]))) for r in records}
    fewest, most = min(counts), max(counts)
    return f"{most} seed{'s' * (most > 1)}" if fewest == most else f"{fewest} to {most} seeds"


def told(last: Record) -> str:
    """Say what a cell gave."""
    return (
        f"width {last['width']}, {name_of(last['radius'])}, seed {last['seed']}: "
        f"test accuracy {100 * last['test_accuracy']:.1f} %"
    )


def to_goal(records: list[Record]) -> Table:
    """Return a table of when nets reached the goal."""
    rows = []
    for r in records:
        first = next((look for look in r["looks"] if look["test_accuracy"] >= GOAL), None)
        when = ("never", "") if first is None else (str(first["epoch"]), f"{first['seconds']:.0f}")
        net = f"{r['width']}, {name_of(r['radius'])}, seed {r['seed']}"
        rows.append((net, f"{100 * r['test_accuracy']:.1f} %", *when))
    headings = ("net", "test accuracy", f"epochs to {GOAL:.0%}", "seconds")
    return table("Channels of the last stage, and method", headings, rows)


def memory_needed(recipe: Recipe, net: nj.models.ResNet, data: ImageSet) -> float:
    """Return about how many bytes a cell takes: eight times the weights, the images twice, the maps of a batch."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), data.first)
    weights = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    area = np.prod(data.first.shape[1:3]) / (16 if net.stem == "imagenet" else 1)
    maps = sum(6 * b * c * area / 4**s for s, (c, b) in enumerate(zip(net.channels, net.blocks, strict=True)))
    images = 2 * data.test[0].nbytes * (1 if data.in_bytes else 1 + data.samples / len(data.test[1]))
    return 32 * weights + images + 4 * recipe.batch_size * maps


@experiment(
    __doc__,
    "runs/narrow_fig5",
    figure,
    sizes=dict.fromkeys(("samples", "widths", "radii", "seeds", "epochs", "raw_dir")),
    quick={"dataset": "digits", "size": "tiny", "samples": 200},
    options={
        "dataset": {"choices": DATASETS, "default": "cifar10", "help": "whose images"},
        "images": {"type": path, "help": f"folder of the images of {RESTRICTED}"},
        "size": {"choices": tuple(RECIPES), "default": "cpu", "help": "how large nets and data are"},
    },
)
def main(args: argparse.Namespace) -> list[Table]:
    """Run the cells that are missing, all of the first seed first."""
    cifar10 = CIFAR10_ON_CPU if (args.dataset, args.size) == ("cifar10", "cpu") else {}
    for name, usual in {**GRIDS[args.size], **cifar10}.items():
        setattr(args, name, getattr(args, name) or usual)
    recipe, data = RECIPES[args.size], load(args)
    require_memory(
        memory_needed(recipe, net_of(recipe, args.dataset, data.outputs, max(args.widths), None), data),
        f"a net with {max(args.widths)} channels in its last stage on {data.samples:,} images",
    )
    axes = {"seed": range(args.seeds), "width": args.widths, "radius": (*args.radii, None)}
    records = cells(
        args, axes, functools.partial(cell, args, data), told, data=data.mark, recipe=recipe._asdict()
    )
    return [to_goal(records)] if recipe.whole and args.dataset == "cifar10" else []


if __name__ == "__main__":
    main()
