"""Draw the figures of docs/figures/ whose numbers are in a record beside them, in the style of ``nj.plots``.

Command:  python -m experiments._redraw
Expected: the figures as they are committed.
Cost:     ten seconds.
Writes:   docs/figures/NAME.png for each NAME.json there; demo, descent_bound and pyramidal_convergence draw curves that
          no record holds: run them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import narrow_jax as nj
from experiments import (
    deep_theorem1,
    depth_width_fig1,
    narrow_ablation,
    narrow_all_images,
    narrow_fig4,
    narrow_fig5,
    narrow_images,
    narrow_random_labels,
    narrow_theorem1,
    narrow_theorem2,
    pyramidal_lambda_star,
)

DOCS = Path(__file__).parents[1] / "docs" / "figures"
FIGURES: dict[str, Callable[..., Figure]] = {
    "deep_theorem1": deep_theorem1.figure,
    "narrow_ablation": narrow_ablation.figure,
    "narrow_all_images": narrow_all_images.figure,
    "narrow_fig4": narrow_fig4.figure,
    "narrow_random_labels": narrow_random_labels.figure,
    "narrow_theorem1": narrow_theorem1.figure,
    "narrow_theorem2": narrow_theorem2.figure,
    "pyramidal_lambda_star": pyramidal_lambda_star.figure,
}
"""Those that are drawn from records alone."""

WITH_SETTINGS: dict[str, tuple[Callable[..., Figure], type]] = {
    "depth_width_synthetic": (depth_width_fig1.figure, depth_width_fig1.Settings),
    "narrow_fig5_restricted_imagenet": (narrow_fig5.figure, narrow_fig5.Settings),
    "narrow_images_cifar10": (narrow_images.figure, narrow_images.Settings),
}


def drawn(name: str) -> Figure:
    """Return the figure of a record in docs/figures/."""
    content = json.loads((DOCS / f"{name}.json").read_text())
    records = content if isinstance(content, list) else content.get("records") or content["cells"]
    with nj.plots.style():
        if name in FIGURES:
            return FIGURES[name](records)
        figure, settings = WITH_SETTINGS[name]
        return figure(records, settings(**{key: _tuple(value) for key, value in content["settings"].items()}))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def main() -> None:
    """Draw all."""
    for name in (*FIGURES, *WITH_SETTINGS):
        figure = drawn(name)
        with nj.plots.style():
            figure.savefig(DOCS / f"{name}.png")
        print(f"written: docs/figures/{name}.png")


if __name__ == "__main__":
    main()
