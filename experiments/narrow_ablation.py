"""Which ingredient does what: mirrored start × pairwise head × ball, all eight, and what a plain start rules out.

Command:  python -m experiments.narrow_ablation [--quick] [--kappa K] [--out DIR]
Cost:     four minutes on two cores; ``--quick`` under a minute, one width, two radii, 200 steps.
Expected: without the ball every combination learns, by travelling. In a small ball only the pairwise head learns, and
          only from the mirrored start: a plain start cannot, with either head: f(w⁰) ≠ 0 grows with v, and the
          shortest Newton step over all scales of v stays longer than ε. Form (1) of Theorem 1 (mirrored start,
          standard head, free v) says that an exact net is there, and first-order training does not find it: its first
          step in v parts the pairs, and what f grows to then is beyond what w can undo within ε.
Result:   as expected (docs/narrow_ablation.json, .png). n = 100, ε = 0.1, m = 40: mirrored and pairwise 5e-4, form (1)
          6.8, plain starts 51 and 26; without the ball all below 1e-29. Shortest step of a plain start: 2 at least.
Writes:   runs/narrow_ablation/summary.json (one record a combination, width and radius) and figure.png.

Reference: "When Expressivity Meets Trainability", Theorem 1, figure 3 and section 4.3.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

import narrow_jax as nj
from experiments import _cells

N, D = 100, 10
WIDTHS, QUICK_WIDTHS = (24, 40), (24,)
RADII, QUICK_RADII = (0.01, 0.1, 1.0), (0.1, 1.0)
STEPS, QUICK_STEPS, RATE = 4000, 200, 1e-2
FOLDER = Path("runs/narrow_ablation")


def start(mirrored: bool, pairwise: bool, width: int, kappa: float) -> dict[str, Any]:
    """Return a start: mirrored or plain, in the form of either head; form (1) carries ±v on the two halves."""
    key = jax.random.key(0)
    sizes = {"inputs": D, "width": width, "dtype": jnp.float64}
    params = nj.initializers.mirrored_lecun(key, **sizes, kappa=kappa if pairwise else np.inf)
    if not mirrored:
        plain = nj.initializers.lecun(key, **sizes)
        return {"w": plain["w"], "v": params["v"]} if pairwise else plain
    return params if pairwise else {"w": params["w"], "v": jnp.concatenate([params["v"], -params["v"]])}


def combination(
    x: Any, y: Any, mirrored: bool, pairwise: bool, width: int, radius: float, kappa: float, steps: int
) -> dict[str, Any]:
    """Return the record of one run; radius infinity is no ball."""
    params = start(mirrored, pairwise, width, kappa)
    adam = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    cone: dict[str, Any] = {"zeta": 1e-3, "kappa": kappa} if pairwise else {"zeta": None}
    tx = nj.constraints.regime(adam, radius, **cone)
    apply_fn = nj.models.pairwise_apply if pairwise else nj.models.standard_apply
    result = nj.fit(apply_fn, params, tx, (x, y), steps=steps, progress=False)
    return {
        "mirrored": mirrored,
        "pairwise": pairwise,
        "ball": bool(np.isfinite(radius)),
        "width": width,
        "radius": radius if np.isfinite(radius) else None,
        "loss": float(result.history["loss"][-1]),
        "distance": float(result.history["distance"][-1]),
        "shortest_step": shortest_step(x, y, params, pairwise),
    }


def shortest_step(x: Any, y: Any, params: Any, pairwise: bool) -> float:
    """Return min over scales s of ‖J⁺(y/s − f(w⁰; v⁰))‖, the length of the first Newton step for v = s·v⁰.

    0 from a mirrored start (s → ∞); from a plain one it stays away from 0, and no smaller ball holds a solution to
    first order, whatever the scale.
    """
    operator = nj.jacobian.pairwise if pairwise else nj.jacobian.standard
    apply_fn = nj.models.pairwise_apply if pairwise else nj.models.standard_apply
    inverse = np.linalg.pinv(np.asarray(operator(params, x).dense()))
    labels, outputs = inverse @ y[:, 0], inverse @ np.asarray(apply_fn(params, x))[:, 0]
    best = max(labels @ outputs / (labels @ labels), 0.0)  # 1/s ≥ 0
    return float(np.linalg.norm(best * labels - outputs))


def table(records: list[dict[str, Any]]) -> list[str]:
    """Return the records as lines of text."""
    lines = ["start     head      ball     m    loss      shortest step"]
    for r in records:
        mirrored, head = (
            ("mirrored" if r["mirrored"] else "plain"),
            ("pairwise" if r["pairwise"] else "standard"),
        )
        ball = f"{r['radius']:g}" if r["ball"] else "none"
        lines.append(
            f"{mirrored:9} {head:9} {ball:6} {r['width']:4}    {r['loss']:.1e}   {r['shortest_step']:.2g}"
        )
    return lines


def figure(records: list[dict[str, Any]], path: Path) -> None:
    """Draw the loss over the radius, one line a combination, one panel a width."""
    from matplotlib.figure import Figure

    widths = sorted({r["width"] for r in records})
    canvas = Figure(figsize=(5.5 * len(widths), 4.2), layout="constrained")
    for axes, width in zip(canvas.subplots(1, len(widths), squeeze=False)[0], widths, strict=True):
        for (mirrored, pairwise), style in zip(
            itertools.product((True, False), repeat=2), ("o-", "s-", "o--", "s--"), strict=True
        ):
            rows = [
                r
                for r in records
                if (r["mirrored"], r["pairwise"], r["width"]) == (mirrored, pairwise, width)
            ]
            name = (
                f"{'mirrored' if mirrored else 'plain'} start, {'pairwise' if pairwise else 'standard'} head"
            )
            labels = [f"{r['radius']:g}" if r["ball"] else "no ball" for r in rows]
            axes.semilogy(labels, [r["loss"] for r in rows], style, label=name)
        axes.set(xlabel="ε", ylabel="loss", title=f"width {width}, 2n/d = {2 * N // D}")
        axes.legend(fontsize=8)
    canvas.savefig(path, dpi=120)


def main() -> None:
    """Run all combinations, print them, write the record and the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one width, two radii, 200 steps")
    parser.add_argument(
        "--kappa", type=float, default=np.inf, help="κ of the pairwise head's cone; the paper's is 1"
    )
    parser.add_argument("--out", type=_cells.path, default=FOLDER, help="folder of the results")
    args = parser.parse_args()
    _cells.claim(args)
    widths, radii, steps = (QUICK_WIDTHS, QUICK_RADII, QUICK_STEPS) if args.quick else (WIDTHS, RADII, STEPS)
    console = Console()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, D)), rng.normal(size=(N, 1))
    records = []
    with jax.enable_x64(True):
        for width, mirrored, pairwise in itertools.product(widths, (True, False), (True, False)):
            records += [
                combination(x, y, mirrored, pairwise, width, radius, args.kappa, steps)
                for radius in (*radii, float("inf"))
            ]
            console.print(f"m = {width}, mirrored {mirrored}, pairwise {pairwise}: done")
    _cells.record(args.out, records)
    figure(records, args.out / "figure.png")
    console.print("\n".join(table(records)))
    console.print(f"Written: {args.out / 'summary.json'}, {args.out / 'figure.png'}")


if __name__ == "__main__":
    main()
