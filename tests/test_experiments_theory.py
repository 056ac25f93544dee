"""What the experiments on depth, width and pyramids say of their records: rises, partial grids, widths."""

import argparse
import importlib
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from experiments import depth_width_fig1, depth_width_theorem2, narrow_theorem2, pyramidal_lecun

DEPTHS, WIDTHS = (1, 2, 3), (4, 8)


def falling(depth, width, seed):
    """J that falls with depth, width and training; seeds differ by 0.01."""
    start = 100 - 20 * depth - 5 * width + seed
    return {
        "depth": depth,
        "width": width,
        "seed": seed,
        "initial": {"value": start, "baseline": 100.0},
        "trained": {"value": start / 2, "baseline": 100.0},
    }


@pytest.fixture
def records():
    return [falling(*point) for point in itertools.product(DEPTHS, WIDTHS, range(2))]


def test_no_rise_is_seen_where_there_is_none(records):
    assert depth_width_fig1.exceptions(records) == []
    assert len(depth_width_fig1.comparisons(records)) == 2 * (3 + 4) + 6


@pytest.mark.parametrize(
    ("when", "point", "rise", "where", "clear"),
    [
        ("initial", (3, 4), 20.0, "at the start, width 4, depth 2 to 3", True),
        ("initial", (3, 4), 0.5, "at the start, width 4, depth 2 to 3", False),
        ("trained", (3, 8), 20.0, "after training, depth 3, width 4 to 8", True),
    ],
)
def test_a_planted_rise_is_found(records, when, point, rise, where, clear):
    depth, width = point
    lower = {"initial": (depth - 1, width), "trained": (depth, 4)}[when]
    for r in records:
        if (r["depth"], r["width"]) == point:
            r[when]["value"] = rise + falling(*lower, r["seed"])[when]["value"]
    [found] = [step for step in depth_width_fig1.exceptions(records) if step.where == where]
    assert found.rise == pytest.approx(rise / 100)
    assert bool(found.clear) is clear


def test_a_net_that_training_ruins_is_an_exception(records):
    records[0]["trained"]["value"] = records[1]["trained"]["value"] = 100.0
    assert "in training, depth 1, width 4" in {step.where for step in depth_width_fig1.exceptions(records)}


def test_a_grid_with_missing_cells_is_drawn(records):
    content = {"settings": {"dataset": "digits", "samples": 20, "seeds": 2}, "cells": records[:-2]}
    panel = depth_width_fig1.figure(content).axes[0]
    assert len(panel.texts) == len(DEPTHS) * len(WIDTHS) - 1
    assert np.ma.count_masked(panel.images[0].get_array()) == 1
    assert len(depth_width_fig1.comparisons(records[:-2])) == 2 * (2 + 3) + 5


def net(rng, depth=3, width=5):
    sizes = itertools.pairwise((3, *[width] * depth, 1))
    return {f"w{layer}": rng.normal(size=size) for layer, size in enumerate(sizes, start=1)}


class Samples:
    """Inputs and targets."""

    def __init__(self, rng):
        self.x, self.y = rng.normal(size=(30, 3)), rng.normal(size=(30, 1))


def test_the_scale_of_layers_does_not_move_j():
    """So that fan-in, fan-out and He starts have one J."""
    rng = np.random.default_rng(0)
    samples, params = Samples(rng), net(rng)
    scaled = {name: c * w for c, (name, w) in zip((0.1, 7.0, 3.0, 0.6), params.items(), strict=True)}
    one, other = (depth_width_fig1.measured(p, samples) for p in (params, scaled))
    assert one["value"] == pytest.approx(other["value"], rel=1e-9)
    assert abs(one["loss"] / other["loss"] - 1) > 0.01
    assert (one["ranks"], one["dead_units"], one["silent"]) == (
        other["ranks"],
        other["dead_units"],
        other["silent"],
    )


def test_a_dead_net_is_silent_and_its_loss_is_j():
    rng = np.random.default_rng(1)
    samples, params = Samples(rng), net(rng, depth=2)
    params["w2"] = -np.abs(params["w2"])
    found = depth_width_fig1.measured(params, samples)
    assert found["silent"] == 1
    assert found["dead_units"] == 5
    assert found["value"] == found["loss"] == found["baseline"] == pytest.approx(np.sum(samples.y**2) / 2)


def test_samples_that_find_a_layer_closed_keep_their_targets():
    rng = np.random.default_rng(2)
    samples, params = Samples(rng), net(rng, depth=1, width=1)
    closed = (samples.x @ params["w1"] <= 0).ravel()
    found = depth_width_fig1.measured(params, samples)
    assert 0 < found["silent"] < 1
    assert found["silent"] == pytest.approx(np.sum(samples.y[closed] ** 2) / np.sum(samples.y**2))
    assert found["value"] >= found["silent"] * found["baseline"]


