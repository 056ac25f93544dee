"""Narrow nets on images: test accuracy over widths, the regime at several ε against plain SGD.

Command:  python -m experiments.narrow_images --dataset mnist|cifar10|cifar100|cifar100_subset|digits [--quick]
          (and --samples, --held-out, --widths, --radii, --epochs, --seeds, --raw-dir)
Cost:     9 cells on two cores beside other work: 2.5 minutes for MNIST, 8 for CIFAR-10, 3 for the CIFAR-100 subset; 4
          for 48,000 images of CIFAR-10 at one width. Run again after an interruption: cells are kept. ``--quick``:
          digits, seconds.
Expected: the regime (pairwise net, ball, cone) comes close to the test accuracy of plain SGD on a standard net of the
          same width, although it stays within ε of its start.
Measured: mean test accuracy of 3 seeds at widths 8, 32, 128 (docs/figures/narrow_images_*). Plain SGD / regime with
          ε = 1 / with ε = 10: MNIST 88.0, 92.9, 95.3 / 85.2, 91.7, 92.9 / 85.3, 93.3, 95.6 %; CIFAR-10 34.6, 39.5, 40.9
          / 32.0, 39.6, 40.6 / 30.6, 39.6, 41.5 %; CIFAR-100 subset 5.3, 11.2, 16.0 / 3.6, 11.0, 15.2 / 2.3, 7.7,
          15.6 %; 48,000 images of CIFAR-10, width 32: 42.9 / 41.9 / 42.5 %. Competitive at 32 and 128 with the better
          of the two ε, lower at 8. Every run with ε = 1 ends on the ball, with ε = 10 those on MNIST.
Writes:   runs/narrow_images/DATASET/summary.json (one record a width and method) and figure.png.

Both train by momentum SGD on the cross-entropy, with a cosine-decayed step size from one grid that is chosen, for each
cell, by the accuracy on held-out training images; the test images are looked at once, with the step size chosen.

Reference: "When Expressivity Meets Trainability", section 5 and appendix H.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial

import jax
import numpy as np
import optax

import narrow_jax as nj

from ._nets import Net, Params, pairwise, standard
from ._run import (
    EVEN_WIDTHS,
    Figure,
    Record,
    canvas,
    cells,
    digest,
    experiment,
    positive,
    require_memory,
)

DATASETS = ("mnist", "cifar10", "cifar100", "cifar100_subset", "digits")
MOMENTUM = 0.9
BATCH = 100
RATES = (3, 10, 30, 100, 300)  # step sizes times the number d of inputs: standardised, E‖x‖² = d
USUAL = {"cifar100_subset": (4000, 1000), "digits": (1200, 200)}
"""Training and held-out images where no numbers are given; of other sets 10,000 and 2,000."""


def load(args: argparse.Namespace) -> nj.data.Dataset:
    """Return training and held-out rows, in one, and the test rows."""
    options: Record = {"test_fraction": 0.2} if args.dataset == "digits" else {}
    rows = args.samples + args.held_out
    return nj.data.load(args.dataset, samples=rows, normalize="scale", raw_dir=args.raw_dir, **options)


def accuracy(net: Net, params: Params, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the accuracy of each of a stack of nets."""
    outputs = np.asarray(jax.jit(jax.vmap(net.apply_fn, in_axes=(0, None)))(params, x))
    return np.mean(np.argmax(outputs, axis=-1) == labels, axis=-1)


