"""The first width that Theorem 3.2 needs from LeCun's start, (12), beside what sharper theorems need on the same data.

Command:  python -m experiments.pyramidal_lecun [--d D] [--layers …] [--quick] [--out DIR]
Cost:     three minutes on one busy core; ``--quick`` about 10 s.
Expected: the n_1 from which (4) and (5) hold grows faster than N, by orders of magnitude with each layer, and is out of
          reach for a few dozen samples. The sharper constants of docs/proofs/pyramidal.md hold from a smaller one, and
          so does the theorem of docs/proofs/gradient_descent.md; a mirrored pair needs about 2N/d for the latter.
Measured: N = 5, 10, 20, 40. L = 2: (4) and (5) are expected from n_1 = 10^5.8, 10^9.2, 10^10.0, 10^11.0 on, about an
          order of magnitude later than extrapolated; no draw satisfies (4). The sharper constants hold from 4,096 for
          N = 5 and nowhere else up to 65,536; the theorem of gradient descent from 512 for N = 5, 16,384 for N = 10.
          L = 3: expected from 10^11 to 10^16 on; nothing is proven up to 65,536. A mirrored pair takes 2, 2, 4 and 8
          units.
Writes:   runs/pyramidal_lecun/summary.json (one record for each N and L) and figure.png.

x uniform on the sphere of radius √d, labels ±1, n_2, … = 1 for L = 2 and 4, 1 for L = 3, activation (z + tanh z)/2, of
which both theorems speak. The terms of (12) have the constant 1: they say how it scales, no more. Widths are powers of
two up to 2^16; the n_1 of (4) and (5) is extrapolated from their margins at the last six (open marks). One draw each.

Reference: "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", section 3.2.
"""

from __future__ import annotations

import argparse
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from rich.console import RenderableType

import narrow_jax as nj

from ._run import Figure, Record, canvas, cells, experiment, positive, require_memory, table
from .descent_bound import LEAKY_TANH
from .pyramidal_convergence import on_sphere

ABOVE = {2: (1,), 3: (4, 1)}
"""n_2 … n_L by L."""

FIT = 6
"""Widths from whose margins the n_1 of (4) and (5) is extrapolated."""

MOST_PAIRS = 8
"""Up to so many times the width that counts admit a mirrored pair is tried; once or twice that is expected."""

LARGEST_DESCENT = 2**14
"""Largest width at which the theorem of gradient descent is tried; its constants take long beyond."""


