"""`checkpoints`: what is saved comes back bit for bit, and no damaged byte passes."""

import errno
import os
import platform
import resource
import shutil
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from narrow_jax import checkpoints
from narrow_jax.checkpoints import CheckpointError, restore, save
from narrow_jax.checkpoints.checkpoint import Checkpoint
from narrow_jax.checkpoints.manifest import Manifest

CONFIG = {"config": {"width": 8, "radius": "inf"}, "steps": 60, "data set": {"x": "(3, 2) float32 SHA-256 1"}}
HISTORY = {"loss": np.array([0.5, np.nan], np.float32), "cone active": np.array([True, False])}


def make_state(seed=0):
    """A state with everything that optimizers and models carry: empty nodes, scalars, keys, other dtypes."""
    params = {
        "w": jax.random.normal(jax.random.key(seed), (5, 4)),
        "v": {"a/b": jnp.ones((2, 1), jnp.bfloat16)},
    }
    tx = optax.chain(
        optax.clip(1.0), optax.adam(0.1), optax.masked(optax.sgd(1.0, 0.9), {"w": True, "v": False})
    )
    return {
        "params": params,
        "opt_state": tx.init(params),
        "key": jax.random.key(seed + 1),
        "keys": jax.random.split(jax.random.key(seed), 3),
        "nothing": None,
        "empty": jnp.zeros((0, 3)),
        "weak": jnp.asarray(2.0),
        "order": jnp.arange(7)[::-1],
        "alive": jnp.ones((), bool),
        "host": np.arange(3, dtype=np.float64),
        "not a number": jnp.array([jnp.nan, -0.0, jnp.inf]),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with steps 20 and 40, to read only."""
    folder = tmp_path_factory.mktemp("saved")
    for step in (20, 40):
        save(folder, step, make_state(step), CONFIG, HISTORY)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it, to damage."""
    return shutil.copytree(saved, tmp_path / "copy")


def bits(leaf):
    """The leaf's bytes, its shape and its type: equal where leaves are the same to the bit."""
    data = np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
    return data.tobytes(), leaf.shape, str(leaf.dtype), type(leaf), getattr(leaf, "weak_type", None)


@pytest.mark.parametrize("step", [None, 20])
def test_round_trip_is_exact(saved, step):
    restored = restore(saved, make_state(), CONFIG, step)
    state = make_state(step or 40)
    assert restored.step == (step or 40)
    chex.assert_trees_all_equal_structs(restored.state, state)
    assert list(map(bits, jax.tree.leaves(restored.state))) == list(map(bits, jax.tree.leaves(state)))
    assert list(restored.history) == list(HISTORY)
    assert list(map(bits, restored.history.values())) == list(map(bits, HISTORY.values()))
    draw = jax.random.normal(restored.state["key"], (3,))
    np.testing.assert_array_equal(draw, jax.random.normal(state["key"], (3,)))


def test_newest_three_are_kept_and_a_step_can_be_saved_again(tmp_path):
    for step in (10, 20, 30, 40, 30):
        save(tmp_path, step, {"w": jnp.full(2, float(step))}, {})
    assert checkpoints.steps(tmp_path) == [20, 30, 40]
    assert restore(tmp_path, {"w": jnp.zeros(2)}, {}, 30).state["w"].tolist() == [30, 30]
    assert {path.name[:5] for path in tmp_path.iterdir()} == {"step-"}


def test_every_one_of_200_random_damages_is_detected(folder):
    rng = np.random.default_rng(0)
    files = sorted(path for path in Checkpoint(folder, 40).path.rglob("*") if path.is_file())
    for trial in range(200):
        path = files[rng.integers(len(files))]
        whole = path.read_bytes()
        place = int(rng.integers(len(whole)))
        flipped = bytes([whole[place] ^ (1 << int(rng.integers(8)))])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :] if trial % 2 else whole[:place])
        with pytest.raises(
            CheckpointError, match=r"step 40 in .* is damaged: .*; the newest good step is 20"
        ):
            restore(folder, make_state(), CONFIG)
        path.write_bytes(whole)
    assert restore(folder, make_state(), CONFIG).step == 40  # every damage was undone


def test_numbers_that_orbax_changes_are_detected(folder):
    old, new = (Checkpoint(folder, step) for step in (20, 40))
    shutil.rmtree(new.arrays)
    shutil.copytree(old.arrays, new.arrays)
    new.seal(Manifest.read(new.manifest.read_text()))  # the files agree with the manifest, the leaves do not
    with pytest.raises(CheckpointError, match=r"Orbax returned other numbers .*; the newest good step is 20"):
        restore(folder, make_state(), CONFIG)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
def test_half_written_checkpoint(folder, name):
    (Checkpoint(folder, 40).path / name).unlink()
    message = rf"step 40 in .* is half-written: it has no {name}; the newest good step is 20"
    with pytest.raises(CheckpointError, match=message):
        restore(folder, make_state(), CONFIG)
    assert restore(folder, make_state(), CONFIG, step=20).step == 20


def test_lost_file_and_no_good_one_left(folder):
    for step in (20, 40):
        next(Checkpoint(folder, step).arrays.rglob("manifest.ocdbt")).unlink()
    with pytest.raises(CheckpointError, match=r"manifest.ocdbt is missing; no good checkpoint is there"):
        restore(folder, make_state(), CONFIG)


