"""Training: what the projection costs, against a PyTorch loop, and a sweep against single runs.

Command:  python -m benchmarks.training   (needs the extra ``bench``; about four minutes on two cores)
Expected: projection ≤ 8 % of an optax SGD step at n=1000, d=50, m=60 and ≤ 12 % at n=200, d=20, m=40;
          ≥ 2.5 and ≥ 8 times the steps per second of a PyTorch 2 eager loop at these sizes;
          a sweep of 24 runs no slower a run than single runs, its whole job, compilation included, at most
          half of 24 separately compiled runs.
Writes:   benchmarks/results/training.json
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import narrow_jax as nj
from benchmarks import _timing

RADIUS, ZETA, RATE = 0.1, 1e-3, 1e-3
SWEEP_GRID: dict[str, list[float]] = {
    "radius": [0.1, 1.0],
    "learning_rate": [1e-4, 1e-3, 1e-2, 1e-1],
    "seed": [0, 1, 2],
}


class Size(NamedTuple):
    """A problem size and the bars it is held to."""

    n: int
    d: int
    m: int
    projection_bar: float
    torch_bar: float

    def __str__(self) -> str:
        """Return the size in the project's letters."""
        return f"n={self.n}, d={self.d}, m={self.m}"


SIZES = (Size(1000, 50, 60, 0.08, 2.5), Size(200, 20, 40, 0.12, 8.0))


def problem(size: Size) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """Return a mirrored start and Gaussian data in float32."""
    key_x, key_y, key_p = jax.random.split(jax.random.key(0), 3)
    x, y = jax.random.normal(key_x, (size.n, size.d)), jax.random.normal(key_y, (size.n, 1))
    return nj.initializers.mirrored_lecun(key_p, inputs=size.d, width=size.m), (x, y)


def scan_loop(tx: optax.GradientTransformation, params: Any, data: Any, steps: int) -> Callable[[], Any]:
    """Return a jitted run of plain optax steps, without anything of ``fit``."""

    @jax.jit
    def run(params: Any, x: Any, y: Any) -> Any:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            grads = jax.grad(lambda p: nj.losses.squared(nj.models.pairwise_apply(p, x), y))(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0]

    return lambda: jax.block_until_ready(run(params, *data))


def projection(size: Size, steps: int = 300, repeats: int = 40) -> dict[str, Any]:
    """Time an optax SGD step without and with the projection onto ball and cone."""
    params, data = problem(size)
    sgd = optax.sgd(RATE)
    projected = optax.chain(sgd, nj.constraints.project(RADIUS, ZETA))
    runs = {
        "sgd": scan_loop(sgd, params, data, steps),
        "projected": scan_loop(projected, params, data, steps),
    }
    seconds = _timing.best_seconds(runs, repeats)
    cost = seconds["projected"] / seconds["sgd"] - 1
    return {
        "what": "projection in an SGD step",
        "size": str(size),
        "ours": f"{1e6 * seconds['projected'] / steps:.1f} µs",
        "other": f"{1e6 * seconds['sgd'] / steps:.1f} µs",
        "result": f"+{100 * cost:.1f} %",
        "bar": f"≤ {100 * size.projection_bar:.0f} %",
        "holds": cost <= size.projection_bar,
    }


def torch_loop(params: Any, data: Any, steps: int) -> Callable[[], list[np.ndarray]]:
    """Return the same algorithm as an eager PyTorch loop: Adam in ball coordinates, ball, cone."""
    import torch

    x, y = (torch.from_numpy(np.array(leaf)) for leaf in data)
    start = {name: torch.from_numpy(np.array(leaf)) for name, leaf in params.items()}
    h, scale = start["v"].shape[0], min(RADIUS, 1.0)

    def run() -> list[np.ndarray]:
        # the optimizer owns ŵ = (w − w⁰)/s and v̂ = s·v; the projection acts on them
        w_hat = torch.zeros_like(start["w"], requires_grad=True)
        v_hat = (scale * start["v"]).clone().requires_grad_(True)
        adam = torch.optim.Adam([w_hat, v_hat], lr=RATE)
        for _ in range(steps):
            adam.zero_grad(set_to_none=True)
            hidden = torch.tanh(x @ (start["w"] + scale * w_hat))
            outputs = (hidden[:, :h] - hidden[:, h:]) @ (v_hat / scale)
            loss = 0.5 * torch.sum((y - outputs) ** 2)
            loss.backward()
            adam.step()
            with torch.no_grad():
                norm = torch.linalg.norm(w_hat)
                w_hat.mul_(torch.clamp(RADIUS / scale / norm, max=1.0))
                v_hat.clamp_(min=scale * ZETA)
        return [(start["w"] + scale * w_hat).detach().numpy(), (v_hat / scale).detach().numpy()]

    return run


