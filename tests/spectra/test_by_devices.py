"""σ_min and memorize over several devices, and over two processes: the verdicts of one, and never beside the truth."""

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.linalg import on_devices

ROOT = Path(__file__).parents[2]

OPERATORS = """
import itertools, json, sys
import jax, mpmath as mp, numpy as np
import narrow_jax as nj
from narrow_jax.linalg import block_cyclic

block_cyclic.BLOCK = 5
rng = np.random.default_rng(0)

def net(n, k):
    x, w = rng.normal(size=(n, 8)), rng.normal(size=(8, 10)) / 3
    return nj.jacobian.pairwise({"w": w, "v": rng.normal(size=(5, k))}, x)

def said(s):
    return [float(s.lower), float(s.value), float(s.upper), float(s.sigma_max), s.status, s.method]
"""

COUNTS = (
    OPERATORS
    + """
half = {"w1": rng.normal(size=(5, 6)), "w2": rng.normal(size=(6, 6))}
other = {name: w + 0.1 * rng.normal(size=w.shape) for name, w in half.items()}
deep = nj.jacobian.pairwise_mlp({"plus": half, "minus": other, "v": rng.normal(size=(6, 1))}, rng.normal(size=(23, 5)))
one = net(33, 1)
cases = {"1": (one, 1), "2": (one, 2), "4": (one, 4), "two outputs, 3": (net(11, 2), 3), "deep, 2": (deep, 2),
         "one row, 3": (net(1, 1), 3), "stored, 2": (nj.jacobian.explicit(rng.normal(size=(9, 400))), 2)}
on = jax.devices()
apart = nj.jacobian.pairwise(
    {"w": jax.device_put(np.float32(rng.normal(size=(8, 10))), on[0]),
     "v": jax.device_put(np.ones((5, 1), np.float32), on[1])},
    jax.device_put(np.float32(rng.normal(size=(13, 8))), on[2]))
cases["apart, 2"] = apart, 2
ends = {name: [said(nj.sigma_min(J, "gram")), said(nj.sigma_min(J, devices=jax.devices()[:count]))]
        for name, (J, count) in cases.items()}
x, y = rng.normal(size=(20, 8)), np.sign(rng.normal(size=20))
solved = []
for devices in (None, jax.devices()[:2]):
    m = nj.memorize(jax.random.key(0), x, y, width=10, radius=0.1, devices=devices)
    solved.append([m.status, m.certificate.holds, float(np.abs(m.params["w"]).sum()), m.certificate.rho])
print(json.dumps([ends, solved]))
"""
)

TRUTH = (
    OPERATORS
    + """
sys.path.insert(0, "tests/tools")
from benchmarks.adversary import sigma
from problems import PROBLEMS, references

block_cyclic.BLOCK = int(sys.argv[1])
names = [name for name in sorted(PROBLEMS) if PROBLEMS[name].shape[0] <= 12][int(sys.argv[2])::int(sys.argv[3])]
truths, found = references(), []
for name in names:
    problem = PROBLEMS[name]
    make = nj.jacobian.standard if problem.standard else nj.jacobian.pairwise
    s = nj.sigma_min(make(problem.params, problem.x, problem.activation), devices=jax.devices())
    truth = mp.mpf(truths[name]["sigma_min"])
    inside = mp.mpf(float(s.lower)) <= truth <= mp.mpf(float(s.upper))
    found.append([name, s.status, bool(inside), s.method])
print(json.dumps(found))
"""
)

PROCESS = """
import json, sys
import jax
jax.distributed.initialize(f"localhost:{sys.argv[1]}", num_processes=2, process_id=int(sys.argv[2]))
import numpy as np
import narrow_jax as nj
rng = np.random.default_rng(0)
x, y = rng.normal(size=(20, 8)), np.sign(rng.normal(size=20))
s = nj.sigma_min(nj.jacobian.pairwise({"w": rng.normal(size=(8, 10)), "v": rng.normal(size=(5, 1))}, x),
                 devices=jax.devices())
m = nj.memorize(jax.random.key(0), x, y, width=10, radius=0.1, devices=jax.devices())
errors, mine = [], int(sys.argv[2])
others = [device for device in jax.devices() if device.process_index != mine]
for J, devices in ((nj.jacobian.explicit(np.diag([1.0, 2, (0.1, 5)[mine], 3])), jax.devices()),
                   (nj.jacobian.explicit(np.eye(3)), others)):
    try:
        nj.sigma_min(J, devices=devices)
    except ValueError as error:
        errors.append(str(error)[:60])
print(json.dumps([errors, len(jax.devices()), float(s.lower), float(s.value), float(s.upper), s.status,
                  m.certificate.holds, m.loss]))
"""


