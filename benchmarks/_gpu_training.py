"""Training of ResNet-18 on an accelerator: images per second, with the regime and without, bfloat16 and float32."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import narrow_jax as nj

RADIUS, RATE, MOMENTUM, DECAY = 100.0, 0.1, 0.9, 5e-4


class Job(NamedTuple):
    """A net, and the data in numbers: images, pixels on a side, batch size."""

    net: nj.models.ResNet
    images: int
    pixels: int
    batch: int


FULL = Job(nj.models.ResNet18(width=64, outputs=10), 50_000, 32, 512)
QUICK = Job(nj.models.ResNet(channels=(4,), blocks=(1,), outputs=10), 640, 6, 16)


def throughputs(job: Job) -> list[dict[str, Any]]:
    """Return one record a method and precision; the images are noise, since their values cost nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(job.images, job.pixels, job.pixels, 3)).astype(np.float32)
    data = jax.device_put((x, rng.integers(10, size=job.images).astype(np.int32)))
    sgd = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, momentum=MOMENTUM))
    regime = nj.constraints.regime(sgd, RADIUS, labels=job.net.labels)
    return [
        throughput(job, data, net, tx, bfloat16) | {"what": f"ResNet, {method}, {precision}"}
        for method, net, tx in (("regime", job.net, regime), ("plain SGD", job.net.clone(head="dense"), sgd))
        for precision, bfloat16 in (("bfloat16", True), ("float32", False))
    ]


def throughput(
    job: Job, data: tuple[jax.Array, jax.Array], net: nj.models.ResNet, tx: Any, bfloat16: bool
) -> dict[str, Any]:
    """Return images per second over two epochs: what a run of three takes longer than a run of one.

    So neither compiling nor measuring on all images, at the start and the end of each run, is counted.
    """
    state = jax.jit(net.init)(jax.random.key(0), data[0][:1])
    params, steps = state.pop("params"), job.images // job.batch
    forward = nj.models.Stateful(net)

    def train(epochs: int) -> float:
        started = time.perf_counter()
        result = nj.fit(
            nj.precision.bfloat16(forward) if bfloat16 else forward,
            params,
            tx,
            data,
            steps=epochs * steps,
            every=epochs * steps,
            loss="cross_entropy",
            batch_size=job.batch,
            key=jax.random.key(1),
            augment=nj.data.augment.horizontal_flip,
            model_state=state,
            callbacks=[],
        )
        jax.block_until_ready(result.params)
        return time.perf_counter() - started

    first, one, three = train(1), train(1), train(3)
    return {
        "size": f"{job.images} images of {job.pixels} × {job.pixels}, batch {job.batch}",
        "seconds": round(three, 2),
        "first_call": round(first, 2),
        "result": f"{2 * steps * job.batch / (three - one):.0f} images/s",
    }
