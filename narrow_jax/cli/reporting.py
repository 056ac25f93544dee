"""``narrow-jax report``: a run as one HTML file that needs nothing else."""

from __future__ import annotations

import argparse
import html
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from narrow_jax import plots
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli.command import Answer

_PICTURES = (
    ("Loss", ("loss", "test_loss")),
    ("Accuracy", ("accuracy", "test_accuracy")),
    ("Distance from the start, in radii of the ball", ("relative_distance",)),
)
_OF_THE_MODEL = ("architecture", "loss", "inputs", "classes", "narrow_jax")
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; font-size: 15px }} th {{ text-align: left; font-weight: 600; vertical-align: top }}
td, th {{ padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #ddd }} svg {{ max-width: 100%; height: auto }}
.wide {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem }}
.yes {{ color: #17691f }} .no {{ color: #a3200d }} figure {{ margin: 0 }} figcaption {{ font-weight: 600 }}
</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""


def run(args: argparse.Namespace) -> Answer:
    """Write the file."""
    place = args.out or args.folder / "report.html"
    if place.exists() and not args.overwrite:
        raise FileExistsError(
            f"{place} is there already: choose another file, or replace it with --overwrite"
        )
    if not any((args.folder / name).is_file() for name in ("config.json", "model.json")):
        raise FileNotFoundError(
            f"{args.folder} is not the folder of a run; expected one of `train`, `memorize` or nj.save that has ended"
        )
    if not place.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {place.parent} for {place.name}: make it")
    runs.replace_file(place, page(args.folder))
    return Answer(True, {"report": str(place)}, [f"written to {place}"])


def page(folder: Path) -> str:
    """Return the report of a run as HTML without any reference to other files.

    Raises:
        ValueError: a file of the run is damaged.
        ImportError: matplotlib is missing.
    """
    config, model, found = (
        strict_json.read(folder / name) if (folder / name).is_file() else {}
        for name in ("config.json", "model.json", "summary.json")
    )
    proof = found.pop("certificate", None)
    parts = [_verdict(found, proof, ended=bool(model))]
    if (folder / "history.jsonl").is_file():
        parts.append(_pictures(_history(folder / "history.jsonl")))
    net = {name: model[name] for name in _OF_THE_MODEL if model.get(name) is not None}
    parts += [_section("Found", found), _section("Certificate", proof or {})]
    parts += [_section("Settings", config), _section("Model", net)]
    return _PAGE.format(title=html.escape(f"Run {folder.resolve().name}"), body="\n".join(parts))


def _verdict(found: Mapping[str, Any], proof: Mapping[str, Any] | None, ended: bool) -> str:
    if proof is not None:
        kind, text = ("yes", "proven") if proof.get("holds") else ("no", "not proven")
        return f'<p class="{kind}">{text}: {html.escape(str(proof.get("reason", "")))}</p>'
    if not found:
        return "" if ended else "<p>The run has not ended yet.</p>"
    diverged = found.get("diverged")
    return f'<p class="{"no" if diverged else "yes"}">{"diverged" if diverged else "trained to the end"}</p>'


def _section(title: str, values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    rows = "\n".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(_text(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<h2>{html.escape(title)}</h2>\n<table>\n{rows}\n</table>"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else str(value) if isinstance(value, str | int) else json.dumps(value)[:500]


def _history(path: Path) -> dict[str, np.ndarray]:
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        names = lines[0].keys() if lines else ()
        return {
            name: np.array([np.nan if line[name] is None else line[name] for line in lines]) for name in names
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); expected one JSON line a record") from error


def _pictures(history: Mapping[str, np.ndarray]) -> str:
    figures = [
        _figure(title, plots.history(history, names))
        for title, names in _PICTURES
        if any(name in history and np.isfinite(history[name]).any() for name in names)
    ]
    if "sigma_min" in history:
        figures.append(_figure("Smallest singular value of the Jacobian", plots.sigma_min(history)))
    return f'<div class="wide">{"".join(figures)}</div>'


def _figure(title: str, ax: Any) -> str:
    """Return a figure as SVG inside of HTML."""
    drawn = io.StringIO()
    with plots.style():
        ax.figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>"