def started(script, count, *arguments):
    """Start a process with so many devices: their number is fixed when JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def test_any_number_of_devices_gives_the_verdict_of_the_host():
    ends, solved = result(started(COUNTS, 4))
    assert len(ends) == 8
    for name, (whole, spread) in ends.items():
        lower, value, upper, largest, status, method = whole
        assert (status, method) == ("certified", "gram") == tuple(spread[4:]), name
        assert abs(spread[1] - value) <= 1e-12 * value, name
        assert abs(spread[3] - largest) <= 1e-6 * largest, name
        assert spread[0] <= value <= spread[2], name
        assert lower <= spread[1] <= upper, name
        assert spread[2] - spread[0] <= 1.5 * (upper - lower), name
    alone, shared = solved
    assert alone[:2] == shared[:2] == ["solved", True]
    assert alone[2:] == pytest.approx(shared[2:], rel=0.1)


@pytest.mark.parametrize("block", [1, 4])
def test_no_interval_of_the_table_misses(block):
    found = result(started(TRUTH, 3, block, block - 1, 6))
    assert not [name for name, _, inside, _ in found if not inside]
    assert {method for *_, method in found} == {"gram"}
    assert sum(status == "certified" for _, status, *_ in found) >= 3


def test_two_processes_give_what_one_does():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        port = listening.getsockname()[1]
    processes = [started(PROCESS, 2, port, index) for index in range(2)]
    first, second = map(result, processes)
    errors, (others, *_) = first.pop(0), second.pop(0)
    assert errors[0] == others == "the processes that share these devices hold different operat"
    assert "devices are" in errors[1]
    assert first == second
    devices, lower, value, upper, status, holds, loss = first
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 8)), np.sign(rng.normal(size=20))
    J = nj.jacobian.pairwise({"w": rng.normal(size=(8, 10)), "v": rng.normal(size=(5, 1))}, x)
    s, m = nj.sigma_min(J), nj.memorize(jax.random.key(0), x, y, width=10, radius=0.1)
    assert (devices, status, holds) == (4, s.status, m.certificate.holds)
    assert lower <= s.value <= upper
    assert value == pytest.approx(float(s.value), rel=1e-12)
    assert loss < 1e-18


def operator(rows=12):
    rng = np.random.default_rng(0)
    return nj.jacobian.pairwise(
        {"w": rng.normal(size=(4, 8)), "v": rng.normal(size=(4, 1))}, rng.normal(size=(rows, 4))
    )


def spoiled(method):
    """The algebra's method, of a factor that is a little too large."""

    def wrong(self, a, overwrite=False):
        factor, completed = method(self, a, overwrite)
        factor.blocks = factor.blocks * 1.1
        return factor, completed

    return wrong


def test_a_wrong_factor_proves_nothing(monkeypatch):
    s = nj.sigma_min(operator(), devices=jax.devices()[:1])
    assert s.certified
    monkeypatch.setattr(on_devices.Devices, "cholesky", spoiled(on_devices.Devices.cholesky))
    s = nj.sigma_min(operator(), devices=jax.devices()[:1])
    assert not s.certified
    assert float(s.lower) == 0


def test_an_estimate_in_float32():
    s = nj.sigma_min(operator(), devices=jax.devices()[:1], dtype="float32")
    assert s.status == "estimate"
    assert float(s.value) == pytest.approx(float(nj.sigma_min(operator()).value), rel=1e-12)


def test_more_rows_than_columns_need_no_devices():
    assert nj.sigma_min(operator(60), devices=jax.devices()[:1]).status == "rank_deficient_by_shape"


class Chip:
    """A device of another platform."""

    platform, process_index = "tpu", 0


def test_bad_input(monkeypatch, unchecked):
    device = jax.devices()[0]
    for wrong in ("cpu", 2, [0], ["cpu:0"]):
        with pytest.raises(TypeError, match="expected devices of JAX"):
            nj.sigma_min(operator(), devices=wrong)
    for wrong in ([], [device, device]):
        with pytest.raises(ValueError, match="of one platform, each once"):
            nj.sigma_min(operator(), devices=wrong)
    with pytest.raises(ValueError, match="expected 'auto' or 'gram'"):
        nj.sigma_min(operator(), "qr", devices=[device])
    with pytest.raises(TypeError, match="inside of jit"):
        jax.jit(lambda J: nj.sigma_min(J, devices=[device]).value)(operator())
    with pytest.raises(TypeError, match="inside of jit"):
        jax.jit(lambda s: s * nj.sigma_min(operator(), devices=[device]).value)(1.0)
    with pytest.raises(nj.MemoryBudgetError, match="on each of 1 devices"):
        nj.sigma_min(operator(), devices=[device], memory_budget=100)
    solve = partial(nj.memorize, jax.random.key(0), np.eye(3), np.ones(3), width=2, radius=1.0)
    with pytest.raises(TypeError, match="expected devices of JAX"):
        solve(devices=3)
    with pytest.raises(ValueError, match="method is 'cg' with devices"):
        solve(devices=[device], method="cg")
    with pytest.raises(nj.MemoryBudgetError, match="memorize on each of 1 devices"):
        solve(devices=[device], memory_budget=1)
    with pytest.raises(TypeError, match="expected devices of JAX"):
        nj.sigma_min(operator(60), devices="cpu")
    assert nj.sigma_min(operator(), devices=np.array([[device]])).certified
    monkeypatch.setattr(on_devices.jax, "Device", Chip)
    with pytest.raises(ValueError, match="dtype='float32'"):
        nj.sigma_min(operator(), devices=[Chip()])
    other = Chip()
    other.platform = "gpu"
    with pytest.raises(ValueError, match=r"gpu, tpu.*of one platform"):
        nj.sigma_min(operator(), devices=[Chip(), other])
