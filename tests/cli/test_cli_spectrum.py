"""`narrow-jax spectrum`: of a start, of a run; exit status 1 where nothing is proven."""

import json

import jax
import pytest

import narrow_jax as nj
from narrow_jax.cli import main

SMALL = ["--dataset", "synthetic", "--samples", "30", "--width", "8"]


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion: the command line runs optax's own schedules, which promote."""


def test_spectrum_of_a_start(capsys):
    assert main(["spectrum", *SMALL, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    data = nj.data.load("synthetic", samples=30)
    params = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=20, width=8)
    s = nj.sigma_min(nj.jacobian.pairwise(params, data.x))
    assert result["sigma_min"] == pytest.approx(float(s.value), rel=1e-12)
    assert result["lower"] <= result["sigma_min"] <= result["upper"]
    assert (result["rows"], result["columns"], result["status"]) == (30, 160, "certified")


def test_spectrum_of_a_run(tmp_path, capsys):
    run = [
        "train",
        *SMALL,
        "--radius",
        "inf",
        "--learning-rate",
        "1e-3",
        "--steps",
        "20",
        "--out",
        str(tmp_path),
    ]
    assert main(run) == 0
    capsys.readouterr()
    assert main(["spectrum", "--run", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("certified: ")
    assert "30 × 160" in text
    assert main(["spectrum", "--run", str(tmp_path), "--width", "10"]) == 2
    assert "--run names data and model of its own, and --width was given too" in capsys.readouterr().err


def test_the_default_is_a_sample_that_takes_seconds(capsys):
    with pytest.raises(SystemExit):
        main(["spectrum", "--help"])
    assert "random subset of that many training samples (default: 200)" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.filterwarnings("ignore:width")
def test_not_proven_is_status_1(capsys):
    assert main(["spectrum", *SMALL[:-1], "2"]) == 1  # one pair of 20 inputs cannot serve 30 samples
    out = capsys.readouterr().out
    assert out.startswith("numerically_zero: ")
    assert "rank    20 of 30 rows" in out


def test_plot_is_written_and_replaces_nothing_unasked(tmp_path, capsys):
    figure = tmp_path / "spectrum.png"
    command = ["spectrum", *SMALL, "--plot", str(figure)]
    figure.write_text("earlier")
    assert main(command) == 2
    assert "spectrum.png is there already: choose another file" in capsys.readouterr().err
    assert figure.read_text() == "earlier"
    assert main([*command, "--overwrite"]) == 0
    assert figure.stat().st_size > 10_000


BAD = {
    "method": (["--method", "grma"], "did you mean 'gram'"),
    "budget": (["--memory-budget", "1e-9"], "bytes"),
    "no run": (["--run", "nowhere"], "has no model.safetensors"),
}


@pytest.mark.filterwarnings("ignore:width")
@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_status_2(capsys, options, message):
    assert main(["spectrum", *SMALL, *options]) == 2
    assert message in capsys.readouterr().err
