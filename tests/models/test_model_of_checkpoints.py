"""A model of a run that was killed: the weights of its newest checkpoint, its maps and classes without the data."""

import csv
import json
import shutil

import jax
import numpy as np
import optax
import pytest

import narrow_jax as nj
from narrow_jax import checkpoints, training
from narrow_jax.cli import main

pytest.importorskip("orbax.checkpoint")
X = np.random.default_rng(0).normal(3, 2, size=(40, 3))
WORDS = np.where(X[:, 0] > 3, "large", "small")
PRICES = 100 + 7 * X[:, 1]


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion: the command line runs optax's own schedules, which promote."""


class Kill(nj.callbacks.Callback):
    """Ends a run at its second record: nothing but its checkpoints is there."""

    def record(self, told):
        if told.step >= 2:
            raise KeyboardInterrupt


def killed(folder, data, apply_fn=nj.models.standard_apply, params=None, **options):
    """Train until the run is killed; return the weights that were saved last."""
    params = nj.initializers.lecun(jax.random.key(0), inputs=3, width=4) if params is None else params
    keeping = nj.callbacks.Checkpoint(folder, every=1)
    with pytest.raises(KeyboardInterrupt):
        nj.fit(
            apply_fn, params, optax.sgd(1e-2), data, steps=8, every=1, callbacks=[keeping, Kill()], **options
        )
    return checkpoints.load_params(folder)


@pytest.mark.parametrize("y", [WORDS, PRICES], ids=["words", "prices"])
@pytest.mark.parametrize("normalize", ["standardize", "whiten", None])
def test_it_predicts_from_raw_rows_in_the_users_words_and_units(y, normalize, tmp_path):
    data = nj.data.from_arrays(X, y, normalize=normalize)
    weights = killed(tmp_path, data)
    assert weights.step < 8
    maps = {"normalizer": data.normalizer, "target_map": data.target_map, "classes": data.names}
    expected = nj.Model(nj.models.standard_apply, weights.params, **maps)
    found = nj.load(tmp_path)
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))
    np.testing.assert_array_equal(found.outputs(X), expected.outputs(X))
    fresh = nj.initializers.lecun(jax.random.key(0), inputs=3, width=4)
    assert not np.array_equal(found.params["w"], fresh["w"])  # not those of the start


def test_the_newest_checkpoint_counts_and_a_damaged_one_is_refused(tmp_path):
    killed(tmp_path, nj.data.from_arrays(X, WORDS))
    first, last = (checkpoints.steps(tmp_path)[place] for place in (0, -1))
    assert first < last
    np.testing.assert_array_equal(
        nj.load(tmp_path).params["w"], checkpoints.load_params(tmp_path, last).params["w"]
    )
    (tmp_path / f"step-{last:08d}" / "manifest.json").write_text("{}")
    with pytest.raises(checkpoints.CheckpointError, match=f"is damaged.*the newest good step is {first}"):
        nj.load(tmp_path)


def test_a_function_and_state_of_ones_own_are_given_again(tmp_path):
    def net(params, state, x, train):
        return x @ params[0], {"seen": state["seen"] + len(x)}

    params, state = [np.ones((3, 1), np.float32)], {"seen": np.zeros((), np.int32)}
    killed(tmp_path, nj.data.from_arrays(X, PRICES), net, params, model_state=state)
    with pytest.raises(ValueError, match="is a function of its maker's"):
        nj.load(tmp_path)
    found = nj.load(tmp_path, net, like=(params, state))
    assert isinstance(found.params, list)
    assert found.model_state["seen"] > 0
    assert found.predict(X).shape == (40,)


def test_what_is_missing_is_said(tmp_path):
    killed(tmp_path, nj.data.from_arrays(X, WORDS))
    shutil.rmtree(tmp_path / "outline")
    with pytest.raises(FileNotFoundError, match=r"has checkpoints and no outline/model.json; expected what"):
        nj.load(tmp_path)


def test_another_run_in_the_folder_leaves_no_map_of_the_first(tmp_path):
    killed(tmp_path, nj.data.from_arrays(X, WORDS))
    for step in checkpoints.steps(tmp_path):
        shutil.rmtree(tmp_path / f"step-{step:08d}")
    killed(tmp_path, nj.data.from_arrays(X, PRICES))
    assert nj.load(tmp_path).classes is None
    assert 50 < nj.load(tmp_path).predict(X).mean() < 200


def test_the_shell_predicts_by_a_killed_run_without_its_data(tmp_path, monkeypatch, capsys):
    table = tmp_path / "table.csv"
    rows = [*zip("abc", strict=True), ("price",)]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([sum(rows, ()), *np.column_stack([X, PRICES]).tolist()])
    own = training.callbacks.Record.record

    def killing(self, told):
        own(self, told)
        if told.step >= 4:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    command = [
        "train",
        "--data",
        str(table),
        "--target",
        "price",
        "--width",
        "4",
        "--steps",
        "8",
        "--every",
        "1",
    ]
    with monkeypatch.context() as patched:
        patched.setattr(training.callbacks.Record, "record", killing)
        assert main([*command, "--save-every", "1", "--out", str(run)]) == 130
    assert not (run / "model.json").exists()
    model = nj.load(run)
    np.testing.assert_array_equal(
        model.params["w"], checkpoints.load_params(run / "checkpoints").params["w"], strict=True
    )
    new = tmp_path / "new.csv"
    table.rename(new)
    for folder in (run, run / "checkpoints"):
        out = tmp_path / f"{folder.name}.csv"
        assert main(["predict", "--run", str(folder), "--data", str(new), "--out", str(out)]) == 0
        with out.open(newline="") as file:
            assert [float(row["price"]) for row in csv.DictReader(file)] == model.predict(X).tolist()
    capsys.readouterr()
    assert main(["evaluate", "--run", str(run), "--data", str(new), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["r2"] == model.score(X, PRICES)
    new.rename(table)
    assert main([*command, "--resume", "--out", str(run)]) == 0
    assert nj.load(run).params["w"].tolist() != model.params["w"].tolist()  # now that of the whole run
