"""Strict settings for every test here: no silent promotion, float64 on request only, shapes checked."""

import importlib.util

import hypothesis
import jax
import pytest

if importlib.util.find_spec("jaxtyping") and importlib.util.find_spec("beartype"):
    from jaxtyping import install_import_hook

    install_import_hook("narrow_jax", "typechecker.check")

hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("reproducible")


@pytest.fixture(autouse=True)
def strict():
    """No implicit promotion of dtypes or ranks in anything that a test calls."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def x64():
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield
