"""Tables: files read by pandas, and the rule by which their columns become numbers."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from narrow_jax import _checks, _host
from narrow_jax.data.extras import extra

Table = Any
"""A ``pandas.DataFrame``."""

SUFFIXES = (".csv", ".tsv", ".parquet", ".npy")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_MOST_COLUMNS = 20_000
"""pandas keeps every column as an object of its own: a million of them take minutes and gigabytes."""
_MOST_CATEGORIES = 1_000
_ABOUT_WORDS = 0.5
"""A column in which at least so many cells are numbers is one of numbers, in which words are a mistake."""


class Columns(NamedTuple):
    """How the columns of a table become the numbers of a row: what ``from_file`` found in the training table.

    Numbers stay, truth values are 0 and 1, and a column of words has one column of 0 and 1 for each of its words.

    Attributes:
        names: the columns of the table, without the target, in order.
        words: the words of each column of words, sorted.
        target: the column that is learned.
    """

    names: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    target: str

    @classmethod
    def of(cls, table: Table, target: str) -> Columns:
        """Return the rule for a table with that target.

        Raises:
            ValueError: empty cells, dates, words among numbers, or more different words than a category has.
        """
        names = tuple(name for name in table.columns if name != target)
        if not names:
            raise ValueError(
                f"the table has the target {target!r} and no other column; expected inputs beside it"
            )
        words = {name: categories for name in names if (categories := _categories(name, table[name]))}
        return cls(names, words, target)

    def encode(self, table: Table) -> np.ndarray:
        """Return the rows of a table as float64 numbers (n, d).

        Raises:
            ValueError: other columns, empty cells, or words that the training table did not have.
        """
        self._check_names(table)
        parts = [self._encoded(name, table[name]) for name in self.names]
        return np.concatenate(parts, axis=1) if len(table) else np.zeros((0, self.width))

    @property
    def width(self) -> int:
        """The number d of columns of ``encode``."""
        return sum(len(self.words.get(name, ("",))) for name in self.names)

    def _check_names(self, table: Table) -> None:
        given = set(table.columns) - {self.target}
        missing = [name for name in self.names if name not in given]
        others = sorted(given - set(self.names))
        if missing or others:
            parts = [f"has no {_listed(missing)}"] * bool(missing) + [f"has {_listed(others)} too"] * bool(
                others
            )
            raise ValueError(
                f"the table {' and '.join(parts)}; expected the columns of the training table, "
                f"{_listed(self.names)}: rename, add or remove columns"
            )

    def _encoded(self, name: str, column: Any) -> np.ndarray:
        _no_empty_cells(name, column)
        known = self.words.get(name)
        if known is None:
            return _numbers(name, column)[:, None]
        values = np.asarray(column.astype(str), dtype=object)
        if unseen := sorted(set(values) - set(known)):
            raise ValueError(
                f"the column {name!r} holds {_listed(unseen)}, unseen in training; expected one of {_listed(known)}: "
                "correct these rows, or train with them"
            )
        return np.stack([values == word for word in known], axis=1).astype(float)


def _categories(name: str, column: Any) -> tuple[str, ...] | None:
    """Return the words of a column of words, None for one of numbers."""
    _no_empty_cells(name, column)
    if _kind(column) in "biuf":
        return None
    if _kind(column) in "mM":
        raise ValueError(
            f"the column {name!r} holds dates; expected numbers or words: turn it into numbers, such as days since a "
            "day, or remove it"
        )
    _no_words_among_numbers(name, column)
    words = tuple(sorted(set(column.astype(str))))
    if len(words) > _MOST_CATEGORIES or len(words) == len(column) > 2:
        raise ValueError(
            f"the column {name!r} holds {len(words)} different words in {len(column)} rows, such as {words[0]!r}; "
            f"expected numbers, or a category of at most {_MOST_CATEGORIES} words that come again: remove names and "
            "numbers of cases"
        )
    return words


def _no_words_among_numbers(name: str, column: Any) -> None:
    numbers = extra("pandas", "reading tables").to_numeric(column, errors="coerce")
    wrong = np.flatnonzero(np.asarray(numbers.isna()))
    if len(wrong) < _ABOUT_WORDS * len(column):
        first = int(wrong[0]) if len(wrong) else 0
        raise ValueError(
            f"the column {name!r} holds the word {str(column.iloc[first])!r} in row {first + 1} among numbers "
            f"({len(wrong)} of {len(column)} cells are words); expected numbers, or words alone: correct these cells"
        )


def _kind(column: Any) -> str:
    """Return NumPy's letter for what a column holds."""
    return getattr(column.dtype, "kind", "O")


def _no_empty_cells(name: str, column: Any) -> None:
    empty = np.flatnonzero(np.asarray(column.isna()))
    if len(empty):
        raise ValueError(
            f"the column {name!r} has {len(empty)} empty cells of {len(column)}, the first in row {empty[0] + 1}; "
            "expected a value in every cell: fill them in or remove these rows, or the column"
        )


