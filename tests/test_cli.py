"""The command line: files, exit status 0, 1, 2, and messages for people."""

import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax import checkpoints, runs
from narrow_jax.cli import main
from narrow_jax.cli.config import CHOICES, TrainConfig, build, from_json, load_data, to_json

QUICK = [
    *("train", "--dataset", "synthetic", "--samples", "30", "--width", "8", "--optimizer", "sgd"),
    *("--learning-rate", "1e-3", "--steps", "20"),
]


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion: the command line runs optax's own schedules, which promote."""


def test_train_writes_a_run_that_can_be_read(tmp_path, capsys):
    assert main([*QUICK, "--radius", "0.5", "--seed", "3", "--out", str(tmp_path)]) == 0
    params, config = runs.load(tmp_path)
    assert params["w"].shape == (20, 8)
    assert params["v"].shape == (4, 1)
    assert (config["width"], config["radius"], config["seed"]) == (8, 0.5, 3)
    summary = json.loads((tmp_path / "summary.json").read_text())
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert summary["loss"] == history[-1]["loss"]
    assert history[-1]["step"] == 20
    data = nj.data.load("synthetic", samples=30, seed=3)
    outputs = nj.models.pairwise_apply(params, data.x)
    assert summary["loss"] == pytest.approx(float(nj.losses.squared(outputs, data.y)), rel=1e-5)
    assert f"written to {tmp_path}" in capsys.readouterr().out


