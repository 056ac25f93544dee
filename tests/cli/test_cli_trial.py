"""The whole way in fresh processes: train, evaluate, predict, report; every prediction is that of ``nj.load``."""

import csv
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

import narrow_jax as nj

pytest.importorskip("pandas")
QUICK = ("--width", "8", "--steps", "40", "--radius", "1")
DIGITS = load_digits()
PIXELS = (DIGITS.images * 15).astype(np.uint8)


def started(folder, *command):
    """Run Python in a process of its own, which shares only compiled programs."""
    programs = {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | programs,
        capture_output=True,
        text=True,
        check=False,
    )


def shell(folder, *words):
    """What a command prints in a process of its own."""
    done = started(folder, "-m", "narrow_jax.cli", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def used(folder, run, new, known):
    """Evaluate, predict and report; return the scores and the table of the predictions."""
    scores = json.loads(shell(folder, "evaluate", "--run", run, "--data", known, "--json"))
    shell(folder, "predict", "--run", run, "--data", new, "--out", "p.csv")
    shell(folder, "report", "--run", run)
    page = (folder / run / "report.html").read_text()
    assert page.count("<svg") >= 2
    assert not re.search(r"<script|<link|<img|src=", page)
    return scores, table(folder / "p.csv")


def test_diabetes(tmp_path):
    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame[:400].to_csv(tmp_path / "diabetes.csv", index=False)
    frame[400:].to_csv(tmp_path / "new.csv", index=False)
    shell(tmp_path, "train", "--data", "diabetes.csv", "--target", "target", "--task", "regression", *QUICK)
    run = "runs/diabetes-pairwise-0"
    scores, rows = used(tmp_path, run, "new.csv", "new.csv")
    x, y = frame[400:].to_numpy()[:, :-1], frame[400:]["target"].to_numpy()
    model = nj.load(tmp_path / run)
    assert [float(row["target"]) for row in rows] == model.predict(x).tolist()
    assert scores["r2"] == model.score(x, y)
    assert "diabetes-pairwise-0" in shell(tmp_path, "runs")


def test_breast_cancer_with_words(tmp_path):
    cancer = load_breast_cancer(as_frame=True)
    frame = cancer.frame.assign(target=cancer.target_names[cancer.target])
    frame[:400].to_csv(tmp_path / "cancer.csv", index=False)
    frame[400:].to_csv(tmp_path / "known.csv", index=False)
    frame[400:].drop(columns="target").to_csv(tmp_path / "new.csv", index=False)
    shell(tmp_path, "train", "--data", "cancer.csv", "--target", "target", *QUICK, "--out", "run")
    scores, rows = used(tmp_path, "run", "new.csv", "known.csv")
    predicted = nj.load(tmp_path / "run").predict(cancer.data[400:].to_numpy())
    assert [row["target"] for row in rows] == predicted.tolist()
    assert set(predicted) == {"benign", "malignant"}
    assert scores["accuracy"] == np.mean(predicted == frame["target"][400:]) > 0.8


def images(folder):
    for name, rows in {"digits": slice(300), "new": slice(300, 400)}.items():
        np.savez(folder / f"{name}.npz", x=PIXELS[rows], y=DIGITS.target[rows])


def check_digits(model, scores, rows):
    predicted = model.predict(PIXELS[300:400])
    assert [int(row["prediction"]) for row in rows] == predicted.tolist()
    assert scores["accuracy"] == np.mean(predicted == DIGITS.target[300:400]) > 0.3


def test_digits_as_images(tmp_path):
    images(tmp_path)
    options = ["--loss", "cross_entropy", "--normalize", "scale", *QUICK, "--width", "20", "--out", "run"]
    shell(tmp_path, "train", "--data", "digits.npz", *options)
    check_digits(nj.load(tmp_path / "run"), *used(tmp_path, "run", "new.npz", "new.npz"))


RESNET = """
import jax, numpy as np, optax, narrow_jax as nj
with np.load("digits.npz") as stored:
    data = nj.data.from_arrays(stored["x"], stored["y"], normalize="scale")
net = nj.models.ResNet(channels=(4, 8), blocks=(1, 1), outputs=10)
state = jax.jit(net.init)(jax.random.key(0, impl="rbg"), data.x[:1].reshape(1, 8, 8, 1))
params = state.pop("params")
tx = nj.constraints.regime(optax.sgd(0.1, momentum=0.9), radius=10.0, labels=net.labels)
options = {"loss": "cross_entropy", "steps": 60, "batch_size": 50, "key": jax.random.key(1)}
result = nj.fit(nj.models.Stateful(net), params, tx, data.as_images(), model_state=state, **options)
nj.save("run", result.model, history=result.history, config={"radius": 10.0, "steps": 60})
"""


def test_a_resnet_of_a_script(tmp_path):
    images(tmp_path)
    (tmp_path / "train.py").write_text(RESNET)
    done = started(tmp_path, "train.py")
    assert done.returncode == 0, done.stderr
    model = nj.load(tmp_path / "run")
    check_digits(model, *used(tmp_path, "run", "new.npz", "new.npz"))
    [row] = json.loads(shell(tmp_path, "runs", "--folder", ".", "--json"))["runs"]
    assert (row["run"], row["radius"], row["status"]) == ("run", 10.0, "saved")
    assert "ResNet" in (tmp_path / "run" / "report.html").read_text()


NNX = """
from flax import nnx


class CNN(nnx.Module):
    def __init__(self, rngs):
        self.conv, self.out = nnx.Conv(1, 4, (3, 3), rngs=rngs), nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.conv(x)).reshape(len(x), -1))


graph, start = nnx.split(CNN(nnx.Rngs(0)))


def apply_fn(params, x):
    return nnx.merge(graph, params)(x)
"""
NNX_TRAINED = """
import numpy as np, optax, narrow_jax as nj
from own_net import apply_fn, start
with np.load("digits.npz") as stored:
    data = nj.data.from_arrays(stored["x"], stored["y"], normalize="scale").as_images()
tx = nj.constraints.regime(optax.adam(1e-2), radius=5.0, zeta=None, labels=nj.constraints.by_path(w="conv"))
result = nj.fit(apply_fn, start, tx, data, loss="cross_entropy", steps=40)
nj.save("run", result.model, history=result.history)
with np.load("new.npz") as new:
    np.savez("expected.npz", y=result.model.predict(new["x"]), score=result.model.score(new["x"], new["y"]))
"""
NNX_USED = """
import csv, sys, numpy as np, narrow_jax as nj
from own_net import apply_fn, start
model = nj.load("run", apply_fn, like=start)
with np.load("new.npz") as new, np.load("expected.npz") as expected:
    assert (model.predict(new["x"]) == expected["y"]).all()
    assert model.score(new["x"], new["y"]) == expected["score"] > 0.3
"""


def test_a_convolutional_net_of_ones_own_in_nnx(tmp_path):
    images(tmp_path)
    for name, text in {"own_net": NNX, "train": NNX_TRAINED, "use": NNX_USED}.items():
        (tmp_path / f"{name}.py").write_text(text)
    for script in ("train.py", "use.py"):
        done = started(tmp_path, script)
        assert done.returncode == 0, done.stderr
    shell(tmp_path, "report", "--run", "run")
    assert (tmp_path / "run" / "report.html").read_text().count("<svg") >= 2
    done = started(tmp_path, "-m", "narrow_jax.cli", "predict", "--run", "run", "--data", "new.npz")
    assert done.returncode == 2
    assert "is a function of its maker's (apply_fn), which is not in the files: pass it again" in done.stderr
    assert "Traceback" not in done.stderr
