"""Which ingredient does what: mirrored start × pairwise head × ball, all eight, and what a plain start rules out.

Command:  python -m experiments.narrow_ablation [--quick] [--kappa K] [--out DIR]
Cost:     four minutes on two cores; ``--quick`` under a minute, one width, two radii, 200 steps.
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
from experiments._nets import STANDARD, Net, Params, pairwise
from experiments._run import Figure, Findings, Record, canvas, experiment, say

N, D = 100, 10
WIDTHS, QUICK_WIDTHS = (24, 40), (24,)
RADII, QUICK_RADII = (0.01, 0.1, 1.0), (0.1, 1.0)
STEPS, QUICK_STEPS, RATE = 4000, 200, 1e-2


def start(mirrored: bool, net: Net, width: int) -> Params:
    """Return a start, mirrored or plain, in the form of the net's head; form (1) carries ±v on the two halves."""
    key, sizes = jax.random.key(0), {"inputs": D, "width": width, "dtype": jnp.float64}
    params = (pairwise() if net is STANDARD else net).start(key, **sizes)
    if not mirrored:
        plain = STANDARD.start(key, **sizes)
        return plain if net is STANDARD else {"w": plain["w"], "v": params["v"]}
    if net is STANDARD:
        return {"w": params["w"], "v": jnp.concatenate([params["v"], -params["v"]])}
    return params


def combination(
    x: np.ndarray, y: np.ndarray, mirrored: bool, net: Net, width: int, radius: float, steps: int
) -> Record:
    """Return the record of one run; radius infinity is no ball."""
    params = start(mirrored, net, width)
    tx = net.regime(optax.adam(optax.cosine_decay_schedule(RATE, steps)), radius)
    result = nj.fit(net.apply_fn, params, tx, (x, y), steps=steps, callbacks=[])
    return {
        "mirrored": mirrored,
        "pairwise": net is not STANDARD,
        "ball": bool(np.isfinite(radius)),
        "width": width,
        "radius": radius if np.isfinite(radius) else None,
        "loss": float(result.history["loss"][-1]),
        "distance": float(result.history["distance"][-1]),
        "shortest_step": shortest_step(x, y, net, params),
    }


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
        ball = f"{r['radius']:g}" if r["ball"] else "none"
        lines.append(f"{names} {ball:6} {r['width']:4}    {r['loss']:.1e}   {r['shortest_step']:.2g}")
    return lines


def figure(records: list[Record]) -> Figure:
    """Draw the loss over the radius, one line a combination, one panel a width."""
    widths = sorted({r["width"] for r in records})
    fig = canvas(5.5 * len(widths), 4.2)
    for axes, width in zip(fig.subplots(1, len(widths), squeeze=False)[0], widths, strict=True):
        for (mirrored, paired), style in zip(
            itertools.product((True, False), repeat=2), ("o-", "s-", "o--", "s--"), strict=True
        ):
            rows = [
                r for r in records if (r["mirrored"], r["pairwise"], r["width"]) == (mirrored, paired, width)
            ]
            name = f"{'mirrored' if mirrored else 'plain'} start, {'pairwise' if paired else 'standard'} head"
            labels = [f"{r['radius']:g}" if r["ball"] else "no ball" for r in rows]
            axes.semilogy(labels, [r["loss"] for r in rows], style, label=name)
        axes.set(xlabel="ε", ylabel="loss", title=f"width {width}, 2n/d = {2 * N // D}")
        axes.legend()
    return fig


@experiment(
    __doc__,
    "runs/narrow_ablation",
    quick="one width, two radii, 200 steps",
    options={
        "--kappa": {
            "type": float,
            "default": np.inf,
            "help": "κ of the pairwise head's cone; the paper's is 1",
        }
    },
)
def main(args: argparse.Namespace) -> Findings:
    """Run all combinations."""
    widths, radii, steps = (QUICK_WIDTHS, QUICK_RADII, QUICK_STEPS) if args.quick else (WIDTHS, RADII, STEPS)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, D)), rng.normal(size=(N, 1))
    records = []
    with jax.enable_x64(True):
        nets = (pairwise(kappa=args.kappa), STANDARD)
        for width, mirrored, net in itertools.product(widths, (True, False), nets):
            records += [
                combination(x, y, mirrored, net, width, radius, steps) for radius in (*radii, float("inf"))
            ]
            say(f"m = {width}, mirrored {mirrored}, pairwise {net is not STANDARD}: done")
    return Findings(records, partial(figure, records), table(records))


if __name__ == "__main__":
    main()
