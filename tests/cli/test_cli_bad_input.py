"""What is no table, run, model, config or place to write to: one sentence, exit status 2, nothing lost."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from narrow_jax.cli import main
from narrow_jax.cli.train_config import FIELDS, TrainConfig

pytest.importorskip("pandas")
QUICK = ("--width", "8", "--steps", "4", "--radius", "1")


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion: the command line runs optax's own schedules, which promote."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Tables, and a run of each kind of target."""
    folder = tmp_path_factory.mktemp("place")
    diabetes = load_diabetes(as_frame=True, scaled=False).frame
    diabetes[:60].to_csv(folder / "diabetes.csv", index=False)
    cancer = load_breast_cancer(as_frame=True)
    frame = cancer.frame.assign(target=cancer.target_names[cancer.target])
    frame[:100].to_csv(folder / "cancer.csv", index=False)
    frame[:5].drop(columns="target").to_csv(folder / "patients.csv", index=False)
    frame[:5].assign(target="maybe").to_csv(folder / "unseen.csv", index=False)
    diabetes[:5].assign(target="high").to_csv(folder / "words.csv", index=False)
    diabetes[:5].assign(target=3.0).to_csv(folder / "constant.csv", index=False)
    for name, more in {"cancer": ["--test-fraction", "0.2"], "diabetes": ["--task", "regression"]}.items():
        with jax.numpy_dtype_promotion("standard"):
            data = ["--data", str(folder / f"{name}.csv"), "--target", "target"]
            assert main(["train", *data, *QUICK, *more, "--out", str(folder / f"run-{name}")]) == 0
    return folder


