"""A model that is kept predicts the same bits in another process; what is not as it was is refused."""

import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kept_models import net, trained
from sklearn.datasets import load_digits

import narrow_jax as nj
from narrow_jax.checkpoints import safetensors

DIGITS = load_digits()

FRESH = """
import sys, numpy as np, narrow_jax as nj
sys.path.insert(0, sys.argv[3])
import own_net
apply_fn, like = own_net.pieces(sys.argv[4])
model = nj.load(sys.argv[1], apply_fn, like=like)
with np.load(sys.argv[2]) as stored:
    assert (model.outputs(stored["x"]) == stored["outputs"]).all()
    assert (model.predict(stored["x"]) == stored["predicted"]).all()
"""

OWN_NET = """
import jax
from flax import nnx


class CNN(nnx.Module):
    def __init__(self, rngs):
        self.conv, self.out = nnx.Conv(1, 3, (3, 3), rngs=rngs), nnx.Linear(192, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.conv(x)).reshape(len(x), -1))


def pieces(which):
    if which == "stock":
        return None, None
    graph, state = nnx.split(CNN(nnx.Rngs(0)))
    return (lambda params, x: nnx.merge(graph, params)(x)), state
"""


def resnet():
    module = nj.models.ResNet(channels=(2,), blocks=(1,), outputs=10)
    state = jax.jit(module.init)(jax.random.key(0, impl="rbg"), jnp.zeros((1, 8, 8, 1)))
    return nj.models.Stateful(module), state.pop("params"), state


@pytest.mark.parametrize("which", ["stock", "nnx"])
def test_another_process_predicts_the_same_bits(which, tmp_path):
    (tmp_path / "own_net.py").write_text(OWN_NET)
    scope = {}
    exec(OWN_NET, scope)
    apply_fn, params, state = resnet() if which == "stock" else (*scope["pieces"]("nnx"), None)
    data = nj.data.load("digits", samples=60, normalize="scale").as_images()
    options = {"steps": 2, "loss": "cross_entropy", "model_state": state}
    model = nj.fit(apply_fn, params, optax.sgd(0.01), data, **options).model
    nj.save(tmp_path / "model", model)
    x = DIGITS.images[:40].astype(np.uint8)
    np.savez(tmp_path / "x.npz", x=x, outputs=model.outputs(x), predicted=model.predict(x))
    arguments = [tmp_path / "model", tmp_path / "x.npz", tmp_path, which]
    subprocess.run([sys.executable, "-c", FRESH, *map(str, arguments)], check=True)


def test_bfloat16_and_float64_come_back_to_the_bit(tmp_path):
    data = nj.data.load("synthetic", samples=10, inputs=3)
    for name in ("bfloat16", "float64"):
        with jax.enable_x64(name == "float64"):
            params = jax.tree.map(np.asarray, net(data, 1, jnp.dtype(name)))
        seen = jax.ShapeDtypeStruct((3,), jnp.dtype(name))
        model = nj.Model(nj.models.standard_apply, params, inputs=seen)
        kept = nj.load(nj.save(tmp_path / name, model))
        assert {leaf.dtype for leaf in jax.tree.leaves(kept.params)} == {jnp.dtype(name)}
        assert model.outputs(data.x).dtype == jnp.dtype(name)
        assert kept.outputs(data.x).tobytes() == model.outputs(data.x).tobytes()


def test_files_are_those_of_safetensors(tmp_path):
    package = pytest.importorskip("safetensors")
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b/c": np.array(3, np.int8),
        "d": np.zeros((0, 2), np.float32),
    }
    arrays["e"] = np.asarray(jnp.ones(3, jnp.bfloat16))
    safetensors.write(tmp_path / "f.safetensors", arrays)
    theirs = dict(package.deserialize((tmp_path / "f.safetensors").read_bytes()))
    assert {name: (entry["shape"], bytes(entry["data"])) for name, entry in theirs.items()} == {
        name: (list(array.shape), array.tobytes()) for name, array in arrays.items()
    }
    del arrays["e"]
    written = pytest.importorskip("safetensors.numpy").save(arrays, {"about": "them"})
    (tmp_path / "g.safetensors").write_bytes(written)
    for name, array in safetensors.read(tmp_path / "g.safetensors").items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    data = nj.data.load("synthetic", samples=10, inputs=3)
    return nj.save(tmp_path_factory.mktemp("kept") / "model", trained(data).model)


