"""Imports only go down: the layer rule, read from the source."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "narrow_jax"
LAYERS = [
    {"_host", "_typing"},
    {"_checks", "_printing"},
    {"labels", "linalg"},
    {"activations", "checkpoints", "losses", "projections", "spectra"},
    {"data", "initializers", "constraints", "monitors"},
    {"models", "plots"},
    {"jacobian"},
    {"certificates"},
    {"solvers", "training"},
    {"cli", "sklearn"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
OWNERS = {  # heavy or optional packages, and the only modules that may import them
    "flax": {"models"},
    "tensorflow_datasets": {"data"},
    "sklearn": {"data", "sklearn"},
    "PIL": {"data"},
    "matplotlib": {"plots"},
    "rich": {"_printing"},
    "orbax": {"checkpoints"},
    "pandas": {"data"},
    "tensorboardX": {"training"},
}
PACKAGES = sorted(
    ".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")
)
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


def test_the_map_in_the_docs_is_that_of_the_layers():
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    assert [(int(level), set(re.findall(r"`(\w+)/?`", names))) for level, names in rows] == list(
        enumerate(LAYERS)
    )


def offered(package: str) -> set[str]:
    """Names that a package's __init__ binds."""
    body = ast.parse((PACKAGE / package / "__init__.py").read_text()).body
    imported = [alias for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]
    defined = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assigned = [node.targets[0].id for node in body if isinstance(node, ast.Assign)]
    return {alias.asname or alias.name for alias in imported} | {*defined, *assigned}


def test_every_module_has_a_layer():
    assert {unit(path) for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = unit(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "narrow_jax" and parts[1:2] and parts[1] in LEVEL and parts[1] != own:
            assert LEVEL[parts[1]] < LEVEL[own], f"{own} imports {parts[1]}"
            assert len(parts) <= 3, f"{own} imports {name}, which is inside of {parts[1]}"
            if parts[2:] and (PACKAGE / parts[1]).is_dir():
                assert parts[2] in offered(parts[1]), f"{own} imports {name}, which is not offered"
        if parts[0] in OWNERS:
            assert own in OWNERS[parts[0]], f"{own} imports {parts[0]}"
        assert "jax._src" not in name
        assert not name.startswith("jax.core")


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.stem)
def test_files_that_the_docs_name_are_there(page):
    named = re.findall(r"`([a-z]+/\w+)[`.]", page.read_text())
    known = (PACKAGE / "{}.py", ROOT / "{}.py", ROOT / "{}")
    assert [name for name in named if not any(Path(str(path).format(name)).exists() for path in known)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_hidden_by_a_function_of_its_name(package):
    rooms = {module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)}
    bound = {name: getattr(importlib.import_module(package), name, None) for name in rooms}
    assert [name for name, value in bound.items() if not isinstance(value, types.ModuleType | None)] == []


def test_rule_sees_an_upward_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from narrow_jax import training\nimport flax.linen\n")
    assert imports(bad) == {"narrow_jax.training", "flax.linen"}


def test_import_takes_no_optional_package_along():
    code = (
        "import sys, narrow_jax; "
        "optional = {'tensorflow_datasets', 'sklearn', 'matplotlib', 'grain', 'PIL', 'beartype', 'orbax.checkpoint', "
        "'pandas', 'tensorboardX', 'safetensors'}; "
        "bad = optional & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
