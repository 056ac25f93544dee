"""How the package is built, in numbers: ``python -m benchmarks.house [CHECKOUT]``. Nothing of the package is run.

``names`` of a function are all definitions of the package (functions, classes, constants) that can be reached from it
through bodies and annotations: what a reader may have to look up. ``chain`` is the longest path of imports from file to
file. Counted through every ``__init__``, and as a reader follows it, from a use to the file of its definition.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

NAME = "narrow_jax"
FUNCTIONS = ("memorize", "fit", "sigma_min")
Definition = tuple[str, str]
"""The module and the name that it gives."""


class House:
    """The package below a folder, as its source says."""

    def __init__(self, folder: Path) -> None:
        """Read every file."""
        self.root = folder / NAME
        self.modules = {
            _dotted_path(path, folder): ast.parse(path.read_text()) for path in self.root.rglob("*.py")
        }
        self.defined = {module: _defined(tree) for module, tree in self.modules.items()}
        self.imported = {module: _imported(tree) for module, tree in self.modules.items()}

    def get(self, module: str, name: str) -> Definition | str | None:
        """Return the definition, or the module, that a module means by a name."""
        if name in self.defined[module]:
            return module, name
        if name in self.imported[module]:
            target = self.imported[module][name]
            source, _, own = target.rpartition(".")
            if source and (source, own) != (module, name):
                return self.get(source, own)
            return target if target in self.modules else None
        below = f"{module}.{name}"
        return below if below in self.modules else None

    def follow(self, module: str, dotted: str) -> Definition | str | None:
        """Return what ``a.b.c`` leads to in a module: a definition where one is met, else a module."""
        first, *rest = dotted.split(".")
        if first not in self.defined[module] and first not in self.imported[module]:
            return None
        found = self.get(module, first)
        for part in rest:
            if not isinstance(found, str):
                break
            found = self.get(found, part)
        return found

    def used(self, module: str, node: ast.AST) -> frozenset[Definition]:
        """Return the definitions that a piece of a module uses."""
        found = {self.follow(module, name) for name in _names(node)}
        return frozenset(definition for definition in found if isinstance(definition, tuple))

    def needed(self, function: str) -> set[Definition]:
        """Return the definitions that a public function rests on, itself left out."""
        start = self.follow(NAME, function)
        assert isinstance(start, tuple)
        seen, todo = {start}, [start]
        while todo:
            module, name = todo.pop()
            new = self.used(module, self.defined[module][name]) - seen
            seen |= new
            todo += new
        return seen - {start}

    def through_doors(self, module: str) -> set[str]:
        """Return the files that a file imports, packages as their ``__init__``."""
        targets = (_module_of(target, self.modules) for target in self.imported[module].values())
        return {target for target in targets if target and target != module}

    def to_definitions(self, module: str) -> set[str]:
        """Return the files that define what a file uses."""
        found = (self.follow(module, name) for name in _names(self.modules[module]))
        files = {one[0] if isinstance(one, tuple) else one for one in found if one}
        return {file for file in files if file != module and self.defined[file]}

    @cached_property
    def functions(self) -> list[ast.FunctionDef]:
        """Return all functions and methods."""
        return [
            node
            for tree in self.modules.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        ]

    def annotations(self) -> Iterator[ast.expr]:
        """Yield all annotations of parameters, results and fields."""
        for function in self.functions:
            yield from (argument.annotation for argument in _arguments(function) if argument.annotation)
            yield from filter(None, [function.returns])
        for tree in self.modules.values():
            yield from (node.annotation for node in ast.walk(tree) if isinstance(node, ast.AnnAssign))


def longest(links: dict[str, set[str]]) -> list[str]:
    """Return the longest path; a circle is an error."""

    @cache
    def path(module: str) -> tuple[str, ...]:
        rest: tuple[str, ...] = ()
        for below in sorted(links[module]):
            rest = max(rest, path(below), key=len)
        return (module, *rest)

    paths: list[tuple[str, ...]] = [path(module) for module in links]
    deepest = max(paths, key=len)
    return list(deepest)


def _dotted_path(path: Path, folder: Path) -> str:
    return ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")


def _module_of(dotted: str, modules: Iterable[str]) -> str:
    parts = dotted.split(".")
    return next((name for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in modules), "")


def _defined(tree: ast.Module) -> dict[str, ast.AST]:
    found: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {
                name.id: node for one in targets for name in ast.walk(one) if isinstance(name, ast.Name)
            }
    return found


def _imported(tree: ast.Module) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == NAME:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            own = [alias for alias in node.names if alias.name.split(".")[0] == NAME]
            found |= {alias.asname or NAME: alias.name if alias.asname else NAME for alias in own}
    return found


def _names(node: ast.AST) -> set[str]:
    return {
        name
        for part in ast.walk(node)
        if isinstance(part, ast.Name | ast.Attribute) and (name := _dotted(part))
    }


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    inner = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner and isinstance(node, ast.Attribute) else ""


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return every[1:] if every and every[0].arg in ("self", "cls") else every


def _body(function: ast.FunctionDef) -> int:
    """Return the lines of a body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


class Measures(NamedTuple):
    """What the numbers are called is what they count; sizes as median, 90th percentile and largest."""

    entries_at_the_top: int
    chain_to_definitions: list[str]
    chain_through_doors: list[str]
    names_needed: dict[str, int]
    lines_of_a_body: tuple[float, float, int]
    parameters: tuple[float, float, int]
    share_of_bare_any: float
    lines: int


def measured(folder: Path) -> Measures:
    """Return the numbers of the package below a folder; a circle of imports is a RecursionError."""
    house = House(folder)
    annotations = list(house.annotations())
    return Measures(
        entries_at_the_top=len([path for path in house.root.iterdir() if not path.name.startswith("__")]),
        chain_to_definitions=longest({module: house.to_definitions(module) for module in house.modules}),
        chain_through_doors=longest({module: house.through_doors(module) for module in house.modules}),
        names_needed={name: len(house.needed(name)) for name in FUNCTIONS},
        lines_of_a_body=_quantiles([size for function in house.functions if (size := _body(function))]),
        parameters=_quantiles([len(_arguments(function)) for function in house.functions]),
        share_of_bare_any=sum(_is_any(one) for one in annotations) / len(annotations),
        lines=sum(len(path.read_text().splitlines()) for path in house.root.rglob("*.py")),
    )


def _is_any(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def _quantiles(values: list[int]) -> tuple[float, float, int]:
    return float(np.median(values)), float(np.percentile(values, 90)), max(values)


if __name__ == "__main__":
    for what, number in measured(Path(sys.argv[1] if sys.argv[1:] else "."))._asdict().items():
        shown = f"{len(number)}: {' > '.join(number)}" if isinstance(number, list) else number
        print(f"{what.replace('_', ' '):24} {shown}")
