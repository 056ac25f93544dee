"""Narrow nets as estimators of scikit-learn (the extra ``sklearn``): in pipelines, searches and cross-validation."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
import optax

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"nj.sklearn needs scikit-learn 1.6 or newer ({error}): pip install 'narrow_jax[sklearn]'"
    ) from error

from narrow_jax import _checks, constraints, initializers, models, solvers, training
from narrow_jax._typing import ApplyFn, Samples
from narrow_jax.constraints import Transformation
from narrow_jax.data import Dataset, from_arrays

__all__ = ["NarrowClassifier", "NarrowRegressor"]

SOLVERS = ("regime", "memorize")


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


class _Narrow(BaseEstimator):
    """A pairwise net with one hidden layer that is trained in the regime, or found by ``memorize``."""

    def __init__(
        self,
        width: int | None = 60,
        radius: float = 1.0,
        *,
        solver: str = "regime",
        activation: str = "tanh",
        zeta: float = 1e-3,
        kappa: float = math.inf,
        learning_rate: float = 1e-2,
        steps: int = 500,
        batch_size: int | None = None,
        normalize: Any = "standardize",
        random_state: Any = 0,
    ) -> None:
        self.width = width
        self.radius = radius
        self.solver = solver
        self.activation = activation
        self.zeta = zeta
        self.kappa = kappa
        self.learning_rate = learning_rate
        self.steps = steps
        self.batch_size = batch_size
        self.normalize = normalize
        self.random_state = random_state

    def _fitted(self, data: Dataset, loss: str) -> None:
        """Find the net for these data, as the solver says."""
        _checks.choice("solver", self.solver, SOLVERS)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        find = self._trained if self.solver == "regime" else self._memorized
        self.model_ = find(jax.random.key(seed), data, loss)

    def _trained(self, key: jax.Array, data: Dataset, loss: str) -> models.Model:
        if self.width is None:
            raise ValueError("width is None, which goes with solver='memorize'; expected an even number")
        start, order = jax.random.split(key)
        outputs: Any = data.classes if loss == "cross_entropy" else data.y.shape[1]
        cone: dict[str, Any] = {"zeta": self.zeta, "kappa": self.kappa}
        params = initializers.mirrored_lecun(
            start, inputs=data.x.shape[1], width=self.width, outputs=outputs, **cone
        )
        tx = _optimizer(self.learning_rate, self.steps, self.radius, self.zeta, self.kappa)
        size = None if self.batch_size is None else min(self.batch_size, len(data.x))
        result = training.fit(
            _net(self.activation),
            params,
            tx,
            data,
            steps=self.steps,
            loss=loss,
            batch_size=size,
            key=None if size is None else order,
            callbacks=[],
        )
        self.history_, self.n_iter_ = result.history, result.steps_taken
        if result.diverged:
            _warn(f"training diverged at step {result.steps_taken + 1}: try a smaller learning_rate")
        return jax.tree.map(np.asarray, result.model)

    def _memorized(self, key: jax.Array, data: Dataset, loss: str) -> models.Model:
        y = self._targets(data)
        found = solvers.memorize(
            key,
            data.x.astype(float),
            y,
            self.width,
            self.radius,
            activation=self.activation,
            zeta=self.zeta,
            kappa=self.kappa,
            progress=False,
        )
        self.certificate_, self.history_ = found.certificate, found.history
        self.n_iter_ = max(len(found.history.get("loss", ())) - 1, 1)
        if found.status != "solved":
            _warn(f"memorize: {found.status}: {found.message}")
        seen = jax.ShapeDtypeStruct(data.x.shape[1:], np.dtype(float))
        params = jax.tree.map(np.asarray, found.params)
        maps: dict[str, Any] = {"normalizer": data.normalizer, "target_map": data.target_map}
        return models.Model(_net(self.activation), params, classes=data.names, inputs=seen, **maps)

    def _targets(self, data: Dataset) -> np.ndarray:
        return data.y.astype(float)


class NarrowClassifier(ClassifierMixin, _Narrow):
    """A classifier: a pairwise net with one hidden layer.

    Parameters:
        width: hidden units, even; None with "memorize" for the smallest that can fit the data.
        radius: ε of the ball around the start.
        solver: "regime" trains on cross-entropy inside of ball and cone; "memorize" solves for a net that fits every
            label exactly, by ``nj.memorize``, and ``certificate_`` is the proof that it exists.
        activation: its name.
        zeta, kappa: bounds of the cone for the output weights.
        learning_rate, steps, batch_size: of Adam, in the coordinates of the ball, with a cosine decay.
        normalize: as in ``nj.data.from_arrays``.
        random_state: as everywhere in scikit-learn.

    Attributes:
        classes_: the classes.
        model_: the ``nj.Model``, which ``nj.save`` keeps; its classes are the numbers of ``classes_``.
        history_: what was recorded along training.
        certificate_: after "memorize", the proof, or why there is none.
        n_iter_: steps taken.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(40, 3))
        >>> y = np.where(x[:, 0] > 0, "up", "down")
        >>> NarrowClassifier(width=8, steps=100).fit(x, y).predict([[3.0, 0.0, 0.0]]).tolist()
        ['up']
    """

    def fit(self, X: Samples, y: Samples) -> NarrowClassifier:
        """Fit the net to samples X (n, d) and classes y (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}; expected samples of 2 classes at least")
        data = from_arrays(X, labels.astype(float), normalize=self.normalize, task="classification")
        self._fitted(data, "cross_entropy")
        return self

    def predict(self, X: Samples) -> np.ndarray:
        """Return the class of each sample (n,)."""
        chances = self.predict_proba(X)
        return self.classes_[chances.argmax(axis=1)]

    def predict_proba(self, X: Samples) -> np.ndarray:
        """Return the probability of each class (n, classes)."""
        check_is_fitted(self)
        return self.model_.predict_proba(validate_data(self, X, dtype=np.float64, reset=False))


