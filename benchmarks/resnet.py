"""ResNet-18 with 64 instead of 512 channels in its last stage: one epoch over 10,000 images of CIFAR-10.

Command:  python -m benchmarks.resnet --raw-dir DIR [--quick]   (``--quick``: a tiny net on digits, nothing written)
Expected: in under 20 minutes and 12 GB on two cores, test accuracy of 30 % at least, inside ball and cone.
Writes:   benchmarks/results/resnet.json, except with ``--quick``

The regime: mirrored last stage in a ball, pairwise head in its cone; momentum SGD with weight decay, its step size
falling as a cosine; images flipped inside the step.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import optax

import narrow_jax as nj
from benchmarks import _timing
from experiments._image_sets import accuracy

RADIUS, RATE, MOMENTUM, DECAY = 100.0, 0.05, 0.9, 5e-4


def epoch(net: nj.models.ResNet, data: nj.data.Dataset, batch_size: int, progress: bool) -> dict[str, Any]:
    """Return the record of one epoch."""
    assert data.labels is not None and data.x_test is not None and data.labels_test is not None  # noqa: PT018
    assert data.image_shape is not None
    x, x_test = (rows.reshape(-1, *data.image_shape) for rows in (data.x, data.x_test))
    forward, steps = nj.models.Stateful(net), len(x) // batch_size
    started = time.perf_counter()
    state = jax.jit(net.init)(jax.random.key(0, impl="rbg"), x[:1])
    params = state.pop("params")
    sgd = optax.chain(
        optax.add_decayed_weights(DECAY),
        optax.sgd(optax.cosine_decay_schedule(RATE, steps), momentum=MOMENTUM),
    )
    result = nj.fit(
        forward,
        params,
        nj.constraints.regime(sgd, RADIUS, labels=net.labels),
        nj.data.Stream(x, data.labels),
        steps=steps,
        loss="cross_entropy",
        batch_size=batch_size,
        key=jax.random.key(1),
        augment=nj.data.augment.horizontal_flip,
        every=steps,
        model_state=state,
        callbacks=[nj.callbacks.Progress(progress)],
    )
    trained = time.perf_counter()
    return {
        "images": len(x),
        "batch_size": batch_size,
        "seconds": round(trained - started, 1),
        "test_accuracy": accuracy(forward, result.params, result.model_state, x_test, data.labels_test),
        "seconds_to_test": round(time.perf_counter() - trained, 1),
        "relative_distance": float(result.history["relative_distance"][-1]),
        "loss": result.history["loss"].tolist(),
        "peak_gb": round(_timing.peak_gb(), 2),
    }


def main() -> None:
    """Train, print and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw-dir", type=_timing.path, help="folder with the data sets' original files")
    parser.add_argument("--quick", action="store_true", help="a tiny net on digits, nothing written")
    args = parser.parse_args()
    if args.quick:
        net = nj.models.ResNet(channels=(4, 8), blocks=(1, 1), outputs=10)
        data = nj.data.load("digits", samples=200, normalize="scale", test_fraction=0.2)
    else:
        net = nj.models.ResNet18(width=64, outputs=10, stem="small")
        data = nj.data.load("cifar10", samples=10_000, normalize="scale", raw_dir=args.raw_dir)
    record = epoch(net, data, batch_size=20 if args.quick else 50, progress=True)
    print(record)
    if not args.quick:
        print(_timing.write("resnet", "python -m benchmarks.resnet --raw-dir DIR", [record], "flax"))


if __name__ == "__main__":
    main()
