"""Gradient descent under its proven bound: a narrow pair, a deep pair, real images, and a net of Theorem 3.2.

Command:  python -m experiments.descent_bound [--quick] [--out DIR]
Cost:     a minute and a half on two cores; ``--quick`` a few seconds and one small pair.
Expected: neither the bound of the loss nor that of the distance is ever exceeded, with 2n/d neurons as with many. The
          certified step of pairs with a large V is within a small factor of the best that a search finds; where Theorem
          3.2 holds as well, it promises less.
Result:   as expected (docs/figures/descent_bound.*). Share of the loss that a step removes, proven / seen with the
          best step: narrow pair 4.9e-3 / 2.7e-2, deep pair 6.0e-3 / 3.4e-2, digits 1.2e-3 / 1.6e-2, one wide layer
          6.0e-2 / 7.1e-2; the best step is 2, 2, 2 and 1 times the certified one. Steps to 1e-4 of the loss: 1876,
          1535, 7875, 150; for the last 288 by the sharper constants of Theorem 3.2 and 21,710 by the paper's.
Writes:   runs/descent_bound/summary.json (one record a case) and figure.png.

Reference: "When Expressivity Meets Trainability", section 6; docs/proofs/gradient_descent.md; "Global Convergence of
Deep Networks with One Wide Layer Followed by Pyramidal Topology", Theorem 3.2.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import narrow_jax as nj
from narrow_jax.certificates import GradientDescent

from ._nets import Params
from ._run import Figure, Record, Table, canvas, cells, experiment, table
from .pyramidal_convergence import on_sphere, practical

TANH = nj.activations.get("tanh")
TANH_VALUE = TANH.value or TANH
LEAKY_TANH = nj.activations.Activation(
    "(z + tanh z)/2",
    lambda z: (z + jnp.tanh(z)) / 2,
    lambda z: (1 + TANH.derivative(z)) / 2,
    lipschitz=1.0,
    min_derivative=0.5,
    sup_second_derivative=TANH.sup_second_derivative / 2,
    derivative_error=6.0,  # (9·½ + 1)u
    analytic=True,
    zero_only_at_zero=True,
    value=lambda z: (z + TANH_VALUE(z)) / 2,
    value_error=4.0,  # (5/2 + 1)u
)
"""Both theorems speak of it: its slopes are in [½, 1], and the rounding of its value is known."""

USUAL, QUICK = ("narrow pair", "deep pair", "digits", "one wide layer"), "few samples"
RECORDS = 400
SHARE = 1e-4
"""Share of the loss at the start that all steps are counted to."""

ROUNDING = 1e-22
"""Share of ½‖y‖² that rounding hides in the loss, above which it is compared with its bound."""


class Case(NamedTuple):
    """A start, its data, what it computes from the weights that move, and the certificate of its descent."""

    name: str
    sizes: str
    x: np.ndarray
    y: np.ndarray
    moving: Params
    apply_fn: Callable[..., jax.Array]
    certificate: GradientDescent
    theorem: nj.certificates.PyramidalCertificate | None = None


def pair(name: str, sizes: str, x: np.ndarray, y: np.ndarray, params: Params) -> Case:
    """Return the case of a pair whose V is frozen, multiplied by what the certificate asks for."""
    c = nj.certificates.gradient_descent(params, x, y)
    v = (c.scale or 1.0) * params["v"]
    if c.scale != 1:
        c = nj.certificates.gradient_descent({**params, "v": v}, x, y)
    hidden = {leaf: value for leaf, value in params.items() if leaf != "v"}
    net = nj.models.pairwise_apply if "w" in params else nj.models.pairwise_mlp_apply
    return Case(name, sizes, x, y, hidden, lambda w, x: net({**w, "v": v}, x), c)


def pyramid(name: str, sizes: str, x: np.ndarray, y: np.ndarray, widths: tuple[int, ...]) -> Case:
    """Return the case of a net with one wide layer from a start of Theorem 3.2; all its weights move."""
    found = nj.solvers.pyramidal_start(jax.random.key(0), x, y, widths, LEAKY_TANH, dtype=jnp.float64)
    c = nj.certificates.gradient_descent(found.params, x, y, LEAKY_TANH, wrt="all")
    net = functools.partial(nj.models.mlp_apply, activation=LEAKY_TANH)
    return Case(name, sizes, x, y, found.params, net, c, found.certificate)


def narrow(inputs: int, width: int) -> Params:
    """Return a mirrored start of one hidden layer; κ = 1 makes all v equal."""
    return nj.initializers.mirrored_lecun(
        jax.random.key(0), inputs=inputs, width=width, kappa=1.0, dtype=jnp.float64
    )


def deep(inputs: int, widths: tuple[int, ...]) -> Any:
    """Return a mirrored start of several hidden layers."""
    return nj.initializers.mirrored_mlp(
        jax.random.key(0), inputs=inputs, widths=widths, kappa=1.0, scale=1.5, dtype=jnp.float64
    )


def cases() -> dict[str, Callable[[], Case]]:
    """Return what makes each case, by name."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 20)), rng.normal(size=(100, 1))
    digits = nj.data.load("digits", labels="random", normalize="whiten", samples=500)
    images, labels = digits.x.astype(float), digits.y.astype(float)
    sphere, small = on_sphere(rng.normal(size=(5, 10))), 0.01 * rng.normal(size=(5, 1))
    few = slice(20), slice(10)
    return {
        "narrow pair": lambda: pair("narrow pair", "n = 100, d = 20, m = 40", x, y, narrow(20, 40)),
        "deep pair": lambda: pair("deep pair", "n = 100, d = 20, widths (16, 16)", x, y, deep(20, (16, 16))),
        "digits": lambda: pair(
            "digits", "n = 500, random labels, m = 120", images, labels, narrow(images.shape[1], 120)
        ),
        "one wide layer": lambda: pyramid(
            "one wide layer", "N = 5, d = 10, widths (400, 1)", sphere, small, (400, 1)
        ),
        "few samples": lambda: pair("few samples", "n = 20, d = 10, m = 8", x[few], y[:20], narrow(10, 8)),
    }


