"""Minibatch training: the regime against a plain Flax and optax loop, and against PyTorch.

Command:  python -m benchmarks.minibatch [--quick]   (needs the extra ``bench``; about four minutes on two cores)
Expected: at least 0.97 times the images per second of a Flax net of the same width trained by momentum SGD without
          ball and cone, one jitted step after the other; at least 2 times those of a PyTorch 2 eager loop that does
          the same as ours, batch by batch. The second is not reached at d=3072. Beside them the batches and the
          two large products of each step alone, by NumPy's BLAS, which is about what is left to gain.
Writes:   benchmarks/results/minibatch.json, except with ``--quick``

Every run draws a new order an epoch, and measures loss and accuracy on all images at its start and end.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import narrow_jax as nj
from benchmarks import _timing
from narrow_jax.data import epoch_order

RADIUS, ZETA, RATE, MOMENTUM, CLASSES = 1.0, 1e-3, 0.05, 0.9, 10
FLAX_BAR, TORCH_BAR = 0.97, 2.0


class Size(NamedTuple):
    """A problem size: images, inputs, width, batch size, epochs."""

    n: int
    d: int
    m: int
    batch: int
    epochs: int

    def __str__(self) -> str:
        """Return the size in the project's letters."""
        return f"n={self.n}, d={self.d}, m={self.m}, batch {self.batch}"

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return self.epochs * (self.n // self.batch)


SIZES = (Size(1797, 64, 80, 32, 60), Size(10_000, 784, 64, 128, 30), Size(10_000, 3072, 64, 128, 30))
QUICK = (Size(200, 20, 8, 50, 2),)
KEY = jax.random.key(1)


def problem(size: Size) -> tuple[Any, tuple[np.ndarray, np.ndarray]]:
    """Return a mirrored start, and images and labels of that size: Gaussian, since their values cost nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size.n, size.d)).astype(np.float32)
    params = nj.initializers.mirrored_lecun(
        jax.random.key(0), inputs=size.d, width=size.m, outputs=CLASSES, zeta=ZETA
    )
    return params, (x, rng.integers(CLASSES, size=size.n).astype(np.int32))


def ours(size: Size, params: Any, data: Any) -> Callable[[], Any]:
    """Return a run of ``fit`` under the constraints."""
    tx = nj.constraints.regime(optax.sgd(RATE, momentum=MOMENTUM), RADIUS, ZETA)
    options: dict[str, Any] = {"loss": "cross_entropy", "batch_size": size.batch, "key": KEY}
    data = tuple(map(jnp.asarray, data))

    def run() -> Any:
        result = nj.fit(
            nj.models.pairwise_apply, params, tx, data, steps=size.steps, every=size.steps, **options
        )
        return jax.block_until_ready(result.params)

    return run


class Net(nn.Module):
    """The net that a Flax user would write."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits."""
        return nn.Dense(CLASSES, use_bias=False)(nn.tanh(nn.Dense(self.width, use_bias=False)(x)))


def flax_loop(size: Size, data: Any) -> Callable[[], Any]:
    """Return the plain loop: images on the device, a permutation an epoch, one jitted step after the other."""
    net, tx = Net(size.m), optax.sgd(RATE, momentum=MOMENTUM)
    x, y = map(jnp.asarray, data)
    start = net.init(jax.random.key(0), x[:1])

    def loss(params: Any, x: Any, y: Any) -> Any:
        logits = net.apply(params, x)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean(), logits

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any, rows: Any) -> Any:
        grads = jax.grad(loss, has_aux=True)(params, x[rows], y[rows])[0]
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def measure(params: Any, x: Any, y: Any) -> Any:
        value, logits = loss(params, x, y)
        return value, jnp.mean(jnp.argmax(logits, axis=1) == y)

    def run() -> Any:
        params, state, rng = start, tx.init(start), np.random.default_rng(0)
        first = measure(params, x, y)
        for _ in range(size.epochs):
            order = rng.permutation(size.n)[: size.n // size.batch * size.batch].reshape(-1, size.batch)
            for rows in order:
                params, state = step(params, state, x, y, rows)
        return jax.block_until_ready((params, first, measure(params, x, y)))

    return run


def torch_loop(size: Size, params: Any, data: Any) -> Callable[[], dict[str, np.ndarray]]:
    """Return our algorithm, with our batches, as an eager PyTorch loop: momentum SGD, ball, cone."""
    import torch

    x, y = torch.from_numpy(data[0]), torch.from_numpy(data[1]).long()
    start = {name: torch.from_numpy(np.array(leaf)) for name, leaf in params.items()}
    signs, h = torch.sign(start["v"]), start["v"].shape[0]
    orders = [torch.from_numpy(np.array(epoch_order(KEY, epoch, size.n))) for epoch in range(size.epochs)]
    cross_entropy = torch.nn.functional.cross_entropy

    def run() -> dict[str, np.ndarray]:
        w, v = (start[name].clone().requires_grad_(True) for name in ("w", "v"))
        sgd = torch.optim.SGD([w, v], lr=RATE, momentum=MOMENTUM)

        def logits(x: Any) -> Any:
            hidden = torch.tanh(x @ w)
            return (hidden[:, :h] - hidden[:, h:]) @ v

        @torch.no_grad()
        def measure() -> Any:
            outputs = logits(x)
            return cross_entropy(outputs, y), (outputs.argmax(dim=1) == y).float().mean()

        measure()
        for order in orders:
            for rows in order[: size.n // size.batch * size.batch].split(size.batch):
                sgd.zero_grad(set_to_none=True)
                cross_entropy(logits(x[rows]), y[rows]).backward()
                sgd.step()
                with torch.no_grad():
                    way = w - start["w"]
                    w.copy_(start["w"] + way * torch.clamp(RADIUS / torch.linalg.norm(way), max=1.0))
                    v.copy_(signs * torch.clamp(signs * v, min=ZETA))
        measure()
        return {"w": w.detach().numpy(), "v": v.detach().numpy()}

    return run


def products(size: Size, params: Any, data: Any) -> Callable[[], Any]:
    """Return the batch XB of each step, XB·W, and XBᵀ times as many columns as W has, by NumPy's BLAS."""
    w, x = np.asarray(params["w"]), data[0]
    orders = [np.asarray(epoch_order(KEY, epoch, size.n)) for epoch in range(size.epochs)]

    def run() -> None:
        for order in orders:
            for rows in order[: size.n // size.batch * size.batch].reshape(-1, size.batch):
                batch = x[rows]
                batch.T @ (batch @ w)

    return run


def compare(size: Size, repeats: int) -> list[dict[str, Any]]:
    """Time the loops in turns, after checking that ours and PyTorch's end at the same weights."""
    params, data = problem(size)
    runs = {
        "ours": ours(size, params, data),
        "flax": flax_loop(size, data),
        "torch": torch_loop(size, params, data),
        "products": products(size, params, data),
    }
    here, there = runs["ours"](), runs["torch"]()
    difference = max(float(np.abs(np.asarray(here[name]) - there[name]).max()) for name in ("w", "v"))
    seconds = _timing.best_seconds(runs, repeats)
    images = size.steps * size.batch
    return [
        {
            "what": what,
            "size": str(size),
            "ours": f"{images / seconds['ours']:.0f} images/s",
            "other": f"{images / seconds[other]:.0f} images/s",
            "result": f"{seconds[other] / seconds['ours']:.2f}×",
            **({"bar": f"≥ {bar} ×", "holds": seconds[other] / seconds["ours"] >= bar} if bar else {}),
            **extra,
        }
        for what, other, bar, extra in (
            ("regime against a plain Flax and optax loop", "flax", FLAX_BAR, {}),
            ("against PyTorch eager", "torch", TORCH_BAR, {"largest_difference_of_weights": difference}),
            ("batches and products alone, by NumPy", "products", None, {}),
        )
    ]


def main() -> None:
    """Run all comparisons, print the table and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one small size, nothing written")
    quick = parser.parse_args().quick
    records = [record for size in (QUICK if quick else SIZES) for record in compare(size, 1 if quick else 5)]
    _timing.table(records, ("what", "size", "ours", "other", "result", "bar", "holds"))
    if not quick:
        print(_timing.write("minibatch", "python -m benchmarks.minibatch", records, "flax", "torch"))


if __name__ == "__main__":
    main()
