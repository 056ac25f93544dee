"""Figures in one style; matplotlib, from the extra ``plots``, is imported when one is drawn.

Each function draws into the ``Axes`` of ``ax=``, or into a new figure, and returns the Axes: add what you like, and
``ax.figure.savefig("figure.svg")``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from narrow_jax import _checks, _host
from narrow_jax.spectra import SigmaMin, SingularValues

__all__ = ["STYLE", "history", "loss_bound", "sigma_min", "spectrum", "style", "sweep"]

Axes = Any
"""``matplotlib.axes.Axes``."""

STYLE: Any = {
    "figure.figsize": (6, 4),
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "svg.hashsalt": "narrow_jax",  # equal pictures are equal files
}
"""What every figure has, as matplotlib's ``rcParams``."""


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


def style() -> AbstractContextManager[None]:
    """Return the style for the figures of a ``with`` block.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError("matplotlib is missing: pip install 'narrow_jax[plots]'") from error
    return mpl.rc_context(STYLE)


def history(
    history: Mapping[str, np.ndarray], names: Sequence[str] = ("loss", "test_loss"), ax: Axes = None
) -> Axes:
    """Draw entries of a history over the steps; losses on a logarithmic scale.

    Args:
        history: of a ``FitResult``.
        names: which entries; those that it has not are left out.
        ax: the Axes to draw into; None for a new figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: no entry of these names.

    Example:
        >>> ax = history({"step": np.arange(3), "loss": np.array([4.0, 2.0, 1.0])})
        >>> ax.get_xlabel(), ax.get_yscale()
        ('step', 'log')
    """
    found = [name for name in names if name in history]
    if not found:
        raise ValueError(
            f"the history has none of {', '.join(names)}; expected some of {', '.join(history)}: pass names="
        )
    with style():
        ax = _axes(ax)
        for name in found:
            ax.plot(history["step"], history[name], label=name.replace("_", " "))
        positive = all(np.nanmin(history[name]) > 0 for name in found)
        if positive and any("loss" in name for name in found):
            ax.set_yscale("log")
        ax.set(xlabel="step", ylabel=found[0].replace("_", " ") if len(found) == 1 else "")
        if len(found) > 1:
            ax.legend()
    return ax


_drawn = history  # by that name where an argument is called history


def sigma_min(history: Mapping[str, np.ndarray], name: str = "sigma_min", ax: Axes = None) -> Axes:
    """Draw σ_min of the Jacobian along training, as ``SigmaMinMonitor`` records it.

    Args:
        history: of a ``FitResult``.
        name: the entry of the monitor.
        ax: the Axes to draw into; None for a new figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: no such entry.
    """
    if name not in history:
        raise ValueError(
            f"the history has no {name!r} but {', '.join(history)}; expected that of a monitor: train with "
            "monitors=[nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise)]"
        )
    with style():
        ax = _axes(ax)
        ax.semilogy(history["step"], history[name], color="C2")
        ax.set(xlabel="step", ylabel="$\\sigma_{\\min}(J)$")
    return ax


def spectrum(values: SingularValues, smallest: SigmaMin, ax: Axes = None) -> Axes:
    """Draw all singular values, their error bounds, and the interval of the smallest.

    Args:
        values: from ``singular_values``.
        smallest: from ``sigma_min`` of the same operator.
        ax: the Axes to draw into; None for a new figure.

    Raises:
        ImportError: matplotlib is missing.
    """
    with style():
        ax = _axes(ax)
        count = len(values.values)
        ax.semilogy(range(1, count + 1), values.values, ".-", label="singular values")
        ax.semilogy(range(1, count + 1), values.error, ":", label="their error bounds")
        if smallest.lower > 0:
            ax.axhspan(smallest.lower, smallest.upper, color="C2", label="interval of $\\sigma_{\\min}$")
        title = f"$\\sigma_{{\\min}}$ = {smallest.value:.4g} ({smallest.status})"
        ax.set(xlabel="index", ylabel="$\\sigma$", title=title)
        ax.legend()
    return ax


def sweep(
    values: np.ndarray,
    rows: tuple[str, Sequence[float]],
    columns: tuple[str, Sequence[float]],
    label: str = "",
    ax: Axes = None,
) -> Axes:
    """Draw a heat map of a grid, each cell with its number; what is not finite is hatched.

    Args:
        values: (rows, columns), such as ``result.history["accuracy"][..., -1]`` of a ``sweep``.
        rows: the name and the values of the first axis.
        columns: the name and the values of the second.
        label: of the colours.
        ax: the Axes to draw into; None for a new figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: values of another shape than the axes.

    Example:
        >>> ax = sweep(np.eye(2), ("radius", [0.1, 1.0]), ("seed", [0, 1]))
        >>> [text.get_text() for text in ax.texts]
        ['1', '0', '0', '1']
    """
    values = np.asarray(values)
    if values.shape != (len(rows[1]), len(columns[1])):
        raise ValueError(
            f"values have shape {values.shape}; expected ({len(rows[1])}, {len(columns[1])}), as the axes"
        )
    with style():
        ax = _axes(ax)
        ax.grid(visible=False)
        ax.patch.set(hatch="///", edgecolor="0.7")
        image = ax.imshow(np.ma.masked_invalid(values), aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            dark = np.isfinite(value) and image.norm(value) < 0.5
            ax.text(j, i, f"{value:.3g}", ha="center", va="center", color="white" if dark else "black")
        ax.set_xticks(range(len(columns[1])), [f"{value:g}" for value in columns[1]])
        ax.set_yticks(range(len(rows[1])), [f"{value:g}" for value in rows[1]])
        ax.set(xlabel=columns[0], ylabel=rows[0])
        ax.figure.colorbar(image, ax=ax, label=label)
    return ax


def loss_bound(history: Mapping[str, np.ndarray], bound: Any, ax: Axes = None) -> Axes:
    """Draw the loss of a run under its proven bound.

    Args:
        history: of a ``FitResult``.
        bound: the bound at each step, such as ``nj.certificates.gradient_descent(…).loss_bound``.
        ax: the Axes to draw into; None for a new figure.

    Raises:
        ImportError: matplotlib is missing.
    """
    ax = _drawn(history, ("loss",), ax)
    with style():
        proven = [float(bound(int(step))) for step in history["step"]]
        ax.plot(history["step"], proven, "--", color="C3", label="proven bound")
        ax.legend()
    return ax


def _axes(ax: Axes) -> Axes:
    """Return the Axes to draw into: those given, or of a new figure that no window shows."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure().subplots()


def check(path: str | Path) -> Path:
    """Return the path if a figure can be drawn into it, ``~`` as the home folder: to ask before a long computation.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: a suffix that is no format of figures.
        FileNotFoundError: its folder is not there.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ImportError("matplotlib is missing: pip install 'narrow_jax[plots]'") from error
    path = _host.path("path", path)
    _checks.choice(
        "format of figures", path.suffix.removeprefix("."), FigureCanvasBase.get_supported_filetypes()
    )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path.parent} is not there; expected a folder for the figure {path.name}: make it"
        )
    return path
