"""`narrow-jax certify pyramidal`: verdict, constants, exit status."""

import json

import jax
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.cli import main

SMALL = [
    "certify",
    "pyramidal",
    "--dataset",
    "synthetic",
    "--samples",
    "6",
    "--sphere",
    "--targets-scale",
    "0.01",
]


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion: data sets are scaled in it."""


def test_a_found_start_holds(capsys):
    assert main([*SMALL, "--widths", "40", "3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("holds: Assumptions 2.1, 2.2 and 3.1 hold")
    assert "steps to Φ =" in text


def test_json_has_the_certificate_of_the_same_start(capsys):
    assert main([*SMALL, "--widths", "40", "3", "--json", "--target-loss", "1e-9"]) == 0
    result = json.loads(capsys.readouterr().out)
    data = nj.data.load("synthetic", samples=6)
    x = data.x * np.float32(np.sqrt(data.x.shape[1])) / np.linalg.norm(data.x, axis=1, keepdims=True)
    y, sigma = data.y * np.float32(0.01), nj.activations.smooth_leaky_relu(0.5, 1.0)
    widths = (40, 3, data.y.shape[1])
    c = nj.solvers.pyramidal_start(jax.random.key(0), x, y, widths, sigma).certificate
    assert result["condition4"] == pytest.approx(c.condition4, abs=1e-5)
    assert result["sharper"]["steps"] == pytest.approx(c.sharper.steps_to(1e-9), rel=1e-4)
    assert len(result["lambdas"]) == 3


def test_weights_from_a_file(tmp_path, capsys):
    rng = np.random.default_rng(0)
    params = {"w1": rng.normal(size=(20, 5)), "w2": np.zeros((5, 1))}
    np.savez(tmp_path / "weights.npz", **params)
    assert main([*SMALL, "--params", str(tmp_path / "weights.npz")]) == 1
    assert "Assumption 2.1: the first layer has 5 < N = 6 neurons" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["truncated", "one array", "empty"])
def test_file_that_is_no_npz_is_status_2(damage, tmp_path, capsys):
    path = tmp_path / "weights"
    with open(path, "wb") as file:
        if damage == "one array":
            np.save(file, np.ones((20, 5)))
        elif damage == "truncated":
            np.savez(file, w1=np.ones((20, 5)))
            file.truncate(400)
    assert main([*SMALL, "--params", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path} cannot be read" in error
    assert "expected an npz file of plain arrays: write it again with numpy.savez" in error


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--activation", "relu"], "Assumption 2.2"),
        (["--start", "lecun", "--widths", "40", "3"], "condition (4) fails"),
        (["--learning-rate", "10"], "the step 10 is not below"),
    ],
)
def test_no_is_status_1(capsys, options, reason):
    assert main([*SMALL, *options]) == 1
    text = capsys.readouterr().out
    assert text.startswith("does not hold: ")
    assert reason in text


def test_json_holds_what_is_infinite(capsys):
    assert main([*SMALL, "--activation", "relu", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["beta"] == "inf"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gamma", "1.5"], "gamma is 1.5; expected a number in (0, 1)"),
        (["--learning-rate", "-1"], "learning rate is -1.0"),
        (["--widths", "0"], "width n_1 is 0"),
        (["--params", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_bad_input_is_status_2(capsys, options, message):
    assert main([*SMALL, *options]) == 2
    assert message in capsys.readouterr().err