def descend(case: Case, learning_rate: float, steps: int, every: int) -> dict[str, np.ndarray]:
    """Return step, loss and distance from the start along gradient descent."""
    history = nj.fit(
        case.apply_fn,
        case.moving,
        optax.sgd(learning_rate),
        (case.x, case.y),
        steps=steps,
        every=every,
        monitors=[from_start()],
        callbacks=[],
    ).history
    return {name: history[name] for name in ("step", "loss", "from start")}


def from_start() -> nj.monitors.Monitor:
    """Return a monitor of ‖θ_k − θ⁰‖."""

    def update(start: Params, params: Params, x: object) -> tuple[Params, jax.Array]:
        return start, optax.tree.norm(jax.tree.map(jnp.subtract, params, start))

    return nj.monitors.Monitor("from start", lambda params, x: params, update)


def run(case: Case, most: int) -> list[Record]:
    """Return the record of a case, with the curves of its panel: steps and values by name."""
    started = time.perf_counter()
    c = case.certificate
    target = SHARE * float(c.loss_bound(0))
    steps = int(min(most, 1.2 * c.steps_to(target)))
    every = max(1, steps // RECORDS)
    own = descend(case, c.learning_rate, steps, every)
    bound = np.asarray(c.loss_bound(own["step"]))
    step, rate = practical(case.apply_fn, case.moving, (case.x, case.y), c.learning_rate)
    best = descend(case, step, steps, every)
    floor = ROUNDING * np.sum(np.square(case.y)) / 2
    record = {
        "name": case.name,
        "sizes": case.sizes,
        "shapes": [np.shape(leaf) for leaf in jax.tree.leaves(case.moving)],
        "holds": c.holds,
        "reason": c.reason,
        **{name: getattr(c, name) for name in ("g", "q", "sigma", "lipschitz", "beta", "radius")},
        "learning_rate": c.learning_rate,
        "max_learning_rate": c.max_learning_rate,
        "share_removed": 1 - (1 - c.rate) ** 2,
        "steps_to_target": c.steps_to(target),
        "steps": steps,
        "loss": float(own["loss"][-1] / own["loss"][0]),
        "bound": float(bound[-1] / bound[0]),
        "never_exceeded": bool(np.all(own["loss"] <= bound + floor)),
        "distance_over_bound": float(np.max(own["from start"]) / c.distance_bound()),
        "practical": {"learning_rate": step, "share_removed": rate},
        "theorem_3_2": theorem(case, target),
        "seconds": round(time.perf_counter() - started, 1),
    }
    curves = {"best step": (best["step"], best["loss"])} if step > c.learning_rate else {}
    curves |= {"loss, certified step": (own["step"], own["loss"]), "bound": (own["step"], bound)}
    if case.theorem is not None:
        for name, g in (("paper", case.theorem.paper), ("sharper", case.theorem.sharper)):
            curves[f"Theorem 3.2, {name}"] = own["step"], np.array([g.loss_bound(k) for k in own["step"]])
    short = {
        name: [[float(f"{v:.5g}") for v in values] for values in lines] for name, lines in curves.items()
    }
    return [record | {"curves": short}]


def theorem(case: Case, target: float) -> Record | None:
    """Return what Theorem 3.2 promises of the same start; None where the net is not of its kind."""
    if case.theorem is None:
        return None
    promised = {
        name: {
            "learning_rate": g.learning_rate,
            "share_removed": 10**g.log10_rate,
            "steps": g.steps_to(target),
        }
        for name, g in (("paper", case.theorem.paper), ("sharper", case.theorem.sharper))
    }
    return {"holds": case.theorem.holds, "reason": case.theorem.reason, **promised}


def summary(records: list[Record]) -> Table:
    """Return the records as a table for the terminal."""
    rows = []
    for r in records:
        shares = (f"{r['share_removed']:.0e}", f"{r['practical']['share_removed']:.0e}")
        promised = "" if r["theorem_3_2"] is None else f"{r['theorem_3_2']['sharper']['steps']:.0f}"
        kept = "yes" if r["never_exceeded"] else "NO"
        rows.append((r["name"], *shares, f"{times(r):g}", f"{r['steps_to_target']:.0f}", promised, kept))
    headings = ("case", "share\nproven", "\nseen", "best\nstep", "steps\nproven", "\nby 3.2", "bound\nkept")
    return table(f"Share of the loss that a step removes; steps to {SHARE:g} of it", headings, rows)


def times(record: Record) -> float:
    """Return the best step of a search in units of the certified one."""
    return record["practical"]["learning_rate"] / record["learning_rate"]


STYLES = {
    "best step": ("C2", "-", 1.2),
    "loss, certified step": ("C0", "-", 1.6),
    "bound": ("C0", "--", 2.0),
    "Theorem 3.2, paper": ("C3", ":", 2.0),
    "Theorem 3.2, sharper": ("C1", "--", 2.0),
}


def figure(content: Record) -> Figure:
    """Draw losses and bounds over the steps, one panel a case."""
    records = content["cells"]
    rows, columns = -(-len(records) // 2), min(2, len(records))
    fig = canvas(5.6 * columns, 4.0 * rows, dpi=110)
    panels = fig.subplots(rows, columns, squeeze=False).ravel()
    for axes, record in zip(panels, records, strict=False):
        start = record["curves"]["bound"][1][0]
        for name, (steps, losses) in record["curves"].items():
            color, style, width = STYLES[name]
            label = f"loss, best step: {times(record):g} × as large" if name == "best step" else name
            values = np.array(losses, float)
            shown = np.where(values > 1e-9 * start, values, np.nan)
            axes.semilogy(steps, shown, style, color=color, linewidth=width, label=label)
        axes.set_title(f"{record['name']}: {record['sizes']}")
        axes.set(xlabel="step", ylabel="½‖f − y‖²")
        axes.legend()
    fig.suptitle("Gradient descent: loss (solid) below its proven bound (dashed)")
    return fig


@experiment(
    __doc__,
    "runs/descent_bound",
    figure,
    sizes={"steps": 20_000},
    quick={"datasets": (QUICK,), "steps": 200},
    options={
        "datasets": {"choices": (*USUAL, QUICK), "nargs": "+", "default": USUAL, "help": "nets and data sets"}
    },
)
def main(args: argparse.Namespace) -> list[Table]:
    """Run the cases."""
    makers = cases()
    with jax.enable_x64(True):
        records = cells(
            args,
            {"name": args.datasets},
            lambda name: run(makers[name](), args.steps),
            lambda last: f"{last['name']}: {last['reason']}",
        )
    return [summary(records)]


if __name__ == "__main__":
    main()
