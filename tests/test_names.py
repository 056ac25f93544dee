"""What ``dir`` shows of a public module: its own names, nothing that it imports or shares; loaded when asked for."""

import ast
import subprocess
import sys
import types
from pathlib import Path

import pytest

import narrow_jax as nj

MODULES = [nj, *(getattr(nj, name) for name in nj.__all__ if isinstance(getattr(nj, name), types.ModuleType))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_only_public_names_are_shown(module):
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def test_importing_the_package_loads_nothing_else():
    code = "import sys, narrow_jax; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_the_same_objects_wherever_they_are_asked_for():
    from narrow_jax import checkpoints, fit, runs, training

    assert nj.fit is fit is training.fit
    assert nj.runs is runs is checkpoints.runs


def test_type_checkers_see_all_public_names():
    tree = ast.parse(Path(nj.__file__).read_text())
    told = next(node for node in tree.body if isinstance(node, ast.If)).body
    assert sorted(alias.name for node in told for alias in node.names) == sorted(nj.__all__)


def test_a_misspelt_name_is_an_attribute_error_with_a_suggestion():
    with pytest.raises(AttributeError, match="module 'narrow_jax' has no attribute 'sigma_mn'") as error:
        nj.sigma_mn  # noqa: B018
    assert (error.value.name, error.value.obj) == ("sigma_mn", nj)
    with pytest.raises(ImportError, match="sigma_mn"):
        from narrow_jax import sigma_mn  # noqa: F401


@pytest.mark.parametrize("module", [module.__name__ for module in MODULES[1:]])
def test_every_module_can_be_imported_first(module):
    assert subprocess.run([sys.executable, "-c", f"import {module}"], check=False).returncode == 0
