"""What ``dir`` shows of a public module: its own names, nothing that it imports or shares with other modules."""

import types

import pytest

import narrow_jax as nj

MODULES = [nj, *(getattr(nj, name) for name in nj.__all__ if isinstance(getattr(nj, name), types.ModuleType))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_only_public_names_are_shown(module):
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
