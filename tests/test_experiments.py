"""Every experiment runs in its quick form and writes what its docstring says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__")


def sharing_programs():
    """The environment with the suite's cache of compiled programs."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    return os.environ | cache


@pytest.mark.parametrize("name", NAMES)
def test_quick_run(name, tmp_path):
    command = [sys.executable, "-W", "error", "-m", f"experiments.{name}", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=sharing_programs(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "summary.json").read_text())
    assert records
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_demo_record_has_one_entry_a_row(tmp_path):
    from experiments import demo

    assert [row.name for row in demo.rows(inputs=61, steps=10)] == [
        "pairwise, ball + cone",
        "standard, same ball",
        "standard, no ball",
    ]
