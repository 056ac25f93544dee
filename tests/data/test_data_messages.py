"""What users pass to `nj.data` by mistake, without the type checks of these tests: a sentence each time."""

import re
import subprocess
import sys

import pytest

CALLS = {
    "load(np.ones((3, 2)))": "TypeError: name is ndarray; expected one of the words digits, .*nj.data.from_arrays",
    "load(Table([[1.0]]))": "TypeError: name is Table; expected one of the words",
    "load(Path('table.csv'))": "TypeError: name is PosixPath; expected one of the words",
    "load(['digits'])": "TypeError: name is list; expected",
    "load(None)": "TypeError: name is NoneType; expected",
    "load('MNIST')": "ValueError: unknown data set 'MNIST': did you mean 'mnist'",
    "load('CIFAR-10')": "ValueError: unknown data set 'CIFAR-10': did you mean 'cifar10'",
    "load('table.csv')": "ValueError: unknown data set 'table.csv': ",
    "load('digits', samples='100')": "ValueError: samples is '100'; expected an integer ≥ 1",
    "load('digits', samples=1e2)": "ValueError: samples is 100.0; expected an integer ≥ 1",
    "load('digits', samples=True)": "ValueError: samples is True; expected an integer ≥ 1",
    "load('digits', seed=None)": "ValueError: seed is None; expected an integer ≥ 0",
    "load('digits', seed=1.5)": "ValueError: seed is 1.5; expected an integer ≥ 0",
    "load('digits', classes='3')": "ValueError: classes is '3'; expected an integer ≥ 2",
    "load('digits', test_fraction='0.2')": "ValueError: test_fraction is '0.2'; expected a number",
    "load('digits', test_fraction=None)": "ValueError: test_fraction is None; expected a number",
    "load('digits', labels=np.zeros(3))": "ValueError: unknown labels of type ndarray: Expected one of true, random",
    "load('digits', labels={})": "ValueError: unknown labels of type dict: ",
    "load('digits', normalize=nj.data.scale)": "TypeError: normalize is <function scale .*expected one of "
    "standardize, ",
    "load('digits', normalize=True)": "TypeError: normalize is True; expected one of standardize, .* with fit and "
    "transform",
    "load('digits', normalize='Standardize')": "ValueError: .*did you mean 'standardize'",
    "load('digits', samples=np.int64(20), seed=np.int64(3), test_fraction=np.float32(0.25)).x.shape": "(20, 64)",
    "load('digits', samples=np.uint8(20)).x.shape": "(20, 64)",
    "load('synthetic', samples=np.int64(20), inputs=np.int32(3)).x.shape": "(20, 3)",
    "standardize([[1.0, 2.0], [3.0, 5.0]]).apply([[2.0, 3.5]]).tolist()": "[[0.0, 0.0]]",
    "scale(Table([[1.0, 3], [2, 5]])).apply(Table([[1, 3], [2, 5]])).shape": "(2, 2)",
    "whiten(Table([['x'], ['y']]))": "TypeError: x is Table of <U1; expected an array of real",
    "standardize([['x'], ['y']])": "TypeError: x is list of <U1; expected an array of real numbers",
    "standardize(np.ones((2, 2), complex))": "TypeError: x is ndarray of complex128; expected an array of real",
    "scale(np.ma.masked_less(np.eye(2), 0.5))": "TypeError: x is an array with masked entries",
    "standardize([1.0, 2.0])": r"ValueError: x has shape \(2,\); expected \(n, d\)",
    "standardize(5)": r"ValueError: x has shape \(\); expected \(n, d\)",
    "standardize(np.eye(2)).apply(None)": "TypeError: x is NoneType of object; expected an array of real numbers",
    "standardize(np.eye(2)).apply('a')": "TypeError: x is str of <U1",
    "standardize(np.eye(2)).apply(5.0)": r"ValueError: x has shape \(\); expected \(n, 2\)",
    "restricted_imagenet.superclass([151, 33])": r"array\(\[0, 3\]",
    "restricted_imagenet.superclass([0.5])": "TypeError: labels are float64; expected integers",
    "restricted_imagenet.from_folder('~/nowhere')": "FileNotFoundError: /.*/nowhere is not there",
    "restricted_imagenet.from_records('~/nowhere')": "FileNotFoundError: /.*/nowhere has no dataset_info.json",
}
HEAD = """
import sys
from pathlib import Path
import numpy as np
import narrow_jax as nj
class Table:  # what NumPy can make an array of, as a DataFrame
    def __init__(self, rows):
        self.rows = rows
    def __array__(self, dtype=None, copy=None):
        return np.array(self.rows, dtype)
scope = vars(nj.data) | globals()
for call in sys.argv[1:]:
    try:
        print(repr(eval(call, scope)).replace(chr(10), " "))
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace(chr(10), " "))
"""


@pytest.fixture(scope="module")
def said():
    done = subprocess.run([sys.executable, "-c", HEAD, *CALLS], capture_output=True, text=True, check=True)
    return dict(zip(CALLS, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("call", CALLS)
def test_answer(call, said):
    expected = CALLS[call]
    if expected.startswith(("(", "[")):
        assert said[call] == expected
    else:
        assert re.match(expected, said[call]), said[call]
