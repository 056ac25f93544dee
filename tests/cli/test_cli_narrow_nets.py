"""`memorize --widths`, `train --widths`, and the theorems on the narrow net of any run; what is refused, too."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.checkpoints import runs
from narrow_jax.cli import config, main

SMALL = ["--dataset", "synthetic", "--samples", "30"]
DEEP = ["memorize", *SMALL, "--widths", "3", "3", "--radius", "0.1"]
KINDS = ("memorization", "nice-region", "kkt", "descent", "gradient-bound")
CERTIFIED = [
    *(("deep", kind) for kind in KINDS),
    *(("trained standard", kind) for kind in ("memorization", "kkt", "gradient-bound")),
    ("trained deep", "kkt"),
    ("narrow", "nice-region"),
]


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion, as a user has it."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs of each net: found deep and narrow pairs, and trained ones."""
    place = tmp_path_factory.mktemp("runs")
    train = ["train", *SMALL, "--steps", "5", "--json"]
    commands = {
        "deep": [*DEEP, "--weight-scale", "1.5", "--json"],
        "narrow": ["memorize", *SMALL, "--width", "4", "--radius", "0.1", "--json"],
        "trained deep": [*train, "--widths", "3", "3"],
        "trained standard": [*train, "--model", "standard", "--width", "8"],
    }
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for name, command in commands.items():
            assert main([*command, "--out", str(place / name)]) == 0
    return place


