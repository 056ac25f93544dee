"""σ_min by tiles: never beside the truth, the interval of whole matrices, and what a budget decides."""

import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc

import jax
import mpmath as mp
import numpy as np
import pytest
from problems import PROBLEMS, references

import narrow_jax as nj
from benchmarks.adversary import sigma
from narrow_jax.linalg import on_tiles, tiles
from narrow_jax.spectra import plans

REFERENCES = references()
NAMES = sorted(PROBLEMS)


@pytest.fixture
def by_tiles(monkeypatch):
    """All matrices go by tiles of so many rows."""

    def choose(tile):
        monkeypatch.setattr(on_tiles, "WHOLE", 0)
        monkeypatch.setattr(tiles, "TILE", tile)

    return choose


def operator(problem):
    make = nj.jacobian.standard if problem.standard else nj.jacobian.pairwise
    return make(problem.params, problem.x, problem.activation)


def net(n=60, d=10, m=12, k=1, seed=0):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(n, d)), rng.normal(size=(d, m)) / np.sqrt(d)
    return nj.jacobian.pairwise({"w": w, "v": rng.normal(size=(m // 2, k))}, x)


@pytest.mark.parametrize("tile", range(1, 8))
def test_no_interval_of_the_table_misses(tile, by_tiles):
    by_tiles(tile)
    certified = 0
    for name in NAMES[tile - 1 :: 3]:
        if PROBLEMS[name].shape[0] > 12 * tile:
            continue  # ten thousand tiles
        s = nj.sigma_min(operator(PROBLEMS[name]), "gram")
        truth = mp.mpf(REFERENCES[name]["sigma_min"])
        assert mp.mpf(float(s.lower)) <= truth <= mp.mpf(float(s.upper)), name
        certified += s.certified
    assert certified >= 10


def drawn(rng):
    """A hard problem of the operators that compile nothing."""
    while True:
        problem = sigma.draw(rng)
        if problem.kind == "pairwise" and problem.activation in sigma.SMOOTH:
            return problem


def outcomes(count):
    rng = np.random.default_rng(3)
    for index in range(count):
        problem = drawn(rng)
        tiles.TILE = 1 + index % 7
        yield sigma.check(problem, sigma.solve(problem, "gram"), "gram", "")


def test_no_interval_of_random_problems_misses(by_tiles):
    by_tiles(1)
    checked = list(outcomes(40))
    assert not [o.misses for o in checked if o.misses]
    assert sum(o.holds for o in checked) > 10


def test_a_factor_that_only_seems_complete_is_a_miss(by_tiles, monkeypatch):
    by_tiles(1)
    monkeypatch.setattr(tiles.Triangle, "factorise", lambda self: True)
    monkeypatch.setattr(on_tiles.preconditioned, "smallest", misled)
    assert [o.misses for o in outcomes(12) if o.misses]


def misled(apply, inverse, rows, tolerance):
    ritz = SMALLEST(apply, inverse, rows, tolerance)
    return ritz._replace(vector=np.roll(ritz.vector, 1), first=ritz.first / 1e6, second=ritz.second / 1e6)


SMALLEST = on_tiles.preconditioned.smallest


@pytest.mark.parametrize("tile", [9, 25, 60])
@pytest.mark.parametrize("J", [net(), net(30, k=2)], ids=["one output", "two outputs"])
def test_the_interval_is_that_of_whole_matrices(J, tile, by_tiles):
    whole = nj.sigma_min(J)
    by_tiles(tile)
    s = nj.sigma_min(J)
    assert s.certified
    assert s.method == whole.method == "gram"
    assert abs(s.value - whole.value) <= 1e-13 * whole.value
    assert s.upper - s.lower <= 1.2 * (whole.upper - whole.lower)
    np.testing.assert_allclose(np.abs(s.vector), np.abs(whole.vector), atol=1e-9)


def test_deep_nets_and_matrices_in_blocks(by_tiles):
    rng = np.random.default_rng(0)
    half = {"w1": rng.normal(size=(5, 6)), "w2": rng.normal(size=(6, 6))}
    other = {name: w + 0.1 * rng.normal(size=w.shape) for name, w in half.items()}
    deep = nj.jacobian.pairwise_mlp(
        {"plus": half, "minus": other, "v": rng.normal(size=(6, 1))}, rng.normal(size=(40, 5))
    )
    for J in (deep, nj.jacobian.explicit(rng.normal(size=(9, 600)))):
        whole = nj.sigma_min(J, "gram")
        by_tiles(4)
        s = nj.sigma_min(J, "gram")
        assert s.certified
        assert s.lower <= whole.value <= s.upper
        assert abs(s.value - whole.value) <= 1e-11 * whole.value


def test_one_row(by_tiles):
    J = net(1, 3, 4)
    by_tiles(5)
    s = nj.sigma_min(J)
    assert s.certified
    assert s.lower <= float(jax.numpy.linalg.norm(J.dense())) * (1 + 1e-6)
    assert (s.upper - s.lower) / s.value < 1e-12


def test_auto_goes_on_by_qr_where_tiles_say_little(by_tiles):
    problem = PROBLEMS["graded-samples-12"]
    by_tiles(3)
    assert not nj.sigma_min(operator(problem), "gram").certified
    s = nj.sigma_min(operator(problem))
    assert s.certified
    assert s.method == "qr"


def test_a_budget_chooses_tiles_in_memory_and_in_a_file(monkeypatch, tmp_path):
    J = net(120, 12, 24)
    whole = nj.sigma_min(J, "gram")
    monkeypatch.setattr(tiles, "TILE", 8)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rooms = []
    file_in, memory = tiles.file_in, tiles.memory
    monkeypatch.setattr(tiles, "file_in", lambda folder: rooms.append(folder) or file_in(folder))
    monkeypatch.setattr(tiles, "memory", lambda *count: rooms.append("memory") or memory(*count))
    inside, spilled = on_tiles.plan(*J.shape)
    whole_plan = plans.of_sigma_min(plans.Sizes.of(J), "host", True)["gram"]
    assert spilled < inside < whole_plan
    for budget in (inside, spilled):
        s = nj.sigma_min(J, "gram", memory_budget=budget)
        assert s.certified
        assert s.lower <= whole.value <= s.upper
    assert rooms == ["memory", tmp_path]
    message = (
        rf"sigma_min .* needs .* bytes and memory_budget is {spilled - 1:,}: nothing fits below {spilled:,}"
    )
    with pytest.raises(nj.MemoryBudgetError, match=message):
        nj.sigma_min(J, "gram", memory_budget=spilled - 1)


@pytest.mark.parametrize(("n", "tile"), [(1200, 100), (1200, 400), (1500, 150)])
def test_the_plan_is_what_tiles_take(n, tile, by_tiles):
    J = net(n, 40, 40)
    by_tiles(tile)
    nj.sigma_min(J, "gram")
    tracemalloc.start()
    try:
        nj.sigma_min(J, "gram")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.75 < peak / on_tiles.plan(*J.shape)[0] < 1.25


INTERRUPTED = """
import signal
import numpy as np
import narrow_jax as nj
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
rng = np.random.default_rng(0)
params = {"w": rng.normal(size=(200, 90)), "v": rng.normal(size=(45, 1))}
print("begun", flush=True)
nj.sigma_min(nj.jacobian.pairwise(params, rng.normal(size=(12_000, 200))))
print("ended", flush=True)
"""


def test_ctrl_c_leaves():
    """In the midst of a factorisation that takes a quarter of a minute."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"begun\n"
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == b""
    assert err.rstrip().endswith(b"KeyboardInterrupt")


@pytest.mark.parametrize(
    ("off", "status"), [(1e-17, "certified"), (1e-16, "not_converged"), (1e-14, "not_converged")]
)
def test_what_is_proven_is_believed_whatever_the_iteration_says(off, status, by_tiles, monkeypatch):
    """A vector a little off that does not call itself converged: a narrow interval around its value is a proof."""
    by_tiles(16)
    own = on_tiles.Tiles.smallest

    def unfinished(self, factor, tolerance):
        ritz = own(self, factor, tolerance)
        beside = np.random.default_rng(0).normal(size=len(ritz.vector))
        vector = ritz.vector + off**0.5 * beside / np.linalg.norm(beside)
        return ritz._replace(vector=vector / np.linalg.norm(vector), converged=False)

    monkeypatch.setattr(on_tiles.Tiles, "smallest", unfinished)
    s = nj.sigma_min(net(), "gram")
    assert s.status == status
    rng = np.random.default_rng(0)  # as in net
    x, w, v = rng.normal(size=(60, 10)), rng.normal(size=(10, 12)) / np.sqrt(10), rng.normal(size=6)
    weighted = np.concatenate([v, -v]) / np.cosh(x @ w) ** 2
    dense = np.linalg.svd((weighted[:, :, None] * x[:, None, :]).reshape(60, -1), compute_uv=False)[-1]
    assert s.lower - 1e-13 <= dense <= s.upper + 1e-13
    assert bool(s.upper - s.lower <= 1e-11 * s.value) == (status == "certified")