def test_params_file_holds_plain_arrays(tmp_path):
    main([*QUICK, "--out", str(tmp_path)])
    with np.load(tmp_path / "params.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["v", "w"]
        assert all(arrays[name].dtype == np.float32 for name in arrays.files)


def test_json_prints_one_object_and_nothing_else(tmp_path, capsys):
    assert main([*QUICK, "--json", "--sigma-min", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["config"]["steps"] == 20
    assert printed["summary"]["sigma_min"] > 0
    assert math.isfinite(printed["summary"]["loss"])


def test_digits_with_true_labels_and_minibatches(tmp_path):
    args = ["train", "--dataset", "digits", "--samples", "200", "--normalize", "scale", "--width", "80"]
    args += ["--loss", "cross_entropy", "--optimizer", "momentum", "--learning-rate", "0.05", "--steps", "60"]
    assert main([*args, "--batch-size", "50", "--radius", "inf", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["accuracy"] > 0.8  # ten classes
    assert summary["relative_distance"] == 0  # there is no ball


def test_standard_net_is_held_by_the_ball_only(tmp_path):
    args = [*QUICK, "--model", "standard", "--radius", "0.5", "--steps", "200", "--out", str(tmp_path)]
    args[args.index("1e-3")] = "3e-3"
    assert main(args) == 0
    params, _ = runs.load(tmp_path)
    assert params["v"].shape == (8, 1)
    assert (params["v"] < 0).any()  # no cone
    assert json.loads((tmp_path / "summary.json").read_text())["relative_distance"] == pytest.approx(
        1, rel=1e-3
    )


def test_divergence_is_status_1_and_names_the_step(tmp_path, capsys):
    args = [*QUICK, "--model", "standard", "--radius", "inf", "--out", str(tmp_path)]
    args[args.index("1e-3")] = "1e9"
    assert main([*args, "--steps", "400"]) == 1
    assert "DIVERGED at step" in capsys.readouterr().out
    params, _ = runs.load(tmp_path)
    assert np.isfinite(params["w"]).all()


def test_stopped_run_is_resumed_and_ends_the_same(tmp_path, monkeypatch, capsys):
    command = [*QUICK, "--batch-size", "10", "--seed", "3"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    command += ["--out", str(tmp_path / "stopped")]
    own = checkpoints.save

    def save_and_press_ctrl_c(*arguments):
        path = own(*arguments)
        signal.raise_signal(signal.SIGINT)
        return path

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", save_and_press_ctrl_c)
        assert main([*command, "--checkpoint"]) == 130
    error = capsys.readouterr().err
    assert "narrow-jax train: interrupted; step 1 of 20 is saved in" in error
    assert "shell: --resume" in error
    assert not (tmp_path / "stopped" / "params.npz").exists()
    assert main([*command, "--resume"]) == 0
    for name in ("params.npz", "history.jsonl", "config.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert main([*command, "--resume", "--width", "10", "--learning-rate", "2e-3"]) == 2
    error = capsys.readouterr().err
    assert "config width: saved 8, given 10; config learning_rate: saved 0.001, given 0.002" in error
    assert "the newest good step is 20" in error
    assert main([*command, "--checkpoint"]) == 2
    assert "holds checkpoints up to step 20: go on from there" in capsys.readouterr().err
    assert main([*command, "--resume", "7"]) == 2
    assert "holds no checkpoint of step 7; the newest good step is 20" in capsys.readouterr().err


BAD = {
    "odd width": (["--width", "7"], "width is 7; expected an even number"),
    "no width": (["--width", "0"], "width is 0"),
    "negative radius": (["--radius", "-1"], "radius is -1.0"),
    "nan radius": (["--radius", "nan"], "radius is nan"),
    "small kappa": (["--kappa", "0.5"], "kappa is 0.5"),
    "no zeta": (["--zeta", "0"], "zeta is 0.0"),
    "learning rate": (["--learning-rate", "0"], "learning rate is 0.0"),
    "steps": (["--steps", "0"], "steps is 0"),
    "large batch": (["--batch-size", "31"], "batch_size is 31 and there are 30 samples"),
    "data set": (["--dataset", "mnits"], "unknown data set 'mnits': did you mean 'mnist'"),
    "activation": (["--activation", "tahn"], "unknown activation 'tahn': did you mean 'tanh'"),
    "classes of real targets": (["--loss", "cross_entropy"], "has real targets and no classes"),
    "narrow and strict": (["--samples", "200", "--width", "4", "--strict"], "smallest"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_status_2_with_one_clear_line(tmp_path, capsys, options, message):
    assert main([*QUICK, "--out", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("narrow-jax train: ")
    assert not (tmp_path / "params.npz").exists()


def test_width_too_small_is_noted_in_one_sentence(tmp_path, capsys):
    args = [*QUICK, "--samples", "200", "--width", "4", "--out", str(tmp_path)]
    assert main(args) == 0
    error = capsys.readouterr().err
    assert error.startswith(
        "narrow-jax train: note: width 4 is too narrow: 2 pairs times rank(X) = 20"
    )  # 2·200/20
    assert error.count("\n") == 1


def test_the_default_net_is_wide_enough_and_nothing_is_noted(recwarn):
    config = TrainConfig()
    build(config, load_data(config))
    assert not list(recwarn)


@pytest.mark.parametrize("args", [["trian"], [], ["train", "--width", "many"], ["train", "--model", "deep"]])
def test_unknown_words_are_status_2(args):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2


def test_installed_command_tells_its_version():
    done = subprocess.run(
        [sys.executable, "-m", "narrow_jax.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("narrow-jax 0.")


def test_help_lists_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for option in ("--dataset", "--labels", "--normalize", "--width", "--radius", "--raw-dir", "--json"):
        assert option in text
    assert "(default: 0.1)" in text
    assert "(default: 0)" in text  # that of --seed: 0 is a default, False is none


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["spectrum"],
        ["memorize"],
        ["certify", "memorization"],
        ["certify", "stationary-value"],
        ["certify", "pyramidal"],
    ],
    ids=" ".join,
)
def test_help_says_each_default_once_and_only_where_there_is_one(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert "default: None" not in text
    assert "default: False" not in text
    assert all(line.count("(default") <= 1 for line in text.splitlines())


def test_help_explains_every_loss(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for loss in CHOICES["loss"]:
        assert f"{loss}: " in text


@pytest.mark.parametrize("command", [QUICK, ["spectrum"], ["memorize"]], ids=lambda command: command[0])
@pytest.mark.parametrize("message", ["", "step 3 of 20 is saved"])
def test_ctrl_c_is_status_130_and_says_nothing_untrue(command, message, tmp_path, monkeypatch, capsys):
    def press_ctrl_c(*args, **options):
        raise KeyboardInterrupt(*[message] * bool(message))

    monkeypatch.chdir(tmp_path)  # where an earlier run may lie
    monkeypatch.setattr(nj.data, "load", press_ctrl_c)
    assert main(command) == 130
    said = message or "what was not written yet is lost"
    assert capsys.readouterr().err == f"narrow-jax {command[0]}: interrupted; {said}\n"


def test_config_is_read_as_it_was_written():
    config = TrainConfig(samples=30, radius=math.inf, normalize="whiten", loss="cross_entropy")
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
    assert from_json(to_json(config) | {"scale": 256.0}) == config  # what `memorize` adds


BAD_CONFIG = {
    "fields": (
        {"widht": 8, "depth": 2},
        "the config has the unknown fields depth, widht; expected only dataset",
    ),
    "optimizer": ({"optimizer": "admm"}, "unknown optimizer 'admm': did you mean 'adam'"),
    "model": ({"model": "pairwize"}, "unknown model 'pairwize': did you mean 'pairwise'"),
}


@pytest.mark.parametrize(("config", "message"), BAD_CONFIG.values(), ids=BAD_CONFIG.keys())
def test_bad_config_of_a_run_is_status_2(config, message, tmp_path, capsys):
    runs.save(tmp_path, {"w": np.ones((20, 4)), "v": np.ones((2, 1))}, {"dataset": "synthetic"} | config)
    assert main(["spectrum", "--run", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


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
    assert "holds a run already (params.npz, config.json, normalizer.npz" in (
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
    assert contents(tmp_path).keys() == {"params.npz", "config.json", "normalizer.npz"}


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
    assert f"not written: the run in {tmp_path / 'old'} stays" in out
    assert contents(tmp_path) == before
    assert main([*QUICK, *options, "--json", "--out", str(tmp_path / "new")]) == 1
    assert runs.load(tmp_path / "new")[0].keys() == {"w", "v"}  # the last finite ones


def test_a_run_that_is_interrupted_replaces_nothing(tmp_path, monkeypatch):
    assert main([*QUICK, "--out", str(tmp_path)]) == 0
    before = contents(tmp_path)

    def press_ctrl_c(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(nj, "fit", press_ctrl_c)
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


def test_nothing_to_resume_is_said(tmp_path, capsys):
    assert main([*QUICK, "--resume", "--out", str(tmp_path)]) == 0
    said = f"narrow-jax train: note: there is no checkpoint in {tmp_path / 'checkpoints'} to go on from: the run begins"
    assert said in capsys.readouterr().err


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
    normalizer = nj.data.Normalizer.from_arrays(runs.read_tree(tmp_path / "normalizer.npz"))
    np.testing.assert_array_equal(normalizer.apply(stored), data.x)
    dropped = 64 - data.x.shape[1]
    assert (
        f"note: {dropped} of 64 columns are constant in the training rows and were" in capsys.readouterr().err
    )


def test_a_run_whose_standardize_meant_something_else_is_refused(tmp_path, capsys):
    config = {"dataset": "digits", "normalize": "standardize"}
    runs.save(tmp_path, {"w": np.ones((64, 4)), "v": np.ones((2, 1))}, config)
    assert main(["spectrum", "--run", str(tmp_path)]) == 2
    assert "write 'scale' in its config.json" in capsys.readouterr().err


def test_a_run_that_has_not_ended_is_read_from_its_checkpoints(tmp_path, capsys):
    assert main([*QUICK, "--checkpoint", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    printed = []
    for _ in range(2):
        main(["spectrum", "--run", str(tmp_path), "--json"])
        printed.append(json.loads(capsys.readouterr().out))
        printed[-1]["result"].pop("seconds")
        (tmp_path / "params.npz").unlink(missing_ok=True)
    assert printed[0] == printed[1]
    checkpoints.save(tmp_path / "own", 1, {"params": {"w": np.ones(2)}}, {"config": {"rate": 0.1}})
    assert main(["spectrum", "--run", str(tmp_path / "own")]) == 2
    assert "are not of `narrow-jax train` (their config has no dataset, labels" in capsys.readouterr().err


def test_tilde_in_every_option_of_a_path(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK, "--out=~/run", "--checkpoint=~/saved"]) == 0
    assert main(["spectrum", "--run=~/run", "--plot=~/figure.png"]) == 0
    assert main(["train", "--dataset=cifar100_subset", "--raw-dir=~/raw"]) == 2
    assert str(tmp_path / "raw" / "cifar100_subset") in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"run", "saved", "figure.png"}
