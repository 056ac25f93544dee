"""Strict settings for every test here: no silent promotion, float64 on request only, shapes checked."""

import importlib.util
from pathlib import Path

import hypothesis
import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

if importlib.util.find_spec("jaxtyping") and importlib.util.find_spec("beartype"):
    from jaxtyping import install_import_hook

    install_import_hook("narrow_jax", "typechecker.check")

hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("reproducible")

MAPS = Path("/proc/self/maps")
MOST_MAPS = 30_000  # of the 65,530 that Linux gives a process; every compiled program holds some


def pytest_configure(config):
    """Share compiled programs between tests, workers and runs: compilation is most of the suite's time."""
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(autouse=True, scope="module")
def programs():
    """Forget compiled programs before the process has no memory maps left for the next one."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


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


@pytest.fixture
def no_network(monkeypatch):
    """Send every request to a closed port, and forget the folders of whoever runs the tests."""
    for variable in ("NARROW_JAX_RAW", "NARROW_JAX_DATA", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", "http://127.0.0.1:9")


@pytest.fixture
def unchecked():
    """Switch the suite's type checks off: they would speak before the library does."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def uncached():
    """Compile without the cache that the tests share: JAX could not read programs for other devices back."""
    before = jax.config.jax_compilation_cache_dir
    for folder in (None, before):
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()
        if folder is None:
            yield
