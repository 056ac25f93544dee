"""The values of this package: what a source of data hands over, and what a user gets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from narrow_jax._printing import brief
from narrow_jax._typing import Float, Int, Shaped
from narrow_jax.data.normalizers import Normalizer


class Split(NamedTuple):
    """Rows as a source has them: pixels or features, with labels or with real targets."""

    inputs: Shaped[np.ndarray, "n ..."]
    labels: Int[np.ndarray, " n"] | None
    targets: Float[np.ndarray, "n k"] | None = None

    def take(self, rows: np.ndarray | slice) -> Split:
        """Return the rows of that index."""
        labels = None if self.labels is None else self.labels[rows]
        targets = None if self.targets is None else self.targets[rows]
        return Split(self.inputs[rows], labels, targets)


class Source(NamedTuple):
    """A data set before anything is drawn, scaled or normalised.

    ``levels`` is the largest value that a pixel can take; None where inputs are not pixels.
    """

    train: Split
    test: Split | None
    classes: int | None
    levels: int | None
    image_shape: tuple[int, ...] | None


class Dataset(NamedTuple):
    """A regression data set. The fields of the test split are None where there is none.

    Attributes:
        name: The name that was loaded.
        x: Inputs (n, d), float32.
        y: Targets (n, k), float32: ±1 in one column for two classes (label 1 is +1), one-hot for more,
            real numbers for ``synthetic``.
        labels: Class of each row (n,), int32; None where the targets are real numbers.
        x_test: Inputs of the test split, normalised by the map of the training rows.
        y_test: Targets of the test split.
        labels_test: Classes of the test split.
        classes: Number of classes; None where the targets are real numbers.
        normalizer: The whole map from the rows as they were stored (pixels from 0 to 255, features) to ``x``;
            ``normalizer.apply`` takes new rows to what a net trained on ``x`` has to see. Its ``kept`` are the columns
            that "standardize" kept, None if it dropped none.
        image_shape: Shape (height, width, channels) of a row of ``x``; None where a row is no image (any more).
    """

    name: str
    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "n k"]
    labels: Int[np.ndarray, " n"] | None
    x_test: Float[np.ndarray, "n_test d"] | None = None
    y_test: Float[np.ndarray, "n_test k"] | None = None
    labels_test: Int[np.ndarray, " n_test"] | None = None
    classes: int | None = None
    normalizer: Normalizer | None = None
    image_shape: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())


def regression_targets(labels: Int[np.ndarray, " n"], classes: int) -> Float[np.ndarray, "n k"]:
    """Return ±1 in one column for two classes (label 1 is +1), one-hot rows for more.

    Example:
        >>> regression_targets(np.array([0, 1]), 2).tolist()
        [[-1.0], [1.0]]
        >>> regression_targets(np.array([0, 2]), 3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if classes == 2:
        return (2 * labels[:, None] - 1).astype(np.float32)
    return np.eye(classes, dtype=np.float32)[labels]
