"""The digests tell results apart that differ in a bit, a type or a name, and find what has changed."""

import json
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import digests


class Pair(NamedTuple):
    first: object
    second: object


def told(value):
    return digests.digest(digests.leaves_of(lambda: value))


OTHERS = {
    "a bit": (np.array([1.0, 2.0]), np.array([1.0, np.nextafter(2, 3)])),
    "the sign of 0": (np.zeros(5), -np.zeros(5)),
    "dtype": (np.zeros(5, np.float32), np.zeros(5, np.int32)),
    "shape": (np.zeros((2, 3)), np.zeros((3, 2))),
    "kind": (np.zeros(3, np.float32), jnp.zeros(3, jnp.float32)),
    "weak": (jnp.asarray(1.0), jnp.ones(())),
    "number": (1, 1.0),
    "word": ("1", 1),
    "order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "tuples": (Pair(1, 2), (1, 2)),
    "nothing": (None, ()),
    "key": (jax.random.key(0), jax.random.key(1)),
}


@pytest.mark.parametrize(("one", "other"), OTHERS.values(), ids=OTHERS.keys())
def test_what_differs_has_another_digest(one, other):
    assert told(one) != told(other)
    assert told(one) == told(one)


def test_exceptions_and_warnings_are_results():
    def refuse():
        raise ValueError("width is 7")

    def warn():
        warnings.warn("narrow", stacklevel=1)
        return 3

    assert digests.leaves_of(refuse) == {"": "Raised", "raised": "str ValueError", "text": "str width is 7"}
    assert digests.leaves_of(warn) == {"": "int 3", "warnings": "list", "warnings.0": "str narrow"}


def test_folders_and_addresses_are_left_out():
    text = f"/tmp/{digests.FOLDER}x1y2/run is damaged: <function f at 0x7f00deadbeef>"
    assert digests.leaves_of(lambda: text)[""] == "str <folder>/run is damaged: <function f at 0x…>"


def test_what_is_no_result_is_not_left_out_in_silence():
    assert digests.leaves_of(lambda: {"a": object()})["raised"] == "str TypeError"


def test_compared_with_a_file(tmp_path, capsys):
    file = str(tmp_path / "before.json")
    command = ["--only", "messages/parts/", "--jobs", "1"]
    assert digests.main([*command, "--out", file]) == 0
    assert capsys.readouterr().out.count("(raises ") == sum(
        name.startswith("messages/parts/") for name in digests.CASES
    )
    assert digests.main([*command, "--against", file]) == 0
    assert capsys.readouterr().out == ""
    before = json.loads((tmp_path / "before.json").read_text())
    changed = "messages/parts/radius"
    before["leaves"][changed]["text"], before["digests"][changed] = "str radius is bad", "0"
    before["digests"]["messages/parts/gone"] = "0"
    (tmp_path / "before.json").write_text(json.dumps(before))
    assert digests.main([*command, "--against", file]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == changed
    assert out[1].startswith("    text: str radius is bad  →  str radius is -1.0; expected")
    assert out[2:] == ["messages/parts/gone: missing"]
