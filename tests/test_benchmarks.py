"""The benchmarks for machines that are not here stay runnable."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]


def run(*options):
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_quick_run_on_any_device():
    done = run("--quick")
    assert done.returncode == 0, done.stderr
    assert "4 certified, 0 outside" in done.stdout
    assert "False" not in done.stdout


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="JAX sees an accelerator here")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 1
    assert "install a GPU build of JAX" in done.stderr
