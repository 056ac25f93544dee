"""When to switch the regime on: what the ball, the mirrored start with its head, weight decay and the norms do.

Command:  python -m experiments.narrow_regime_ablation [--quick] [--dataset cifar10|digits]
          (and --samples, --radii, --seeds, --epochs, --raw-dir)
Cost:     19 minutes on one core of a busy machine for 33 nets; ``--quick`` half a minute.
Expected: if the regime wins anywhere, the ball, the start with its head, or the weight decay is what makes it win.
Result:   nothing makes it win here (docs/figures/narrow_regime_ablation.*; ± standard errors of three seeds,
          differences seed by seed). Plain SGD travels 5.8 and has 40.5 ± 0.2 % of the test images right. The ball alone
          changes nothing: 40.7 ± 0.3 % at ε = 0.1, 40.5 ± 0.6 % at ε = 1. The mirrored start with the pairwise head
          costs 2.1 ± 0.5 points; a ball with ε = 1, well below what plain SGD travels, takes 1.3 ± 0.5 of them back
          (39.7 ± 0.7 %), ε = 0.1 is too small (37.0 ± 0.7 %, half of the training images learnt), ε = 10 is never
          reached. Weight decay gives plain SGD 0.9 ± 0.5 points, the regime 0.2 ± 0.4; norms outside of the ball cost
          0.7 ± 0.8.
Writes:   runs/narrow_regime_ablation/DATASET/summary.json (one record a case and seed) and figure.png.

The nets of Figure 5 at the size of a CPU with 32 channels in the last stage, trained by the same SGD on few images.
Two nets: the usual head with the usual start, and the pairwise head with the mirrored start. Each with the last stage
in a ball of several radii, and without a ball (the pairwise head stays in its cone). Plain SGD is the usual net without
a ball, the regime the pairwise one with a ball. Plain SGD and the regime at ε = 1 are also run without weight decay,
which in the regime pulls the last stage towards its start instead of 0, and the regime with scales and biases of
BatchNorm outside of the ball.

Reference: "When Expressivity Meets Trainability", section 5.2.
"""

from __future__ import annotations

import argparse
import functools
from typing import NamedTuple

import jax
import numpy as np
import optax
from matplotlib.axes import Axes
from rich.table import Table

import narrow_jax as nj

from ._image_sets import ImageSet, accuracy, in_arrays
from ._run import Figure, Record, canvas, cells, experiment, require_memory, table
from .narrow_fig5 import RECIPES, init_of, memory_needed

RECIPE = RECIPES["cpu"]
WIDTH = 32
HEADS = {"dense": "usual net", "pairwise": "pairwise net"}
COLORS = {"dense": "black", "pairwise": "C1"}


class Case(NamedTuple):
    """What is switched on.

    Fields:
        head: "dense" with the usual start or "pairwise" with the mirrored one.
        radius: of the ball of the last stage, infinity for none.
        decay: weight decay.
        norms: BatchNorm's scales and biases are in the ball.
    """

    head: str
    radius: float
    decay: bool = True
    norms: bool = True

    def __str__(self) -> str:
        """Return its name for people."""
        ball = "no ball" if np.isinf(self.radius) else f"ε = {self.radius:g}"
        more = ("" if self.decay else ", no weight decay") + ("" if self.norms else ", norms outside")
        return f"{HEADS[self.head]}, {ball}{more}"


PLAIN, REGIME = Case("dense", np.inf), Case("pairwise", 1.0)
LESS = {
    "plain SGD": PLAIN,
    "… without weight decay": PLAIN._replace(decay=False),
    "regime, ε = 1": REGIME,
    "… without weight decay ": REGIME._replace(decay=False),
    "… norms outside of the ball": REGIME._replace(norms=False),
}
"""Plain SGD, the regime, and what they are less one thing, by their names in the picture."""


def cases(radii: list[float]) -> list[Case]:
    """Return every head with every radius and without a ball, and those less one thing."""
    grid = [Case(head, radius) for head in HEADS for radius in (*radii, np.inf)]
    return list(dict.fromkeys([*grid, *LESS.values()]))


@functools.cache
def optimizer(case: Case, net: nj.models.ResNet, steps: int) -> optax.GradientTransformation:
    """Return SGD of a case, the same object for all seeds, so that nothing compiles twice."""
    decay = optax.add_decayed_weights(RECIPE.weight_decay if case.decay else 0.0)
    rate = optax.cosine_decay_schedule(RECIPE.learning_rate, steps)
    sgd = optax.chain(decay, optax.sgd(rate, momentum=RECIPE.momentum))
    if case.head == "dense" and np.isinf(case.radius):
        return sgd
    block = f"{net.last_stage}/block1"
    kernels = [f"{block}/{name}" for name in ("conv1", "conv2", "shortcut")]
    inside = net.last_stage if case.norms else kernels
    if case.head == "dense":
        labels = nj.constraints.by_path(w=inside)
        return nj.constraints.regime(sgd, case.radius, zeta=None, labels=labels)
    return nj.constraints.regime(sgd, case.radius, labels=nj.constraints.by_path(w=inside, v="head/v"))


def net_of(head: str, data: ImageSet) -> nj.models.ResNet:
    """Return the net with one of the heads."""
    return nj.models.ResNet((*RECIPE.channels, WIDTH), RECIPE.blocks, data.outputs, head=head)


