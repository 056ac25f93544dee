"""The sources of the site: what is public has a page, what is kept has a place in the gallery.

The built site is checked by docs/check_site.py, in ``make docs``.
"""

import re
import types
from pathlib import Path

import measured
import pytest

import narrow_jax as nj

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [page for page in DOCS.rglob("*.md") if page.name != "index.md"]
MODULES = [name for name in nj.__all__ if isinstance(getattr(nj, name), types.ModuleType)]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_module_has_a_page(name):
    module = re.search(r"automodule:: (\S+)", (DOCS / "api" / f"{name}.md").read_text())[1]
    assert module == getattr(nj, name).__name__


def test_every_other_public_name_is_on_the_page_of_the_package():
    page = (DOCS / "api" / "index.md").read_text()
    assert [name for name in nj.__all__ if name not in MODULES and f"nj.{name}`" not in page] == []


def test_every_page_is_in_the_contents():
    listed = set()
    for index in DOCS.rglob("index.md"):
        for contents in re.findall(r"```\{toctree\}(.*?)```", index.read_text(), re.DOTALL):
            lines = [line for line in contents.splitlines() if line and not line.startswith(":")]
            listed |= {index.parent / f"{line}.md" for line in lines}
    assert set(PAGES) <= listed
    assert [page for page in listed if not page.exists()] == []


def test_every_figure_is_in_the_gallery_with_its_command():
    gallery = (DOCS / "gallery.md").read_text()
    sections = re.split(r"^## ", gallery, flags=re.MULTILINE)[1:]
    shown = {name: section for section in sections for name in re.findall(r"\(figures/(\w+)\.png\)", section)}
    assert set(shown) == {path.stem for path in DOCS.glob("figures/*.png")}
    records = {path.stem for path in DOCS.glob("figures/*.json")}
    made = {name: max((r for r in records if name.startswith(r)), key=len) for name in shown}
    assert [name for name, section in shown.items() if f"{{{{ made_{made[name]} }}}}" not in section] == []
    assert {f"made_{name}" for name in records} <= set(measured.substitutions())


def test_every_experiment_of_the_gallery_is_there():
    text = "".join((*(p.read_text() for p in PAGES), *measured.made().values()))
    named = set(re.findall(r"python -m (experiments\.\w+|benchmarks\.\w+)", text))
    assert len(named) > 15
    modules = {
        name: DOCS.parent / f"{name.replace('.', '/')}.py"
        for name in named - {"experiments.NAME", "benchmarks.NAME"}
    }
    assert [name for name, path in modules.items() if not path.exists()] == []