def _numbers(name: str, column: Any) -> np.ndarray:
    """Return a column of numbers; a word in it is named."""
    if _kind(column) not in "biuf":
        words = [value for value in column if not isinstance(value, bool | int | float | np.number)]
        raise ValueError(
            f"the column {name!r} holds {str(words[0] if words else column.iloc[0])!r}; expected numbers, as in the "
            "training table"
        )
    values = np.asarray(column, dtype=np.float64)
    _checks.finite(f"the column {name!r}", values)
    return values


def _listed(names: Sequence[str]) -> str:
    """Return names for a message, the first few of many."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


def read_table(path: str | Path) -> Table:
    """Return a table of a file as a ``pandas.DataFrame`` with one name a column.

    ``.csv`` and ``.tsv`` are UTF-8 text whose first line has the names; of a ``.npy`` matrix the columns are called
    "0", "1", …, of a structured array by its fields.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another suffix or encoding, no names, names that come twice, no rows, rows of unequal length.
        ImportError: pandas, or what it needs for the format, is not installed.
    """
    path = _host.path("path", path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path} is of the kind {path.suffix!r}; expected one of {', '.join(SUFFIXES)}: save the table as CSV UTF-8"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; expected a table: check the name and the folder")
    pandas = extra("pandas", "reading tables")
    if path.suffix.lower() == ".npy":
        table = _of_array(path, pandas)
    elif path.suffix.lower() == ".parquet":
        table = _read(path, pandas.read_parquet)
    else:
        separator = _SEPARATORS[path.suffix.lower()]
        _check_header(path, separator)
        table = _read(
            path, lambda file: pandas.read_csv(file, sep=separator, encoding="utf-8-sig", index_col=False)
        )
    table.columns = [str(name) for name in table.columns]
    _check_shape(path, table)
    return table


def _read(path: Path, reader: Any) -> Table:
    try:
        return reader(path)
    except UnicodeDecodeError as error:
        raise _no_utf8(path, error) from error
    except (ValueError, OSError, OverflowError) as error:  # of pandas and pyarrow
        raise ValueError(
            f"{path} cannot be read ({' '.join(str(error).split())}); expected a whole table"
        ) from error


def _of_array(path: Path, pandas: Any) -> Table:
    array = _read(path, lambda file: np.load(file, allow_pickle=False))
    if array.dtype.names is None and (array.ndim != 2 or array.dtype.kind not in "biuf"):
        raise ValueError(
            f"{path} holds {array.dtype}{list(array.shape)}; expected a matrix of numbers, one row a sample: arrays of "
            "other shapes go into an .npz file as x and y"
        )
    return pandas.DataFrame(array)


def _check_header(path: Path, separator: str) -> None:
    """Require a first line with the names of the columns, before a column is read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(_limited(file), delimiter=separator), [])
    except UnicodeDecodeError as error:
        raise _no_utf8(path, error) from error
    except csv.Error as error:
        raise ValueError(
            f"{path} cannot be read ({error}); expected text with a line of names first"
        ) from error
    _check_names(path, names, separator)


def _no_utf8(path: Path, error: UnicodeDecodeError) -> ValueError:
    with path.open("rb") as file:
        encoding = "UTF-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"
    return ValueError(
        f"{path} is not UTF-8 ({error.reason} at byte {error.start}); expected UTF-8 text: save it as CSV UTF-8, or "
        f"run iconv -f {encoding} -t UTF-8 {path.name}"
    )


def _limited(file: Any) -> Any:
    """Give a first line of any length to the reader, which takes fields of 128 KiB at most."""
    return iter([file.readline()])


def _check_names(path: Path, names: list[str], separator: str) -> None:
    if len(names) > _MOST_COLUMNS:
        raise ValueError(
            f"{path} has {len(names):,} columns; expected at most {_MOST_COLUMNS:,} of a table: write x and y as "
            "arrays "
            "into an .npz file"
        )
    if not any(name.strip() for name in names):
        raise ValueError(f"{path} is empty; expected a line with the names of the columns, then rows")
    # "0", "1", … are what pandas calls columns without names
    if numbers := [name for place, name in enumerate(names) if _is_number(name) and name != str(place)]:
        raise ValueError(
            f"{path} has no header: its first line holds the number {numbers[0]}; expected the names of the columns: "
            "add a line with them"
        )
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(
            f"{path} has more than one column {twice[0]!r}; expected a name of its own for each: rename them"
        )
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        raise ValueError(
            f"{path} has one column {names[0]!r}; expected columns apart by {separator!r}: its columns seem to be "
            "apart "
            f"by {other!r}, save it with {separator!r}"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_shape(path: Path, table: Table) -> None:
    if twice := [name for name, times in Counter(table.columns).items() if times > 1]:
        raise ValueError(f"{path} has more than one column {twice[0]!r}; expected a name of its own for each")
    if not len(table):
        raise ValueError(f"{path} has no row; expected a line with the names of the columns, then rows")
    if len(table.columns) > _MOST_COLUMNS:
        raise ValueError(f"{path} has {len(table.columns):,} columns; expected at most {_MOST_COLUMNS:,}")