class NarrowRegressor(RegressorMixin, _Narrow):
    """A regressor: a pairwise net with one hidden layer and one output.

    Parameters and attributes are those of ``NarrowClassifier``; "regime" trains on the mean of squares, of targets that
    are taken to mean 0 and deviation 1.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(12, 4))
        >>> y = x[:, 0] * 100
        >>> net = NarrowRegressor(width=None, solver="memorize").fit(x, y)
        >>> net.certificate_.holds, bool(abs(net.predict(x) - y).max() < 1e-9)
        (True, True)
    """

    def fit(self, X: Samples, y: Samples) -> NarrowRegressor:
        """Fit the net to samples X (n, d) and targets y (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        self._y = np.asarray(y, float)
        data = from_arrays(X, self._y, normalize=self.normalize)
        try:
            self._fitted(data, "mean_squared")
        finally:
            del self._y
        return self

    def predict(self, X: Samples) -> np.ndarray:
        """Return the target of each sample (n,)."""
        check_is_fitted(self)
        return self.model_.predict(validate_data(self, X, dtype=np.float64, reset=False)).astype(np.float64)

    def _targets(self, data: Dataset) -> np.ndarray:
        """Return the targets in float64: rounded to float32 they would be met to seven digits only."""
        assert data.target_map is not None
        return (self._y[:, None] - data.target_map.mean) * data.target_map.factor


@lru_cache(maxsize=64)
def _optimizer(rate: float, steps: int, radius: float, zeta: float, kappa: float) -> Transformation:
    """Return the same object for the same numbers, so that a compiled loop is used again."""
    schedule = optax.cosine_decay_schedule(rate, steps)
    return constraints.regime(optax.adam(schedule), radius, zeta=zeta, kappa=kappa)


@lru_cache(maxsize=64)
def _net(activation: str) -> ApplyFn:
    return partial(models.pairwise_apply, activation=activation)


def _warn(message: str) -> None:
    warnings.warn(message, ConvergenceWarning, stacklevel=4)