def problem(samples: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows on the sphere of radius √d, and labels ±1."""
    rng = np.random.default_rng(0)
    return on_sphere(rng.normal(size=(samples, inputs))), rng.choice([-1.0, 1.0], size=(samples, 1))


def lecun(inputs: int, widths: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return a draw of N(0, 1/n_{l−1}), the upper layers the same for every first width."""
    sizes = itertools.pairwise((inputs, *widths))
    return {
        f"w{layer}": np.random.default_rng(layer).normal(size=size) / math.sqrt(size[0])
        for layer, size in enumerate(sizes, start=1)
    }


def at_width(x: np.ndarray, y: np.ndarray, layers: int, width: int) -> Record:
    """Return what is proven of a LeCun start of a first width."""
    params = lecun(x.shape[1], (width, *ABOVE[layers]))
    c = nj.certificates.pyramidal(params, x, y, LEAKY_TANH)
    record = {"width": width, "condition4": c.condition4, "condition5": c.condition5, "holds": c.holds}
    record["sharper"] = c.sharper.holds
    if width <= LARGEST_DESCENT:
        record["descent"] = nj.certificates.gradient_descent(params, x, y, LEAKY_TANH, wrt="all").holds
    return record


def pair(x: np.ndarray, y: np.ndarray) -> int | None:
    """Return the smallest width of a mirrored pair of which convergence is proven, its V frozen and scaled.

    None if there is none up to MOST_PAIRS times the width, about 2N/d, that its Jacobian needs.
    """
    for width in range(2, MOST_PAIRS * nj.jacobian.admissible_width(x) + 1, 2):
        params = nj.initializers.mirrored_lecun(
            jax.random.key(0), inputs=x.shape[1], width=width, kappa=1.0, dtype=jnp.float64
        )
        c = nj.certificates.gradient_descent(params, x, y, LEAKY_TANH)
        if c.scale is not None:
            scaled = {**params, "v": c.scale * params["v"]}
            if nj.certificates.gradient_descent(scaled, x, y, LEAKY_TANH).holds:
                return width
    return None


def crossing(measured: list[Record]) -> float:
    """Return log10 of the n_1 at which (4) and (5) hold, by lines through their margins at the last widths."""
    last = measured[-FIT:]
    logs = np.log10([r["width"] for r in last])
    lines = (np.polyfit(logs, [float(r[name]) for r in last], 1) for name in ("condition4", "condition5"))
    return max(float(-start / slope) if slope > 0 else math.inf for slope, start in lines)


def cell(inputs: int, widths: tuple[int, ...], layers: int, samples: int) -> list[Record]:
    """Return the record of L and N."""
    x, y = problem(samples, inputs)
    scaling = nj.certificates.lecun_width(x, y, ABOVE[layers], LEAKY_TANH)
    measured = [at_width(x, y, layers, width) for width in widths if width >= samples]
    first = {
        name: next((r["width"] for r in measured if r.get(name)), None) for name in ("sharper", "descent")
    }
    return [
        {
            "layers": layers,
            "samples": samples,
            **scaling._asdict(),
            **first,
            "pair": pair(x, y),
            "measured": measured,
        }
    ]


def figure(content: Record) -> Figure:
    """Draw first widths over N, one panel an L."""
    records = content["cells"]
    layers = sorted({r["layers"] for r in records})
    fig = canvas(5.8 * len(layers), 4.6, dpi=110)
    panels = fig.subplots(1, len(layers), sharey=True, squeeze=False).ravel()
    for axes, number in zip(panels, layers, strict=True):
        found = sorted((r for r in records if r["layers"] == number), key=lambda r: r["samples"])
        panel(axes, found)
        above = ", ".join(map(str, ABOVE[number]))
        axes.set(title=f"L = {number}: widths n₁, {above}", xlabel="N", xscale="log", yscale="log")
        axes.set_xticks([r["samples"] for r in found], [str(r["samples"]) for r in found], minor=False)
        axes.minorticks_off()
    panels[0].set_ylabel("first width n₁")
    panels[0].legend(fontsize=7, loc="upper left")
    return fig


def panel(axes: Axes, found: list[Record]) -> None:
    """Draw the first widths of one L."""
    n = [r["samples"] for r in found]
    axes.plot(
        n, [float(r["sample_term"]) for r in found], ":", color="0.4", label="N²/λ*² of (12), scaling only"
    )
    spectral = [float(r["spectral_term"]) for r in found]
    axes.plot(n, spectral, "-.", color="0.4", label="‖X‖²/λ* · log²(N/λ*) of (12), scaling only")
    expected = [10 ** float(r["log10_width"]) for r in found]
    axes.plot(n, expected, "-", color="C3", label="(4) and (5), for the expected start")
    drawn = [10 ** crossing(r["measured"]) for r in found]
    axes.plot(n, drawn, "o--", color="C3", markerfacecolor="white", label="the same, extrapolated from draws")
    labels = {
        "sharper": "sharper constants",
        "descent": "gradient_descent, same net",
        "pair": "gradient_descent, mirrored pair",
    }
    for color, (name, label) in enumerate(labels.items()):
        kept = [(r["samples"], r[name]) for r in found if r[name] is not None]
        axes.plot(*zip(*kept, strict=True), "s-", color=f"C{color}", label=label) if kept else None
    axes.plot(n, n, color="black", linewidth=1, label="N, for the starts of section 3.1")


def told(last: Record) -> str:
    """Say what N and L gave."""
    return (
        f"L = {last['layers']}, N = {last['samples']}: (4), (5) from 10^{crossing(last['measured']):.1f}, sharper from "
        f"{last['sharper']}, descent from {last['descent']}, pair from {last['pair']}"
    )


@experiment(
    __doc__,
    "runs/pyramidal_lecun",
    figure,
    sizes={"d": 10},
    quick={"d": 4, "layers": (2,), "numbers": (3,), "largest": 256},
    options={
        "layers": {
            "type": int,
            "choices": list(ABOVE),
            "nargs": "+",
            "default": tuple(ABOVE),
            "help": "numbers of layers L",
        },
        "numbers": {
            "type": positive,
            "nargs": "+",
            "default": (5, 10, 20, 40),
            "help": "numbers of samples N",
        },
        "largest": {"type": positive, "default": 2**16, "help": "largest first width that is tried"},
    },
)
def main(args: argparse.Namespace) -> list[RenderableType]:
    """Compute the cells that are missing."""
    widths = tuple(2**k for k in range(3, args.largest.bit_length()))
    most = max(args.numbers)
    if args.d < 2 or sum(width >= most for width in widths) < 2:
        raise argparse.ArgumentError(
            None,
            f"d is {args.d}, --largest {args.largest} and the most samples {most}; expected d of 2 or more, and "
            "--largest of four times as many as samples",
        )
    require_memory(
        8 * (12 * args.largest * (args.d + 4 * most) + 8 * most**2),
        f"a layer of width {args.largest:,} on {most:,} samples",
    )
    axes = {"layers": args.layers, "samples": args.numbers}
    with jax.enable_x64(True):
        records = cells(args, axes, partial(cell, args.d, widths), told)
    rows = [
        (
            str(r["layers"]),
            str(r["samples"]),
            f"{r['lambda_star']:.2g}",
            f"{float(r['log10_width']):.1f}",
            f"{crossing(r['measured']):.1f}",
            *(str(r[name] or "–") for name in ("sharper", "descent", "pair")),
        )
        for r in records
    ]
    headings = ("L", "N", "λ*", "log10 n₁\nexpected", "\ndrawn", "sharper", "descent", "pair")
    return [
        table("First widths from which convergence is proven", headings, rows),
        f"log10 n₁: of (4) and (5), drawn: extrapolated from {FIT} widths; –: not up to the largest width, "
        f"for the pair {MOST_PAIRS} times 2N/d",
    ]


if __name__ == "__main__":
    main()
