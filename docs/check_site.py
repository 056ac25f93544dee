"""What must be true of the built site: internal links lead somewhere, public names have their entries, search works.

Command:  python docs/check_site.py build/docs   (``make docs`` runs it)
"""

from __future__ import annotations

import functools
import json
import sys
import types
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util.inventory import InventoryFile

import narrow_jax as nj


class Page(HTMLParser):
    """The links of a page, and the places in it that a link can lead to."""

    def __init__(self, path: Path) -> None:
        """Read the page."""
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag names and where it leads."""
        values = dict(attrs)
        self.places |= {values[name] or "" for name in ("id", "name") if name in values}
        self.links += [values[name] or "" for name in ("href", "src") if name in values]


@functools.cache
def page(path: Path) -> Page:
    """Return a page, read once."""
    return Page(path)


def broken_links(site: Path) -> Iterator[str]:
    """Yield the links within the site that lead nowhere."""
    for path in sorted(site.rglob("*.html")):
        if "_static" in path.parts:  # templates of the theme
            continue
        for link in page(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if not target.is_file():
                yield f"{path.relative_to(site)}: {link} is not there"
            elif target.suffix == ".html" and unquote(parts.fragment) not in page(target).places:
                yield f"{path.relative_to(site)}: {link} has no such place"


def public_names() -> Iterator[tuple[str, object]]:
    """Yield every public name and what it is, module by module."""
    modules = [nj, *(part for part in map(nj.__getattr__, nj.__all__) if isinstance(part, types.ModuleType))]
    while modules:
        module = modules.pop()
        for name in getattr(module, "__all__", None) or defined(module):
            value = getattr(module, name)
            if isinstance(value, types.ModuleType):
                modules += [value] if module is not nj else []
            else:
                yield f"{module.__name__}.{name}", value


def defined(module: types.ModuleType) -> list[str]:
    """Return the names that a module defines without a list of those that are public."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def undocumented(site: Path) -> Iterator[str]:
    """Yield the public names that the API reference has no entry for."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    known = {name for kind, entries in inventory.items() if kind.startswith("py:") for name in entries}
    public = dict(public_names())
    entered = {id(value) for name, value in public.items() if name in known or home(value) in known}
    for name, value in public.items():
        if name not in known and id(value) not in entered:
            yield f"{name} has no entry in the API reference: add it to docs/api"


def home(value: object) -> str:
    """Return the name of a class or function where it is defined."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def unfound(site: Path) -> Iterator[str]:
    """Yield the words that the search has to find and does not."""
    index = json.loads((site / "searchindex.js").read_text().removeprefix("Search.setIndex(").rstrip(")"))
    for word in ("sigma_min", "kappa", "κ", "ball"):
        if word not in index["terms"]:
            yield f"the search does not find {word!r}"


def main(site: Path) -> int:
    """Print what is wrong; 1 if anything is."""
    wrong = [*broken_links(site), *undocumented(site), *unfound(site)]
    print("\n".join(wrong) or f"{site}: all links, names and searches are as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