def certified(folder, kind, capsys, *options):
    """Return the exit status and the record of a certificate of a run."""
    capsys.readouterr()
    status = main(["certify", kind, "--run", str(folder), *options, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_deep_run_says_which_net_it_is(folders):
    params, saved = runs.load(folders / "deep")
    assert saved["widths"] == [3, 3]
    assert "width" not in saved
    assert saved["weight_scale"] == 1.5
    assert {name: w.shape for name, w in params["minus"].items()} == {"w1": (20, 3), "w2": (3, 3)}
    read, again, center = config.read_run(folders / "deep")
    assert read.widths == (3, 3)
    assert np.array_equal(center["plus"]["w1"], center["minus"]["w1"])
    data = nj.data.load("synthetic", samples=30)
    found = nj.certificates.memorization(again, center, data.x, data.y, read.radius)
    assert found.holds


def test_depth_alone_finds_the_smallest_equal_widths(tmp_path, capsys):
    command = ["memorize", *SMALL, "--depth", "2", "--radius", "0.1", "--out", str(tmp_path)]
    assert main(command) == 0
    smallest = nj.jacobian.admissible_widths(nj.data.load("synthetic", samples=30).x, 2)
    first, second = runs.load(tmp_path)[1]["widths"]
    assert (first, second) >= smallest
    out = capsys.readouterr().out
    assert f"2 × {first} + 2 × {second} hidden units, 30 samples, 1 outputs" in out


@pytest.mark.parametrize(("name", "kind"), CERTIFIED)
def test_every_theorem_on_any_net(folders, kind, name, capsys):
    """The command says what the function says, and its exit status is the verdict."""
    status, record = certified(folders / name, kind, capsys)
    read, params, center = config.read_run(folders / name)
    data = nj.data.load("synthetic", samples=30)
    center = center or jax.tree.map(np.asarray, config.build(read, data).params)
    zeta = None if read.model == "standard" else read.zeta
    c, sigma = nj.certificates, read.activation
    expected = {
        "memorization": lambda: c.memorization(params, center, data.x, data.y, read.radius, sigma),
        "nice-region": lambda: c.nice_region(center, data.x, sigma, y=data.y),
        "kkt": lambda: c.kkt(params, center, data.x, data.y, read.radius, zeta, read.kappa, sigma),
        "descent": lambda: c.gradient_descent(params, data.x, data.y, sigma),
        "gradient-bound": lambda: c.gradient_bound(params, data.x, data.y, sigma),
    }[kind]()
    own = record["memorization"] if kind == "memorization" else record
    assert status == (0 if expected.holds else 1)
    assert own["holds"] is bool(expected.holds)
    assert own["reason"] == expected.reason


@pytest.mark.parametrize("name", ["deep", "narrow"])
def test_a_memorized_net_is_proven_in_every_way(folders, name, capsys):
    """Near a zero an exact net exists, descent converges, and the gradient proves the loss small."""
    assert certified(folders / name, "memorization", capsys)[0] == 0
    status, descent = certified(folders / name, "descent", capsys)
    assert (status, descent["steps"] > 0) == (0, True)
    status, bound = certified(folders / name, "gradient-bound", capsys)
    assert (status, bound["loss"] <= bound["bound"] < 1e-12) == (0, True)


def test_descent_from_the_start_asks_for_a_larger_v(folders, capsys):
    """The start has residual ‖y‖ and hidden weights in a ball of 0.1: the certificate names the scale that would do."""
    status, found = certified(folders / "trained deep", "descent", capsys, "--from-start")
    assert status == 1
    assert found["scale"] > 1
    assert "multiply V by" in found["reason"]
    assert found["steps"] == "inf"


def test_a_proven_step_can_be_run(folders, capsys, tmp_path):
    """`certify descent` names a scale and a step in the coordinates of `train`, which stays below the proven bound."""
    _, found = certified(folders / "trained deep", "descent", capsys, "--from-start", "--wrt", "all")
    larger = ["--v-scale", str(found["scale"])]
    status, proven = certified(
        folders / "trained deep", "descent", capsys, "--from-start", "--wrt", "all", *larger
    )
    assert (status, proven["unit"], proven["wrt"]) == (0, 0.1, "all")
    sgd = ["--optimizer", "sgd", "--schedule", "constant", "--learning-rate", repr(proven["learning_rate"])]
    steps = ["--steps", "200", "--every", "1", "--out", str(tmp_path / "run")]
    assert main(["train", *SMALL, "--widths", "3", "3", *larger, *sgd, *steps, "--json"]) == 0
    capsys.readouterr()
    loss = [
        json.loads(line)["loss"] for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    ]
    start = 0.5 * proven["residual"] ** 2
    kept = (1 - proven["first_rate"]) ** np.arange(201)
    assert (np.array(loss) <= start * kept**2 * (1 + 1e-4) + 1e-9).all()
    status, again = certified(tmp_path / "run", "descent", capsys, "--from-start", "--wrt", "all")
    assert (status, again["learning_rate"]) == (0, proven["learning_rate"])


def test_descent_says_what_to_try(folders, capsys):
    command = ["certify", "descent", "--run", str(folders / "trained deep"), "--from-start"]
    assert main(command) == 1
    *_, tried, note = (line.split() for line in capsys.readouterr().out.splitlines())
    assert tried[:2] == ["try", "--v-scale"]
    assert "moves it too: --wrt all" in " ".join(note)
    assert main([*command, *tried[1:3]]) == 0
    assert "steps" in capsys.readouterr().out.splitlines()[-2]


def test_the_scale_of_train_counts_from_its_own(folders, capsys, tmp_path):
    """A run of --v-scale 4 is asked for more: `train` takes 4 times what is named for this start."""
    still = ["--optimizer", "sgd", "--learning-rate", "1e-12", "--steps", "1"]
    run = ["train", *SMALL, "--widths", "3", "3", *still, "--v-scale", "4", "--json"]
    assert main([*run, "--out", str(tmp_path / "four")]) == 0
    capsys.readouterr()
    assert main(["certify", "descent", "--run", str(tmp_path / "four"), "--from-start", "--wrt", "all"]) == 1
    tried = capsys.readouterr().out.splitlines()[-1]
    here, there = (float(number) for number in re.findall(r"\d[\d.e+]*", tried))
    assert there == 4 * here
    assert main([*run[:-2], str(there), "--json", "--out", str(tmp_path / "more")]) == 0
    assert main(["certify", "descent", "--run", str(tmp_path / "more"), "--from-start", "--wrt", "all"]) == 0


def test_descent_counts_steps_to_the_target(folders, capsys):
    steps = [
        certified(folders / "narrow", "descent", capsys, "--target-loss", target)[1]["steps"]
        for target in ("1e-28", "1e-32")
    ]
    assert steps[0] < steps[1]


def test_lines_say_the_verdict_first(folders, capsys):
    assert main(["certify", "gradient-bound", "--run", str(folders / "deep")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("proven: the loss is at most ")
    assert any(line.split()[0] == "bound" for line in lines[1:])


def test_the_audit_is_that_of_one_hidden_layer(folders, capsys):
    assert certified(folders / "deep", "memorization", capsys)[1]["assumptions"] is None
    assert certified(folders / "narrow", "memorization", capsys)[1]["assumptions"]["holds"]


def test_spectrum_of_a_deep_start_and_of_a_deep_run(folders, capsys):
    for options in ([*SMALL, "--widths", "3", "3"], ["--run", str(folders / "deep")]):
        capsys.readouterr()
        assert main(["spectrum", *options, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)["result"]
        assert (result["rows"], result["columns"]) == (30, 2 * (20 * 3 + 3 * 3))


def test_a_trained_deep_pair_stays_in_its_ball(folders):
    summary = json.loads((folders / "trained deep" / "summary.json").read_text())
    assert summary["relative_distance"] <= 1 + 1e-5
    params, _ = runs.load(folders / "trained deep")
    assert (params["v"] >= 1e-3).all()


def test_a_deep_run_is_resumed(tmp_path, capsys):
    command = ["train", *SMALL, "--widths", "3", "3", "--steps", "20", "--checkpoint", "--out", str(tmp_path)]
    assert main(command) == 0
    assert main([*command, "--resume"]) == 0
    (tmp_path / "config.json").unlink()
    assert main(["spectrum", "--run", str(tmp_path)]) == 0  # from its newest checkpoint
    other = [word if word != "3" else "4" for word in command]
    capsys.readouterr()
    assert main([*other, "--resume"]) == 2
    assert "widths" in capsys.readouterr().err


def test_too_narrow_layers_are_trained_with_a_warning(tmp_path, capsys):
    command = ["train", *SMALL, "--widths", "1", "1", "--steps", "2", "--json"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert "note: widths (1, 1) are too narrow" in capsys.readouterr().err
    assert main([*command, "--strict", "--out", str(tmp_path / "strict")]) == 2
    assert "the smallest admissible equal widths are (2, 2)" in capsys.readouterr().err


def test_a_config_without_widths_is_that_of_before(tmp_path):
    assert config.TrainConfig().to_json().get("widths", "absent") == "absent"
    assert config.TrainConfig.from_json({"width": 4}).widths is None


def test_cross_entropy_is_refused(folders, tmp_path, capsys):
    shutil.copytree(folders / "narrow", tmp_path, dirs_exist_ok=True)
    saved = runs.load(tmp_path)[1] | {"loss": "cross_entropy"}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    for kind in ("kkt", "descent", "gradient-bound"):
        assert main(["certify", kind, "--run", str(tmp_path)]) == 2
        assert "speaks of the squared loss" in capsys.readouterr().err


BAD = {
    "width and widths": (
        ["memorize", *SMALL, "--width", "4", "--widths", "3", "3"],
        "--width and --widths are given",
    ),
    "widths and depth": (
        ["memorize", *SMALL, "--depth", "2", "--widths", "3"],
        "--widths and --depth are given",
    ),
    "depth 0": (["memorize", *SMALL, "--depth", "0"], "depth is 0"),
    "width 0": (["memorize", *SMALL, "--widths", "3", "0"], "the width of layer 2 is 0"),
    "narrow": (["memorize", *SMALL, "--widths", "1", "1"], "the smallest admissible equal widths are (2, 2)"),
    "v scale": (["train", *SMALL, "--v-scale", "0"], "v_scale is 0"),
    "huge v scale": (
        ["train", *SMALL, "--v-scale", "1e39"],
        "v_scale is 1e+39: the output weights are then beyond float32",
    ),
    "weight scale": (["memorize", *SMALL, "--widths", "3", "3", "--weight-scale", "0"], "weight_scale is 0"),
    "train both": (["train", *SMALL, "--width", "4", "--widths", "3", "3"], "expected one of the two"),
    "train standard": (
        ["train", *SMALL, "--model", "standard", "--widths", "3"],
        "--model pairwise, or --width",
    ),
    "train width 0": (["train", *SMALL, "--widths", "0"], "the width of layer 1 is 0"),
    "no run": (["certify", "descent", "--run", "nowhere"], "has no model.safetensors"),
    "target": (["certify", "descent", "--run", "nowhere", "--target-loss", "0"], "target loss is 0"),
}


@pytest.mark.parametrize(("command", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_status_2(command, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
