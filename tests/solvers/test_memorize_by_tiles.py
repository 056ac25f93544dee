"""``memorize`` of many equations: a float32 factor by tiles, and the proof by tiles."""

import tempfile

import jax
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.linalg import on_tiles, tiles


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(on_tiles, "WHOLE", 0)
    monkeypatch.setattr(tiles, "TILE", 17)


def memorized(**more):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 8)), rng.choice([-1.0, 1.0], size=(40, 1))
    return x, y, nj.memorize(jax.random.key(0), x, y, radius=0.5, **more)


def predictions(params, x):
    halves = [params["plus"], params["minus"]] if "plus" in params else np.split(params["w"], 2, axis=1)
    features = []
    for half in halves:
        a = x
        for w in [half[name] for name in sorted(half)] if isinstance(half, dict) else [half]:
            a = np.tanh(a @ w)
        features.append(a)
    return (features[0] - features[1]) @ params["v"]


@pytest.mark.parametrize("size", [{"width": 16}, {"widths": (8, 8)}], ids=["one layer", "two layers"])
def test_it_is_solved_and_proven(size):
    x, y, m = memorized(**size)
    assert m.status == "solved"
    assert m.certificate.holds
    assert np.linalg.norm(predictions(m.params, x) - y) <= 1e-8


def test_it_goes_as_with_whole_matrices(monkeypatch):
    _, _, m = memorized(width=16, certify=False)
    monkeypatch.setattr(on_tiles, "WHOLE", 2**13)
    _, _, whole = memorized(width=16, certify=False)
    assert m.scale == whole.scale
    np.testing.assert_allclose(m.params["w"], whole.params["w"], atol=1e-7)


def test_a_budget_says_where_tiles_are(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tiles, "TILE", 2)
    made, file_in = [], tiles.file_in
    monkeypatch.setattr(tiles, "file_in", lambda folder: made.append(folder) or file_in(folder))
    inside, budget = on_tiles.plan(40, 8 * 16)
    assert budget < inside
    _, _, m = memorized(width=16, method="cholesky", memory_budget=budget)
    assert m.certificate.holds
    assert made == [tmp_path]  # the proof; for the factor there is room
    with pytest.raises(nj.MemoryBudgetError, match=r"memorize with 'tiles in a file' needs .* nothing fits"):
        memorized(width=16, method="cholesky", memory_budget=1000)


@pytest.mark.parametrize("missing", [1, 100, None])
def test_a_budget_that_holds_no_factor_is_said_whatever_it_is(missing):
    budget = 1 if missing is None else min(on_tiles.plan(40, 0)) - missing
    with pytest.raises(nj.MemoryBudgetError, match=r"memorize with .* needs .* method='cg' takes no matrix"):
        memorized(width=16, memory_budget=budget)
