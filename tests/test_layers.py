"""Imports only go down: the layer rule, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "narrow_jax"
LAYERS = [
    {"_json", "_typing"},
    {
        "_checks",
        "_epochs",
        "_float64",
        "_manifest",
        "_masking",
        "_memory",
        "_operators",
        "_progress",
        "_rounding",
        "precision",
    },
    {"_elementary", "_extra_arguments", "_leaves", "_paths"},
    {"_labels", "_taking", "activations", "losses", "projections", "spectra"},
    {"initializers", "constraints", "jacobian", "monitors"},
    {"checkpoints", "models", "plots"},
    {"_loop", "data", "runs"},
    {"_preparing", "_resuming", "_streaming"},
    {"training", "certificates"},
    {"solvers"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
OWNERS = {  # heavy or optional packages, and the only modules that may import them
    "flax": {"models"},
    "tensorflow_datasets": {"data"},
    "sklearn": {"data"},
    "PIL": {"data"},
    "matplotlib": {"plots"},
    "rich": {"_progress"},
    "orbax": {"checkpoints"},
}
MODULES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def unit(path: Path) -> str:
    """The module, or the package that it belongs to, right below narrow_jax."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere; ``from a import b`` counts as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_module_has_a_layer():
    assert {unit(path) for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = unit(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "narrow_jax" and parts[1:2] and parts[1] in LEVEL and parts[1] != own:
            assert LEVEL[parts[1]] < LEVEL[own], f"{own} imports {parts[1]}"
        if parts[0] in OWNERS:
            assert own in OWNERS[parts[0]], f"{own} imports {parts[0]}"
        assert "jax._src" not in name
        assert not name.startswith("jax.core")


def test_rule_sees_an_upward_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from narrow_jax import training\nimport flax.linen\n")
    assert imports(bad) == {"narrow_jax.training", "flax.linen"}


def test_import_takes_no_optional_package_along():
    code = (
        "import sys, narrow_jax; "
        "optional = {'tensorflow_datasets', 'sklearn', 'matplotlib', 'grain', 'PIL', 'beartype', 'orbax.checkpoint'}; "
        "bad = optional & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
