"""Folders of the command line's runs: none replaces another unasked, none is half-written, each has its normalizer."""

import json

import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax import checkpoints
from narrow_jax.checkpoints import runs
from narrow_jax.cli import main

QUICK = [
    *("train", "--dataset", "synthetic", "--samples", "30", "--width", "8", "--optimizer", "sgd"),
    *("--learning-rate", "1e-3", "--steps", "20"),
]


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion: the command line runs optax's own schedules, which promote."""


def contents(folder):
    """Every file below, byte for byte."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WRITERS = {
    "train": [*QUICK, "--seed", "1"],
    "memorize": ["memorize", "--dataset", "synthetic", "--samples", "30", "--width", "4", "--radius", "0.1"],
}


@pytest.mark.parametrize(
    ("command", "place"),
    [("train", []), ("train", ["--out", "there"]), ("memorize", [])],
    ids=["train", "train --out", "memorize"],
)
def test_a_run_replaces_no_other_unless_asked(command, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [*WRITERS[command], *place]
    assert main(command) == 0
    before = contents(tmp_path)
    other = [*command, "--width", "6"]
    monkeypatch.setattr(nj.data, "load", None)  # refused before any data are loaded
    assert main(other) == 2
    assert "holds a run already (model.safetensors, model.json, config.json" in (
        error := capsys.readouterr().err
    )
    assert "choose another folder, or replace it with --overwrite" in error
    assert contents(tmp_path) == before
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main([*other, "--overwrite"]) == 0
    assert contents(tmp_path)["config.json"] != before["config.json"]
    assert contents(tmp_path).keys() == before.keys()


def test_a_run_of_another_command_leaves_nothing_of_the_first(tmp_path):
    for command in WRITERS.values():
        assert main([*command, "--out", str(tmp_path), "--overwrite"]) == 0
    expected = {"config.json", "model.safetensors", "model.json", "summary.json"}
    assert contents(tmp_path).keys() == expected


FAILS = {
    "diverges": ["--model", "standard", "--radius", "inf", "--learning-rate", "1e9", "--steps", "40"],
    "rises": ["--activation", "relu", "--optimizer", "adam", "--radius", "inf", "--learning-rate", "1e9"],
}


@pytest.mark.parametrize("options", FAILS.values(), ids=FAILS.keys())
def test_a_run_that_diverges_is_status_1_and_replaces_nothing(options, tmp_path, capsys):
    assert main([*QUICK, "--out", str(tmp_path / "old")]) == 0
    before = contents(tmp_path)
    assert main([*QUICK, *options, "--overwrite", "--out", str(tmp_path / "old")]) == 1
    out = capsys.readouterr().out
    assert "DIVERGED" in out
    assert "not written: the run that was in the folder stays" in out
    assert contents(tmp_path) == before
    assert main([*QUICK, *options, "--json", "--out", str(tmp_path / "new")]) == 1
    assert json.loads(capsys.readouterr().out)["failure"].startswith("DIVERGED")
    assert runs.load(tmp_path / "new")[0].keys() == {"w", "v"}  # the last finite ones
    assert main([*QUICK, *options, "--checkpoint", "--out", str(tmp_path / "saved")]) == 1
    assert runs.load(tmp_path / "saved")[0].keys() == {"w", "v"}  # its own checkpoints are no other run


def test_a_run_that_is_interrupted_replaces_nothing(tmp_path, monkeypatch):
    assert main([*QUICK, "--out", str(tmp_path)]) == 0
    before = contents(tmp_path)

    def press_ctrl_c(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(nj.training, "fit", press_ctrl_c)
    assert main([*QUICK, "--overwrite", "--out", str(tmp_path)]) == 130
    assert contents(tmp_path) == before


def test_checkpoints_are_not_left_beside_another_run(tmp_path, capsys):
    command = [*QUICK, "--out", str(tmp_path)]
    assert main([*command, "--checkpoint"]) == 0
    assert main([*command, "--overwrite", "--width", "10"]) == 2
    assert "holds checkpoints of another run, which --overwrite does not delete" in capsys.readouterr().err
    elsewhere = [*QUICK, "--width", "10", "--checkpoint", str(tmp_path / "other" / "saved"), "--resume"]
    assert main([*elsewhere, "--out", str(tmp_path)]) == 2
    assert main([*elsewhere, "--out", str(tmp_path / "other")]) == 0
    capsys.readouterr()
    assert (
        main([*elsewhere, "--out", str(tmp_path)]) == 2
    )  # the checkpoints fit, the run in the folder does not
    assert "holds a run already" in capsys.readouterr().err
    assert main([*elsewhere, "--out", str(tmp_path / "other")]) == 0  # ended, and begun from its end again


CHOSEN_BADLY = {
    "data set": (QUICK, ["--dataset", "MNIST"], "unknown data set 'MNIST': did you mean 'mnist'"),
    "activation": (QUICK, ["--activation", "Tahn"], "did you mean 'tanh'"),
    "width": (QUICK, ["--width", "7"], "width is 7"),
    "radius": (QUICK, ["--radius", "-1"], "radius is -1.0"),
    "zeta": (QUICK, ["--zeta", "0"], "zeta is 0.0"),
    "kappa": (QUICK, ["--kappa", "0.5"], "kappa is 0.5"),
    "learning rate": (QUICK, ["--learning-rate", "nan"], "learning rate is nan"),
    "steps": (QUICK, ["--steps", "0"], "steps is 0"),
    "every": (QUICK, ["--every", "0"], "every is 0"),
    "save every": (QUICK, ["--save-every", "0"], "save_every is 0"),
    "batch": (QUICK, ["--batch-size", "0"], "batch_size is 0"),
    "samples": (QUICK, ["--samples", "0"], "samples is 0"),
    "seed": (QUICK, ["--seed", "-1"], "seed is -1"),
    "activation of memorize": (["memorize"], ["--activation", "tahn"], "did you mean 'tanh'"),
    "width of memorize": (["memorize"], ["--width", "7"], "width is 7"),
    "radius of memorize": (["memorize"], ["--radius", "nan"], "radius is nan"),
    "method": (["spectrum"], ["--method", "grma"], "did you mean 'gram'"),
    "budget": (["spectrum"], ["--memory-budget", "nan"], "memory budget is nan"),
    "activation of spectrum": (["spectrum"], ["--activation", "tahn"], "did you mean 'tanh'"),
    "picture": (
        ["spectrum"],
        ["--plot", "picture.pgn"],
        "unknown format of figures 'pgn': did you mean 'png'",
    ),
    "folder of the picture": (["spectrum"], ["--plot", "nowhere/picture.png"], "nowhere is not there"),
    "activation of a pyramid": (["certify", "pyramidal"], ["--activation", "tahn"], "did you mean 'tanh'"),
    "gamma": (["certify", "pyramidal"], ["--gamma", "1.5"], "gamma is 1.5"),
    "widths": (["certify", "pyramidal"], ["--widths", "8", "0"], "width n_2 is 0"),
    "weights": (["certify", "pyramidal"], ["--params", "nowhere.npz"], "nowhere.npz"),
    "rate": (["certify", "pyramidal"], ["--learning-rate", "0"], "learning rate is 0.0"),
    "target": (["certify", "pyramidal"], ["--target-loss", "-1"], "target loss is -1.0"),
    "cutoff": (["certify", "stationary-value", "--run", "run"], ["--cutoff", "nrr"], "did you mean 'nr'"),
    "method of a value": (["certify", "stationary-value", "--run", "run"], ["--method", "qrr"], "'qr'"),
}


@pytest.mark.parametrize(("command", "options", "message"), CHOSEN_BADLY.values(), ids=CHOSEN_BADLY.keys())
def test_bad_choices_are_refused_before_data_and_leave_nothing(
    command, options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nj.data, "load", None)
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["--batch-size", "31"], ["--loss", "cross_entropy"]])
def test_choices_that_do_not_fit_the_data_leave_nothing(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK, *options, "--checkpoint"]) == 2
    assert not list(tmp_path.iterdir())


def test_normalizer_of_a_run_takes_stored_rows_to_the_inputs_of_the_net(tmp_path, capsys):
    args = [
        "train",
        "--dataset",
        "digits",
        "--samples",
        "100",
        "--width",
        "40",
        "--labels",
        "random",
        "--steps",
        "2",
    ]
    assert main([*args, "--normalize", "standardize", "--out", str(tmp_path)]) == 0
    data = nj.data.load("digits", samples=100, labels="random", normalize="standardize")
    stored = np.rint(16 * nj.data.load("digits", samples=100).x).astype(np.uint8)
    np.testing.assert_array_equal(nj.load(tmp_path).encode(stored), data.x)
    dropped = 64 - data.x.shape[1]
    assert (
        f"note: {dropped} of 64 columns are constant in the training rows and were" in capsys.readouterr().err
    )


def test_a_run_that_has_not_ended_is_read_from_its_checkpoints(tmp_path, capsys):
    assert main([*QUICK, "--checkpoint", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    printed = []
    for _ in range(2):
        main(["spectrum", "--run", str(tmp_path), "--json"])
        printed.append(json.loads(capsys.readouterr().out))
        printed[-1]["result"].pop("seconds")
        (tmp_path / "config.json").unlink(missing_ok=True)
    assert printed[0] == printed[1]
    checkpoints.save(tmp_path / "own", 1, {"params": {"w": np.ones(2)}}, {"config": {"rate": 0.1}})
    assert main(["spectrum", "--run", str(tmp_path / "own")]) == 2
    assert (
        "are not of `narrow-jax train` (their config has no dataset, test_fraction, labels"
        in capsys.readouterr().err
    )


def test_tilde_in_every_option_of_a_path(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK, "--out=~/run", "--checkpoint=~/saved"]) == 0
    assert main(["spectrum", "--run=~/run", "--plot=~/figure.png"]) == 0
    assert main(["train", "--dataset=cifar100_subset", "--raw-dir=~/raw"]) == 2
    assert str(tmp_path / "raw" / "cifar100_subset") in capsys.readouterr().err
    # matplotlib, where it is imported here first, keeps its fonts in hidden folders of the home
    written = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert written == {"run", "saved", "figure.png"}
