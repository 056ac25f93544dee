"""Figure 4: loss and σ_min over width × ε, for the pairwise regime and for the standard net with the ball added.

Command:  python -m experiments.narrow_fig4 [--quick] [--kappa 1] [--n N] [--d D] [--widths …] [--radii …] [--out DIR]
Cost:     three and a half minutes on two cores, with κ = 1 four and a half beside other work; ``--quick`` seconds.
Expected: three columns: PGD as the paper writes it, PGD (Adam) in the coordinates of the ball, and the KKT solver. In
          the bare coordinates small balls stay at high loss in either net: one step size cannot serve both layers. At
          the KKT points the pairwise net reaches loss 0 at every ε from m = 2n/d = 20 on, and the standard net only
          where ε lets it travel. "Regular training fails when the net is narrow" does not reproduce: at ε = 1000 the
          standard net does well.
Result:   as expected (docs/figures/narrow_fig4.* and narrow_fig4_kappa1.*; loss at κ = ∞ and 1). Pairwise net, m = 20
          and 40: KKT points at every ε below 1e-15 and 6e-15; ε ≤ 1, in the ball's coordinates below 2e-9 at m = 40 and
          8e-4 to 4 at m = 20; PGD above 11 at every width. Standard net, ε ≤ 0.3: above 57 by every method and at
          every width; ε = 1000, m ≥ 12: at most 2e-3 by PGD and 2e-29 by Adam, σ_min 0.25 at least: not singular. With
          ε ≥ 10 and m ≥ 12 nothing tells the nets apart. All 100 KKT points have a residual ≤ 1e-8.
Writes:   runs/narrow_fig4/summary.json (one record a method, net, width and radius), loss.png and sigma_min.png.

n = 200, d = 20, Gaussian x and y, tanh, float64 (the paper does not state its n, d and axes). The step size of a cell
is the best of a grid on the first seed; its loss is the median of the seeds. κ is 1 in the paper; ∞ here unless given.
All runs of a width are one vmapped call.

Reference: "When Expressivity Meets Trainability", Figure 4.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.image import AxesImage

import narrow_jax as nj

from ._nets import Net, Params, pairwise, standard
from ._run import EVEN_WIDTHS, Figure, Record, canvas, cells, experiment, require_memory

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
METHODS = ("PGD", "PGD in ball coordinates", "KKT solver")
NETS = {"pairwise": "pairwise regime", "standard": "standard net + ball"}


def problem(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return Gaussian x and y."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(args.n, args.d)), rng.normal(size=(args.n, 1))


def first_order(args: argparse.Namespace, net: Net, width: int, scaled: bool) -> list[Record]:
    """Return the records of one width: the best step size of each radius on seed 0, and the median of all seeds."""
    x, y = problem(args)
    radii, steps = jnp.array(args.radii), args.steps

    def trained(rates: jax.Array, **grid: Sequence[int]) -> nj.FitResult:
        """Train at the step sizes (radius, rate) over a grid of their numbers and of seeds."""

        def setup(
            ball: jax.Array, rate: jax.Array, seed: jax.Array
        ) -> tuple[Params, optax.GradientTransformation]:
            params = net.start(jax.random.key(seed), inputs=args.d, width=width, dtype=jnp.float64)
            if scaled:
                adam = optax.adam(optax.cosine_decay_schedule(rates[ball, rate], steps))
                return params, net.regime(adam, radii[ball])
            sgd = optax.sgd(rates[ball, rate])
            return params, optax.chain(sgd, nj.constraints.project(radii[ball], **net.cone))

        balls = range(len(args.radii))
        return nj.sweep(
            net.apply_fn,
            setup,
            (x, y),
            grid={"ball": balls, **grid},
            steps=steps,
            every=steps,
            progress=False,
        )

    first = trained(jnp.tile(jnp.array(RATES), (len(radii), 1)), rate=range(len(RATES)), seed=[0])
    best = jnp.array(RATES)[np.argmin(losses(first)[..., 0], axis=1)]
    result = trained(best[:, None], rate=[0], seed=range(args.seeds))
    records = []
    for ball, (radius, rate, of_seeds) in enumerate(zip(args.radii, best, losses(result)[:, 0], strict=True)):
        seed = int(np.argsort(of_seeds)[len(of_seeds) // 2])
        params = {name: np.asarray(leaf[ball, 0, seed]) for name, leaf in result.params.items()}
        more = {"loss": float(np.median(of_seeds)), "losses": of_seeds.tolist(), "rate": float(rate)}
        records.append(record(net, METHODS[int(scaled)], width, radius, params, x) | more)
    return records


def losses(result: nj.FitResult) -> np.ndarray:
    """Return the last loss of every run, ∞ where it diverged."""
    return np.where(result.diverged, np.inf, result.history["loss"][..., -1])


def kkt_points(args: argparse.Namespace, net: Net, width: int) -> list[Record]:
    """Return the records of the KKT solver, from the start of seed 0."""
    x, y = problem(args)
    records = []
    key, kappa = jax.random.key(0), net.cone.get("kappa", np.inf)
    for radius in args.radii:
        s = nj.solvers.solve_kkt(
            key,
            x,
            y,
            width,
            radius,
            kappa=kappa,
            activation=args.activation,
            model=net.name,
            progress=False,
        )
        records.append(record(net, METHODS[2], width, radius, s.params, x))
        records[-1] |= {"loss": s.loss, "residual": s.residual}
    return records


def record(
    net: Net, method: str, width: int, radius: float, params: dict[str, np.ndarray], x: np.ndarray
) -> Record:
    """Return σ_min of the Jacobian at a net's last weights; 0 where there are more samples than weights."""
    sigma = nj.sigma_min(net.jacobian(params, x), certify=False)
    return {
        "net": net.name,
        "method": method,
        "width": width,
        "radius": radius,
        "sigma_min": float(sigma.value),
    }


