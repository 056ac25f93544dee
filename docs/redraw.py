"""Draw the pictures of docs/figures/ again from the records beside them, in the style of ``nj.plots``.

Command:  python docs/redraw.py
Expected: the pictures as they are committed.
Cost:     half a minute.
Writes:   docs/figures/NAME.png for each NAME.json there, or NAME_PICTURE.png where an experiment has several.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

import narrow_jax as nj

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "figures"
EXPERIMENTS = sorted(
    path.stem for path in (ROOT / "experiments").glob("*.py") if not path.stem.startswith("_")
)
sys.path.insert(0, str(ROOT))  # experiments


def experiment_of(name: str) -> str:
    """Return the experiment whose record this is: the longest name that it begins with."""
    return max((one for one in EXPERIMENTS if name.startswith(one)), key=len)


def drawn(name: str) -> Iterator[tuple[Path, Figure]]:
    """Yield the files and the pictures of a record in docs/figures/."""
    content = json.loads((DOCS / f"{name}.json").read_text())
    for drawing in importlib.import_module(f"experiments.{experiment_of(name)}").main.drawings:
        picture = "" if drawing.__name__ == "figure" else f"_{drawing.__name__}"
        with nj.plots.style():
            yield DOCS / f"{name}{picture}.png", drawing(content)


def main() -> None:
    """Draw all."""
    for record in sorted(DOCS.glob("*.json")):
        for path, figure in drawn(record.stem):
            with nj.plots.style():
                figure.savefig(path)
            print(f"written: docs/figures/{path.name}")


if __name__ == "__main__":
    main()
