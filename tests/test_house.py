"""The package stays one that a reader finds their way in: what ``benchmarks.house`` counts has bounds."""

from pathlib import Path

import pytest

from benchmarks.house import House, longest, measured

ROOT = Path(__file__).parents[1]


def test_the_house_keeps_its_measures():
    found = measured(ROOT)
    assert found.entries_at_the_top <= 24
    assert len(found.chain_to_definitions) <= 14
    _, p90, most = found.lines_of_a_body
    assert p90 <= 15
    assert most <= 48
    assert found.parameters[1] <= 5
    assert found.share_of_bare_any <= 0.05


@pytest.fixture
def small(tmp_path):
    """A package of two files, one of which is a room."""
    (tmp_path / "narrow_jax" / "room").mkdir(parents=True)
    for name, text in {
        "__init__.py": "from narrow_jax.room import public\n",
        "top.py": "from narrow_jax import room\n\ndef above(x):\n    return room.public(x)\n",
        "room/__init__.py": "from narrow_jax.room.inside import public\n",
        "room/inside.py": "SCALE = 2\nUNUSED = 3\n\ndef public(x):\n    return _helper(x) * SCALE\n\n"
        "def _helper(x):\n    return x\n",
    }.items():
        (tmp_path / "narrow_jax" / name).write_text(text)
    return House(tmp_path)


def test_names_are_those_that_a_function_rests_on(small):
    inside = "narrow_jax.room.inside"
    assert small.needed("public") == {(inside, "SCALE"), (inside, "_helper")}
    assert small.to_definitions("narrow_jax.top") == {inside}
    assert small.through_doors("narrow_jax.top") == {"narrow_jax.room"}


def test_a_circle_has_no_longest_path():
    assert longest({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == ["a", "b", "c"]
    with pytest.raises(RecursionError):
        longest({"a": {"b"}, "b": {"a"}})