def train(
    args: argparse.Namespace, data: nj.data.Dataset, net: Net, width: int, radius: float | None
) -> nj.FitResult:
    """Train all step sizes and seeds of a cell in one call: axes (rate, seed)."""
    assert data.labels is not None
    steps = args.epochs * (args.samples // min(BATCH, args.samples))
    sizes = {"inputs": data.x.shape[1], "width": width, "outputs": data.classes}

    def setup(rate: float, seed: jax.Array) -> tuple[Params, optax.GradientTransformation]:
        sgd = optax.sgd(optax.cosine_decay_schedule(rate, steps), momentum=MOMENTUM)
        return net.start(jax.random.key(seed), **sizes), sgd if radius is None else net.regime(sgd, radius)

    return nj.sweep(
        net.apply_fn,
        setup,
        (data.x[: args.samples], data.labels[: args.samples]),
        grid={"rate": [rate / data.x.shape[1] for rate in RATES], "seed": np.arange(args.seeds)},
        steps=steps,
        every=steps,
        loss="cross_entropy",
        batch_size=min(BATCH, args.samples),
        key=jax.random.key(0),
        evaluation=(data.x[args.samples :], data.labels[args.samples :]),
        progress=False,
    )


def cell(args: argparse.Namespace, data: nj.data.Dataset, width: int, radius: float | None) -> list[Record]:
    """Return the record of a cell: the step size chosen on held-out rows, and its accuracies, one a seed.

    Without a radius it is the standard net under plain SGD.
    """
    net = standard(args.activation) if radius is None else pairwise(args.activation)
    result = train(args, data, net, width, radius)
    last = {name: np.asarray(values[..., -1], float) for name, values in result.history.items()}
    held_out = np.nan_to_num(last["test_accuracy"]).mean(axis=1)
    best = int(held_out.argmax())
    assert data.x_test is not None and data.labels_test is not None  # noqa: PT018
    test = accuracy(net, jax.tree.map(lambda leaf: leaf[best], result.params), data.x_test, data.labels_test)
    record = {
        "width": width,
        "radius": radius,
        "learning_rate": round(RATES[best] / data.x.shape[1], 5),
        "held_out_accuracy_of_rates_times_d": dict(
            zip(map(str, RATES), held_out.round(4).tolist(), strict=True)
        ),
        "test_accuracy": test.round(4).tolist(),
        "test_images": len(data.x_test),
        "train_accuracy": last["accuracy"][best].round(4).tolist(),
        "diverged": int(np.sum(result.diverged)),
    }
    if radius is not None:
        record["distance"] = last["distance"][best].round(3).tolist()
    return [record]


def figure(content: Record) -> Figure:
    """Draw test and training accuracy over the width, mean and range of the seeds."""
    s, records = content["settings"], sorted(content["cells"], key=lambda r: r["width"])
    radii = sorted({float(r["radius"]) for r in records if r["radius"] is not None})
    fig = canvas(7.5, 4.6)
    axes = fig.subplots()
    widths = sorted({r["width"] for r in records})
    for (place, radius), (what, style) in itertools.product(
        enumerate([None, *radii]), (("test", "o-"), ("train", "s:"))
    ):
        rows = [r for r in records if (r["radius"] and float(r["radius"])) == radius]
        values = 100 * np.array([row[f"{what}_accuracy"] for row in rows])
        mean = values.mean(axis=1)
        axes.errorbar(
            [row["width"] * 1.03**place for row in rows],  # beside each other
            mean,
            yerr=[mean - values.min(axis=1), values.max(axis=1) - mean],
            fmt=style,
            color=f"C{place}" if place else "black",
            capsize=3,
            mfc="white" if what == "train" else None,
            label=f"{name_of(radius)}, {what}",
        )
    axes.set_xscale("log", base=2)
    axes.set_xlim(widths[0] / 1.5, widths[-1] * 1.5)
    axes.set_xticks(widths, map(str, widths))
    axes.set(xlabel="width", ylabel="accuracy (%)")
    axes.set_title(
        f"{s['dataset']}, {s['samples']:,} training images, {s['epochs']} epochs, {s['seeds']} seeds"
    )
    fig.legend(loc="outside right center")
    return fig


def name_of(radius: float | None) -> str:
    """Return the name of a method for people."""
    return "plain SGD" if radius is None else f"regime, ε = {radius:g}"


def told(last: Record) -> str:
    """Say what a cell gave."""
    return (
        f"width {last['width']}, {name_of(last['radius'])}: test {100 * np.mean(last['test_accuracy']):.1f} %, "
        f"step size {last['learning_rate']}"
    )


@experiment(
    __doc__,
    "runs/narrow_images",
    figure,
    sizes={
        "samples": None,
        "widths": (8, 32, 128),
        "radii": (1.0, 10.0),
        "activation": "tanh",
        "epochs": 8,
        "seeds": 3,
        "raw_dir": None,
    },
    quick={
        "dataset": "digits",
        "samples": 600,
        "held_out": 200,
        "widths": (16,),
        "radii": (1.0,),
        "epochs": 3,
    },
    options={
        "dataset": {"choices": DATASETS, "default": "cifar10", "help": "whose images"},
        "held_out": {"type": positive, "help": "training images that the step size is chosen by"},
        **EVEN_WIDTHS,
    },
)
def main(args: argparse.Namespace) -> list[str]:
    """Run the cells that are missing."""
    samples, held_out = USUAL.get(args.dataset, (10_000, 2000))
    args.samples, args.held_out = args.samples or samples, args.held_out or held_out
    data = load(args)
    runs = len(RATES) * args.seeds
    require_memory(
        12 * data.x.nbytes + 4 * runs * max(args.widths) * (6 * data.x.shape[1] + len(data.x)),
        f"a call of {runs} runs with {max(args.widths)} hidden units on {len(data.x):,} images",
    )
    axes = {"width": args.widths, "radius": (None, *args.radii)}
    cells(args, axes, partial(cell, args, data), told, data=digest(data.x, data.labels))
    return []


if __name__ == "__main__":
    main()
