"""The documentation site: ``make docs`` builds it without a network, and executes every page that has code."""

import os
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from nbclient import NotebookClient
from sphinx.ext.autodoc import FunctionDocumenter

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # measured, and experiments, whose records it reads

import measured  # noqa: E402

project = "narrow_jax"
author = "the narrow_jax authors"
version = release = metadata.version("narrow_jax")
html_title = f"narrow_jax {version}"
html_theme = "sphinx_book_theme"
html_theme_options = {
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the search is in the sidebar
    "article_header_end": ["toggle-secondary-sidebar.html"],
}
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
exclude_patterns = ["figures"]
highlight_language = "text"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]

# numbers on the pages: {{ name }} is read from the records in benchmarks/results and docs/figures
myst_enable_extensions = ["deflist", "dollarmath", "substitution"]
myst_substitutions = measured.substitutions()
myst_heading_anchors = 3

# pages with code run in a folder of their own, with the commands of this environment; an error stops the build
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 1200
nb_execution_in_temp = True
NotebookClient.coalesce_streams = True  # what a cell prints is one block
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(HERE.parent / "build" / "xla")  # for the next build
os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))

autodoc_member_order = "groupwise"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
add_module_names = False
toc_object_entries_show_parents = "hide"
FunctionDocumenter.member_order = 5  # before classes, which are mostly their results
python_maximum_signature_line_length = 90
napoleon_custom_sections = [("Fields", "params_style")]
napoleon_numpy_docstring = False
html_math_renderer = "mathml"


def inline_math(writer: Any, node: Any) -> None:
    """Write a formula as MathML, which browsers show without a script."""
    writer.body.append(convert(node.astext()))
    raise SkipNode


def display_math(writer: Any, node: Any) -> None:
    """Write a formula on a line of its own."""
    writer.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise SkipNode


def plain(line: str) -> str:
    """Return a line of a docstring without what only reStructuredText takes for markup: |z| and X^{*r} are formulas."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    texts = line.split("``")  # every second one is code
    texts[::2] = [re.sub(r"(?<!\\)(\||\*(?=r))", r"\\\1", text) for text in texts[::2]]
    return re.sub(r"docs/([\w/]+)\.md", r":doc:`/\1`", "``".join(texts))


def item(line: str) -> str:
    """Return a line of the contents of a module, a name and what it is, as that of a list."""
    found = re.match(r"(``.+``)  +(.*)", line)
    return f"* {found[1]}: {found[2]}" if found else re.sub(r"^ {5,}", "  ", line)


def docstring(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Make reStructuredText of a docstring, and links of the pages that it names, as docs/proofs/theorem1.md."""
    for index, following in enumerate(lines[2:]):  # an indented block after a colon and an empty line is code
        if lines[index].endswith(":") and not lines[index + 1] and re.match(r" {4} *(?!>>>)\S", following):
            lines[index] += ":"
    lines[:] = [item(plain(line)) if what == "module" else plain(line) for line in lines]


def skipped(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what only repeats the fields of a result, and what scikit-learn adds to its estimators."""
    field = str(getattr(obj, "__doc__", "")).startswith("Alias for field number")
    return True if field or (name.startswith("set_") and name.endswith("_request")) else None


def setup(app: Any) -> None:
    """Register the hooks."""
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    app.connect("autodoc-process-docstring", docstring, priority=400)
    app.connect("autodoc-skip-member", skipped)
