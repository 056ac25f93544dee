"""`narrow-jax memorize` and `certify memorization`: found, proven, read back; exit status 1 where nothing is proven."""

import json

import pytest

from narrow_jax.cli import main

SMALL = ["--dataset", "synthetic", "--samples", "30"]


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion, as a user has it."""


def test_found_and_certified(tmp_path, capsys):
    assert main(["memorize", *SMALL, "--width", "4", "--radius", "0.1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("solved: loss ")
    assert "an exact zero-loss net lies within" in out
    assert main(["certify", "memorization", "--run", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("proven: an exact zero-loss net lies within")
    assert "every stationary point within ε₀" in out
    assert "cannot be checked samples come from a continuous distribution" in out
    assert main(["certify", "memorization", "--run", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["memorization"]["g"] <= 0.5
    assert result["nice_region"]["holds"]
    assert result["assumptions"]["holds"]


def test_smallest_width_inside_the_nice_region(tmp_path, capsys):
    assert main(["memorize", *SMALL, "--json", "--out", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["width"] == 4
    assert result["certificate"]["holds"]
    assert result["radius"] == result["certificate"]["radius"]


def test_a_trained_net_that_is_no_zero_is_status_1(tmp_path, capsys):
    train = ["train", *SMALL, "--width", "4", "--steps", "5", "--out", str(tmp_path), "--json"]
    assert main(train) == 0
    capsys.readouterr()
    assert main(["certify", "memorization", "--run", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("not proven: g = ")


BAD = {
    "odd width": (["memorize", *SMALL, "--width", "7"], "expected an even number"),
    "narrow": (["memorize", *SMALL, "--width", "2"], "smallest admissible width is 4"),
    "no run": (["certify", "memorization", "--run", "nowhere"], "has no params.npz"),
}


@pytest.mark.parametrize(("command", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_status_2(capsys, command, message):
    assert main(command) == 2
    assert message in capsys.readouterr().err
