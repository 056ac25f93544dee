"""Estimators on breast cancer: test accuracy beside other classifiers of scikit-learn, five folds.

Command:  python -m benchmarks.estimators
Expected: all within a standard deviation of each other: the table is small, and linear classifiers do well on it.
Cost:     a minute.
Writes:   benchmarks/results/estimators.json
"""

from __future__ import annotations

import warnings
from typing import Any

from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import _timing
from narrow_jax.sklearn import NarrowClassifier

WIDTH = 20
GRID = {"narrowclassifier__radius": [0.1, 1.0, 10.0], "narrowclassifier__width": [8, WIDTH, 60]}


def classifiers() -> dict[str, Any]:
    """Return the classifiers by what they are called in the table."""
    narrow = make_pipeline(StandardScaler(), NarrowClassifier(width=WIDTH, normalize=None))
    mlp = MLPClassifier((WIDTH,), activation="tanh", max_iter=500, random_state=0)
    return {
        f"NarrowClassifier(width={WIDTH}, radius=1)": narrow,
        "the same, radius and width by GridSearchCV": GridSearchCV(narrow, GRID, cv=3),
        f"MLPClassifier(({WIDTH},), activation='tanh')": make_pipeline(StandardScaler(), mlp),
        "LogisticRegression()": make_pipeline(StandardScaler(), LogisticRegression()),
    }


def main() -> None:
    """Score all on the same folds; print and write the table."""
    x, y = load_breast_cancer(return_X_y=True)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    records = []
    for name, classifier in classifiers().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            scores = cross_val_score(classifier, x, y, cv=folds)
        records.append({"classifier": name, "accuracy": scores.mean(), "deviation": scores.std()})
        print(f"{name:45} {100 * scores.mean():.1f} ± {100 * scores.std():.1f} %", flush=True)
    print(
        f"written: {_timing.write('estimators', 'python -m benchmarks.estimators', records, 'scikit-learn')}"
    )


if __name__ == "__main__":
    main()
