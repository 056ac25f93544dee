"""The data sets that need no file, targets, random labels, subsets, normalisers and bad input."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler

import narrow_jax.data as data

# float32 results of float64 work: the largest entries (36 on digits) carry an error of 2e-6
FLOAT32 = 5e-6
# JAX maps in float32; measured 8e-6 on digits
FLOAT32_MATMUL = 5e-5


def row_set(x: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in x}


def test_import_brings_no_optional_package() -> None:
    heavy = ("sklearn", "tensorflow_datasets", "PIL", "grain", "tensorflow", "array_record")
    code = f"import sys, narrow_jax.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_digits_are_the_stored_ones() -> None:
    digits, stored = data.load("digits"), load_digits()
    np.testing.assert_array_equal(digits.x, (stored.data / 16).astype(np.float32))
    np.testing.assert_array_equal(digits.labels, stored.target)
    np.testing.assert_array_equal(digits.y, (stored.target[:, None] == np.arange(10)).astype(np.float32))
    assert digits.image_shape is not None
    np.testing.assert_array_equal(digits.x.reshape(-1, *digits.image_shape)[..., 0] * 16, stored.images)
    assert (digits.x.dtype, digits.y.dtype) == (np.float32, np.float32)
    assert digits.labels is not None
    assert digits.labels.dtype == np.int32
    assert (digits.name, digits.classes, digits.x_test) == ("digits", 10, None)


def test_digits_whitened_have_61_dimensions() -> None:
    digits = data.load("digits", normalize="whiten")
    assert digits.x.shape == (1797, 61)
    assert digits.image_shape is None
    np.testing.assert_array_equal(data.whiten(data.load("digits").x).apply(data.load("digits").x), digits.x)


def test_digits_scaled_have_one_mean_and_deviation() -> None:
    digits, stored = data.load("digits", normalize="scale"), load_digits().data
    np.testing.assert_allclose(digits.x, (stored - stored.mean()) / stored.std(), atol=FLOAT32)
    assert digits.image_shape == (8, 8, 1)


def test_digits_standardized_are_those_of_scikit_learn_without_the_constant_pixels() -> None:
    digits, stored = data.load("digits", normalize="standardize"), load_digits().data
    varies = stored.std(axis=0) > 0
    assert digits.normalizer is not None
    np.testing.assert_array_equal(digits.normalizer.kept, np.flatnonzero(varies))
    np.testing.assert_allclose(digits.x, StandardScaler().fit_transform(stored)[:, varies], atol=FLOAT32)
    assert digits.image_shape is None  # 61 columns are no image


def test_columns_of_unlike_scale_are_standardized_each() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 6)) * [1e-5, 1e5, 1e-100, 1e100, 1, 1] + [0, 0, 0, 0, 1e8, 3]
    x[:, 5] = 7
    normalizer = data.standardize(x)
    assert normalizer.kept is not None
    np.testing.assert_array_equal(normalizer.kept, range(5))
    z = normalizer.apply(x).astype(np.float64)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=FLOAT32)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=FLOAT32)


RAW = np.random.default_rng(1).integers(256, size=(40, 12))


@pytest.mark.parametrize("fit", [data.standardize, data.scale, data.whiten])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", ">f8", "int8", "bool"])
def test_normalizers_take_every_real_dtype(fit, dtype: str) -> None:
    x = RAW > 99 if dtype == "bool" else RAW.astype(dtype)
    np.testing.assert_allclose(fit(x).apply(x), fit(x.astype(float)).apply(x.astype(float)), atol=FLOAT32)


@pytest.mark.parametrize("fit", [data.standardize, data.scale, data.whiten])
def test_normalizer_is_saved_as_arrays(fit) -> None:
    x = RAW.astype(float)
    x[:, 3] = 5
    whole = fit(x)._replace(before=fit(x)._replace(kept=None))
    again = data.Normalizer.from_arrays(whole.to_arrays())
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"a normalizer has the arrays mean.*got mean, scale"):
        data.Normalizer.from_arrays({"mean": x, "scale": x})


def test_images_are_taken_as_rows() -> None:
    digits, stored = data.load("digits", normalize="whiten"), load_digits()
    assert digits.normalizer is not None
    for images in (stored.images, stored.images[..., None]):
        np.testing.assert_array_equal(digits.normalizer.apply(images), digits.x)


def test_synthetic_is_gaussian_regression() -> None:
    drawn = data.load("synthetic")
    assert (drawn.x.shape, drawn.y.shape) == ((200, 20), (200, 1))
    assert (drawn.x.dtype, drawn.y.dtype, drawn.labels, drawn.classes) == (np.float32, np.float32, None, None)
    many = data.load("synthetic", samples=20_000, inputs=3)
    joint = np.hstack([many.x, many.y])
    # 5 standard errors of a covariance over 20,000 rows
    np.testing.assert_allclose(np.cov(joint.T), np.eye(4), atol=5 * np.sqrt(2 / 20_000))
    np.testing.assert_allclose(joint.mean(axis=0), 0, atol=5 / np.sqrt(20_000))


@pytest.mark.parametrize("name", ["digits", "synthetic", "teacher"])
def test_seed_decides_everything_drawn(name: str) -> None:
    options = {"labels": "random", "samples": 100, "test_fraction": 0.25}
    first, again, other = (data.load(name, seed=seed, **options) for seed in (3, 3, 4))
    for part in ("x", "y", "labels", "x_test", "y_test", "labels_test"):
        np.testing.assert_array_equal(getattr(first, part), getattr(again, part))
        assert not np.array_equal(getattr(first, part), getattr(other, part))


def test_random_labels_are_uniform_and_of_two_classes() -> None:
    digits = data.load("digits", labels="random")
    assert digits.classes == 2
    assert digits.labels is not None
    np.testing.assert_array_equal(digits.y[:, 0], np.where(digits.labels == 1, 1, -1))
    assert abs(digits.y.mean()) < 5 / np.sqrt(1797)
    true = load_digits().target
    assert abs(np.corrcoef(true % 2, digits.labels)[0, 1]) < 5 / np.sqrt(1797)


def test_random_labels_of_more_classes_are_one_hot() -> None:
    digits = data.load("digits", labels="random", classes=4, test_fraction=0.5)
    assert digits.classes == 4
    assert digits.y.shape == (899, 4)
    assert digits.y_test is not None
    assert digits.labels_test is not None
    np.testing.assert_array_equal(digits.y.sum(axis=1), 1)
    np.testing.assert_array_equal(digits.y_test.argmax(axis=1), digits.labels_test)
    counts = np.bincount(digits.labels, minlength=4)
    assert np.abs(counts - 899 / 4).max() < 5 * np.sqrt(899 * 3 / 16)


@pytest.mark.parametrize("labels", ["true", "random"])
def test_smaller_subset_belongs_to_the_larger_with_its_labels(labels: str) -> None:
    whole, large, small = (data.load("digits", labels=labels, samples=n, seed=5) for n in (None, 300, 40))
    np.testing.assert_array_equal(large.x[:40], small.x)
    np.testing.assert_array_equal(large.y[:40], small.y)
    assert len(row_set(large.x)) == 300
    assert not np.array_equal(large.x, whole.x[:300])
    label = {row.tobytes(): target.tolist() for row, target in zip(whole.x, whole.y, strict=True)}
    assert [label[row.tobytes()] for row in large.x] == large.y.tolist()


def test_test_fraction_sets_rows_aside() -> None:
    whole, parts = data.load("digits"), data.load("digits", test_fraction=0.2)
    assert parts.x_test is not None
    assert (len(parts.x), len(parts.x_test)) == (1438, 359)
    assert not row_set(parts.x) & row_set(parts.x_test)
    assert row_set(parts.x) | row_set(parts.x_test) == row_set(whole.x)


def test_synthetic_has_the_training_rows_asked_for_beside_a_test_split() -> None:
    drawn = data.load("synthetic", samples=90, test_fraction=0.1)
    assert drawn.x_test is not None
    assert (len(drawn.x), len(drawn.x_test)) == (90, 10)


def test_normalizer_is_fitted_to_the_training_rows_alone() -> None:
    raw = data.load("digits", samples=500, test_fraction=0.2)
    for normalize, fit in (
        ("standardize", data.standardize),
        ("scale", data.scale),
        ("whiten", data.whiten),
    ):
        normalized = data.load("digits", samples=500, test_fraction=0.2, normalize=normalize)
        np.testing.assert_array_equal(normalized.x, fit(raw.x).apply(raw.x))
        np.testing.assert_array_equal(normalized.x_test, fit(raw.x).apply(raw.x_test))


def correlated(n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(n * d)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)


def test_whiten_gives_uncorrelated_unit_variances() -> None:
    z = data.whiten(correlated(500, 7)).apply(correlated(500, 7)).astype(np.float64)
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(7), atol=FLOAT32)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=FLOAT32)


@pytest.mark.parametrize(("n", "d"), [(500, 7), (20, 64)])
def test_whitened_distances_are_mahalanobis_distances(n: int, d: int) -> None:
    x = correlated(n, d)
    z = data.whiten(x).apply(x).astype(np.float64)
    precision = np.linalg.pinv(np.cov(x.T, bias=True), rcond=1e-10, hermitian=True)
    steps = x[1:] - x[:-1]
    expected = np.einsum("ni,ij,nj->n", steps, precision, steps)
    np.testing.assert_allclose(((z[1:] - z[:-1]) ** 2).sum(axis=1), expected, rtol=1e-5)
    assert z.shape[1] == min(n - 1, d)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_whiten_drops_constant_and_dependent_directions_at_any_scale(scale: float) -> None:
    x = correlated(300, 4)
    x = scale * np.column_stack([x, np.full(300, 7.0), x[:, 0] - 2 * x[:, 1]])
    z = data.whiten(x).apply(x)
    assert z.shape == (300, 4)
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(4), atol=FLOAT32)


def test_whiten_keeps_one_grey_level_in_one_image() -> None:
    x = correlated(60_000, 3).astype(np.float32)
    x[:, 2] = 0
    x[123, 2] = 1 / 255
    z = data.whiten(x).apply(x)
    assert z.shape == (60_000, 3)
    np.testing.assert_allclose(z.astype(np.float64).std(axis=0), 1, atol=1e-4)


def test_whiten_orders_directions_and_fixes_their_signs() -> None:
    normalizer = data.whiten(correlated(500, 7))
    lengths = np.linalg.norm(normalizer.factor, axis=0)
    assert (np.diff(lengths) > 0).all()
    assert (normalizer.factor[np.abs(normalizer.factor).argmax(axis=0), range(7)] > 0).all()


@pytest.mark.parametrize("fit", [data.standardize, data.scale, data.whiten])
def test_jax_rows_stay_jax_and_agree(fit) -> None:
    x = data.load("digits").x
    normalizer = fit(x)
    expected = normalizer.apply(x)
    eager = normalizer.apply(jnp.asarray(x))
    traced = jax.jit(lambda rows: normalizer.apply(rows))(jnp.asarray(x))
    passed = jax.jit(lambda mapping, rows: mapping.apply(rows))(
        jax.tree.map(jnp.float32, normalizer), jnp.asarray(x)
    )
    for mapped in (eager, traced, passed):
        assert isinstance(mapped, jax.Array)
        assert mapped.dtype == jnp.float32
        np.testing.assert_allclose(mapped, expected, atol=FLOAT32_MATMUL)
    np.testing.assert_array_equal(fit(jnp.asarray(x)).factor, normalizer.factor)


def test_rows_in_blocks_are_the_rows_at_once() -> None:
    x = correlated(10_000, 3)
    normalizer = data.whiten(x)
    pieces = np.vstack([normalizer.apply(x[:1234]), normalizer.apply(x[1234:])])
    np.testing.assert_allclose(normalizer.apply(x), pieces, atol=FLOAT32)
    assert normalizer.apply(x[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("fit", "x", "message"),
    [
        (data.scale, np.full((5, 3), 0.1), r"scale: all 15 entries of x are 0\.1"),
        (data.standardize, np.full((5, 3), 0.1), r"standardize: all 5 rows of x are equal"),
        (data.standardize, np.ones((1, 3)), r"standardize: all 1 rows of x are equal"),
        (data.standardize, np.array([[1e200], [1.0]]), r"standardize: x has entries from 1 to 1e\+200"),
        (data.scale, np.ones((0, 3)), r"x has shape \(0, 3\): there is no sample"),
        (data.whiten, np.full((5, 3), 0.1), r"whiten: all 5 rows of x are equal"),
        (data.whiten, np.ones((1, 3)), r"whiten: all 1 rows of x are equal"),
        (data.whiten, np.array([[1.0], [np.nan]]), r"x has 1 non-finite entries of 2.*index \(1, 0\)"),
        (data.standardize, np.ones((0, 3)), r"x has shape \(0, 3\): there is no sample"),
        (data.whiten, np.ones((5, 0)), r"x has shape \(5, 0\); expected \(n, d\), d ≥ 1"),
        (data.whiten, np.ones((5, 8, 8)), r"x has shape \(5, 8, 8\).*flatten"),
        (data.standardize, np.ones(5), r"x has shape \(5,\); expected \(n, d\)"),
    ],
)
def test_normalizers_refuse(fit, x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(x)


def test_apply_refuses_other_columns_and_integers() -> None:
    normalizer = data.whiten(correlated(50, 7))
    with pytest.raises(ValueError, match=r"x has shape \(4, 6\); expected \(n, 7\)"):
        normalizer.apply(np.ones((4, 6)))
    with pytest.raises(TypeError, match=r"dtype is int32; expected a floating dtype"):
        normalizer.apply(jnp.ones((4, 7), jnp.int32))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fashon_mnist", {}, r"unknown data set 'fashon_mnist': did you mean 'fashion_mnist'"),
        ("digits", {"labels": "rnd"}, r"unknown labels 'rnd'.*Expected one of true, random"),
        ("digits", {"normalize": "whitened"}, r"unknown normalization 'whitened': did you mean 'whiten'"),
        ("digits", {"labels": "random", "classes": 1}, r"classes is 1; expected an integer ≥ 2"),
        ("digits", {"classes": 5}, r"classes is 5, which goes with labels='random'"),
        ("digits", {"samples": 1798}, r"samples is 1798, but 'digits' has 1797 training rows"),
        ("digits", {"samples": 1700, "test_fraction": 0.2}, r"'digits' has 1438 training rows"),
        ("digits", {"samples": 0}, r"samples is 0; expected an integer ≥ 1"),
        ("digits", {"inputs": 5}, r"inputs is 5, which goes with 'synthetic' and 'teacher' only"),
        ("synthetic", {"inputs": 0}, r"inputs is 0; expected an integer ≥ 1"),
        ("digits", {"seed": -1}, r"seed is -1; expected an integer ≥ 0"),
        ("digits", {"test_fraction": 1.0}, r"test_fraction is 1.0; expected a number ≥ 0 and < 1"),
        ("digits", {"test_fraction": float("nan")}, r"test_fraction is nan; expected"),
        ("mnist", {"test_fraction": 0.1}, r"test_fraction is 0.1, but 'mnist' has a test split of its own"),
    ],
)
def test_load_refuses(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load(name, **options)


@pytest.mark.parametrize(
    ("name", "module"), [("digits", "sklearn.datasets"), ("mnist", "narrow_jax.data.builders")]
)
def test_missing_extra_is_named(name: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"'{name}' needs packages.*pip install 'narrow_jax\[data\]'"):
        data.load(name, data_dir=tmp_path)
