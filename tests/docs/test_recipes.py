"""Each recipe of docs/extend is followed, block by block, in a copy of the repository; then its commands are run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted(ROOT.glob("docs/extend/*.md"))
PLACE = re.compile(
    r"# (?:new file (?P<new>\S+)|(?P<file>\S+), (?P<where>[a-z ]+?)(?: the line `(?P<line>.+)`)?)"
)


def blocks(page, language):
    """The fenced blocks of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def follow(block, folder):
    """Do to the copy what the first line of a block says."""
    place, code = block.split("\n", 1)
    match = PLACE.fullmatch(place)
    assert match, f"where does this go: {place}"
    path = folder / (match["new"] or match["file"])
    if match["new"]:
        assert not path.exists()
        path.write_text(code)
        return
    text, line = path.read_text(), f"{match['line']}\n"
    if match["where"] == "at the end":
        path.write_text(text + code)
        return
    assert text.count(f"\n{line}") == 1, f"{match['file']} has not one line {match['line']!r}"
    instead = {"above": code + line, "below": line + code, "instead of": code}[match["where"]]
    path.write_text(text.replace(f"\n{line}", f"\n{instead}"))


@pytest.fixture
def copy(tmp_path, request):
    programs = request.config.cache.mkdir("xla")  # what is compiled there is shared
    (tmp_path / ".pytest_cache" / "d").mkdir(parents=True)
    (tmp_path / ".pytest_cache" / "d" / "xla").symlink_to(programs.resolve())
    for name in ("narrow_jax", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(command, folder):
    """Run a command of a recipe in the copy, by the tools of this environment; its output if it fails."""
    words = shlex.split(command)
    words[:1] = [sys.executable] if words[0] == "python" else [sys.executable, "-m", words[0]]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_a_recipe_works_as_it_is_written(page, copy):
    for block in blocks(page, "python"):
        follow(block, copy)
    (commands,) = blocks(page, "sh")
    for command in commands.splitlines():
        assert run(command, copy) == "", command


def test_there_is_a_recipe_for_each():
    assert [page.stem for page in RECIPES] == [
        "activation",
        "certificate",
        "constraint",
        "data_set",
        "operator",
    ]


def test_a_line_that_is_not_there_is_noticed(copy):
    with pytest.raises(AssertionError, match="has not one line"):
        follow("# narrow_jax/losses.py, below the line `no such line`\npass\n", copy)
