"""Every experiment runs in its quick form, keeps what it has found, and says what is wrong before it starts."""

import argparse
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import _redraw, _run

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if not path.stem.startswith("_"))


def run(monkeypatch, name, *words):
    """Run an experiment as the command line does."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    importlib.import_module(f"experiments.{name}").main()


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders of the results of quick runs, each run once."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            user = (
                jax.numpy_dtype_promotion("standard"),
                jax.numpy_rank_promotion("allow"),
            )  # optax's adam promotes
            with pytest.MonkeyPatch.context() as patch, user[0], user[1]:
                run(patch, name, "--quick", "--out", made[name])
        return made[name]

    return folder


@pytest.mark.parametrize("name", NAMES)
def test_quick_run(name, folders):
    content = json.loads((folders(name) / "summary.json").read_text())
    assert content["cells"]
    assert content["seconds"] > 0
    [machine] = content["machines"]
    assert machine["versions"]["jax"] == jax.__version__
    for drawing in importlib.import_module(f"experiments.{name}").main.drawings:
        assert (folders(name) / f"{drawing.__name__}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["narrow_theorem2", "narrow_random_labels"])
def test_a_run_that_was_killed_goes_on(name, folders, tmp_path, monkeypatch):
    """Half of the cells are kept as they are, the rest is made again, and is the same."""
    content = json.loads((folders(name) / "summary.json").read_text())
    half = len(content["cells"]) // 2
    content["cells"], rest = content["cells"][:half], content["cells"][half:]
    content["cells"][0]["message"] = "kept"
    (tmp_path / "summary.json").write_text(json.dumps(content))
    (tmp_path / "summary.part").write_text('{"settings"')  # what a kill leaves of a write
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        run(monkeypatch, name, "--quick", "--out", tmp_path)
    after = json.loads((tmp_path / "summary.json").read_text())["cells"]
    assert after[0]["message"] == "kept"
    for one, other in zip(after[half:], rest, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }


def test_demo_record_has_one_entry_a_row():
    from experiments import demo

    assert [row.name for row in demo.rows(inputs=61, steps=10)] == [
        "pairwise, ball + cone",
        "standard, same ball",
        "standard, no ball",
    ]


def arguments(folder, **values):
    return argparse.Namespace(out=folder, quick=False, **values)


def test_records_of_other_settings_stay(tmp_path):
    def cells(**values):
        axes = {"width": values["widths"]}
        return _run.cells(arguments(tmp_path, **values), axes, lambda width: [{"width": width}], str)

    cells(n=20, widths=(4,), kappa=np.inf)
    before = (tmp_path / "summary.json").read_text()
    with pytest.raises(SystemExit, match=r"n: 20 there, 30 here\): choose another folder with --out"):
        cells(n=30, widths=(4,), kappa=np.inf)
    with pytest.raises(SystemExit, match=r"kappa: inf there, 1.0 here"):
        cells(n=20, widths=(4,), kappa=1.0)
    with pytest.raises(SystemExit, match=r"d: None there, 3 here"):
        cells(n=20, d=3, widths=(4,), kappa=np.inf)
    assert (tmp_path / "summary.json").read_text() == before
    cells(n=20, widths=(8,), kappa=np.inf)
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_cells_go_on_where_a_run_stopped_and_give_those_asked_for(tmp_path):
    made = []

    def cell(width, seed):
        made.append((width, seed))
        return [{"width": width, "seed": seed}]

    def cells(widths, seeds):
        args = arguments(tmp_path, dataset="digits", widths=widths, seeds=seeds)
        return _run.cells(args, {"width": widths, "seed": range(seeds)}, cell, str)

    assert cells((4,), 1) == [{"width": 4, "seed": 0}]
    assert len(cells((4, 8), 2)) == 4
    assert made == [(4, 0), (4, 1), (8, 0), (8, 1)]
    assert cells((8,), 1) == [{"width": 8, "seed": 0}]
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["settings"] == {"dataset": "digits"}
    assert len(content["cells"]) == 4
    assert content["machines"] == [_run.machine()]


def test_another_machine_is_noted_beside_the_first(tmp_path, monkeypatch):
    def cells(widths):
        args = arguments(tmp_path, widths=widths)
        _run.cells(args, {"width": widths}, lambda width: [{"width": width}], str)
        return json.loads((tmp_path / "summary.json").read_text())["machines"]

    assert len(cells((4,))) == 1
    monkeypatch.setattr(_run, "machine", lambda: {"device": "another"})
    assert len(cells((4,))) == 1  # nothing was made there
    assert cells((4, 8))[1] == {"device": "another"}


def test_a_picture_that_fails_takes_no_record_along(tmp_path, monkeypatch):
    def figure(content):
        raise RuntimeError("no fonts")

    @_run.experiment("doc", str(tmp_path), figure, sizes={}, quick={})
    def main(args):
        _run.cells(args, {"width": [4]}, lambda width: [{"width": width, "loss": 0.5}], str)
        return []

    monkeypatch.setattr(sys, "argv", ["main"])
    with pytest.raises(RuntimeError, match="no fonts"):
        main()
    assert json.loads((tmp_path / "summary.json").read_text())["cells"] == [{"width": 4, "loss": 0.5}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "holds a list"),
        ('{"cells": []}', "is of other settings"),
        ('{"settings": {"n": 5}, "cells": []}', "n: 5 there, "),
    ],
)
def test_a_file_that_is_no_record_of_these_settings_stays(content, message, tmp_path, monkeypatch):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(SystemExit, match=f"{message}.*--out"):
        run(monkeypatch, "narrow_ablation", "--quick", "--out", tmp_path)
    assert (tmp_path / "summary.json").read_text() == content


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--widths", "0"], "'0' is no count"),
        (["--widths", "4.5"], "'4.5' is no count"),
        (["--radii", "-1"], "expected at least one argument|is no size"),
        (["--radii", "nan"], "'nan' is no size"),
        (["--kappa", "0"], "'0' is no size"),
        (["--steps", "many"], "'many' is no count"),
        (["--activation", "tan"], "invalid choice: 'tan'"),
        (["--quick", "--seeds", "-2"], "expected one argument|is no count"),
    ],
)
def test_a_size_that_is_none_is_refused(words, message, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "narrow_fig4", *words, "--out", tmp_path)
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("narrow_fig4", ["--n", "3000000"]),
        ("narrow_images", ["--dataset", "digits", "--widths", "30000000"]),
        ("narrow_ablation", ["--n", "100000000"]),
        ("narrow_theorem1", ["--n", "1000000", "--d", "10"]),
        ("narrow_theorem2", ["--d", "1000000000"]),
        ("narrow_theorem2", ["--widths", "1000000"]),
    ],
)
def test_a_size_beyond_the_memory_is_said_before_it_starts(name, words, tmp_path, monkeypatch):
    with pytest.raises(
        SystemExit, match=r"needs about .* GB, and this machine has .* GB: take smaller sizes"
    ):
        run(monkeypatch, name, *words, "--out", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("narrow_random_labels", ["--datasets", "mnist"]),
        ("narrow_images", ["--dataset", "cifar100_subset"]),
        ("narrow_theorem2", ["--dataset", "mnist"]),
    ],
)
def test_data_that_are_absent_are_said_in_words(name, words, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("NARROW_JAX_RAW", raising=False)
    monkeypatch.setenv("NARROW_JAX_DATA", str(tmp_path / "prepared"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, name, *words, "--raw-dir", tmp_path / "none", "--out", tmp_path / "out")
    assert stopped.value.code == 2
    assert "raw_dir" in capsys.readouterr().err


def test_more_images_than_there_are_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "narrow_images", "--dataset", "digits", "--samples", "1400", "--out", tmp_path)
    assert "samples is 1600, but 'digits' has 1438 training rows" in capsys.readouterr().err


def test_n_and_d_of_theorem_1_go_together(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "narrow_theorem1", "--n", "50", "--out", tmp_path)
    assert "--n and --d go together" in capsys.readouterr().err


def test_an_installed_package_has_the_experiments(tmp_path):
    """From a folder that is no clone; a start in a process of its own."""
    command = [sys.executable, "-m", "narrow_jax.experiments.narrow_all_images", "--quick", "--out", "here"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "figure.png").is_file()


@pytest.mark.parametrize("words", [["--numbers", "64", "--largest", "32"], ["--d", "1"]])
def test_widths_below_the_samples_and_one_input_are_refused(words, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "pyramidal_lecun", *words, "--out", tmp_path)
    assert "expected d of 2 or more" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_data_are_told_apart():
    x = np.arange(6.0)
    assert _run.digest(x, x) == _run.digest(x, x)
    assert len({_run.digest(x, x), _run.digest(x, x + 1), _run.digest(x)}) == 3


def test_records_are_strict_json(tmp_path):
    _run.replace(tmp_path / "summary.json", [{"loss": np.float64("inf"), "width": np.int64(4)}])
    assert json.loads((tmp_path / "summary.json").read_text()) == [{"loss": "inf", "width": 4}]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("paired", [False, True])
def test_kappa_of_the_paper_is_a_setting_of_the_ablation(paired):
    from experiments import _nets, narrow_ablation

    net = _nets.pairwise(kappa=1.0) if paired else _nets.standard()
    v = narrow_ablation.start(mirrored=True, net=net, inputs=10, width=8)["v"]
    assert (len(np.unique(v)) == 1) is paired


def test_every_figure_is_drawn_again_from_its_record():
    names = {path.stem for path in _redraw.DOCS.glob("*.json")}
    assert {_redraw.experiment_of(name) for name in names} == set(NAMES)
    pictures = set()
    for name in names:
        content = json.loads((_redraw.DOCS / f"{name}.json").read_text())
        assert content["machines"], name
        assert content["seconds"] > 0, name
        for path, figure in _redraw.drawn(name):
            assert any(axes.has_data() for axes in figure.axes)
            pictures.add(path.name)
    assert pictures == {path.name for path in _redraw.DOCS.glob("*.png")}
