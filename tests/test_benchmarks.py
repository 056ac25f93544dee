"""The benchmarks for machines that are not here stay runnable."""

import math
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import narrow_jax as nj

ROOT = Path(__file__).parents[1]


def run(*options):
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_quick_run_on_any_device():
    done = run("--quick")
    assert done.returncode == 0, done.stderr
    assert "4 certified, 0 outside" in done.stdout
    assert "False" not in done.stdout


def test_throughput_counts_neither_compiling_nor_measuring(monkeypatch):
    from benchmarks import _gpu_training

    job = _gpu_training.QUICK
    x = np.random.default_rng(0).normal(size=(job.images, job.pixels, job.pixels, 3)).astype(np.float32)
    tx = nj.constraints.regime(optax.sgd(0.1), 1.0, labels=job.net.labels)
    # start and end of: one epoch with compiling, one epoch, three
    clock = types.SimpleNamespace(perf_counter=iter([0, 10, 10, 12, 12, 18]).__next__)
    monkeypatch.setattr(_gpu_training, "time", clock)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        record = _gpu_training.throughput(
            job, (x, np.zeros(job.images, np.int32)), job.net, tx, bfloat16=True
        )
    assert (record["first_call"], record["seconds"]) == (10, 6)
    assert record["result"] == f"{2 * job.images / (6 - 2):.0f} images/s"


def test_first_calls_are_timed_in_processes_of_their_own():
    from benchmarks import first_call

    assert (
        first_call.seconds_of(first_call.First("a pause", "import time", "time.sleep(0.1)", 0.2)).seconds
        >= 0.1
    )
    with pytest.raises(subprocess.CalledProcessError):
        first_call.seconds_of(first_call.First("an error", "", "1 / 0", 0.2))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="JAX sees an accelerator here")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 1
    assert "install a GPU build of JAX" in done.stderr


def test_minibatch_competitors_do_the_same_job():
    pytest.importorskip("torch", reason="PyTorch is not installed (extra bench)")
    from benchmarks import minibatch

    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):  # optax's and Flax's own code
        flax, torch = minibatch.compare(minibatch.QUICK[0], repeats=1)
    assert torch["largest_difference_of_weights"] < 1e-5
    assert {record["bar"] for record in (flax, torch)} == {"≥ 0.97 ×", "≥ 2.0 ×"}


def test_resnet_learns_in_an_epoch_inside_the_ball():
    from benchmarks import resnet

    net = nj.models.ResNet(channels=(4, 8), blocks=(1, 1), outputs=10)
    data = nj.data.load("digits", samples=200, normalize="scale", test_fraction=0.2)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        record = resnet.epoch(net, data, batch_size=20, progress=False)
    assert record["images"] == 200
    assert 0 < record["relative_distance"] <= 1 + 1e-6
    start, end = record["loss"]
    assert start == pytest.approx(math.log(10), rel=1e-6)  # the logits of the mirrored start are 0
    assert end < start
