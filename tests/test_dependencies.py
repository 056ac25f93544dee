"""Every package that narrow_jax imports is declared, its own are installed, and the README names what all need."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]


def names(requirements):
    """The distributions, without versions and as pip compares them."""
    return {re.split(r"[\[<>=]", line)[0].lower().replace("_", "-") for line in requirements}


def imported(path):
    """The top-level packages that a file imports anywhere, without those of Python."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"narrow_jax"}


MODULES = sorted((ROOT / "narrow_jax").rglob("*.py"))


def test_every_import_is_declared():
    providers = metadata.packages_distributions()
    optional = names(line for extra in PROJECT["optional-dependencies"].values() for line in extra)
    declared = names(PROJECT["dependencies"]) | optional
    for package in set().union(*map(imported, MODULES)):
        assert names(providers[package]) & declared, f"{package} is imported and not declared"


def test_every_package_is_installed_and_the_experiments_below_it():
    folders = [path.parent for path in (ROOT / "narrow_jax").rglob("__init__.py")]
    own = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == own | {"narrow_jax.experiments"}
    assert SETTINGS["tool"]["setuptools"]["package-dir"] == {"narrow_jax.experiments": "experiments"}


def test_readme_names_what_everyone_needs():
    listed = re.search(r"spectra: ([^)]*) only\)", (ROOT / "README.md").read_text())[1]
    told = {word.lower() for word in re.split(r",\s+|\s+and\s+", listed)}
    assert told | {"jaxlib"} == names(PROJECT["dependencies"])
