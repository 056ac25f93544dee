"""Data of one's own: arrays and files become what training takes, by a stated rule or with a stated reason not."""

import jax
import numpy as np
import optax
import pytest
from sklearn.preprocessing import StandardScaler

import narrow_jax as nj
from narrow_jax import data

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, WORDS = RNG.normal(size=(12, 3)) * [1, 10, 100], np.array(["no", "yes", "no"] * 4)


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


TABLE = """size,colour,new,price
1.5,red,True,100.5
2.5,blue,False,220.0
3.0,red,True,310.25
4.5,green,False,400.0
"""


def test_classes_keep_their_words():
    found = data.from_arrays(X, WORDS)
    assert found.names == ("no", "yes")
    np.testing.assert_array_equal(found.labels, (WORDS == "yes").astype(np.int32))
    np.testing.assert_array_equal(found.y[:, 0], np.where(WORDS == "yes", 1, -1))
    three = data.from_arrays(X, np.arange(12) % 3 + 5)
    assert three.names == (5, 6, 7)
    np.testing.assert_array_equal(three.y, np.eye(3)[np.arange(12) % 3])
    assert data.from_arrays(X, np.arange(12) % 2 == 0).names == (False, True)


def test_real_targets_go_to_mean_0_and_back():
    y = RNG.normal(size=(12, 2)) * [1, 1000] + 50
    found = data.from_arrays(X, y)
    np.testing.assert_allclose(found.y.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.y.std(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(found.target_map.invert(found.y), y, rtol=1e-5)
    plain = data.from_arrays(X, y, normalize_targets=False)
    np.testing.assert_array_equal(plain.y, y.astype(np.float32))
    assert plain.target_map is None


def test_integers_are_classes_unless_told():
    amounts = np.arange(12) * 7
    with pytest.raises(ValueError, match=r"12 different integers in 12 rows.*task='regression'.*--task"):
        data.from_arrays(X, amounts)
    assert data.from_arrays(X, amounts, task="regression").classes is None
    assert data.from_arrays(X, np.array([0.0, 1.0] * 6), task="classification").names == (0.0, 1.0)


def test_split_is_drawn_by_the_key_and_mapped_by_the_training_rows():
    found = data.from_arrays(X, WORDS, test_fraction=0.25, key=KEY)
    assert found.x.shape == (9, 3)
    assert found.x_test.shape == (3, 3)
    np.testing.assert_allclose(found.x.mean(axis=0), 0, atol=1e-6)
    both = np.concatenate([found.x, found.x_test])
    np.testing.assert_allclose(
        np.sort(both[:, 0]), np.sort(found.normalizer.apply(X)[:, 0]), rtol=1e-6
    )  # a permutation, and its map
    given = data.from_arrays(X[:9], WORDS[:9], test=(X[9:], WORDS[9:]))
    np.testing.assert_array_equal(given.x_test, given.normalizer.apply(X[9:]))


def test_images_of_bytes_are_from_0_to_1():
    images = RNG.integers(0, 256, size=(6, 4, 5), dtype=np.uint8)
    found = data.from_arrays(images, [0, 1] * 3, normalize=None)
    np.testing.assert_array_equal(found.x, (images.reshape(6, -1) / 255).astype(np.float32))
    assert found.as_images().x.shape == (6, 4, 5, 1)
    with pytest.raises(ValueError, match="are no images; expected images that are not whitened"):
        data.from_arrays(images, [0, 1] * 3, normalize="whiten").as_images()


class Halver:
    """A map of the user's, fitted in place."""

    def fit(self, x):
        self.mean = x.mean(axis=0)

    def transform(self, x):
        return (x - self.mean) / 2


def test_any_object_with_fit_and_transform_is_a_normalizer():
    mine = Halver()
    found = data.from_arrays(X, WORDS, normalize=mine)
    expected = (X.astype(np.float32) - X.astype(np.float32).mean(axis=0)) / 2
    np.testing.assert_allclose(found.x, expected, rtol=1e-5, atol=1e-5)
    assert not hasattr(mine, "mean")  # a copy was fitted
    np.testing.assert_array_equal(found.normalizer.apply(X), found.x)
    with pytest.raises(ValueError, match="put this map into yours"):
        data.sphere(found)


def test_sphere_is_part_of_the_map():
    found = data.sphere(data.from_arrays(X, WORDS))
    np.testing.assert_allclose(np.linalg.norm(found.x, axis=1), np.sqrt(3), rtol=1e-6)
    np.testing.assert_array_equal(found.normalizer.apply(X), found.x)
    np.testing.assert_allclose(
        jax.jit(found.normalizer.apply)(jax.numpy.asarray(X, np.float32)), found.x, rtol=1e-4
    )
    with pytest.raises(ValueError, match="has no inverse"):
        found.normalizer.invert(found.x)
    with pytest.raises(ValueError, match="sample 1 is zero"):
        data.sphere(data.from_arrays([[1.0, 2.0], [0.0, 0.0]], [0, 1], normalize=None))


def test_table_becomes_numbers_by_the_rule(tmp_path):
    found = data.from_file(write(tmp_path / "t.csv", TABLE), "price", normalize=None)
    expected = [[1.5, 0, 0, 1, 1], [2.5, 1, 0, 0, 0], [3.0, 0, 0, 1, 1], [4.5, 0, 1, 0, 0]]
    np.testing.assert_array_equal(found.x, np.array(expected, np.float32))
    assert found.columns == data.Columns(
        ("size", "colour", "new"), {"colour": ("blue", "green", "red")}, "price"
    )
    assert found.name == "t"
    assert found.columns.encode(data.read_table(tmp_path / "t.csv")).tolist() == expected


def test_every_kind_of_file_gives_the_same_numbers(tmp_path):
    pandas = pytest.importorskip("pandas")
    y = X @ [1.0, 2.0, 3.0]
    frame = pandas.DataFrame(np.column_stack([X, y]), columns=["0", "1", "2", "3"])
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t", encoding="utf-8-sig")
    frame.to_parquet(tmp_path / "t.parquet")
    np.save(tmp_path / "t.npy", np.column_stack([X, y]))
    np.savez(tmp_path / "t.npz", x=X, y=y, x_test=X[:2], y_test=y[:2])
    expected = data.from_arrays(X, y)
    for suffix in ("csv", "tsv", "parquet", "npy", "npz"):
        found = data.from_file(tmp_path / f"t.{suffix}", None if suffix == "npz" else "3")
        np.testing.assert_array_equal(found.x, expected.x)
        np.testing.assert_array_equal(found.y, expected.y)
    np.testing.assert_array_equal(found.x_test, expected.x[:2])
    test = data.from_file(tmp_path / "t.csv", "3", test=tmp_path / "t.parquet")
    np.testing.assert_array_equal(test.x_test, test.x)


BAD_TABLES = {
    "missing file": (None, {}, FileNotFoundError, "there is no file"),
    "no header": ("1,2\n3,4\n", {}, ValueError, "has no header: its first line holds the number 1"),
    "no target": (
        TABLE,
        {"target": "prize"},
        ValueError,
        "unknown target of t.csv 'prize': did you mean 'price'",
    ),
    "target is None": (TABLE, {"target": None}, ValueError, "expected the column to be learned, one of size"),
    "word among numbers": (
        TABLE.replace("3.0", "three"),
        {},
        ValueError,
        "the column 'size' holds the word 'three' in row 3 among numbers",
    ),
    "empty cell": (
        TABLE.replace("2.5", ""),
        {},
        ValueError,
        "the column 'size' has 1 empty cells of 4, the first in row 2",
    ),
    "empty target": (TABLE.replace("220.0", ""), {}, ValueError, "the target 'price' has 1 empty cells"),
    "one row": ("a,price\n1.0,2.5\n", {}, ValueError, "training rows: 1; expected two"),
    "no row": ("a,price\n", {}, ValueError, "has no row"),
    "empty": ("", {}, ValueError, "is empty"),
    "names twice": ("a,a,price\n1,2,3.5\n", {}, ValueError, "more than one column 'a'"),
    "semicolons": ("a;price\n1;2\n", {}, ValueError, "seem to be apart by ';'"),
    "many columns": (
        ",".join(f"c{i}" for i in range(10**6)) + "\n",
        {},
        ValueError,
        "has 1,000,000 columns; expected at most 20,000",
    ),
    "constant target": ("a,price\n1.0,2.5\n2.0,2.5\n", {}, ValueError, "all 2 targets are 2.5"),
    "one class": ("a,price\n1.0,x\n2.0,x\n", {}, ValueError, "all 2 targets are 'x'; expected two classes"),
    "names of cases": (
        "case,a,price\nA1,1,2.5\nA2,2,3.5\nA3,3,4.5\n",
        {},
        ValueError,
        "'case' holds 3 different words in 3 rows",
    ),
    "unequal rows": ("a,price\n1,2.5\n1,2,3.5,4\n2,2.5\n", {}, ValueError, "cannot be read"),
    "target alone": ("price\n1.5\n2.5\n", {}, ValueError, "and no other column"),
    "only dates": (
        "when,price\n2020-01-01,1.5\n2020-01-02,2.5\n2020-01-03,3.5\n",
        {},
        ValueError,
        "'when' holds 3",
    ),
    "no key": (TABLE, {"test_fraction": 0.5}, ValueError, "drawn at random: pass key="),
    "fraction": (TABLE, {"test_fraction": 1.5, "key": KEY}, ValueError, "test_fraction is 1.5"),
    "task": (TABLE, {"task": "ranking"}, ValueError, "unknown task 'ranking'"),
    "words as amounts": (
        "a,price\n1.0,x\n2.0,y\n",
        {"task": "regression"},
        ValueError,
        "holds words such as 'x' and the task is regression",
    ),
    "normalize": (TABLE, {"normalize": object()}, TypeError, "an object with fit and transform"),
}


@pytest.mark.parametrize(("text", "options", "error", "message"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_bad_table_is_one_sentence(text, options, error, message, tmp_path):
    if text is not None:
        write(tmp_path / "t.csv", text)
    with pytest.raises(error, match=message):
        data.from_file(tmp_path / "t.csv", **({"target": "price"} | options))


def test_other_encodings_and_kinds_of_files_are_named(tmp_path):
    latin = write(tmp_path / "latin.csv", TABLE.replace("red", "rosé"), "latin-1")
    with pytest.raises(ValueError, match=r"is not UTF-8 .*iconv -f LATIN1"):
        data.from_file(latin, "price")
    late = write(tmp_path / "late.csv", "a,name\n" + "1,b\n" * 100_000 + "2,é\n", "latin-1")
    with pytest.raises(ValueError, match=r"is not UTF-8 .*iconv -f LATIN1 -t UTF-8 late.csv"):
        data.from_file(late, "a")
    wide = write(tmp_path / "wide.csv", TABLE, "utf-16")
    with pytest.raises(ValueError, match=r"is not UTF-8 .*iconv -f UTF-16 -t UTF-8 wide.csv"):
        data.from_file(wide, "price")
    with pytest.raises(
        ValueError, match=r"is of the kind '\.xlsx'; expected one of .csv.*save the table as CSV"
    ):
        data.from_file(tmp_path / "t.xlsx", "price")
    for name in ("t.parquet", "t.npy", "t.npz"):
        write(tmp_path / name, "not such a file")
        with pytest.raises(ValueError, match="cannot be read"):
            data.from_file(tmp_path / name, "price")
    np.savez(tmp_path / "t.npz", x=X)
    with pytest.raises(ValueError, match="holds x and no array 'y'"):
        data.from_file(tmp_path / "t.npz")
    np.save(tmp_path / "t.npy", np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="expected a matrix of numbers"):
        data.from_file(tmp_path / "t.npy", "0")


NEW_TABLES = {
    "missing column": (TABLE.replace("size", "length"), r"has no 'size' and has 'length' too"),
    "unseen word": (TABLE.replace("green", "mauve"), "'colour' holds 'mauve', unseen in training"),
    "empty": (TABLE.replace("1.5", ""), "'size' has 1 empty cells"),
    "words": (TABLE.replace("1.5", "big"), "'size' holds 'big'; expected numbers"),
    "infinite": (TABLE.replace("1.5", "inf"), "non-finite entries"),
}


@pytest.mark.parametrize(("text", "message"), NEW_TABLES.values(), ids=NEW_TABLES.keys())
def test_a_new_table_has_to_fit_the_rule(text, message, tmp_path):
    columns = data.from_file(write(tmp_path / "t.csv", TABLE), "price").columns
    with pytest.raises(ValueError, match=message):
        columns.encode(data.read_table(write(tmp_path / "new.csv", text)))
    without = data.read_table(tmp_path / "t.csv").drop(columns="price")
    assert columns.encode(without).shape == (4, columns.width)


BAD_ARRAYS = {
    "words in x": ((np.array([["a"], ["b"]]), [0, 1]), {}, TypeError, "x is an array of dtype <U1"),
    "nan": (([[np.nan], [1.0]], [0, 1]), {}, ValueError, "x has 1 non-finite entries"),
    "sizes": (([[0.0], [1.0]], [0, 1, 1]), {}, ValueError, "expected one row of y a sample"),
    "shape": ((np.zeros((2, 3, 4, 5, 6)), [0, 1]), {}, ValueError, "expected .n, d., or images"),
    "nan target": (([[0.0], [1.0]], [0.5, np.nan]), {}, ValueError, "y has 1 non-finite"),
    "class matrix": (([[0.0], [1.0]], [[0, 1], [1, 0]]), {}, ValueError, "one class a sample"),
    "unseen in test": (
        ([[0.0], [1.0]], ["a", "b"]),
        {"test": ([[0.0]], ["c"])},
        ValueError,
        "y holds the class 'c', unseen in training",
    ),
    "test and fraction": (
        ([[0.0], [1.0]], [0, 1]),
        {"test": ([[0.0]], [1]), "test_fraction": 0.5},
        ValueError,
        "one of the two",
    ),
    "other test": (
        ([[0.0], [1.0]], [0, 1]),
        {"test": ([[0.0, 1.0]], [1])},
        ValueError,
        "samples of one shape",
    ),
}


@pytest.mark.parametrize(("pair", "options", "error", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_bad_arrays(pair, options, error, message):
    with pytest.raises(error, match=message):
        nj.data.from_arrays(*pair, **options)


@pytest.mark.parametrize("normalize", ["standardize", "scale", "whiten", StandardScaler()], ids=str)
def test_columns_that_vary_by_less_than_float32_tells_apart(normalize):
    """Seconds since 1970 over a minute: float32 steps by 128 of them."""
    seconds = 1.7e9 + np.arange(60.0)
    x = seconds[:, None] if normalize == "scale" else np.stack([seconds, np.sin(seconds)], axis=1)
    found = data.from_arrays(x, np.arange(60.0), normalize=normalize)
    assert len(np.unique(found.x[:, 0])) == 60
    assert len(np.unique(x[:, 0].astype(np.float32))) == 1
    params = nj.initializers.lecun(jax.random.key(0), inputs=found.x.shape[1], width=4)
    model = nj.fit(nj.models.standard_apply, params, optax.sgd(1e-3), found, steps=1, callbacks=[]).model
    np.testing.assert_array_equal(model.encode(x), found.x)


def test_numbers_beyond_float32():
    x = np.array([[1e200, 1.0], [2e200, 2.0], [4e200, 3.0]])
    with pytest.raises(
        ValueError, match=r"x has entries from 1 to 4e\+200, which the map takes beyond float32"
    ):
        data.from_arrays(x, [1.0, 2.0, 3.0], normalize=None)


ODD_TARGETS = {
    "mixed": (
        ["a", 1, "b", 2],
        TypeError,
        "y holds words and other values, 2 of 4; expected classes of one kind",
    ),
    "complex": (np.arange(4) * 1j, TypeError, "y has dtype complex128; expected real numbers"),
    "ragged": ([[1], [2, 3], [4], [5]], TypeError, "y is a list; expected an array of numbers"),
    "nothing": (None, TypeError, "y is None; expected an array of numbers"),
}


@pytest.mark.parametrize(("y", "error", "message"), ODD_TARGETS.values(), ids=ODD_TARGETS.keys())
@pytest.mark.usefixtures("unchecked")
def test_odd_targets(y, error, message):
    with pytest.raises(error, match=message):
        data.from_arrays(np.eye(4), y)
    with pytest.raises(TypeError, match=r"path is a int \(3\); expected a path"):
        data.from_file(3, "a")