def cell(args: argparse.Namespace, data: ImageSet, seed: int, case: str) -> list[Record]:
    """Train one net."""
    (chosen,) = (one for one in cases(args.radii) if str(one) == case)
    net = net_of(chosen.head, data)
    state = init_of(net)(jax.random.key(seed, impl="rbg"), data.first)
    params = state.pop("params")
    steps = args.epochs * (data.samples // RECIPE.batch_size)
    forward = nj.models.Stateful(net)
    result = nj.fit(
        forward,
        params,
        optimizer(chosen, net, steps),
        data.train,
        steps=steps,
        every=steps,
        loss="cross_entropy",
        batch_size=RECIPE.batch_size,
        key=jax.random.key(seed),
        model_state=state,
        callbacks=[],
    )
    before, after = params[net.last_stage], result.params[net.last_stage]
    record = {
        "case": case,
        "seed": seed,
        **chosen._asdict(),
        "test_accuracy": accuracy(forward, result.params, result.model_state, *data.test),
        "test_images": len(data.test[1]),
        "train_accuracy": float(result.history["accuracy"][-1]),
        "distance": float(optax.tree.norm(jax.tree.map(lambda now, then: now - then, after, before))),
        "norm_of_start": float(optax.tree.norm(before)),
    }
    return [record]


def of_case(records: list[Record], case: Case, name: str = "test_accuracy") -> list[float]:
    """Return a number of the records of a case, one a seed."""
    return [r[name] for r in records if r["case"] == str(case)]


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Return mean and standard error, in per cent."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return 100 * float(np.mean(values)), 100 * float(error)


def figure(content: Record) -> Figure:
    """Draw test accuracy over the radius for both heads, and beside it what a single thing changes."""
    s, records = content["settings"], content["cells"]
    fig = canvas(11, 4.8)
    left, right = fig.subplots(1, 2, width_ratios=(1.2, 1))
    over_radius(left, records)
    for place, case in enumerate(LESS.values()):
        if values := of_case(records, case):
            mean, error = mean_and_error(values)
            color = COLORS[case.head]
            right.errorbar(mean, -place, xerr=error, fmt="o", color=color, capsize=4)
    right.set_yticks(-np.arange(len(LESS)), LESS)
    right.set(xlabel="test accuracy (%)", ylim=(0.5 - len(LESS), 0.5))
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    fig.suptitle(
        f"{s['dataset']}, {s['samples']:,} training images, {s['epochs']} epochs; "
        f"bars: standard errors over {len({r['seed'] for r in records})} seeds"
    )
    return fig


def over_radius(axes: Axes, records: list[Record]) -> None:
    """Draw test accuracy over the radius, the last point without a ball, and how far plain SGD travels."""
    radii = sorted({float(r["radius"]) for r in records})
    places = [*radii[:-1], 10 * radii[-2]]
    for head, color in COLORS.items():
        found = [of_case(records, Case(head, radius)) for radius in radii]
        points = [
            (place, *mean_and_error(values)) for place, values in zip(places, found, strict=True) if values
        ]
        x, mean, error = np.array(points).T
        axes.errorbar(x, mean, error, fmt="o-", color=color, capsize=4, label=HEADS[head])
    travelled = float(np.mean(of_case(records, PLAIN, "distance")))
    axes.axvline(travelled, color="0.4", linestyle=":", label=f"plain SGD travels {travelled:.1f}")
    axes.set_xscale("log")
    axes.set_xticks(places, [*(f"{radius:g}" for radius in radii[:-1]), "no ball"])
    axes.minorticks_off()
    axes.set(xlabel="radius ε of the ball", ylabel="test accuracy (%)")


def told(last: Record) -> str:
    """Say what a cell gave."""
    return (
        f"{last['case']}, seed {last['seed']}: test {100 * last['test_accuracy']:.1f} %, "
        f"training {100 * last['train_accuracy']:.1f} %, travelled {last['distance']:.2f}"
    )


@experiment(
    __doc__,
    "runs/narrow_regime_ablation",
    figure,
    sizes={"samples": 2000, "radii": [0.1, 1.0, 10.0], "seeds": 3, "epochs": 12, "raw_dir": None},
    quick={"dataset": "digits", "samples": 200, "radii": [1.0], "seeds": 1, "epochs": 2},
    options={"dataset": {"choices": ("cifar10", "digits"), "default": "cifar10", "help": "whose images"}},
)
def main(args: argparse.Namespace) -> list[Table]:
    """Run the cases that are missing, all of the first seed first."""
    data = in_arrays(args.dataset, args.samples, args.raw_dir, fold=args.dataset == "cifar10")
    if args.samples < RECIPE.batch_size:
        raise argparse.ArgumentError(
            None, f"--samples is {args.samples}; expected {RECIPE.batch_size} or more, a whole batch"
        )
    needed = memory_needed(RECIPE, net_of("dense", data), data)
    require_memory(needed, f"training on {data.samples:,} images beside {len(data.test[1]):,} for the test")
    chosen = cases(args.radii)
    axes = {"seed": range(args.seeds), "case": list(map(str, chosen))}
    records = cells(
        args,
        axes,
        functools.partial(cell, args, data),
        told,
        data=data.mark,
        width=WIDTH,
        recipe=RECIPE._asdict(),
    )
    rows = []
    for case in chosen:
        tested, error = mean_and_error(of_case(records, case))
        trained, _ = mean_and_error(of_case(records, case, "train_accuracy"))
        distance = np.mean(of_case(records, case, "distance"))
        rows.append((str(case), f"{tested:.1f} ± {error:.1f}", f"{trained:.1f}", f"{distance:.2f}"))
    return [table("Accuracies in per cent", ("case", "test", "training", "travelled"), rows)]


if __name__ == "__main__":
    main()