def test_draft_of_a_killed_save_is_no_checkpoint(saved, tmp_path):
    shutil.copytree(Checkpoint(saved, 40).path, tmp_path / "draft-00000040")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        restore(tmp_path, make_state(), CONFIG)
    save(tmp_path, 50, {"w": jnp.ones(2)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000050"]


def test_step_that_is_not_there(saved):
    with pytest.raises(CheckpointError, match="holds no checkpoint of step 30; the newest good step is 40"):
        restore(saved, make_state(), CONFIG, step=30)


def test_other_config_is_named_field_by_field(saved):
    given = {
        "config": {"width": 4, "radius": "inf", "zeta": 0.1},
        "steps": 60,
        "data set": {"x": "(3, 2) float32 SHA-256 2"},
    }
    with pytest.raises(CheckpointError) as caught:
        restore(saved, make_state(), given)
    message = str(caught.value)
    assert "config width: saved 8, given 4" in message
    assert "config zeta: saved nothing, given 0.1" in message
    assert "data set x: saved (3, 2) float32 SHA-256 1, given (3, 2) float32 SHA-256 2" in message
    assert "radius" not in message
    assert "steps" not in message
    assert "the newest good step is 40" in message


OTHER_STATES = {
    "more": ({"extra": jnp.ones(2)}, r"extra: saved nothing, given \[2\] float32"),
    "shape": ({"order": jnp.arange(8)}, r"order: saved \[7\] int32, given \[8\] int32"),
    "dtype": ({"host": np.zeros(3, np.float32)}, r"host: saved \[3\] float64, given \[3\] float32"),
    "key": ({"key": jax.random.key(0, impl="rbg")}, r"key: saved \[\] key<fry>, given \[\] key<rbg>"),
    "optimizer": ({"opt_state": ()}, r"opt_state/1/0/mu/w: saved \[5, 4\] float32, given nothing"),
}


@pytest.mark.parametrize(("change", "message"), OTHER_STATES.values(), ids=OTHER_STATES.keys())
def test_state_of_another_model(saved, change, message):
    with pytest.raises(CheckpointError, match=f"is of another model or optimizer: .*{message}"):
        restore(saved, make_state() | change, CONFIG)


def test_file_too_large_for_the_disk_leaves_the_last_good_one(folder):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))  # the kernel refuses what is longer
    try:
        with pytest.raises(
            CheckpointError, match=r"step 60 could not be saved .*; the newest good step is 40"
        ):
            save(folder, 60, {"w": np.random.default_rng(0).normal(size=200_000)}, CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000020", "step-00000040"]
    assert restore(folder, make_state(), CONFIG).step == 40


def test_disk_full_while_flushing(folder, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"No space left on device; the newest good step is 40"):
            save(folder, 60, make_state(), CONFIG)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000020", "step-00000040"]


def test_saving_a_step_again_that_fails_leaves_it_as_it_was(folder, monkeypatch):
    own = Path.rename

    def refuse(path, target):
        if path.name == "draft-00000040":
            raise OSError(errno.EIO, "Input/output error")
        return own(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refuse)
        with pytest.raises(CheckpointError, match=r"step 40 could not be saved .*newest good step is 40"):
            save(folder, 40, make_state(), CONFIG)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000020", "step-00000040"]


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CheckpointError, match=r"cannot be written to .*: .*; choose a folder that is writable"
    ):
        checkpoints.prepare(tmp_path / "file" / "below")
    with pytest.raises(
        CheckpointError, match=r"step 1 could not be saved in .*; no good checkpoint is there"
    ):
        save(tmp_path / "file" / "below", 1, {"w": jnp.ones(2)}, {})


def test_negative_step(tmp_path):
    with pytest.raises(ValueError, match="step is -1; expected an integer ≥ 0"):
        save(tmp_path, -1, {"w": jnp.ones(2)}, {})


def test_config_that_json_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match=r"config is to be saved as JSON: .*not JSON serializable"):
        save(tmp_path, 1, {"w": jnp.ones(2)}, {"optimizer": optax.sgd})
    assert not list(tmp_path.iterdir())


def test_another_machine_is_warned_of(saved, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "abacus")
    with pytest.warns(
        UserWarning, match=r"machine: saved .*, here abacus\): the run goes on, but may not repeat"
    ):
        restore(saved, make_state(), CONFIG)


def test_without_orbax(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'narrow_jax\[checkpoints\]'"):
        checkpoints.prepare(tmp_path)
    with pytest.raises(ImportError, match=r"pip install 'narrow_jax\[checkpoints\]'"):
        save(tmp_path, 1, {"w": jnp.ones(2)}, {})


def test_fingerprint_sees_values_names_shapes_and_dtypes():
    trees = [
        {"w": jnp.zeros(4)},
        {"v": jnp.zeros(4)},
        {"w": jnp.zeros((2, 2))},
        {"w": jnp.zeros(4, jnp.int32)},
        {"w": jnp.zeros(4).at[0].set(-0.0)},
    ]
    assert len(set(map(checkpoints.fingerprint, trees))) == len(trees)
    assert checkpoints.fingerprint(trees[0]) == checkpoints.fingerprint({"w": np.zeros(4, np.float32)})