def contents(folder):
    """Every file below, byte for byte."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commands(place, tmp_path):
    """Commands with what they say."""
    data, run = str(place / "cancer.csv"), str(place / "run-cancer")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    wide = tmp_path / "wide.npy"
    np.save(wide, np.zeros((2, 31)))
    config = tmp_path / "config.json"
    config.write_text('{"widht": 8}')
    yield ["train", "--data", data], "target is None"
    yield ["train", "--data", data, "--target", "tarhget"], "did you mean 'target'"
    yield ["train", "--data", data, "--dataset", "digits"], "expected one of the two"
    yield ["train", "--target", "target"], "--target goes with --data"
    yield (
        ["train", "--data", data, "--target", "target", "--labels", "random"],
        "--labels random goes with --dataset",
    )
    yield ["train", "--data", str(tmp_path / "no.csv"), "--target", "a"], "there is no file"
    yield ["train", "--test-fraction", "1"], "test_fraction is 1.0"
    yield ["train", "--config", str(config)], "the config has the unknown fields widht"
    yield ["train", "--config", str(tmp_path / "no.json")], "there is no file"
    yield ["train", "--config", data], "expected JSON"
    yield ["predict", "--run", run, "--data", str(other)], "has no 'mean radius'"
    yield ["predict", "--run", run, "--data", str(wide)], "has no 'mean radius'"
    yield ["predict", "--run", str(tmp_path), "--data", data], "has no model.json and no model.safetensors"
    yield ["predict", "--run", run, "--data", data, "--out", data], "is there already"
    yield (
        ["predict", "--run", run, "--data", data, "--out", str(tmp_path / "no" / "p.csv")],
        "there is no folder",
    )
    yield ["evaluate", "--run", run, "--data", str(place / "patients.csv")], "has no target"
    yield ["evaluate", "--run", str(place / "run-diabetes")], "has no test split"
    yield ["report", "--run", str(place)], "is not the folder of a run"
    yield ["runs", "--folder", str(tmp_path / "no")], "there is no folder"
    yield ["predict", "--run", str(place / "run-diabetes"), "--data", data, "--probabilities"], "has no 'age'"
    yield ["predict", "--run", data, "--data", data], "has no model.json"
    yield ["evaluate", "--run", run, "--data", str(place / "unseen.csv")], "holds the class 'maybe', unseen"
    words, constant = str(place / "words.csv"), str(place / "constant.csv")
    yield (
        ["evaluate", "--run", str(place / "run-diabetes"), "--data", words],
        "y holds object[5], such as ['high']; expected real targets [5], as in training",
    )
    yield ["evaluate", "--run", str(place / "run-diabetes"), "--data", constant], "all 5 targets are equal"
    yield (
        ["predict", "--run", str(place / "run-diabetes"), "--data", constant, "--probabilities"],
        "shell: leave --probabilities out",
    )
    yield ["train", "--data", data], "(shell: --target)"
    yield ["train", "--seed", str(2**32)], "seed is 4294967296; expected an integer ≥ 0 and ≤ 4294967295"
    yield (
        ["train", "--dataset", "synthetic", "--steps", str(2**31)],
        "steps is 2147483648; expected an integer ≥ 1 and ≤",
    )
    yield (
        ["train", "--dataset", "synthetic", "--widths", str(10**12)],
        "the width of layer 1 is 1000000000000",
    )
    yield ["report", "--run", run, "--out", "/proc/report.html"], "/proc/report.html cannot be written"
    new = str(place / "patients.csv")
    yield ["predict", "--run", run, "--data", new, "--out", "/proc/p.csv"], "/proc/p.csv cannot be written"
    given = ["train", "--data", data, "--target", "target"]
    yield [*given, "--out", "/proc/run"], "the folder /proc/run cannot be made"
    yield [*given, "--out", data], "is a file; expected a folder for the run"
    yield [*given, "--out", f"{data}/run"], "cannot be made"
    yield [*given, "--out", run], "holds a run already"
    yield [*given, "--checkpoint", "/proc/saved"], "checkpoints cannot be written to /proc/saved"


def test_what_is_wrong_is_one_sentence_and_status_2(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = contents(place)
    for command, message in commands(place, tmp_path):
        quick = [
            word for word in QUICK if command[0] == "train" and not {"--widths", "--steps"} & set(command)
        ]
        assert main([*command, *quick]) == 2, command
        error = capsys.readouterr().err
        assert message in error, command
        assert "Traceback" not in error
    assert contents(place) == before
    assert not (tmp_path / "runs").exists()


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "another bit": lambda path: path.write_bytes(
        path.read_bytes()[:-9] + bytes([path.read_bytes()[-9] ^ 128]) + path.read_bytes()[-8:]
    ),
    "no names": lambda path: path.write_text("[1, 2]"),
}
READERS = {
    "model.safetensors": ("predict", "evaluate", "spectrum", "certify kkt"),
    "model.json": ("predict", "evaluate", "report"),
    "config.json": ("evaluate", "spectrum", "certify kkt", "report"),
    "summary.json": ("report",),
    "history.jsonl": ("report",),
}
DONE_WITHOUT = {
    ("config.json", "report"),
    ("model.json", "report"),
    ("summary.json", "report"),
    ("history.jsonl", "report"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_of_a_run_is_named_by_whoever_reads_it(name, damage, place, tmp_path, capsys):
    run = shutil.copytree(place / "run-cancer", tmp_path / "run")
    DAMAGE[damage](run / name)
    before = contents(run)
    for reader in READERS[name]:
        if damage == "missing" and (name, reader) in DONE_WITHOUT:
            continue
        if (damage, name) == ("empty", "history.jsonl"):
            continue  # a run without records
        data = ["--data", str(place / "patients.csv")] if reader == "predict" else []
        assert main([*reader.split(), "--run", str(run), *data]) == 2, reader
        error = capsys.readouterr().err
        assert name in error, (reader, error)
        assert contents(run) == before


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_a_config_refuses_other_kinds(name, tmp_path, capsys):
    """A run's config.json by somebody's hand: each field is of its kind, or said by its name."""
    default = getattr(TrainConfig, name)
    wrong = [{"a": 1}, [["b"]]]
    wrong += [3] if FIELDS[name].get("type") not in (int, float) else ["three", True]
    wrong += [None] if default is not None else []
    for value in wrong:
        path = tmp_path / "config.json"
        own = {"data": "t.csv"} if name in ("target", "test", "task") else {}
        path.write_text(json.dumps({"dataset": "synthetic"} | own | {name: value}))
        assert main(["train", "--config", str(path), "--out", str(tmp_path / "run")]) == 2, value
        assert name.replace("_", " ") in capsys.readouterr().err.replace("_", " "), value
    assert not (tmp_path / "run").exists()


FRESH = {
    "missing table": ["train", "--data", "none.csv", "--target", "a"],
    "missing run": ["predict", "--run", "none", "--data", "t.csv"],
    "config": ["train", "--config", "t.csv"],
    "word": ["train", "--dataset", "digitz"],
}


@pytest.mark.parametrize("command", FRESH.values(), ids=FRESH.keys())
def test_in_a_fresh_process_it_is_one_line(command, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n2,3\n")
    line = [sys.executable, "-m", "narrow_jax.cli", *command]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"narrow-jax {command[0]}: ")
    assert done.stderr.count("\n") == 1
