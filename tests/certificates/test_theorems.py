"""The table of theorems: everything in it exists, is documented, and says which statement it is."""

import functools
import importlib
import re

import pytest

import narrow_jax as nj
from narrow_jax.certificates import THEOREMS

IDS = [f"{row.paper.split()[0]}-{row.statement}" for row in THEOREMS]


def found(code):
    """The object of a dotted name below narrow_jax: modules first, then attributes."""
    parts = code.split(".")
    module, rest = importlib.import_module("narrow_jax"), parts
    while rest and not hasattr(module, rest[0]):
        module, rest = importlib.import_module(f"{module.__name__}.{rest[0]}"), rest[1:]
    return functools.reduce(getattr, rest, module)


def names(text, statement):
    """Whether a text names a statement: an equation by its number in parentheses, others by kind and number."""
    kind, number = statement.split(",")[0].split(" ", 1)
    if number.startswith("("):
        return number in text
    stem = {"Corollary": "Corollar"}.get(kind, kind).lower()
    whole = rf"(?<![\w.]){re.escape(number)}(?![\w]|\.\d)"
    return stem in text.lower() and re.search(whole, text) is not None


@pytest.mark.parametrize("row", THEOREMS, ids=IDS)
def test_code_exists_and_names_its_statement(row):
    assert names(found(row.code).__doc__, row.statement), found(row.code).__doc__


def test_each_statement_has_one_place():
    assert len({(row.paper, row.statement) for row in THEOREMS}) == len(THEOREMS)


def test_every_paper_of_a_module_is_in_the_table():
    papers = {row.paper for row in THEOREMS}
    for folder, title in {
        "narrow_nets": "When Expressivity Meets Trainability",
        "pyramidal_nets": "Global Convergence of Deep Networks",
        "depth_width": "Effect of Depth and Width on Local Minima",
    }.items():
        assert title in papers
        assert title in importlib.import_module(f"narrow_jax.certificates.{folder}").__doc__


def test_printed_it_is_a_table():
    lines = str(nj.certificates.THEOREMS).splitlines()
    assert len(lines) == len(THEOREMS) + 3
    assert any(re.fullmatch(r"  Theorem 3\.2 +narrow_jax\.certificates\.pyramidal", line) for line in lines)


@pytest.mark.parametrize(
    ("text", "statement", "holds"),
    [
        ("Theorem 3.2", "Theorem 3.2", True),
        ("Theorem 3.2", "Theorem 3", False),
        ("Theorem 13.2", "Theorem 3.2", False),
        ("Corollaries 1 and 2", "Corollary 2", True),
        ("equations (13) to (16)", "Equation (3)", False),
        ("Lemma 4", "Theorem 4", False),
    ],
)
def test_a_wrong_number_is_seen(text, statement, holds):
    assert names(text, statement) == holds


def test_statements_are_found_by_name():
    rows = nj.certificates.THEOREMS["Theorem 1"]
    assert {row.code.rsplit(".")[-1] for row in rows} == {"memorization", "nice_region", "stationary_value"}
    assert len(nj.certificates.THEOREMS["Problem (7)"]) == 4
    assert nj.certificates.THEOREMS[0] == next(iter(nj.certificates.THEOREMS))
    with pytest.raises(ValueError, match="unknown statement 'Theorem 9'"):
        nj.certificates.THEOREMS["Theorem 9"]
