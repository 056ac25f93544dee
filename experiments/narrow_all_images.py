"""All training images of CIFAR-10 with random labels: memorised by a narrow pairwise net, and proven, on one machine.

Command:  python -m experiments.narrow_all_images --all --raw-dir DIR [--out DIR]
          (--raw-dir: folder with the original files of CIFAR-10; --samples 5000 10000 20000 instead of --all;
          --labels classes: the ten classes, permuted at random, as one real label)
Cost:     on two cores, for the whole process, 10,000 images a minute and 2.7 GB, 20,000 two and a half and 4.9 GB; all
          50,000, beside other work, 41 minutes and 15.9 GB (docs/figures/narrow_all_images.json); ``--quick`` a few
          seconds. It goes on, stage by stage, where an earlier run stopped.
Expected: the smallest width of a short list that is memorised by Newton's method in a ball around a mirrored start is
          certified: an exact zero-loss net lies within 1e-9 of it.
Writes:   runs/narrow_all_images/DATASET/summary.json (one record a size, width and stage), weights-*.npz, figure.png.

Reference: "When Expressivity Meets Trainability", appendix H.6; Theorem 1.
"""

from __future__ import annotations

import argparse
import resource
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

import narrow_jax as nj

from ._image_sets import pixels
from ._nets import too_narrow
from ._run import (
    Figure,
    Record,
    canvas,
    cells,
    digest,
    earlier_run,
    experiment,
    positive,
    require_memory,
)

ALL = 50_000
WIDTHS = {50_000: (66, 96, 128), 20_000: (48, 66), 10_000: (24, 48), 0: (16, 24, 48)}
"""Tried for so many images and more; 2n/d is where counts first admit a Jacobian of full rank at the start."""
STAGES = ("memorise", "certify")
RADIUS = 0.1


