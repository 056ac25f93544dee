"""The values of this package: what a source of data hands over, and what a user gets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from narrow_jax._printing import brief
from narrow_jax._typing import Float, Int, Shaped
from narrow_jax.data.normalizers import Normalizer, Transformer
from narrow_jax.data.tables import Columns


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
        x: Inputs (n, d), float32; of ``as_images`` (n, height, width, channels).
        y: Targets (n, k), float32: ±1 in one column for two classes (label 1 is +1), one-hot for more, or real numbers,
            under ``target_map`` if there is one.
        labels: Class of each row (n,), int32; None where the targets are real numbers.
        x_test: Inputs of the test split, normalised by the map of the training rows.
        y_test: Targets of the test split.
        labels_test: Classes of the test split.
        classes: Number of classes; None where the targets are real numbers.
        normalizer: The whole map from the rows as they were stored (pixels from 0 to 255, features) to ``x``;
            ``normalizer.apply`` takes new rows to what a net trained on ``x`` has to see. Its ``kept`` are the columns
            that "standardize" kept, None if it dropped none. A ``Transformer`` where the map is an object of the
            user's.
        image_shape: Shape (height, width, channels) of a row of ``x``; None where a row is no image (any more).
        names: What each class is called: the words or numbers of the user, else 0, 1, …; None for real targets.
        target_map: The map from the targets as they were stored to ``y``; None where they stayed as they are.
        columns: The rule from the columns of a table to its stored rows; None where there is no table.
    """

    name: str
    x: Float[np.ndarray, "n ..."]
    y: Float[np.ndarray, "n k"]
    labels: Int[np.ndarray, " n"] | None
    x_test: Float[np.ndarray, "n_test ..."] | None = None
    y_test: Float[np.ndarray, "n_test k"] | None = None
    labels_test: Int[np.ndarray, " n_test"] | None = None
    classes: int | None = None
    normalizer: Normalizer | Transformer | None = None
    image_shape: tuple[int, ...] | None = None
    names: tuple[Any, ...] | None = None
    target_map: Normalizer | None = None
    columns: Columns | None = None

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())

    def as_images(self) -> Dataset:
        """Return the set with rows of x, and of its test split, in the shape of images.

        Raises:
            ValueError: rows that are no images, such as after "whiten".
        """
        if self.image_shape is None:
            raise ValueError(
                f"the rows of {self.name!r} are no images; expected images that are not whitened, with all their "
                "columns: "
                "normalize=None or 'scale'"
            )
        rows = (-1, *self.image_shape)
        x_test = None if self.x_test is None else self.x_test.reshape(rows)
        return self._replace(x=self.x.reshape(rows), x_test=x_test)


def sphere(data: Dataset) -> Dataset:
    """Return the set with each row scaled to norm √d.

    Raises:
        ValueError: a row of zeros, which has no direction.

    Example:
        >>> import narrow_jax as nj
        >>> float(np.linalg.norm(sphere(nj.data.load("synthetic", samples=3, inputs=4)).x[0]).round(5))
        2.0
    """
    columns = data.x.shape[1]
    onto = Normalizer(np.zeros(columns), np.asarray(1.0), norm=np.asarray(np.sqrt(columns)))
    return mapped(data, onto)


def mapped(data: Dataset, then: Normalizer) -> Dataset:
    """Return the set with its rows under one more map, which the normalizer has too.

    Raises:
        ValueError: a normalizer of the user's, behind which no map can be put.
    """
    if isinstance(data.normalizer, Transformer):
        raise ValueError(
            f"the rows of {data.name!r} are under {data.normalizer!r}; expected those of a map of nj.data: put this "
            "map "
            "into yours, such as by sklearn.pipeline.make_pipeline"
        )
    return data._replace(
        x=then.apply(data.x),
        x_test=None if data.x_test is None else then.apply(data.x_test),
        normalizer=then._replace(before=data.normalizer),
        image_shape=None,
    )


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