@pytest.mark.usefixtures("x64")
def test_a_net_of_linear_units_ends_at_linear_regression():
    """All units linear: L = J = the bound of Theorem 2 = linear regression, and weights that are 0 stay 0."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(30, 3))
    y = x @ np.ones((3, 1)) + 0.01 * rng.normal(size=(30, 1))
    start = nj.certificates.separated_params(jax.random.key(0), x, (1, 1, 1), first_layer=0)
    start = {**start, "w1": np.hstack([start["w1"], np.zeros((3, 1))])}
    start["w2"] = np.array([[1.0], [0.0]])
    end = depth_width_theorem2.descend(jax.tree.map(jnp.asarray, start), (x, y), 200)
    end = jax.tree.map(np.asarray, end)
    assert not end["w1"][:, 1].any()
    bound = nj.certificates.basis_function_bound(end, x, y, [0], 0, separation="fixed")
    least = np.linalg.lstsq(x, y, rcond=None)[1][0] / 2
    assert bound.holds
    assert [bound.loss, bound.bound, bound.regression] == pytest.approx([least] * 3, rel=1e-9)
    off = {**end, "w3": 1.1 * end["w3"]}
    assert not nj.certificates.basis_function_bound(off, x, y, [0], 0, separation="fixed").holds


def margins(four, five):
    return [
        {"width": width, "condition4": four(np.log10(width)), "condition5": five(np.log10(width))}
        for width in (2**k for k in range(3, 12))
    ]


@pytest.mark.parametrize("slower", ["condition4", "condition5"])
def test_the_width_of_the_conditions_is_where_the_later_margin_is_0(slower):
    lines = [lambda z: (z - 7) / 2, lambda z: 3 * (z - 4) / 2]
    four, five = lines if slower == "condition4" else lines[::-1]
    assert pyramidal_lecun.crossing(margins(four, five)) == pytest.approx(7)


def test_a_margin_that_does_not_grow_is_never_0():
    assert pyramidal_lecun.crossing(margins(lambda z: -1 - 0 * z - 1e-9 * z, lambda z: z)) == np.inf


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("depth_width_fig1", ["--widths", "100000"]),
        ("depth_width_starts", ["--widths", "4", "100000"]),
        ("depth_width_theorem2", ["--widths", "100000"]),
        ("pyramidal_lecun", ["--largest", "10000000000"]),
        ("pyramidal_lecun", ["--numbers", "1000000", "--largest", "10000000"]),
    ],
)
def test_sizes_beyond_the_memory_are_refused(name, words, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *words, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"needs about .* GB, and this machine has .* GB"):
        importlib.import_module(f"experiments.{name}").main()
    assert list(tmp_path.iterdir()) == []


def kkt_point(radius, loss, residual=1e-9):
    return {"radius": radius, "loss": loss, "residual": residual}


def test_the_slope_of_theorem_2_is_that_of_kkt_points():
    points = [kkt_point(0.01, 1e-4), kkt_point(0.1, 1e-2), kkt_point("inf", 3.0), kkt_point(1.0, 1e-20)]
    said = "slope 2.00 of log loss over log ε"
    assert narrow_theorem2.slope(points) == said
    assert narrow_theorem2.slope([*points, kkt_point(0.001, 50.0, residual=2e-3)]) == said
    assert narrow_theorem2.slope([*points, kkt_point(0.001, 50.0)]) != said
    assert narrow_theorem2.slope(points[3:]) == "zero"
    assert "no two KKT points" in narrow_theorem2.slope([kkt_point(r, 1.0, residual=1e-3) for r in (0.1, 1)])


def test_what_is_no_kkt_point_is_drawn_open():
    settings = {"dataset": "gaussian", "samples": 40, "width_admitted": 10, "kappa": 2.0}
    cells = [
        kkt_point(radius, 1.0, residual) | {"width": 8, "threshold": 0.0}
        for radius, residual in ((0.1, 1e-9), (0.01, 1e-3), (1.0, 1e-5))
    ]
    (axes,) = narrow_theorem2.figure({"settings": settings, "cells": cells}).axes
    opened = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_xdata().tolist() for line in opened] == [[0.01, 1.0]]


@pytest.mark.usefixtures("x64")
def test_a_pair_that_is_never_proven_ends_the_search(monkeypatch):
    x, y = pyramidal_lecun.problem(5, 4)
    assert pyramidal_lecun.pair(x, y) == 4
    tried = []

    def never(params, *data):
        tried.append(params["w"].shape[1])
        return argparse.Namespace(scale=None)

    monkeypatch.setattr(nj.certificates, "gradient_descent", never)
    assert pyramidal_lecun.pair(x, y) is None
    assert tried == list(range(2, 33, 2))
    record = {"layers": 2, "samples": 5, "sharper": None, "descent": None, "pair": None}
    record["measured"] = margins(lambda z: z - 7, lambda z: z - 4)
    assert "pair from None" in pyramidal_lecun.told(record)
