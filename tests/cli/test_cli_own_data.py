"""The whole way from the shell: a table, a run, its predictions, its report; and what is no table, run or model."""

import csv
import json
import re
import shutil

import jax
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

import narrow_jax as nj
from narrow_jax import training
from narrow_jax.cli import main

pytest.importorskip("pandas")
QUICK = ("--width", "8", "--steps", "40", "--radius", "1")


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion: the command line runs optax's own schedules, which promote."""


def tables(folder):
    """Write the tables of a user: diabetes, and breast cancer with words."""
    diabetes = load_diabetes(as_frame=True, scaled=False).frame
    diabetes[:400].to_csv(folder / "diabetes.csv", index=False)
    diabetes[400:].to_csv(folder / "new.csv", index=False)
    cancer = load_breast_cancer(as_frame=True)
    frame = cancer.frame.assign(target=cancer.target_names[cancer.target])
    frame[:400].to_csv(folder / "cancer.csv", index=False)
    frame[400:].drop(columns="target").to_csv(folder / "patients.csv", index=False)
    frame[400:].to_csv(folder / "known.csv", index=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial")
    tables(folder)
    options = ["--width", "8", "--steps", "40", "--radius", "1"]
    for name, more in {"cancer": ["--test-fraction", "0.2"], "diabetes": ["--task", "regression"]}.items():
        with jax.numpy_dtype_promotion("standard"):
            data = ["--data", str(folder / f"{name}.csv"), "--target", "target"]
            assert main(["train", *data, *options, *more, "--out", str(folder / f"run-{name}")]) == 0
    return folder


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_words_come_back_as_words(place, tmp_path, capsys):
    command = ["predict", "--run", str(place / "run-cancer"), "--data", str(place / "patients.csv")]
    assert main([*command, "--out", str(tmp_path / "p.csv"), "--probabilities"]) == 0
    rows = table(tmp_path / "p.csv")
    x = load_breast_cancer().data[400:]
    model = nj.load(place / "run-cancer")
    assert [row["target"] for row in rows] == model.predict(x).tolist()
    assert set(model.classes) == {"benign", "malignant"}
    assert [float(row["p(benign)"]) for row in rows] == model.predict_proba(x)[:, 0].tolist()
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"]["target"] == model.predict(x).tolist()
    assert (
        main(["evaluate", "--run", str(place / "run-cancer"), "--data", str(place / "known.csv"), "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    words = load_breast_cancer().target_names[load_breast_cancer().target][400:]
    assert found["accuracy"] == np.mean(model.predict(x) == words) > 0.8
    assert main(["evaluate", "--run", str(place / "run-cancer"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 80
    summary = json.loads((place / "run-cancer" / "summary.json").read_text())
    assert found["accuracy"] == pytest.approx(summary["test_accuracy"], abs=1e-6)


def test_a_file_is_the_test_split(place, tmp_path, capsys):
    data = ["--data", str(place / "diabetes.csv"), "--target", "target", "--task", "regression"]
    run = str(tmp_path / "run")
    assert main(["train", *data, "--test", str(place / "new.csv"), *QUICK, "--out", run, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    for more in ([], ["--data", str(place / "new.csv")]):
        assert main(["evaluate", "--run", run, *more, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["samples"] == 42
        assert found["r2"] == pytest.approx(summary["test_r2"], abs=1e-5)


def test_digits_as_images(tmp_path, capsys):
    digits = load_digits()
    images = (digits.images * 15).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", x=images[:300], y=digits.target[:300])
    np.savez(tmp_path / "new.npz", x=images[300:400], y=digits.target[300:400])
    run = str(tmp_path / "run")
    command = [
        "train",
        "--data",
        str(tmp_path / "digits.npz"),
        "--loss",
        "cross_entropy",
        "--normalize",
        "scale",
    ]
    assert main([*command, *QUICK, "--width", "20", "--out", run]) == 0
    predict = ["predict", "--run", run, "--data", str(tmp_path / "new.npz"), "--out", str(tmp_path / "p.csv")]
    assert main(predict) == 0
    predicted = [int(row["prediction"]) for row in table(tmp_path / "p.csv")]
    assert predicted == nj.load(run).predict(images[300:400]).tolist()
    capsys.readouterr()
    assert main(["evaluate", "--run", run, "--data", str(tmp_path / "new.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.3


def test_a_config_runs_again_to_the_bit(place, tmp_path):
    run = place / "run-diabetes"
    again = ["train", "--config", str(run / "config.json"), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    for name in ("model.safetensors", "history.jsonl", "config.json", "model.json"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes(), name
    assert (
        main(["train", "--config", str(run / "config.json"), "--seed", "1", "--out", str(tmp_path / "b")])
        == 0
    )
    config = json.loads((run / "config.json").read_text())
    assert json.loads((tmp_path / "b" / "config.json").read_text()) == config | {"seed": 1}


def test_several_values_are_one_compiled_call_and_a_table(place, tmp_path, monkeypatch, capsys):
    calls = []
    own = training.sweep
    monkeypatch.setattr(training, "sweep", lambda *args, **options: calls.append(1) or own(*args, **options))
    command = [
        "train",
        "--data",
        str(place / "cancer.csv"),
        "--target",
        "target",
        *QUICK,
    ]
    alone = str(tmp_path / "alone")
    assert main([*command, "--radius", "1", "--out", alone]) == 0
    capsys.readouterr()
    command += ["--radius", "0.1", "1", "10", "--seed", "0", "1", "--out", str(tmp_path / "s"), "--json"]
    assert main(command) == 0
    assert calls == [1]
    found = json.loads(capsys.readouterr().out)
    points = [(row["radius"], row["seed"]) for row in found["runs"]]
    assert points == [(radius, seed) for radius in (0.1, 1, 10) for seed in (0, 1)]
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["runs"] == found["runs"]
    [one] = [row for row in found["runs"] if (row["radius"], row["seed"]) == (1, 0)]
    alone = json.loads((tmp_path / "alone" / "summary.json").read_text())
    assert one["loss"] == pytest.approx(alone["loss"], rel=1e-3)
    assert main([*command[:-1]]) == 2  # the folder is taken
    assert main([*command[:-1], "--overwrite"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["radius", "seed", "loss"]
    assert lines[7] == "each seed draws the start"
    assert lines[8].startswith(f"written to {tmp_path / 's'}; a sweep keeps its table and no nets")
    assert main([*command, "--overwrite", "--checkpoint"]) == 2
    assert "--checkpoint goes with one run" in capsys.readouterr().err
    assert main([*command[:-4], "-1", "--out", str(tmp_path / "t")]) == 2
    assert "seed is -1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        (["--labels", "random", "--samples", "60"], "the labels, the subset of the samples"),
        (["--test-fraction", "0.9", "--normalize", "scale"], "the test split"),
    ],
    ids=["labels", "split"],
)
def test_a_seed_of_a_sweep_draws_the_data_of_the_run_alone(options, drawn, tmp_path, capsys, monkeypatch):
    compiled = []
    own = nj.models.pairwise_apply
    monkeypatch.setattr(nj.models, "pairwise_apply", lambda *a, **k: compiled.append(1) or own(*a, **k))
    command = ["train", "--dataset", "digits", *options, "--width", "60", "--steps", "10", "--radius", "1"]
    sweep = [*command, "--learning-rate", "1e-3", "1e-2", "--seed", "3", "4", "5", "6"]
    assert main([*sweep, "--out", str(tmp_path / "s"), "--json"]) == 0
    assert len(compiled) <= 4 * 2 + 3  # each seed looks at shapes, of data and test; all share one program
    found = json.loads(capsys.readouterr().out)
    assert ", ".join(found["drawn_by_seed"]) == f"the start, {drawn}"
    for row in found["runs"][1::3]:
        alone = [*command, "--learning-rate", str(row["learning_rate"]), "--seed", str(row["seed"])]
        folder = tmp_path / f"{row['seed']} {row['learning_rate']}"
        assert main([*alone, "--out", str(folder)]) == 0
        summary = json.loads((folder / "summary.json").read_text())
        assert row["loss"] == pytest.approx(summary["loss"], rel=1e-4)
        assert row.get("test_accuracy") == pytest.approx(summary.get("test_accuracy"), abs=0.01)


def test_report_is_one_file_without_requests(place, tmp_path):
    out = tmp_path / "report.html"
    assert main(["report", "--run", str(place / "run-cancer"), "--out", str(out)]) == 0
    page = out.read_text()
    assert len(page) < 2_000_000
    names = re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>', "", page)  # names, which nobody fetches
    assert not re.search(r"https?://|<script|<link|<img|@import|src=", names)
    assert page.count("<svg") == 3
    for word in ("Loss", "Accuracy", "learning_rate", "cancer.csv", "trained to the end"):
        assert word in page
    assert main(["report", "--run", str(place / "run-cancer"), "--out", str(out)]) == 2
    assert out.read_text() == page


def test_report_of_a_proof(tmp_path, capsys):
    run = str(tmp_path / "run")
    options = ["--dataset", "synthetic", "--samples", "30", "--width", "4", "--radius", "0.1"]
    assert main(["memorize", *options, "--out", run]) == 0
    assert main(["report", "--run", run]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert '<p class="yes">proven' in page
    assert "<h2>Certificate</h2>" in page
    capsys.readouterr()
    assert main(["runs", "--folder", str(tmp_path), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["runs"]
    assert (row["run"], row["data"]) == ("run", "synthetic")
    assert row["final loss"] < 1e-20


@pytest.mark.parametrize("command", ["spectrum", "memorize"])
def test_other_commands_take_a_table_too(command, place, tmp_path, capsys):
    options = ["--data", str(place / "diabetes.csv"), "--target", "target", "--task", "regression"]
    options += ["--samples", "20", "--width", "8", "--json"]
    more = ["--radius", "1", "--out", str(tmp_path / "m")] if command == "memorize" else []
    assert main([command, *options, *more]) == 0
    assert json.loads(capsys.readouterr().out)


def test_completion_knows_commands_and_options(capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "--shell", "bash"]) == 0
    script = capsys.readouterr().out
    assert "--learning-rate" in script
    assert "evaluate" in script


def test_a_damaged_run_is_told_in_the_table(place, tmp_path, capsys):
    shutil.copytree(place / "run-cancer", tmp_path / "good")
    shutil.copytree(place / "run-cancer", tmp_path / "bad")
    (tmp_path / "bad" / "config.json").write_text("{")
    shutil.copytree(place / "run-cancer", tmp_path / "kept")
    (tmp_path / "kept" / "summary.json").unlink()  # as nj.save leaves it
    (tmp_path / "going").mkdir()
    (tmp_path / "going" / "history.part.jsonl").write_text("")
    assert main(["runs", "--folder", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "config.json cannot be read" in lines["bad"]
    assert lines["going"].endswith("not ended")
    assert "saved" in lines["kept"]
    assert "saved" not in lines["good"]