def loss(content: Record) -> Figure:
    """Draw the loss, a heat map a net and method."""
    return heat_maps(content, "loss", "loss", LogNorm(1e-20, 1e2, clip=True))


def sigma_min(content: Record) -> Figure:
    """Draw σ_min, a heat map a net and method."""
    return heat_maps(content, "sigma_min", r"$\sigma_{\min}(J)$", LogNorm(1e-4, 1e2, clip=True))


def heat_maps(content: Record, quantity: str, label: str, limits: LogNorm) -> Figure:
    """Draw a quantity, one row a net and one column a method."""
    s = content["settings"]
    fig = canvas(15, 7.4, dpi=110)
    panels = fig.subplots(len(NETS), len(METHODS))
    for row, net in zip(panels, NETS, strict=True):
        for axes, method in zip(row, METHODS, strict=True):
            shown = heat_map(
                axes,
                [r for r in content["cells"] if (r["net"], r["method"]) == (net, method)],
                quantity,
                limits,
            )
            axes.set_title(f"{NETS[net]}\n{method}")
    fig.colorbar(shown, ax=panels, label=label)
    kappa = "∞" if s["kappa"] == "inf" else f"{s['kappa']:g}"
    fig.suptitle(
        f"n = {s['n']}, d = {s['d']}, {s['activation']}, κ = {kappa}; 2n/d = {2 * s['n'] / s['d']:g}"
    )
    return fig


def heat_map(axes: Axes, records: list[Record], quantity: str, limits: LogNorm) -> AxesImage:
    """Draw a quantity over width × ε, each cell with its number; zeros, and cells that were not run, hatched."""
    widths, radii = (sorted({float(r[name]) for r in records}) for name in ("width", "radius"))
    found = {(r["width"], float(r["radius"])): float(r[quantity]) for r in records}
    values = np.array([[found.get((width, radius), np.nan) for radius in radii] for width in widths])
    axes.grid(visible=False)
    axes.patch.set(hatch="///", edgecolor="0.7")
    shown = axes.imshow(np.ma.masked_where(~(values > 0), values), norm=limits, origin="lower", aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        color = "white" if value > 0 and limits(value) < 0.6 else "black"
        text = f"{value:.0e}" if value else "0"
        axes.text(j, i, "" if np.isnan(value) else text, ha="center", va="center", color=color)
    axes.set_xticks(range(len(radii)), [f"{radius:g}" for radius in radii])
    axes.set_yticks(range(len(widths)), [f"{width:g}" for width in widths])
    axes.set(xlabel="ε", ylabel="width")
    return shown


def told(last: Record) -> str:
    """Say what a cell gave."""
    return f"m = {last['width']}, {last['net']}, {last['method']}: loss {last['loss']:.1e} at ε = {last['radius']:g}"


@experiment(
    __doc__,
    "runs/narrow_fig4",
    loss,
    sigma_min,
    sizes={
        "n": 200,
        "d": 20,
        "widths": (4, 8, 12, 20, 40),
        "radii": (0.1, 0.3, 1.0, 10.0, 1000.0),
        "activation": "tanh",
        "kappa": np.inf,
        "seeds": 3,
        "steps": 5000,
    },
    quick={"n": 40, "d": 8, "widths": (8,), "radii": (0.1, 1000.0), "seeds": 2, "steps": 100},
    options=EVEN_WIDTHS,
)
def main(args: argparse.Namespace) -> list[str]:
    """Run the widths, nets and methods that are missing."""
    runs = len(args.radii) * max(len(RATES), args.seeds)
    require_memory(
        8 * runs * max(args.widths) * (4 * args.n + 6 * args.d) + 32 * args.n**2,
        f"a call of {runs} runs with {max(args.widths)} hidden units and {args.n:,} samples",
    )
    nets = (pairwise(args.activation, kappa=args.kappa), standard(args.activation))

    def cell(width: int, net: str, method: str) -> list[Record]:
        [chosen] = (one for one in nets if one.name == net)
        if method == METHODS[2]:
            return kkt_points(args, chosen, width)
        return first_order(args, chosen, width, scaled=method == METHODS[1])

    with jax.enable_x64(True):
        cells(args, {"width": args.widths, "net": NETS, "method": METHODS}, cell, told, radii=args.radii)
    return []


if __name__ == "__main__":
    main()
