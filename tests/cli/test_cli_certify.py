"""`narrow-jax certify`: the verdict of the library, its exit status, and what is refused."""

import json

import jax
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.checkpoints import runs
from narrow_jax.cli import main

CONFIG = {"dataset": "synthetic", "samples": 30, "activation": "relu", "model": "standard"}


@pytest.fixture
def folder(tmp_path):
    params = nj.initializers.lecun(jax.random.key(0), inputs=20, width=2)
    return runs.save(tmp_path, params, CONFIG)


def deep(params):
    return {"w1": params["w"], "w2": params["v"]}


def test_stationary_value_of_a_run(folder, capsys):
    assert main(["certify", "stationary-value", "--run", str(folder), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)["result"]
    data = nj.data.load("synthetic", samples=30)
    s = nj.certificates.stationary_value(deep(runs.load(folder)[0]), data.x, data.y)
    for name in ("loss", "value", "gap", "baseline", "sigma_r", "reason", "method"):
        assert result[name] == getattr(s, name)
    assert result["layers"] == s.layers.tolist()
    assert len(result["units"][0]) == 2


def test_yes_is_status_0_and_comes_first(folder, capsys):
    command = ["certify", "stationary-value", "--run", str(folder), "--tolerance", "10"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.startswith("yes: the gap ")
    assert "30 × 42, method cholesky" in out
    assert main([*command, "--method", "lsmr"]) == 0
    assert "estimate" in capsys.readouterr().out


def test_deep_net(tmp_path, capsys):
    rng = np.random.default_rng(0)
    params = {"w1": rng.normal(size=(20, 3)), "w2": rng.normal(size=(3, 2)), "w3": rng.normal(size=(2, 1))}
    runs.save(tmp_path, params, CONFIG)
    assert main(["certify", "stationary-value", "--run", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("no: the gap ")
    assert len(out.split("layers")[1].splitlines()[0].split(",")) == 3


BAD = {
    "method": (["--method", "qrr"], CONFIG, "did you mean 'qr'"),
    "cutoff": (["--cutoff", "nrr"], CONFIG, "did you mean 'nr'"),
    "budget": (["--memory-budget", "1e-9"], CONFIG, "nothing fits"),
    "tanh": ([], CONFIG | {"activation": "tanh"}, "not positively homogeneous"),
    "pairwise": ([], CONFIG | {"model": "pairwise"}, "share output weights"),
    "cross-entropy": ([], CONFIG | {"loss": "cross_entropy"}, "speaks of the squared loss"),
}


@pytest.mark.parametrize(("options", "config", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_status_2(folder, capsys, options, config, message):
    runs.save(folder, runs.load(folder)[0], config, overwrite=True)
    assert main(["certify", "stationary-value", "--run", str(folder), *options]) == 2
    assert message in capsys.readouterr().err


def test_no_run_is_status_2(tmp_path, capsys):
    assert main(["certify", "stationary-value", "--run", str(tmp_path / "none")]) == 2
    assert "has no model.safetensors" in capsys.readouterr().err
