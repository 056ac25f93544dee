"""Narrow nets on images: test accuracy over widths, the regime against plain SGD.

Command:  python -m experiments.narrow_images --dataset mnist|cifar10|cifar100|cifar100_subset|digits [--quick]
Cost:     10,000 training images (4,000 of the subset), 3 widths, 3 step sizes × 3 seeds in one call a cell: minutes on
          two cores. Run again after an interruption: cells are kept. ``--quick``: digits, seconds.
Expected: the regime (pairwise net, ball, cone) comes close to the test accuracy of plain SGD on a standard net of the
          same width, although it stays within ε of its start.
Measured: ``--dataset cifar10``, ε = 1, mean test accuracy of 3 seeds, regime / SGD: 33.1 / 33.8 % at width 8,
          39.4 / 39.4 % at width 32, 40.0 / 41.2 % at width 128; training accuracy 36.3 / 39.9 %, 45.2 / 46.9 %,
          45.5 / 60.1 %. Every run under the regime ends on the ball. 5 min 43 s on two cores
          (docs/figures/narrow_images_cifar10.*).
Writes:   DIR/summary.json (settings, machine, one record a cell) and DIR/figure.png.

Both train by momentum SGD on the cross-entropy, with a cosine-decayed step size that is chosen, for each cell, by the
accuracy on held-out training images; the test images are looked at once, with the step size chosen.

Reference: "When Expressivity Meets Trainability", section 5 and appendix H.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax

import narrow_jax as nj
from experiments._nets import STANDARD, Net, Params, pairwise
from experiments._run import Figure, Findings, Record, canvas, cells, experiment, machine

FOLDER = "runs/narrow_images"
DATASETS = ("mnist", "cifar10", "cifar100", "cifar100_subset", "digits")
METHODS = {"regime": pairwise(), "SGD": STANDARD}
MOMENTUM = 0.9
RATES = (10, 30, 100)  # step sizes times the number d of inputs: standardised, E‖x‖² = d


@dataclass(frozen=True)
class Settings:
    """Everything that a cell depends on beside its width and method."""

    dataset: str
    samples: int
    held_out: int
    widths: tuple[int, ...]
    epochs: int
    batch_size: int
    radius: float
    seeds: int


def settings(dataset: str, quick: bool, radius: float, seeds: int) -> Settings:
    """Return the settings of a data set: small, or sized for two cores."""
    if quick:
        return Settings("digits", 600, 200, (16,), epochs=3, batch_size=50, radius=radius, seeds=2)
    samples, held_out = {"cifar100_subset": (4000, 1000), "digits": (1200, 200)}.get(dataset, (10_000, 2000))
    return Settings(dataset, samples, held_out, (8, 32, 128), 8, 100, radius, seeds)


def load(s: Settings) -> nj.data.Dataset:
    """Return training and held-out rows, in one, and the test rows."""
    options: Record = {"test_fraction": 0.2} if s.dataset == "digits" else {}
    return nj.data.load(s.dataset, samples=s.samples + s.held_out, normalize="scale", **options)


def accuracy(net: Net, params: Params, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the accuracy of each of a stack of nets."""
    outputs = np.asarray(jax.jit(jax.vmap(net.apply_fn, in_axes=(0, None)))(params, x))
    return np.mean(np.argmax(outputs, axis=-1) == labels, axis=-1)


