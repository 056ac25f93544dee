"""Estimators of scikit-learn: its own checks, searches, pipelines; and nets that interpolate with a proof."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import narrow_jax as nj
from narrow_jax.sklearn import NarrowClassifier, NarrowRegressor

X, Y = load_breast_cancer(return_X_y=True)
ESTIMATORS = [NarrowClassifier, NarrowRegressor]


@pytest.fixture(autouse=True)
def strict():
    """Standard promotion: the estimators run optax's own schedules, which promote."""


@pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)
@pytest.mark.usefixtures("unchecked")
def test_checks_of_scikit_learn(kind):
    found = check_estimator(kind(width=16, steps=300), on_skip=None)
    assert len(found) > 40


def test_search_in_a_pipeline():
    net = NarrowClassifier(steps=100, normalize=None)
    grid = {"narrowclassifier__radius": [0.1, 1.0], "narrowclassifier__width": [4, 8]}
    search = GridSearchCV(make_pipeline(StandardScaler(), net), grid, cv=3).fit(X, Y)
    assert search.best_score_ > 0.9
    assert set(search.best_params_) == set(grid)
    assert len(search.cv_results_["params"]) == 4


def test_words_and_probabilities():
    words = np.array(["malignant", "benign"])[Y]
    net = NarrowClassifier(width=8, steps=100).fit(X[:400], words[:400])
    assert net.classes_.tolist() == ["benign", "malignant"]
    assert net.score(X[400:], words[400:]) > 0.9
    chances = net.predict_proba(X[400:])
    np.testing.assert_array_equal(net.classes_[chances.argmax(axis=1)], net.predict(X[400:]))


def test_copies_predict_the_same(tmp_path):
    net = NarrowRegressor(width=8, steps=50)
    x, y = load_diabetes(return_X_y=True)
    predicted = net.fit(x, y).predict(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(net)).predict(x), predicted)
    joblib.dump(net, tmp_path / "net.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "net.joblib").predict(x), predicted)
    np.testing.assert_array_equal(clone(net).fit(x, y).predict(x), predicted)
    kept = nj.load(nj.save(tmp_path / "model", net.model_))
    np.testing.assert_array_equal(kept.predict(x).astype(float), predicted)
    other = clone(net).set_params(random_state=1).fit(x, y).predict(x)
    assert not np.array_equal(other, predicted)


@pytest.mark.parametrize("width", [None, 100])
def test_memorize_interpolates_with_a_proof(width, tmp_path):
    x, y = load_diabetes(return_X_y=True)
    net = NarrowRegressor(width, radius=1.0, solver="memorize").fit(x, y)
    assert net.certificate_.holds
    np.testing.assert_allclose(net.predict(x), y, rtol=1e-9)
    kept = nj.load(nj.save(tmp_path / "model", net.model_))
    np.testing.assert_array_equal(kept.predict(x), net.predict(x))
    trained = NarrowRegressor(width=100, steps=50).fit(x, y)
    assert not hasattr(trained, "certificate_")


def test_memorize_fits_every_label():
    labels = np.random.default_rng(0).integers(3, size=len(X))
    net = NarrowClassifier(None, radius=1.0, solver="memorize").fit(X, labels)
    assert net.certificate_.holds
    assert net.score(X, labels) == 1.0


def test_minibatches_and_cross_validation():
    scores = cross_val_score(NarrowClassifier(width=8, steps=200, batch_size=32), X, Y, cv=3)
    assert scores.min() > 0.85


def test_what_goes_wrong_is_said():
    with pytest.raises(ValueError, match="unknown solver 'adam'"):
        NarrowClassifier(solver="adam").fit(X, Y)
    with pytest.raises(ValueError, match="width is None, which goes with solver='memorize'"):
        NarrowClassifier(width=None).fit(X, Y)
    with pytest.raises(ValueError, match="width is 5; expected an even number"):
        NarrowClassifier(width=5).fit(X, Y)
    with pytest.raises(ValueError, match="y has one class"):
        NarrowClassifier().fit(X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="all 569 targets are 0"):
        NarrowRegressor().fit(X, np.zeros(len(X)))
    with pytest.warns(ConvergenceWarning, match="training diverged at step"):
        NarrowRegressor(width=8, steps=50, radius=np.inf, learning_rate=1e30).fit(X, Y)
