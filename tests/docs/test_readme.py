"""The README: its commands are run, its rows are those of the records, its links lead somewhere; code is doctests."""

import re
import shlex
import tomllib
from pathlib import Path

import jax
import measured
import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from narrow_jax.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^narrow-jax (.+)$", README, re.MULTILINE)
TARGETS = re.findall(r"^    make (\w+)|^make (\w+)|`make (\w+)`", README, re.MULTILINE)


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """The tables of a user, in the folder where the commands are run."""
    monkeypatch.chdir(tmp_path)
    frame = load_diabetes(as_frame=True).frame.rename(columns={"target": "price"})
    frame[:300].to_csv("table.csv", index=False)
    frame[300:].drop(columns="price").to_csv("new.csv", index=False)
    return tmp_path


def test_the_commands_work_one_after_the_other(tables):
    assert [command.split()[0] for command in COMMANDS] == [
        "train",
        "evaluate",
        "predict",
        "report",
        "certify",
    ]
    for command in COMMANDS:
        with jax.numpy_dtype_promotion("standard"):
            assert main(shlex.split(command)) == 0, command
    predicted = np.loadtxt(tables / "predicted.csv", delimiter=",", skiprows=1)
    assert predicted.shape == (142,)
    assert np.isfinite(predicted).all()
    assert (tables / "runs/table-pairwise-0/report.html").is_file()


def test_every_target_of_make_is_there():
    told = {name for found in TARGETS for name in found if name}
    assert {"demo", "test", "docs", "aot"} <= told
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert told <= set(phony)


def test_its_rows_are_those_of_the_records():
    rows = re.findall(r"^\| .* \| `.*` \|$", README, re.MULTILINE)
    assert len(rows) == 5
    assert set(rows) <= set(map(str, measured.rows()))


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README + (ROOT / "CONTRIBUTING.md").read_text())
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_one_version_is_told_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


def test_it_is_a_front_page():
    assert len(README.splitlines()) <= 150
