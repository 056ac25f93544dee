"""What ``dir`` shows of a public module: its own names, and no module that it imports."""

import types

import pytest

import narrow_jax as nj

MODULES = [nj, *(getattr(nj, name) for name in nj.__all__ if isinstance(getattr(nj, name), types.ModuleType))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_imported_module_is_shown(module):
    shown = {name: getattr(module, name) for name in dir(module)}
    foreign = [
        name
        for name, value in shown.items()
        if isinstance(value, types.ModuleType)
        and not value.__name__.startswith(
            ("narrow_jax", "jaxtyping")
        )  # the tests' type checks import the latter
    ]
    assert foreign == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_public_names_exist(module):
    assert set(module.__all__) <= set(dir(module))
    assert all(hasattr(module, name) for name in module.__all__)
