"""`narrow-jax memorize` and `certify memorization`: found, proven, read back; exit status 1 where nothing is proven."""

import json

import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.checkpoints import runs
from narrow_jax.cli import config, main, narrow_nets

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


def test_every_command_reads_the_run(tmp_path, capsys):
    assert main(["memorize", *SMALL, "--width", "4", "--radius", "0.1", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["spectrum", "--run", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    params, _ = runs.load(tmp_path)
    s = nj.sigma_min(nj.jacobian.pairwise(params, nj.data.load("synthetic", samples=30).x))
    assert result["sigma_min"] == pytest.approx(float(s.value), rel=1e-12)
    assert (result["rows"], result["columns"]) == (30, 80)
    assert main(["certify", "stationary-value", "--run", str(tmp_path)]) == 2
    assert "the pairs of a pairwise net share output weights" in capsys.readouterr().err


def test_damaged_params_are_status_2(tmp_path, capsys):
    runs.save(tmp_path, {"w": np.ones((20, 4)), "v": np.ones((2, 1))}, {"dataset": "synthetic"})
    params = tmp_path / "model.safetensors"
    params.write_bytes(params.read_bytes()[:100])
    for command in (["certify", "memorization"], ["certify", "stationary-value"], ["spectrum"]):
        assert main([*command, "--run", str(tmp_path)]) == 2
        assert f"{params} cannot be read (a header of" in capsys.readouterr().err


def test_a_trained_net_that_is_no_zero_is_status_1(tmp_path, capsys):
    train = ["train", *SMALL, "--width", "4", "--steps", "5", "--out", str(tmp_path), "--json"]
    assert main(train) == 0
    capsys.readouterr()
    assert main(["certify", "memorization", "--run", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("not proven: g = ")


def test_equal_samples_with_other_labels_prove_nothing(tmp_path, capsys, monkeypatch):
    assert main(["memorize", *SMALL, "--width", "4", "--radius", "0.1", "--out", str(tmp_path)]) == 0

    def load_data(*args):
        data = config.load_data(*args)
        data.x[1], data.y[0], data.y[1] = data.x[0], 1, -1
        return data

    monkeypatch.setattr(narrow_nets, "load_data", load_data)
    capsys.readouterr()
    assert main(["certify", "memorization", "--run", str(tmp_path), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    for part in ("memorization", "nice_region"):
        assert not result[part]["holds"]
        assert result[part]["reason"].startswith("samples 0 and 1 are equal")


BAD = {
    "odd width": (["memorize", *SMALL, "--width", "7"], "expected an even number"),
    "narrow": (["memorize", *SMALL, "--width", "2"], "smallest admissible width is 4"),
    "no run": (["certify", "memorization", "--run", "nowhere"], "has no model.safetensors"),
}


@pytest.mark.parametrize(("command", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_status_2(capsys, command, message):
    assert main(command) == 2
    assert message in capsys.readouterr().err
