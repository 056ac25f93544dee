"""Every experiment runs in its quick form and writes what its docstring says."""

import importlib
import json
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("name", NAMES)
def test_quick_run(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(tmp_path)])
    # a user's settings: optax's own adam promotes
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        importlib.import_module(f"experiments.{name}").main()
    records = json.loads((tmp_path / "summary.json").read_text())
    assert records
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_demo_record_has_one_entry_a_row():
    from experiments import demo

    assert [row.name for row in demo.rows(inputs=61, steps=10)] == [
        "pairwise, ball + cone",
        "standard, same ball",
        "standard, no ball",
    ]