def rewritten(folder, change, seal=True):
    """Change model.json, with its checksum or without."""
    from narrow_jax.models import keeping

    about = json.loads((folder / "model.json").read_text())
    sealed = about.pop("sha256")
    change(about)
    sealed = keeping._sealed(about) if seal else sealed
    (folder / "model.json").write_text(json.dumps({"sha256": sealed, **about}))


DAMAGE = {
    "missing": (
        lambda f: (f / "model.json").unlink(),
        FileNotFoundError,
        r"has no model.json; expected a folder that nj.save",
    ),
    "arrays altered": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-1] + b"\x01"
        ),
        ValueError,
        r"model.safetensors was altered: its SHA-256",
    ),
    "cut": (
        lambda f: (f / "model.safetensors").write_bytes(b""),
        ValueError,
        r"model.safetensors was altered",
    ),
    "words altered": (
        lambda f: rewritten(f, lambda about: about.update(loss="cross_entropy"), seal=False),
        ValueError,
        r"model.json was altered: its SHA-256",
    ),
    "no JSON": (lambda f: (f / "model.json").write_text("{"), ValueError, r"model.json cannot be read"),
    "newer": (
        lambda f: rewritten(f, lambda about: about.update(format=2, narrow_jax="9.0")),
        ValueError,
        r"is of format 2, written by narrow_jax 9.0; expected 1 at most",
    ),
    "another architecture": (
        lambda f: rewritten(
            f, lambda about: about.update(architecture={"function": "pairwise_apply", "fields": {}})
        ),
        ValueError,
        r"do not fit the architecture .*pairwise_apply.*: x has shape",
    ),
    "unknown architecture": (
        lambda f: rewritten(
            f, lambda about: about.update(architecture={"function": "nothing", "fields": {}})
        ),
        ValueError,
        r"is unknown here",
    ),
}


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_not_as_it_was_is_refused(folder, damage, error, message, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(error, match=message):
        nj.load(copy)


def test_another_function_is_refused_and_ones_own_is_asked_for(folder, tmp_path):
    with pytest.raises(ValueError, match=r"apply_fn is .*pairwise_apply.* and the model in .* leave it out"):
        nj.load(folder, nj.models.pairwise_apply)
    own = nj.Model(
        lambda params, x: x @ params[0], [jnp.ones((3, 1))], inputs=jax.ShapeDtypeStruct((3,), jnp.float32)
    )
    nj.save(tmp_path / "own", own)
    with pytest.raises(
        ValueError, match=r"is a function of its maker's .*pass it again, nj.load\(folder, apply_fn\)"
    ):
        nj.load(tmp_path / "own")
    with pytest.raises(ValueError, match=r"do not fit the architecture .*expected the function"):
        nj.load(tmp_path / "own", lambda params, x: x @ params["w"])
    with pytest.raises(ValueError, match=r"another structure than the model: 0 missing, 1 too many"):
        nj.load(tmp_path / "own", own.apply_fn, like=({}, jnp.ones(1)))
    kept = nj.load(tmp_path / "own", own.apply_fn, like=[jnp.zeros(())])
    np.testing.assert_array_equal(kept.predict(np.ones((2, 3))), [3.0, 3.0])


def test_normalizer_of_ones_own_is_asked_for(tmp_path):
    from sklearn.preprocessing import RobustScaler, StandardScaler

    x = np.random.default_rng(0).normal(size=(20, 3))
    model = trained(nj.data.from_arrays(x, np.arange(20) % 2, normalize=RobustScaler())).model
    nj.save(tmp_path, model)
    with pytest.raises(
        ValueError, match=r"a normalizer of its maker's \(RobustScaler\).*pass the fitted object again"
    ):
        nj.load(tmp_path)
    with pytest.raises(
        ValueError, match="normalizer is a StandardScaler; expected the RobustScaler that was"
    ):
        nj.load(tmp_path, normalizer=StandardScaler())
    for fitted in (model.normalizer, model.normalizer.fitted):
        np.testing.assert_array_equal(nj.load(tmp_path, normalizer=fitted).outputs(x), model.outputs(x))
    images = np.arange(30 * 6, dtype=np.uint8).reshape(30, 2, 3, 1)  # a map of pixels comes before it
    data = nj.data.from_arrays(images, np.arange(30) % 2, normalize=RobustScaler())
    model = trained(data).model
    kept = nj.load(nj.save(tmp_path / "images", model), normalizer=model.normalizer.fitted)
    np.testing.assert_array_equal(kept.outputs(images), model.outputs(images))


@pytest.mark.usefixtures("unchecked")
def test_nothing_is_lost_or_half_written(folder, tmp_path, monkeypatch):
    model = nj.load(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(FileExistsError, match=r"holds a run already \(model.safetensors, model.json\)"):
        nj.save(copy, model)
    with pytest.raises(TypeError, match=r"model is a dict; expected an nj\.Model: pass result\.model"):
        nj.save(copy, {"w": 1}, overwrite=True)
    monkeypatch.setattr(safetensors, "write", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        nj.save(copy, model, overwrite=True)
    with pytest.raises(OSError, match="disk full"):
        nj.save(tmp_path / "new", model)
    assert not (tmp_path / "new").exists()
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    with pytest.raises(FileExistsError, match="is a file; expected a folder"):
        nj.save(copy / "model.json", model)


def test_arrays_that_no_file_holds_are_refused_before_anything_is_written(tmp_path):
    wide = nj.Model(nj.models.standard_apply, {"w": np.ones(2, np.longdouble)})
    with pytest.raises(TypeError, match="has dtype float128; expected one of float64"):
        nj.save(tmp_path / "none", wide)
    twice = nj.Model(len, {"a": {"b": np.ones(1)}, "a/b": np.ones(1)})
    with pytest.raises(ValueError, match="two arrays of the model have the name 'params/a/b'"):
        nj.save(tmp_path / "none", twice)
    assert not (tmp_path / "none").exists()


def test_the_key_of_dropout_is_kept_as_its_numbers(tmp_path):
    key = jax.random.key(3)
    model = nj.Model(
        lambda params, state, x, train: (x @ params["w"], state), {"w": np.ones((3, 1))}, {"key": key}
    )
    kept = nj.load(nj.save(tmp_path, model), model.apply_fn)
    np.testing.assert_array_equal(kept.model_state["key"], jax.random.key_data(key))
    np.testing.assert_array_equal(kept.predict(np.ones((2, 3))), [3, 3])


ODD = {
    "folder": ((3,), {}, TypeError, r"folder is a int \(3\); expected a path: pass a word or a pathlib.Path"),
    "config": ((), {"config": {"f": print}}, TypeError, "config is to be saved as JSON"),
    "config of a list": ((), {"config": [1]}, TypeError, "config is to be saved as JSON"),
    "history": ((), {"history": "loss"}, TypeError, "history is a str; expected records by name"),
    "lengths": (
        (),
        {"history": {"loss": np.ones(2), "step": np.ones(3)}},
        ValueError,
        r"history has the shapes loss \(2,\), step \(3,\); expected one number a record",
    ),
    "sweep": ((), {"history": {"loss": np.ones((2, 3))}}, ValueError, r"result.at\(…\).history"),
}


@pytest.mark.parametrize(("place", "options", "error", "message"), ODD.values(), ids=ODD.keys())
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_kept_leaves_nothing(folder, place, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        nj.save(*(place or (tmp_path / "new",)), nj.load(folder), **options)
    assert not (tmp_path / "new").exists()
    with pytest.raises(TypeError, match="folder is a int"):
        nj.load(3)


def test_history_and_config_are_kept_beside_the_model(folder, tmp_path):
    history = {"step": np.array([0, 5]), "loss": np.array([2.0, np.nan])}
    kept = nj.save(tmp_path / "new", nj.load(folder), history=history, config={"radius": np.inf})
    lines = [json.loads(line) for line in (kept / "history.jsonl").read_text().splitlines()]
    assert lines == [{"step": 0, "loss": 2.0}, {"step": 5, "loss": None}]
    params, config = nj.runs.load(kept)
    assert config == {"radius": "inf"}
    np.testing.assert_array_equal(params["w"], nj.load(kept).params["w"])
