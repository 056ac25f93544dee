"""What is saved beside the arrays of a checkpoint, and its weights without what made them."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import narrow_jax as nj
from narrow_jax import checkpoints
from narrow_jax.checkpoints import CheckpointError, restore, save

NUMBERS = {
    "steps": np.int64(30),
    "rate": np.float32(0.5),
    "zeta": jnp.asarray(0.25),
    "half": jnp.asarray(0.5, jnp.bfloat16),
    "radius": np.inf,
    "least": -math.inf,
    "worst": np.float64("nan"),
    "on": np.bool_(True),
    "word": np.str_("tanh"),
    "widths": (np.int32(4), [np.uint8(8)]),
    "inner": {3: np.array(2)},
    "arrays": (np.array([[1.0, np.inf]]), jnp.arange(2)),
}
AS_WORDS = {
    "steps": 30,
    "rate": 0.5,
    "zeta": 0.25,
    "half": 0.5,
    "radius": "inf",
    "least": "-inf",
    "worst": "nan",
    "on": True,
    "word": "tanh",
    "widths": [4, [8]],
    "inner": {"3": 2},
    "arrays": [[[1.0, "inf"]], [0, 1]],
}


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


def test_config_is_strict_json_with_scalars_of_numpy_and_jax(tmp_path):
    assert checkpoints.as_json(NUMBERS) == AS_WORDS
    folder = save(tmp_path, np.int64(3), {"w": jnp.zeros(2)}, NUMBERS)
    content = json.loads((folder / "manifest.json").read_text(), parse_constant=refuse)
    assert (content["step"], content["config"]) == (3, AS_WORDS)
    assert restore(tmp_path, {"w": jnp.zeros(2)}, NUMBERS, step=np.int64(3)).step == 3
    with pytest.raises(CheckpointError, match=r"rate: saved 0\.5, given 0\.25"):
        restore(tmp_path, {"w": jnp.zeros(2)}, NUMBERS | {"rate": np.float32(0.25)})


@pytest.mark.parametrize(
    "config",
    [
        {"x": jax.random.key(0)},
        {"x": {1}},
        {"x": 1j},
        {"x": np.complex64(1)},
        {"x": {1: 0, "1": 0}},
        {"x": b"a"},
    ],
)
def test_config_that_json_cannot_hold_is_a_type_error(config):
    with pytest.raises(TypeError, match=r"config is to be saved as JSON: .*use numbers, words, lists"):
        checkpoints.as_json(config)


@pytest.mark.parametrize(
    "leaf", [np.array("a"), np.zeros(2, [("a", "f4")]), np.zeros(2, np.longdouble), np.array([None])]
)
def test_only_numbers_are_saved_in_checkpoints(tmp_path, leaf):
    with pytest.raises(TypeError, match=r"'w' is an array of dtype .*; expected numbers of 64 bits at most"):
        checkpoints.save(tmp_path, 1, {"w": leaf}, {})
    assert not list(tmp_path.iterdir())


def test_config_that_contains_itself():
    config = {}
    config["config"] = config
    with pytest.raises(TypeError, match="config is to be saved as JSON"):
        checkpoints.as_json(config)


def test_run_with_scalars_of_numpy_is_saved_and_resumed(tmp_path):
    x = np.eye(4, dtype=np.float32)
    params = {"w": jnp.zeros((4, 1))}

    def run(steps, **options):
        return nj.fit(
            lambda params, x: x @ params["w"],
            params,
            optax.sgd(0.1),
            (x, x[:, :1]),
            steps=steps,
            every=1,
            batch_size=2,
            key=jax.random.key(0),
            callbacks=[
                nj.callbacks.Checkpoint(
                    tmp_path, 2, config={"rate": np.float64(0.1), "radius": np.inf}, **options
                )
            ],
        )

    first = run(4)
    again = run(4, resume=1)
    np.testing.assert_array_equal(first.params["w"], again.params["w"])
    weights = checkpoints.load_params(tmp_path)
    assert weights.step == 4
    assert weights.config["config"] == {"rate": 0.1, "radius": "inf"}
    assert weights.model_state is None
    np.testing.assert_array_equal(weights.params["w"], first.params["w"], strict=True)
    earlier = checkpoints.load_params(tmp_path, step=3)
    assert earlier.step == 3
    assert earlier.params["w"].shape == (4, 1)


def test_weights_and_variables_of_a_model_without_what_made_them(tmp_path):
    state = {
        "params": {"head": {"v": jnp.ones(2, jnp.bfloat16)}, "layers": [jnp.zeros(1), jnp.ones(1)]},
        "model_state": {"batch_stats": {"mean": jnp.arange(3.0)}},
        "opt_state": optax.adam(0.1).init({"w": jnp.zeros(2)}),
    }
    save(tmp_path, 7, state, {"width": 8}, {"loss": np.zeros(3, np.float32)})
    weights = checkpoints.load_params(str(tmp_path))
    assert weights.config == {"width": 8}
    assert weights.model_state["batch_stats"]["mean"].tolist() == [0, 1, 2]
    assert weights.params["head"]["v"].dtype == jnp.bfloat16
    assert {name: leaf.tolist() for name, leaf in weights.params["layers"].items()} == {"0": [0], "1": [1]}
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(weights.params))


def test_weights_of_one_array(tmp_path):
    save(tmp_path, 1, {"params": jnp.arange(2.0)}, {})
    assert checkpoints.load_params(tmp_path).params.tolist() == [0, 1]


def test_weights_are_verified(tmp_path):
    for step in (1, 2):
        save(tmp_path, step, {"params": jnp.ones(2)}, {})
    with pytest.raises(CheckpointError, match="holds no checkpoint of step 30; the newest good step is 2"):
        checkpoints.load_params(tmp_path, step=30)
    path = next((tmp_path / "step-00000002" / "arrays").rglob("manifest.ocdbt"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"step 2 in .* is damaged: .*; the newest good step is 1"):
        checkpoints.load_params(tmp_path)
    assert checkpoints.load_params(tmp_path, step=1).step == 1


def test_a_checkpoint_of_something_else_has_no_weights(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoints.load_params(tmp_path)
    save(tmp_path, 1, {"w": jnp.ones(2), "key": jax.random.key(0)}, {})
    with pytest.raises(CheckpointError, match=r"holds no params but key, w, .*use restore"):
        checkpoints.load_params(tmp_path)


def test_names_that_two_leaves_share_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two leaves of the state have the name 'a/b'"):
        save(tmp_path, 1, {"a/b": jnp.ones(2), "a": {"b": jnp.zeros(2)}}, {})
    assert not list(tmp_path.iterdir())
    save(tmp_path, 1, {"params": {"a/b": jnp.ones(2), "a": jnp.zeros(2)}}, {})
    with pytest.raises(
        CheckpointError, match=r"'params/a' is the name of an array and of a dictionary.*use restore"
    ):
        checkpoints.load_params(tmp_path)


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    checkpoints.prepare("~/saved")
    assert save("~/saved", 1, {"params": jnp.ones(2)}, {}) == tmp_path / "saved" / "step-00000001"
    assert checkpoints.steps("~/saved") == [1]
    assert restore("~/saved", {"params": jnp.ones(2)}, {}).step == 1
    assert checkpoints.load_params("~/saved").step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_empty_arrays_alone(tmp_path):
    save(tmp_path, 1, {"w": np.zeros((0, 2), np.float32)}, {})
    assert restore(tmp_path, {"w": np.zeros((0, 2), np.float32)}, {}).state["w"].shape == (0, 2)
