"""Which ingredient does what: mirrored start × pairwise head × ball, all eight, and what a plain start rules out.

Command:  python -m experiments.narrow_ablation [--quick] [--n N] [--d D] [--widths …] [--radii …] [--kappa K]
Cost:     a minute and a half on two cores; ``--quick`` under a minute, one width, two radii, 200 steps.
Expected: without the ball every combination learns, by travelling. In a small ball only the pairwise head learns, and
          only from the mirrored start: a plain start cannot, with either head: f(w⁰) ≠ 0 grows with v, and the
          shortest Newton step over all scales of v stays longer than ε. Form (1) of Theorem 1 (mirrored start,
          standard head, free v) says that an exact net is there, and first-order training does not find it: its first
          step in v parts the pairs, and what f grows to then is beyond what w can undo within ε.
Result:   as expected (docs/figures/narrow_ablation.*). n = 100, ε = 0.1, m = 40: mirrored and pairwise 5e-4, form (1)
          6.8, plain starts 51 and 26; without the ball all below 1e-29. Shortest step of a plain start: 2 at least.
Writes:   runs/narrow_ablation/summary.json (one record a combination, width and radius) and figure.png.

Reference: "When Expressivity Meets Trainability", Theorem 1, figure 3 and section 4.3.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import narrow_jax as nj

from ._nets import Net, Params, pairwise, standard
from ._run import EVEN_WIDTHS, Figure, Record, canvas, cells, experiment, require_memory

RATE = 1e-2


def start(mirrored: bool, net: Net, **sizes: int) -> Params:
    """Return a start, mirrored or plain, in the form of the net's head; form (1) carries ±v on the two halves."""
    key, paired = jax.random.key(0), net.name == "pairwise"
    params = (net if paired else pairwise()).start(key, dtype=jnp.float64, **sizes)
    if not mirrored:
        plain = standard().start(key, dtype=jnp.float64, **sizes)
        return {"w": plain["w"], "v": params["v"]} if paired else plain
    return params if paired else {"w": params["w"], "v": jnp.concatenate([params["v"], -params["v"]])}


def combination(
    args: argparse.Namespace, width: int, mirrored: bool, paired: bool, radius: float
) -> list[Record]:
    """Return the record of one run; radius infinity is no ball."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(args.n, args.d)), rng.normal(size=(args.n, 1))
    net = pairwise(args.activation, kappa=args.kappa) if paired else standard(args.activation)
    params = start(mirrored, net, inputs=args.d, width=width)
    tx = net.regime(optax.adam(optax.cosine_decay_schedule(RATE, args.steps)), radius)
    result = nj.fit(net.apply_fn, params, tx, (x, y), steps=args.steps, callbacks=[])
    record = {
        "width": width,
        "mirrored": mirrored,
        "pairwise": paired,
        "radius": radius,
        "loss": float(result.history["loss"][-1]),
        "distance": float(result.history["distance"][-1]),
        "shortest_step": shortest_step(x, y, net, params),
    }
    return [record]


def shortest_step(x: np.ndarray, y: np.ndarray, net: Net, params: Params) -> float:
    """Return min over scales s of ‖J⁺(y/s − f(w⁰; v⁰))‖, the length of the first Newton step for v = s·v⁰.

    0 from a mirrored start (s → ∞); from a plain one it stays away from 0, and no smaller ball holds a solution to
    first order, whatever the scale.
    """
    inverse = np.linalg.pinv(np.asarray(net.jacobian(params, x).dense()))
    labels, outputs = inverse @ y[:, 0], inverse @ np.asarray(net.apply_fn(params, x))[:, 0]
    best = max(labels @ outputs / (labels @ labels), 0.0)  # 1/s ≥ 0
    return float(np.linalg.norm(best * labels - outputs))


def table(records: list[Record]) -> list[str]:
    """Return the records as lines of text."""
    lines = ["start     head      ball     m    loss      shortest step"]
    for r in records:
        names = (
            f"{'mirrored' if r['mirrored'] else 'plain':9} {'pairwise' if r['pairwise'] else 'standard':9}"
        )
        lines.append(f"{names} {ball(r):6} {r['width']:4}    {r['loss']:.1e}   {r['shortest_step']:.2g}")
    return lines


def ball(record: Record) -> str:
    """Say the radius of a record."""
    return "no ball" if np.isinf(float(record["radius"])) else f"{record['radius']:g}"


def figure(content: Record) -> Figure:
    """Draw the loss over the radius, one line a combination, one panel a width."""
    records, s = content["cells"], content["settings"]
    widths = sorted({r["width"] for r in records})
    fig = canvas(5.5 * len(widths), 4.2)
    for axes, width in zip(fig.subplots(1, len(widths), squeeze=False)[0], widths, strict=True):
        for (mirrored, paired), style in zip(
            itertools.product((True, False), repeat=2), ("o-", "s-", "o--", "s--"), strict=True
        ):
            rows = [
                r for r in records if (r["mirrored"], r["pairwise"], r["width"]) == (mirrored, paired, width)
            ]
            rows.sort(key=lambda r: float(r["radius"]))
            name = f"{'mirrored' if mirrored else 'plain'} start, {'pairwise' if paired else 'standard'} head"
            axes.semilogy(list(map(ball, rows)), [r["loss"] for r in rows], style, label=name)
        axes.set(xlabel="ε", ylabel="loss", title=f"width {width}, 2n/d = {2 * s['n'] / s['d']:g}")
        axes.legend()
    return fig


def told(last: Record) -> str:
    """Say what a run gave."""
    start, head = "mirrored" if last["mirrored"] else "plain", "pairwise" if last["pairwise"] else "standard"
    return f"m = {last['width']}, {start} start, {head} head, {ball(last)}: loss {last['loss']:.1e}"


@experiment(
    __doc__,
    "runs/narrow_ablation",
    figure,
    sizes={
        "n": 100,
        "d": 10,
        "widths": (24, 40),
        "radii": (0.01, 0.1, 1.0, np.inf),
        "activation": "tanh",
        "kappa": np.inf,
        "steps": 4000,
    },
    quick={"widths": (24,), "radii": (0.1, np.inf), "steps": 200},
    options=EVEN_WIDTHS,
)
def main(args: argparse.Namespace) -> list[str]:
    """Run all combinations."""
    both, weights = (True, False), args.d * max(args.widths)
    require_memory(24 * args.n * weights, f"the Jacobian of {args.n:,} samples by {weights:,} weights")
    with jax.enable_x64(True):
        axes = {"width": args.widths, "mirrored": both, "pairwise": both, "radius": args.radii}
        records = cells(args, axes, partial(combination, args), told)
    return table(records)


if __name__ == "__main__":
    main()