def against_torch(size: Size, steps: int = 3000, repeats: int = 4) -> dict[str, Any]:
    """Time ``fit`` against the PyTorch loop, after checking that both end at the same weights."""
    params, data = problem(size)
    tx = nj.constraints.regime(optax.adam(RATE), RADIUS, ZETA)

    def ours() -> Any:
        return jax.block_until_ready(nj.fit(nj.models.pairwise_apply, params, tx, data, steps=steps).params)

    theirs = torch_loop(params, data, steps)
    distance = float(np.abs(np.asarray(ours()["w"]) - theirs()[0]).max())
    seconds = _timing.best_seconds({"ours": ours, "torch": theirs}, repeats)
    ratio = seconds["torch"] / seconds["ours"]
    return {
        "what": "steps per second against PyTorch eager",
        "size": str(size),
        "ours": f"{steps / seconds['ours']:.0f} steps/s",
        "other": f"{steps / seconds['torch']:.0f} steps/s",
        "result": f"{ratio:.1f}×",
        "bar": f"≥ {size.torch_bar} ×",
        "holds": ratio >= size.torch_bar,
        "largest_difference_of_weights": distance,
    }


def sweep_setup(size: Size) -> Callable[..., Any]:
    """Return the setup of one point of the grid."""

    def setup(radius: Any, learning_rate: Any, seed: Any) -> Any:
        params = nj.initializers.mirrored_lecun(jax.random.key(seed), inputs=size.d, width=size.m)
        return params, nj.constraints.regime(optax.adam(learning_rate), radius)

    return setup


def points() -> list[dict[str, float]]:
    """Return the points of the grid one by one."""
    return [dict(zip(SWEEP_GRID, values, strict=True)) for values in itertools.product(*SWEEP_GRID.values())]


def sweep(size: Size, steps: int = 2000, repeats: int = 3) -> list[dict[str, Any]]:
    """Time one sweep of 24 runs against single runs: warm a run, and the whole job with compilation."""
    _, data = problem(size)
    setup, grid = sweep_setup(size), points()

    def swept() -> Any:
        return nj.sweep(nj.models.pairwise_apply, setup, data, grid=SWEEP_GRID, steps=steps)

    def single(point: dict[str, float], tx: Any) -> Any:
        params = setup(**point)[0]
        return nj.fit(nj.models.pairwise_apply, params, tx, data, steps=steps)

    jax.clear_caches()
    started = time.perf_counter()
    all_at_once = swept()
    whole_sweep = time.perf_counter() - started
    started = time.perf_counter()
    one_by_one = []
    for point in grid:
        jax.clear_caches()
        one_by_one.append(single(point, setup(**point)[1]))
    whole_single = time.perf_counter() - started
    ends = np.array([run.history["loss"][-1] for run in one_by_one])
    different = np.abs(all_at_once.history["loss"][..., -1].ravel() - ends) / ends[0]
    tx = setup(**grid[0])[1]
    warm = _timing.best_seconds({"sweep": swept, "single": lambda: single(grid[0], tx)}, repeats)
    per_run = warm["sweep"] / len(grid)
    records = [
        ("a run of a sweep of 24, warm", per_run, warm["single"], 1.0),
        ("24 runs with compilation", whole_sweep, whole_single, 0.5),
    ]
    return [
        {
            "what": what,
            "size": f"{size}, {steps} steps",
            "ours": f"{ours:.3f} s",
            "other": f"{other:.3f} s",
            "result": f"{ours / other:.2f}×",
            "bar": f"≤ {bar} ×",
            "holds": ours / other <= bar,
            "median_relative_difference_of_loss": float(np.median(different)),
        }
        for what, ours, other, bar in records
    ]


def main() -> None:
    """Run all comparisons, print the table and write the record."""
    records = [projection(size) for size in SIZES]
    records += [against_torch(size) for size in SIZES]
    records += sweep(SIZES[1])
    _timing.table(records, ("what", "size", "ours", "other", "result", "bar", "holds"))
    print(_timing.write("training", "python -m benchmarks.training", records, "torch"))


if __name__ == "__main__":
    main()
