"""Every experiment runs in its quick form and writes what its docstring says."""

import functools
import importlib
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import narrow_jax as nj

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("name", NAMES)
def test_quick_run(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(tmp_path)])
    # a user's settings: optax's own adam promotes
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        importlib.import_module(f"experiments.{name}").main()
    records = json.loads((tmp_path / "summary.json").read_text())
    assert records
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_demo_record_has_one_entry_a_row():
    from experiments import demo

    assert [row.name for row in demo.rows(inputs=61, steps=10)] == [
        "pairwise, ball + cone",
        "standard, same ball",
        "standard, no ball",
    ]


def test_figure_5_streams_images_from_files(tmp_path):
    """Bright dogs and dark cats, in the layout of ImageNet: learnt within a few epochs, all of the test set right."""
    from experiments import _image_sets, narrow_fig5

    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 4)):
        for wnid, level in (("n02085620", 200), ("n02123045", 50)):
            folder = tmp_path / part / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(level - 40, level + 40, size=(20, 24, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    data = _image_sets.in_files(tmp_path, pixels=16)
    assert (data.samples, data.outputs, data.first.shape, data.first.dtype) == (
        48,
        9,
        (1, 16, 16, 3),
        np.uint8,
    )
    s = narrow_fig5.Settings(
        "restricted-imagenet", None, (), (1,), (8,), (10.0,), 1, epochs=6, pixels=16, batch_size=12
    )
    with jax.numpy_dtype_promotion("standard"):  # optax's own schedules promote
        [record] = narrow_fig5.cell(s, data, width=8, radius=10.0, seed=0, progress=False)
    assert record["test_accuracy"] == 1.0
    assert 0 < record["distance"] <= 10 * (1 + 1e-6)


def test_net_on_bytes_computes_in_bfloat16():
    from experiments import _image_sets

    net = nj.models.ResNet(channels=(4,), blocks=(1,), outputs=3)
    images = np.zeros((2, 6, 6, 3), np.uint8)
    state = jax.eval_shape(net.init, jax.random.key(0), np.zeros((2, 6, 6, 3), np.float32))
    params = state.pop("params")
    dtypes = {}
    for name, forward in (("as it is", lambda f: f), ("bfloat16", nj.precision.bfloat16)):
        apply = _image_sets.FromBytes(forward(nj.models.Stateful(net)))
        with jax.numpy_dtype_promotion("standard"):  # Flax's own code
            program = str(jax.make_jaxpr(functools.partial(apply, train=True))(params, state, images))
        dtypes[name] = set(re.findall(r":(\w+)\[[\d,]*\] = conv_general_dilated", program))
    assert dtypes == {"as it is": {"f32"}, "bfloat16": {"bf16"}}


def test_records_of_other_settings_stay(tmp_path):
    from experiments import _run

    path = tmp_path / "summary.json"
    assert _run.resumed(path, {"widths": (4, 8)}) == []
    _run.replace(path, _run.content({"widths": (4, 8)}, [{"width": 4}], machine={}))
    before = path.read_text()
    assert _run.resumed(path, {"widths": (4, 8)}) == [{"width": 4}]
    with pytest.raises(SystemExit, match=r"widths: \[4, 8\] there, \[4\] here.*--out"):
        _run.resumed(path, {"widths": (4,)})
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_cells_go_on_where_a_run_stopped(tmp_path):
    from experiments import _run

    made = []

    def cell(width, seed):
        made.append((width, seed))
        return [{"width": width, "seed": seed}]

    for widths in ((4,), (4, 8)):
        axes = {"width": widths, "seed": range(2)}
        records = _run.cells(tmp_path, {"dataset": "digits"}, axes, cell, str, machine={})
    assert made == [(4, 0), (4, 1), (8, 0), (8, 1)]
    content = {"settings": {"dataset": "digits"}, "machine": {}, "cells": records}
    assert json.loads((tmp_path / "summary.json").read_text()) == content


def test_a_picture_that_fails_takes_no_record_along(tmp_path, monkeypatch):
    from experiments import _run

    def figure():
        raise RuntimeError("no fonts")

    @_run.experiment("doc", str(tmp_path), quick="")
    def main(args):
        return _run.Findings([{"loss": 0.5}], figure, [])

    monkeypatch.setattr(sys, "argv", ["main"])
    with pytest.raises(RuntimeError, match="no fonts"):
        main()
    assert json.loads((tmp_path / "summary.json").read_text()) == [{"loss": 0.5}]


def test_figure_5_asks_for_the_folder_of_images(monkeypatch, tmp_path):
    from experiments import narrow_fig5

    arguments = ["narrow_fig5", "--dataset", "restricted-imagenet", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="--images DIR"):
        narrow_fig5.main()


@pytest.mark.parametrize("name", ["narrow_ablation", "demo"])
def test_a_record_of_other_options_stays(name, tmp_path, monkeypatch):
    (tmp_path / "summary.json").write_text("[1]")
    (tmp_path / "options.json").write_text('{"quick": false, "kappa": "inf"}')
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(tmp_path)])
    with pytest.raises(
        SystemExit, match=r"summary.json is of other settings \(quick: False there, True here"
    ):
        importlib.import_module(f"experiments.{name}").main()
    (tmp_path / "options.json").unlink()
    with pytest.raises(SystemExit, match=r"is of other settings .*choose another folder with --out"):
        importlib.import_module(f"experiments.{name}").main()
    assert (tmp_path / "summary.json").read_text() == "[1]"


def test_records_are_strict_json(tmp_path):
    from experiments import _run

    _run.replace(tmp_path / "summary.json", [{"loss": np.float64("inf"), "width": np.int64(4)}])
    assert json.loads((tmp_path / "summary.json").read_text()) == [{"loss": "inf", "width": 4}]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("pairwise", [False, True])
def test_kappa_of_the_paper_is_a_setting_of_the_ablation(pairwise):
    from experiments import _nets, narrow_ablation

    net = _nets.pairwise(kappa=1.0) if pairwise else _nets.STANDARD
    v = narrow_ablation.start(mirrored=True, net=net, width=8)["v"]
    assert (len(np.unique(v)) == 1) is pairwise


def test_every_figure_with_a_record_is_drawn_again_from_it():
    from experiments import _redraw as redraw

    names = {path.stem for path in redraw.DOCS.glob("*.json")}
    names -= {"demo", "descent_bound", "pyramidal_convergence"}  # curves that no record holds
    assert {*redraw.FIGURES, *redraw.WITH_SETTINGS} == names
    for name in names:
        figure = redraw.drawn(name)
        assert all(axes.has_data() for axes in figure.axes)
        assert (redraw.DOCS / f"{name}.png").is_file()
