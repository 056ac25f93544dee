"""Figures; matplotlib, from the extra ``plots``, is imported when one is drawn."""

from __future__ import annotations

from pathlib import Path

from narrow_jax import _checks
from narrow_jax.spectra import SigmaMin, SingularValues

__all__ = ["spectrum"]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


def spectrum(values: SingularValues, smallest: SigmaMin, path: str | Path) -> None:
    """Draw all singular values, their error bounds, and the interval of the smallest, into a file.

    Args:
        values: from ``singular_values``.
        smallest: from ``sigma_min`` of the same operator.
        path: where to; the suffix chooses the format.

    Raises:
        ImportError, ValueError, FileNotFoundError: as ``check``.
    """
    path = check(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    count = len(values.values)
    axes.semilogy(range(1, count + 1), values.values, ".-", label="singular values")
    axes.semilogy(range(1, count + 1), values.error, ":", label="their error bounds")
    if smallest.lower > 0:
        axes.axhspan(smallest.lower, smallest.upper, color="C2", label="interval of σ_min")
    axes.set(xlabel="index", ylabel="σ", title=f"σ_min = {smallest.value:.4g} ({smallest.status})")
    axes.legend()
    figure.savefig(path)


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
    path = Path(path).expanduser()
    _checks.choice(
        "format of figures", path.suffix.removeprefix("."), FigureCanvasBase.get_supported_filetypes()
    )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path.parent} is not there; expected a folder for the figure {path.name}: make it"
        )
    return path
