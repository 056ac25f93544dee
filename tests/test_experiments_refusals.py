"""What experiments say of bad options, files, data and machines, in one sentence and before anything starts."""

import importlib
import json
import re
import sys

import pytest

from experiments import _run


def run(monkeypatch, name, *words):
    """Run an experiment as the command line does."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    importlib.import_module(f"experiments.{name}").main()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "holds a list"),
        ('{"cells": []}', "without settings and machines and seconds"),
        ('{"settings": [], "machines": [], "seconds": 1.0, "cells": []}', "without settings"),
        ('{"settings": {}, "machines": [], "seconds": "inf", "cells": []}', "without seconds"),
        ('{"settings": {}, "machines": [], "seconds": 1, "cells": {}}', "without cells"),
        (
            '{"settings": {}, "machines": [], "seconds": 1, "cells": [3]}',
            "without cells with mirrored, pairwise",
        ),
        (
            '{"settings": {}, "machines": [], "seconds": 1, "cells": [{"width": 4}]}',
            "without cells with mirrored",
        ),
        ('{"settings": {}, "machines": [], "seconds": 1, "cells": []}', "is of other settings"),
        ('{"settings": {"n": 5}, "machines": [], "seconds": 1, "cells": []}', "n: 5 there, "),
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
        (["--kappa", "0.5"], "'0.5' is no ratio"),
        (["--steps", "many"], "'many' is no count"),
        (["--activation", "tan"], "invalid choice: 'tan'"),
        (["--quick", "--seeds", "-2"], "expected one argument|is no count"),
        (["--widths", "8", "5"], "'5' is odd"),
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
        ("narrow_random_labels", ["--datasets", "digits_few", "digits", "--widths", "20", "100000000"]),
        ("deep_theorem1", ["--datasets", "quick", "--depths", "1", "1000000000"]),
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
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, name, *words, "--raw-dir", tmp_path / "none", "--out", tmp_path / "out")
    assert stopped.value.code == 2
    assert "raw_dir" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["absent", "file"])
def test_a_folder_of_data_that_is_none_is_said(file, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "narrow_images", "--dataset", "mnist", "--raw-dir", tmp_path / file)
    assert stopped.value.code == 2
    assert f"'{tmp_path / file}' is no folder" in capsys.readouterr().err


def test_more_images_than_there_are_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "narrow_images", "--dataset", "digits", "--samples", "1400", "--out", tmp_path)
    assert "samples is 1600, but 'digits' has 1438 training rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("narrow_all_images", ["--samples", "200", "1000"]),
        ("narrow_regime_ablation", ["--samples", "200"]),
        ("deep_theorem1", ["--datasets", "digits"]),
        ("narrow_random_labels", ["--widths", "1000"]),
    ],
)
def test_a_machine_that_is_too_small_for_the_data_is_told_so(name, words, tmp_path, monkeypatch):
    monkeypatch.setattr(_run.os, "sysconf", lambda name: 1000)  # a megabyte
    with pytest.raises(SystemExit, match=r"needs about .* GB, and this machine has 0.0 GB"):
        run(monkeypatch, name, "--quick", *words, "--out", tmp_path)
    assert list(tmp_path.iterdir()) == []


def raises(error):
    def cell(*point):
        raise error

    return cell


def command(tmp_path, monkeypatch, cell, axes=None):
    """Run an experiment with this cell."""

    @_run.experiment("doc", "runs/none", sizes={}, quick={})
    def main(args):
        _run.cells(args, axes or {"width": [4]}, cell, str)
        return []

    monkeypatch.setattr(sys, "argv", ["main", "--out", str(tmp_path)])
    main()


@pytest.mark.parametrize("error", [ValueError("a fault"), FileNotFoundError("lost"), OSError("no room")])
def test_a_fault_within_a_cell_keeps_its_traceback(error, tmp_path, monkeypatch):
    with pytest.raises(type(error), match=str(error)):
        command(tmp_path, monkeypatch, raises(error))


@pytest.mark.parametrize(
    "error", [ValueError("too many"), PermissionError("not yours"), ImportError("extra")]
)
def test_what_is_wrong_before_the_first_cell_is_one_sentence(error, tmp_path, monkeypatch, capsys):
    @_run.experiment("doc", "runs/none", sizes={}, quick={})
    def main(args):
        raise error

    monkeypatch.setattr(sys, "argv", ["main", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f": {error}\n")


@pytest.mark.parametrize("below", [".", "deeper"])
def test_a_file_is_no_folder_of_results(below, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("mine")
    for name in ("narrow_all_images", "demo"):
        with pytest.raises(
            SystemExit, match=r"no folder that can be written to .*--out|Not a directory.*--out"
        ):
            run(monkeypatch, name, "--quick", "--out", file / below)
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_said_before_a_cell(tmp_path, monkeypatch):
    def refused(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_run.tempfile, "TemporaryFile", refused)
    with pytest.raises(SystemExit, match=r"no folder that can be written to \(Permission denied\).*--out"):
        command(tmp_path, monkeypatch, raises(AssertionError))


@pytest.mark.parametrize(
    "content", ["{", '{"cells": 3}', "\udcff", '{"settings": {}, "machines": [], "seconds": 0}']
)
def test_a_damaged_record_of_all_images_is_said(content, tmp_path, monkeypatch):
    (tmp_path / "summary.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    before = (tmp_path / "summary.json").read_bytes()
    with pytest.raises(SystemExit, match="--out"):
        run(monkeypatch, "narrow_all_images", "--quick", "--out", tmp_path)
    assert (tmp_path / "summary.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_all_and_some_images_exclude_each_other(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "narrow_all_images", "--all", "--samples", "5000", "--out", tmp_path)
    assert "not allowed with argument" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_more_samples_than_inputs_are_refused_where_regression_is_the_measure(
    tmp_path, monkeypatch, capsys
):
    with pytest.raises(SystemExit):
        run(monkeypatch, "depth_width_theorem2", "--quick", "--n", "4", "--out", tmp_path)
    assert "--n is 4 and --d 4; expected more samples" in capsys.readouterr().err


def test_fewer_images_than_a_batch_are_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "narrow_regime_ablation", "--quick", "--samples", "99", "--out", tmp_path)
    assert "--samples is 99; expected 100 or more" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_n_and_d_of_theorem_1_go_together(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "narrow_theorem1", "--n", "50", "--out", tmp_path)
    assert "--n and --d go together" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--numbers", "64", "--largest", "32"], ["--d", "1"]])
def test_widths_below_the_samples_and_one_input_are_refused(words, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "pyramidal_lecun", *words, "--out", tmp_path)
    assert "expected d of 2 or more" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_named_twice_is_one_cell(tmp_path, monkeypatch):
    command(tmp_path, monkeypatch, lambda width: [{"width": width}], {"width": [4, 8, 4]})
    cells = json.loads((tmp_path / "summary.json").read_text())["cells"]
    assert cells == [{"width": 4}, {"width": 8}]
