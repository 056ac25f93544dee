"""Programs for other devices than those at hand are not kept: JAX could not read them back."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(autouse=True, scope="package")
def uncached():
    """Compile without the cache that the other tests share."""
    before = jax.config.jax_compilation_cache_dir
    for folder in (None, before):
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()
        if folder is None:
            yield
