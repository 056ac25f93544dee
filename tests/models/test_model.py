"""A trained net as a value: it predicts from raw rows, is kept, and predicts the same bits in another process."""

import functools
import json
import shutil
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import adam
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

import narrow_jax as nj
from narrow_jax.checkpoints import safetensors
from narrow_jax.models import architectures

DIGITS = load_digits()
NORMALIZE = (None, "standardize", "scale", "whiten")


def net(data, outputs, dtype=jnp.float32):
    return nj.initializers.lecun(
        jax.random.key(0), inputs=data.x.shape[1], width=6, outputs=outputs, dtype=dtype
    )


def trained(data, loss="squared", steps=3, outputs=None):
    params = net(data, outputs or (data.classes if loss == "cross_entropy" else data.y.shape[1]))
    return nj.fit(nj.models.standard_apply, params, optax.sgd(1e-3), data, steps=steps, loss=loss)


def sources():
    cancer, diabetes = load_breast_cancer(), load_diabetes(scaled=False)
    words = cancer.target_names[cancer.target].astype(object)
    yield "digits", DIGITS.images.astype(np.uint8), lambda n: nj.data.load("digits", normalize=n)
    yield "cancer", cancer.data, lambda n: nj.data.from_arrays(cancer.data, words, normalize=n)
    yield (
        "diabetes",
        diabetes.data,
        lambda n: nj.data.from_arrays(diabetes.data, diabetes.target, normalize=n),
    )
    images = np.random.default_rng(0).integers(0, 256, size=(30, 6, 5, 3), dtype=np.uint8)
    labels = np.arange(30) % 3
    yield "images", images, lambda n: nj.data.from_arrays(images, labels, normalize=n)
    yield (
        "shrunk",
        images,
        lambda n: nj.data.shrink(nj.data.from_arrays(images, labels, normalize=None), 4, 2),
    )
    yield "on the sphere", images, lambda n: nj.data.sphere(nj.data.from_arrays(images, labels, normalize=n))
    drawn = nj.data.load("synthetic", samples=40, inputs=3)
    yield "synthetic", drawn.x, lambda n: nj.data.load("synthetic", samples=40, inputs=3, normalize=n)


SOURCES = {name: (raw, make) for name, raw, make in sources()}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_model_on_raw_rows_is_the_net_on_what_training_saw(name, normalize, tmp_path):
    raw, make = SOURCES[name]
    data = make(normalize)
    model = trained(data, steps=1).model
    expected = np.asarray(jax.jit(nj.models.standard_apply)(model.params, data.x))
    np.testing.assert_array_equal(model.encode(raw), data.x)
    np.testing.assert_array_equal(model.outputs(raw), expected)
    kept = nj.load(nj.save(tmp_path / "model", model))
    np.testing.assert_array_equal(kept.outputs(raw), expected)
    np.testing.assert_array_equal(kept.predict(raw), model.predict(raw))


def test_predictions_are_in_the_users_words():
    raw, make = SOURCES["cancer"]
    words = load_breast_cancer().target_names[load_breast_cancer().target]
    for loss in ("squared", "cross_entropy"):
        result = trained(make("standardize"), loss, steps=200)
        found = result.model.predict(raw)
        assert set(found) <= {"benign", "malignant"}
        accuracy = float(np.mean(found == words))
        assert accuracy > 0.7
        assert result.model.score(raw, words) == accuracy
        np.testing.assert_allclose(result.history["accuracy"][-1], accuracy, rtol=1e-6)
        chances = result.model.predict_proba(raw)
        np.testing.assert_allclose(chances.sum(axis=1), 1)
        assert (chances >= 0).all()
        np.testing.assert_array_equal(np.array(["benign", "malignant"])[chances.argmax(axis=1)], found)


def test_real_predictions_are_in_the_users_units():
    raw, make = SOURCES["diabetes"]
    y = load_diabetes().target
    result = trained(make("standardize"), steps=300)
    found = result.model.predict(raw)
    assert found.shape == y.shape
    assert result.model.score(raw, y) == pytest.approx(
        1 - np.sum((y - found) ** 2) / np.sum((y - y.mean()) ** 2)
    )
    assert result.model.score(raw, y) > 0.3  # of outputs near 0 in units of 77 it would be far below 0
    with pytest.raises(ValueError, match="no classes, so its outputs are no probabilities"):
        result.model.predict_proba(raw)


def test_pairs_without_a_data_set_predict_labels_too():
    x, y = DIGITS.data.astype(np.float32) / 16, DIGITS.target
    params = nj.initializers.lecun(jax.random.key(0), inputs=64, width=8, outputs=10)
    model = nj.fit(nj.models.standard_apply, params, adam(0.05), (x, y), steps=50, loss="cross_entropy").model
    assert model.score(x, y) > 0.5
    assert model.predict_proba(x[:3]).shape == (3, 10)
    squares = nj.Model(nj.models.standard_apply, params, classes=tuple(range(10)))
    np.testing.assert_allclose(squares.predict_proba(x[:3]).sum(axis=1), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="holds the class 11, unseen"):
        squares.score(x[:1], [11])


