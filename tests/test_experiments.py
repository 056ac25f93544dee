"""Every experiment runs in its quick form, keeps what it has found, and says what is wrong before it starts."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import redraw

from experiments import _run

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
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


def test_the_values_of_an_axis_are_no_setting(tmp_path):
    def cells(**values):
        args = arguments(tmp_path, **values)
        _run.cells(args, {"radius": [values["radii"] or 1.0]}, lambda radius: [{"radius": radius}], str)
        return json.loads((tmp_path / "summary.json").read_text())["settings"]

    assert cells(radii=None, steps=5) == {"steps": 5}
    assert cells(radii=0.1, steps=5) == {"steps": 5}


def test_other_images_of_a_set_are_refused_and_another_set_is_added(tmp_path):
    def cells(**marks):
        args, axes = arguments(tmp_path), {"dataset": list(marks)}
        _run.cells(args, axes, lambda dataset: [{"dataset": dataset}], str, data=marks)
        return json.loads((tmp_path / "summary.json").read_text())

    cells(digits="1a")
    content = cells(mnist="2b")
    assert content["settings"] == {"data": {"digits": "1a", "mnist": "2b"}}
    assert [r["dataset"] for r in content["cells"]] == ["digits", "mnist"]
    for marks in ({"digits": "1b"}, {"cifar10": "3c", "mnist": "2c"}):
        with pytest.raises(SystemExit, match=r"other settings \(data: .*--out"):
            cells(**marks)
    assert json.loads((tmp_path / "summary.json").read_text()) == content


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


def test_an_installed_package_has_the_experiments(tmp_path):
    """From a folder that is no clone; a start in a process of its own."""
    command = [sys.executable, "-m", "narrow_jax.experiments.narrow_all_images", "--quick", "--out", "here"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "figure.png").is_file()


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
    names = {path.stem for path in FIGURES.glob("*.json")}
    assert {redraw.experiment_of(name) for name in names} == set(NAMES)
    pictures = set()
    for name in names:
        content = json.loads((FIGURES / f"{name}.json").read_text())
        assert content["machines"], name
        assert content["seconds"] > 0, name
        for path, figure in redraw.drawn(name):
            assert any(axes.has_data() for axes in figure.axes)
            pictures.add(path.name)
    assert pictures == {path.name for path in FIGURES.glob("*.png")}


@pytest.mark.parametrize(
    "name", ["deep_theorem1", "narrow_ablation", "narrow_theorem1", "narrow_theorem2_digits"]
)
def test_lines_are_drawn_in_order_whatever_was_recorded_first(name):
    content = json.loads((FIGURES / f"{name}.json").read_text())
    drawing = importlib.import_module(f"experiments.{name.removesuffix('_digits')}").figure

    def lines():
        return [
            (line.get_label(), line.get_color(), np.asarray(line.get_xydata()).tolist())
            for axes in drawing(content).axes
            for line in axes.lines
            if not line.get_label().startswith("_")
        ]

    once = lines()
    assert len(once) > 2
    content["cells"] = content["cells"][::-1]
    assert lines() == once