@dataclass(frozen=True)
class Run:
    """What every stage needs: the data set, its labels, the folder of the weights, what is certified."""

    name: str
    labels: str
    raw_dir: Path | None
    out: Path
    known: set[int]
    """Sizes that are certified."""

    def data(self, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y: ±1 drawn for each image, or its class after a random permutation of all, in [−1, 1]."""
        drawn = "random" if self.labels == "signs" else "true"
        data = nj.data.load(self.name, labels=drawn, samples=samples, normalize="scale", raw_dir=self.raw_dir)
        x, y = np.asarray(data.x, float), np.asarray(data.y, float)
        if self.labels == "classes":
            classes = np.argmax(y, axis=1) if y.shape[1] > 1 else y[:, 0]
            y = np.random.default_rng(0).permutation(classes)[:, None] / 4.5 - 1
        return x, y

    def cell(self, samples: int, width: int, stage: str) -> list[Record]:
        """Return the record of a stage; "skipped" where a smaller width is certified or nothing is to be proven."""
        began, weights = time.perf_counter(), self.out / f"weights-{samples}-{width}.npz"
        found: Record = {"outcome": "skipped"}
        if samples not in self.known and (stage == "memorise" or weights.exists()):
            found = (
                self._memorised(samples, width, weights)
                if stage == "memorise"
                else self._certified(samples, weights)
            )
        if found.get("holds"):
            self.known.add(samples)
        seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        record = {"samples": samples, "width": width, "stage": stage, **found}
        return [{**record, "seconds": seconds, "peak_gb": peak * 1024 / 1e9}]

    def _memorised(self, samples: int, width: int, weights: Path) -> Record:
        x, y = self.data(samples)
        if refusal := too_narrow(x, width):
            return {"outcome": "refused", "message": refusal}
        m = nj.memorize(jax.random.key(0), x, y, width=width, radius=RADIUS, certify=False)
        if m.status == "solved":
            part = weights.with_suffix(".part.npz")
            np.savez(part, **m.params, center=m.center["w"])
            part.replace(weights)
        loss, distance = m.history["loss"].tolist(), float(m.history["distance"][-1])
        facts = {"loss": loss, "scale": m.scale, "distance": distance}
        return {"outcome": m.status, "message": m.message, **facts}

    def _certified(self, samples: int, weights: Path) -> Record:
        try:
            with np.load(weights) as saved:
                w, v, center = (saved[name] for name in ("w", "v", "center"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise SystemExit(
                f"{weights} cannot be read ({error}): start again in another folder, --out"
            ) from error
        proof = nj.certificates.memorization({"w": w, "v": v}, center, *self.data(samples), RADIUS)
        return {"outcome": "certified" if proof.holds else "not certified", **proof._asdict()}


def figure(content: Record) -> Figure:
    """Draw the loss by Newton's steps, and the time of each stage with its power of n, beside n³."""
    records = content["cells"]
    fig = canvas(10, 4)
    losses, times = fig.subplots(1, 2)
    done = [r for r in records if r["outcome"] not in ("skipped", "refused")]
    done.sort(key=lambda r: (r["samples"], r["width"]))
    for r in done:
        if "loss" in r:
            losses.semilogy(r["loss"], ".-", label=f"{r['samples']:,}, {r['width']}")
    losses.set(xlabel="Newton step", ylabel="loss ½ Σ (y − f)²")
    losses.xaxis.get_major_locator().set_params(integer=True)
    times.set(xlabel="images n", ylabel="seconds")
    for stage in STAGES:
        points = [(r["samples"], r["seconds"]) for r in done if r["stage"] == stage]
        if not points:
            continue
        sizes, seconds = np.array(points).T
        power = np.polyfit(np.log(sizes), np.log(seconds), 1)[0] if len(set(sizes)) > 1 else np.nan
        times.loglog(sizes, seconds, "o-", label=f"{stage}: $n^{{{power:.1f}}}$" if power > 0 else stage)
    if done:
        times.loglog(sizes, seconds[-1] * (sizes / sizes[-1]) ** 3, ":", color="grey", label="$n^3$")
        times.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
        times.minorticks_off()
        times.legend()
        losses.legend(loc="lower left", title="images, hidden units")
    return fig


def told(record: Record) -> str:
    """Say what a stage found."""
    size = f"{record['samples']:,} images, {record['width']} hidden units"
    cost = f"{record['seconds']:.0f} s, {record['peak_gb']:.1f} GB at most so far"
    return f"{size}, {record['stage']}: {record.get('reason') or record.get('message') or 'skipped'} ({cost})"


def certified(summary: Path) -> set[int]:
    """Return the sizes that an earlier run has certified."""
    content = earlier_run(summary, ("samples", "width", "stage")) or {"cells": []}
    return {record["samples"] for record in content["cells"] if record.get("holds")}


@experiment(
    __doc__,
    "runs/narrow_all_images",
    figure,
    sizes={"raw_dir": None},
    quick={"dataset": "digits", "samples": [200]},
    options={
        "dataset": {"choices": ("cifar10", "digits"), "default": "cifar10", "help": "whose images"},
        "samples": {"type": positive, "nargs": "+", "default": [5000], "help": "images, each number a run"},
        "all": {"action": "store_const", "const": [ALL], "dest": "samples", "help": f"all {ALL:,} images"},
        "labels": {"choices": ("signs", "classes"), "default": "signs", "help": "what is to be memorised"},
    },
)
def main(args: argparse.Namespace) -> list[str]:
    """Run the stages that are missing."""
    marks = {}
    for samples in args.samples:
        images = pixels(args.dataset, samples, args.raw_dir)
        marks[str(samples)] = digest(images)
        require_memory(
            4 * samples**2 + 40 * images.size,
            f"the proof for {samples:,} images of {images.shape[1]:,} pixels",
        )
    run = Run(args.dataset, args.labels, args.raw_dir, args.out, certified(args.out / "summary.json"))
    for samples in args.samples:
        smallest = max(least for least in WIDTHS if least <= samples)
        axes = {"samples": [samples], "width": WIDTHS[smallest], "stage": STAGES}
        cells(args, axes, run.cell, told, radius=RADIUS, data=marks)
    return []


if __name__ == "__main__":
    main()
