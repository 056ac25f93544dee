"""A trained net as a value: it predicts from raw rows, in the words and units of its user."""

import jax
import numpy as np
import pytest
from kept_models import trained
from optimizers import adam
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

import narrow_jax as nj

DIGITS = load_digits()
NORMALIZE = (None, "standardize", "scale", "whiten")


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    data = nj.data.load("synthetic", samples=10, inputs=3)
    return nj.save(tmp_path_factory.mktemp("kept") / "model", trained(data).model)


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


def test_repr_is_short(folder):
    assert repr(nj.load(folder)).startswith("Model(params={v: float32[6, 1], w: float32[3, 6]}, normalizer=")


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_one_sentence(folder):
    x = np.zeros((2, 3))
    model = nj.load(folder)
    for y, message in (
        (None, "x has 2 samples and y is None; expected one target a sample"),
        (["high", "low"], r"y holds <U4\[2\], such as \['high'\]; expected real targets \[2\]"),
        (np.zeros((2, 2)), r"y holds float64\[2, 2\], such as .*expected real targets \[2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            model.score(x, y)
    words = nj.Model(nj.models.standard_apply, model.params, classes=("a", "b"))
    with pytest.raises(ValueError, match=r"y has shape \(2, 2\); expected one class a sample, \(2,\)"):
        words.score(x, [["a", "b"], ["a", "b"]])
    many = nj.Model(nj.models.standard_apply, model.params, classes=("a", "b", "c"))
    with pytest.raises(
        ValueError, match="the net has 1 outputs and the model 3 classes; expected an output for"
    ):
        many.predict(x)
    with pytest.raises(TypeError, match="apply_fn is the number 3; expected a function"):
        nj.Model(3, model.params).predict(x)