def train(data: nj.data.Dataset, s: Settings, width: int, method: str) -> nj.FitResult:
    """Train all step sizes and seeds of a cell in one call: axes (rate, seed)."""
    assert data.labels is not None
    steps = s.epochs * (s.samples // s.batch_size)
    net, sizes = METHODS[method], {"inputs": data.x.shape[1], "width": width, "outputs": data.classes}

    def setup(rate: float, seed: jax.Array) -> tuple[Params, optax.GradientTransformation]:
        sgd = optax.sgd(optax.cosine_decay_schedule(rate, steps), momentum=MOMENTUM)
        return net.start(jax.random.key(seed), **sizes), sgd if net is STANDARD else net.regime(sgd, s.radius)

    return nj.sweep(
        net.apply_fn,
        setup,
        (data.x[: s.samples], data.labels[: s.samples]),
        grid={"rate": [rate / data.x.shape[1] for rate in RATES], "seed": np.arange(s.seeds)},
        steps=steps,
        every=steps,
        loss="cross_entropy",
        batch_size=s.batch_size,
        key=jax.random.key(0),
        evaluation=(data.x[s.samples :], data.labels[s.samples :]),
        progress=False,
    )


def cell(data: nj.data.Dataset, s: Settings, width: int, method: str) -> list[Record]:
    """Return the record of a cell: the step size chosen on held-out rows, and its accuracies, one a seed."""
    started = time.perf_counter()
    result = train(data, s, width, method)
    last = {name: np.asarray(values[..., -1], float) for name, values in result.history.items()}
    held_out = np.nan_to_num(last["test_accuracy"]).mean(axis=1)
    by_rate = dict(zip(map(str, RATES), held_out.round(4).tolist(), strict=True))
    best = int(held_out.argmax())
    assert data.x_test is not None and data.labels_test is not None  # noqa: PT018
    params = jax.tree.map(lambda leaf: leaf[best], result.params)
    test = accuracy(METHODS[method], params, data.x_test, data.labels_test)
    record = {
        "width": width,
        "method": method,
        "learning_rate": round(RATES[best] / data.x.shape[1], 5),
        "held_out_accuracy_of_rates_times_d": by_rate,
        "test_accuracy": test.round(4).tolist(),
        "train_accuracy": last["accuracy"][best].round(4).tolist(),
        "diverged": int(np.sum(result.diverged)),
    }
    if method == "regime":
        record["distance"] = last["distance"][best].round(3).tolist()
    return [record | {"seconds": round(time.perf_counter() - started, 1)}]


def figure(records: list[Record], s: Settings) -> Figure:
    """Draw test and training accuracy over the width, mean and range of the seeds."""
    fig = canvas(6.5, 4.2)
    axes = fig.subplots()
    for (method, colour), (what, style) in itertools.product(
        zip(METHODS, ("C0", "C1"), strict=True), (("test", "o-"), ("train", "o:"))
    ):
        rows = sorted((r for r in records if r["method"] == method), key=lambda r: r["width"])
        values = 100 * np.array([row[f"{what}_accuracy"] for row in rows])
        mean = values.mean(axis=1)
        axes.errorbar(
            [row["width"] for row in rows],
            mean,
            yerr=[mean - values.min(axis=1), values.max(axis=1) - mean],
            fmt=style,
            color=colour,
            capsize=3,
            label=f"{method}, {what}",
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(s.widths, map(str, s.widths))
    axes.set(xlabel="width", ylabel="accuracy (%)")
    axes.set_title(f"{s.dataset}, {s.samples:,} training images, ε = {s.radius:g}, {s.seeds} seeds")
    axes.legend()
    return fig


def told(last: Record) -> str:
    """Say what a cell gave."""
    return (
        f"width {last['width']}, {last['method']}: test {100 * np.mean(last['test_accuracy']):.1f} %, "
        f"step size {last['learning_rate']}, {last['seconds']} s"
    )


@experiment(
    __doc__,
    FOLDER,
    quick="digits, 1 width, 3 epochs, 2 seeds",
    options={
        "--dataset": {"choices": DATASETS, "default": "cifar10"},
        "--radius": {"type": float, "default": 1.0, "help": "ε of the ball, inf for none"},
        "--seeds": {"type": int, "default": 3, "help": "seeds a cell, trained in one call"},
    },
)
def main(args: argparse.Namespace) -> Findings:
    """Run the cells that are missing."""
    s = settings(args.dataset, args.quick, args.radius, args.seeds)
    args.out = args.out or Path(FOLDER, s.dataset)
    axes = {"width": s.widths, "method": METHODS}
    records = cells(args.out, asdict(s), axes, partial(cell, load(s), s), told, machine=machine())
    seconds = sum(r["seconds"] for r in records)
    return Findings(None, partial(figure, records, s), [f"{seconds:.0f} s in all."])


if __name__ == "__main__":
    main()