def test_table_predicts_from_its_columns(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"size": np.linspace(1, 9, 30), "colour": ["red", "blue", "grün"] * 10})
    frame["price"] = frame["size"] * 10
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = nj.data.from_file(tmp_path / "t.csv", "price")
    model = nj.load(nj.save(tmp_path / "model", trained(data, steps=20).model))
    shuffled = frame.drop(columns="price")[["colour", "size"]]
    np.testing.assert_array_equal(model.predict(shuffled), model.predict(data.columns.encode(frame)))
    with pytest.raises(ValueError, match=r"has no 'colour'"):
        model.predict(frame[["size"]])


def test_more_samples_than_a_block_and_none():
    data = nj.data.from_arrays(np.random.default_rng(0).normal(size=(5000, 3)), np.arange(5000) % 2)
    model = trained(data, steps=1).model
    assert model.predict(data.normalizer.invert(data.x)).shape == (5000,)
    assert model.predict(np.zeros((0, 3))).shape == (0,)


ARCHITECTURES = {
    "pairwise": (nj.models.pairwise_apply, {"function": "pairwise_apply", "fields": {}}),
    "of a stock activation": (
        functools.partial(nj.models.standard_apply, activation=nj.activations.get("sin")),
        {"function": "standard_apply", "fields": {"activation": "sin"}},
    ),
    "of a sequence": (
        functools.partial(nj.models.mlp_apply, activation=("relu", "tanh")),
        {"function": "mlp_apply", "fields": {"activation": ["relu", "tanh"]}},
    ),
    "in bfloat16": (
        nj.precision.bfloat16(nj.models.standard_apply),
        {"bfloat16": {"function": "standard_apply", "fields": {}}},
    ),
    "activation of one's own": (
        functools.partial(
            nj.models.standard_apply, activation=nj.activations.smooth_leaky_relu(gamma=0.5, beta=1.0)
        ),
        {"own": "partial"},
    ),
    "function of one's own": (len, {"own": "len"}),
    "features of one's own": (nj.models.pairwise(len), {"own": "TwoCopies"}),
    "module of one's own": (nn.Dense(3).apply, {"own": "Module.apply"}),
}


@pytest.mark.parametrize(("apply_fn", "expected"), ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_architecture_by_name_and_fields(apply_fn, expected):
    found = architectures.described(apply_fn)
    assert json.loads(json.dumps(found)) == expected
    if not architectures.is_own(found):
        assert architectures.described(architectures.built(found)) == found


@pytest.mark.parametrize(
    "module",
    [
        nj.models.StandardNet(width=4, activation="sin", param_dtype=jnp.bfloat16),
        nj.models.PairwiseMLP(widths=(4, 2), outputs=3),
        nj.models.ResNet(channels=(2,), blocks=(1,), outputs=2, head="dense", norm="group"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_come_back_equal(module):
    assert architectures.built(architectures.described(module.apply)).__self__ == module
    again = architectures.built(architectures.described(nj.models.Stateful(module)))
    assert again == nj.models.Stateful(module)


def test_unknown_architecture_is_named():
    with pytest.raises(ValueError, match=r"is unknown here \('Transformer'\); expected one of mlp_apply"):
        architectures.built({"module": "Transformer", "fields": {}})


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
    from sklearn.preprocessing import RobustScaler

    x = np.random.default_rng(0).normal(size=(20, 3))
    model = trained(nj.data.from_arrays(x, np.arange(20) % 2, normalize=RobustScaler())).model
    nj.save(tmp_path, model)
    with pytest.raises(ValueError, match=r"a normalizer of its maker's \(RobustScaler\).*pass it again"):
        nj.load(tmp_path)
    kept = nj.load(tmp_path, normalizer=model.normalizer)
    np.testing.assert_array_equal(kept.outputs(x), model.outputs(x))


BAD_SAMPLES = {
    "columns": (np.zeros((2, 4)), ValueError, r"x has shape \(2, 4\); expected \(n, 3\)"),
    "one row": (np.zeros(3), ValueError, r"x has shape \(3,\)"),
    "nan": (np.full((2, 3), np.nan), ValueError, "x has 6 non-finite entries"),
    "words": (np.array([["a", "b", "c"]]), TypeError, "x is an array of dtype <U1"),
    "complex": (np.zeros((2, 3), complex), TypeError, "expected real numbers"),
}


@pytest.mark.parametrize(("x", "error", "message"), BAD_SAMPLES.values(), ids=BAD_SAMPLES.keys())
def test_bad_samples(folder, x, error, message):
    with pytest.raises(error, match=message):
        nj.load(folder).predict(x)


def test_numbers_of_targets_have_to_fit(folder):
    model = nj.load(folder)
    with pytest.raises(ValueError, match="x has 2 samples and y 3"):
        model.score(np.zeros((2, 3)), [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="R² has no meaning"):
        model.score(np.zeros((2, 3)), [1.0, 1.0])


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


def test_repr_is_short(folder):
    assert repr(nj.load(folder)).startswith("Model(params={v: float32[6, 1], w: float32[3, 6]}, normalizer=")
