"""The command line: files, exit status 0, 1, 2, and messages for people."""

import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax import checkpoints
from narrow_jax.checkpoints import runs, safetensors
from narrow_jax.cli import main
from narrow_jax.cli.config import build, load_data
from narrow_jax.cli.train_config import FIELDS, TrainConfig

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


def test_the_file_of_arrays_holds_params_by_name(tmp_path):
    main([*QUICK, "--out", str(tmp_path)])
    arrays = safetensors.read(tmp_path / "model.safetensors")
    assert [name for name in arrays if name.startswith("params/")] == ["params/v", "params/w"]
    assert all(arrays[name].dtype == np.float32 for name in ("params/v", "params/w"))


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

    def save_and_press_ctrl_c(*arguments, **options):
        path = own(*arguments, **options)
        signal.raise_signal(signal.SIGINT)
        return path

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", save_and_press_ctrl_c)
        assert main([*command, "--checkpoint"]) == 130
    error = capsys.readouterr().err
    assert "narrow-jax train: interrupted; step 1 of 20 is saved in" in error
    assert "shell: --resume" in error
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    assert main([*command, "--resume"]) == 0
    for name in ("model.safetensors", "history.jsonl", "config.json"):
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
    "zeta of the standard net": (["--model", "standard", "--zeta", "-1"], "zeta is -1.0"),
    "no step to resume": (["--resume", "7"], "checkpoints holds no checkpoint of step 7"),
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
    assert not (tmp_path / "model.safetensors").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("earlier")
    for out, message in (("file", "is a file; expected a folder"), ("file/below", "cannot be made")):
        assert main([*QUICK, "--out", str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err
    assert main([*QUICK, "--out", str(tmp_path / "new"), "--resume", "7"]) == 2
    assert not (tmp_path / "new").exists()


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
    for loss in FIELDS["loss"]["choices"]:
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
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert TrainConfig.from_json(config.to_json() | {"scale": 256.0}) == config  # what `memorize` adds


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


def test_a_second_call_compiles_nothing_that_the_first_did(tmp_path):
    command = [sys.executable, "-m", "narrow_jax.cli", *QUICK, "--json"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    kept = []
    for run in ("first", "second"):
        folder = str(tmp_path / run)
        subprocess.run([*command, "--out", folder], env=environment, check=True, capture_output=True)
        kept.append({path.name for path in (tmp_path / "cache" / "narrow_jax" / "compiled").glob("*-cache")})
    assert kept[0]
    assert kept[1] == kept[0]


def test_a_cache_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "cache").write_text("no folder")
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "narrow_jax.cli", *QUICK, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stderr == ""
