"""Random labels on real images by the paper's own regime: the widths and steps at which all are learned.

Command:  python -m experiments.narrow_random_labels [--datasets digits mnist cifar10 cifar10_more] [--raw-dir DIR]
          (and --widths, --radii, --steps; --raw-dir: folder with the original files of MNIST and CIFAR-10; without it
          digits only)
Cost:     half an hour on two cores beside other work, most of it for 10,000 images; ``--quick`` 20 s.
Expected: with whitened inputs projected descent, by Adam in the coordinates of the ball, learns every random label once
          there are enough neurons, ±1 as well as ten classes; with inputs that are only scaled it does not get there,
          since their Jacobian is badly conditioned. Newton's method in the same ball needs a few steps either way.
Result:   as expected (docs/figures/narrow_random_labels.*). Fewest of the tried units that learn all ±1, whitened, and
          the step: 1,797 digits 80 (3,240), MNIST 3,000 12 (1,230), CIFAR-10 2,000 4 (10: more inputs than images) and
          10,000 16 (555; 99.86 % with 8). Ten classes: digits 480 (1,980), CIFAR-10 2,000 12 (960); MNIST 99.97 % with
          96, CIFAR-10 10,000 98.2 % with 48. Not whitened, ±1, at most: digits 82 %, MNIST 88 %, CIFAR-10 98 and 73 %.
          ``memorize`` proves a net in 3 to 6 steps everywhere but with 60 units on the digits, too few by rank.
Writes:   runs/narrow_random_labels/summary.json (one record a data set, kind of labels, width, ε, method), figure.png.

±1 are fitted by the squared loss; ten classes by the cross-entropy, and by ``memorize`` as one real label in [−1, 1].
Beside it, up to 3,000 images, Newton's method at the same width. Whitening drops directions without variance.

Reference: "When Expressivity Meets Trainability", appendix H.6.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

import narrow_jax as nj

from ._image_sets import pixels
from ._nets import pairwise, too_narrow
from ._run import EVEN_WIDTHS, Figure, Record, canvas, cells, digest, experiment, require_memory

RATE, RECORDS = 5e-3, 200
CASES: dict[str, Record] = {
    "digits": {"samples": 1797, "widths": {2: (60, 80, 120), 10: (60, 80, 120, 240, 480)}, "steps": 6000},
    "mnist": {"samples": 3000, "widths": {2: (12, 16, 24), 10: (24, 48, 96)}, "steps": 3000},
    "cifar10": {"samples": 2000, "widths": {2: (4, 6, 12), 10: (6, 12, 24)}, "steps": 2000},
    "cifar10_more": {"samples": 10_000, "widths": {2: (8, 16), 10: (24, 48)}, "steps": 1000},
    "digits_few": {"samples": 200, "widths": {2: (20,), 10: (20,)}, "steps": 300},
}
"""Widths by the number of classes."""
KINDS = {
    "±1, whitened": (2, "whiten"),
    "ten classes, whitened": (10, "whiten"),
    "±1, scaled": (2, "scale"),
}
METHODS = ("memorize", "projected descent")
STYLES = ("-", "--", ":", "-.")
"""Of the radii, from the smallest on."""

MOST = 3000
"""Images that ``memorize`` takes here; ``narrow_all_images`` is about more."""


def widths_of(args: argparse.Namespace, case: str) -> dict[int, Sequence[int]]:
    """Return the widths of a case by the number of classes."""
    usual: dict[int, Sequence[int]] = CASES[case]["widths"]
    return dict.fromkeys(usual, args.widths) if args.widths else usual


@functools.cache
def load(case: str, kind: str, raw_dir: Any) -> nj.data.Dataset:
    """Return the images of a case with random labels."""
    classes, normalize = KINDS[kind]
    return nj.data.load(
        case.split("_")[0],
        labels="random",
        classes=classes,
        samples=CASES[case]["samples"],
        normalize=normalize,
        raw_dir=raw_dir,
    )


def newton(data: nj.data.Dataset, width: int, radius: float) -> Record:
    """Return what ``memorize`` finds."""
    assert data.labels is not None
    y = data.y if data.y.shape[1] == 1 else data.labels / 4.5 - 1
    if refusal := too_narrow(data.x, width):
        return {"steps": 0, "loss": float("inf"), "proven": False, "message": refusal, "seconds": 0.0}
    started = time.perf_counter()
    m = nj.memorize(jax.random.key(0), data.x, y, width=width, radius=radius, progress=False)
    return {
        "steps": len(m.history["loss"]) - 1,
        "loss": float(m.loss),
        "proven": m.certificate is not None and m.certificate.holds,
        "message": m.message,
        "seconds": round(time.perf_counter() - started, 1),
    }


def descent(data: nj.data.Dataset, width: int, radius: float, steps: int) -> Record:
    """Return what Adam under the constraints learns: the share of labels over the steps, and when it is 1."""
    net, outputs = pairwise(), data.y.shape[1]
    params = net.start(jax.random.key(0), inputs=data.x.shape[1], width=width, outputs=outputs)
    tx = net.regime(optax.adam(optax.cosine_decay_schedule(RATE, steps)), radius)
    signs = outputs == 1
    started = time.perf_counter()
    history = nj.fit(
        net.apply_fn,
        params,
        tx,
        (data.x, data.y if signs else data.labels),
        steps=steps,
        every=max(1, steps // RECORDS),
        loss="squared" if signs else "cross_entropy",
        callbacks=[],
    ).history
    seconds = time.perf_counter() - started
    step, learned = (np.asarray(history[name], float) for name in ("step", "accuracy"))
    return {
        "step": step.tolist(),
        "learned": learned.round(5).tolist(),
        "all_at": next((int(at) for at, share in zip(step, learned, strict=True) if share == 1), None),
        "loss": float(history["loss"][-1]),
        "distance": float(history["distance"][-1]),
        "seconds": round(seconds, 1),
    }


def figure(content: Record) -> Figure:
    """Draw the share of labels learned over the width, a panel a data set, a line a kind of labels and inputs and an ε.

    A point at which all are learned is filled, with the step at which they were.
    """
    records = [r for r in content["cells"] if r["method"] == METHODS[1]]
    cases = sorted(
        {(r["dataset"], r["samples"]) for r in records}, key=lambda case: list(CASES).index(case[0])
    )
    radii = sorted({float(r["radius"]) for r in records})
    fig = canvas(3.9 * len(cases) + 0.6, 4.2)
    for axes, (case, samples) in zip(fig.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
        for (place, kind), (style, radius) in itertools.product(enumerate(KINDS), enumerate(radii)):
            rows = [
                r for r in records if (r["dataset"], r["kind"], float(r["radius"])) == (case, kind, radius)
            ]
            rows.sort(key=lambda r: r["width"])
            learned = [100 * r["learned"][-1] for r in rows]
            line = {"color": f"C{place}", "linestyle": STYLES[style % len(STYLES)]}
            label = kind if len(radii) == 1 else f"{kind}, ε = {radius:g}"
            axes.plot([r["width"] for r in rows], learned, marker="o", mfc="white", label=label, **line)
            for r in rows:
                if r["all_at"] is not None:
                    axes.plot(r["width"], 100, "o", color=f"C{place}")
                    above = {"xytext": (0, 6 + 11 * place), "textcoords": "offset points", "ha": "center"}
                    axes.annotate(f"{r['all_at']:,}", (r["width"], 100), color=f"C{place}", **above)
        widths = sorted({r["width"] for r in records if r["dataset"] == case})
        axes.set_xscale("log")
        axes.set_xticks(widths, map(str, widths))
        axes.minorticks_off()
        axes.set(
            xlabel="hidden units (filled: all, first at that step)",
            ylabel="random labels learned (%)",
            ylim=(None, 112),
        )
        axes.set_yticks([tick for tick in axes.get_yticks() if axes.get_ylim()[0] <= tick <= 100])
        axes.set_title(f"{case.split('_')[0]}, {samples:,} images")
    fig.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(KINDS))
    fig.suptitle("Random labels by projected descent in the ball")
    return fig


def told(last: Record) -> str:
    """Say what a cell gave."""
    said = f"{last['dataset']}, {last['samples']:,} images, {last['kind']}, m = {last['width']}, {last['method']}: "
    if last["method"] == METHODS[0]:
        return (
            said
            + f"loss {float(last['loss']):.1g} in {last['steps']} steps, {'' if last['proven'] else 'not '}proven"
        )
    reached = f"all at step {last['all_at']}" if last["all_at"] is not None else "not all"
    return said + f"{100 * last['learned'][-1]:.2f} % learned, {reached}"


@experiment(
    __doc__,
    "runs/narrow_random_labels",
    figure,
    sizes={"widths": None, "radii": (1.0,), "steps": None, "raw_dir": None},
    quick={"datasets": ("digits_few",)},
    options={"datasets": {"choices": tuple(CASES), "nargs": "+", "help": "data sets"}, **EVEN_WIDTHS},
)
def main(args: argparse.Namespace) -> list[str]:
    """Run the cells that are missing."""
    usual = [case for case in CASES if case != "digits_few"] if args.raw_dir else ["digits"]

    chosen, marks = args.datasets or usual, {}
    for case in chosen:
        samples, widest = CASES[case]["samples"], max(itertools.chain(*widths_of(args, case).values()))
        images = pixels(case.split("_")[0], samples, args.raw_dir)
        marks[case] = digest(images)
        require_memory(
            12 * samples * (images.shape[1] + 8 * widest), f"training {widest:,} units on {samples:,} images"
        )

    def cell(dataset: str, kind: str, width: int, radius: float, method: str) -> list[Record]:
        data, samples = load(dataset, kind, args.raw_dir), CASES[dataset]["samples"]
        found = (
            newton(data, width, radius)
            if method == METHODS[0]
            else descent(data, width, radius, args.steps or CASES[dataset]["steps"])
        )
        point = {"dataset": dataset, "kind": kind, "width": width, "radius": radius, "method": method}
        return [{**point, "samples": samples, "inputs": data.x.shape[1], **found}]

    for case, kind in itertools.product(chosen, KINDS):
        methods = METHODS if CASES[case]["samples"] <= MOST else METHODS[1:]
        axes = {"dataset": [case], "kind": [kind], "width": widths_of(args, case)[KINDS[kind][0]]}
        cells(args, axes | {"radius": args.radii, "method": methods}, cell, told, data=marks)
    return []


if __name__ == "__main__":
    main()
