"""Figures; matplotlib, from the extra ``plots``, is imported when one is drawn."""

from __future__ import annotations

from pathlib import Path

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
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("matplotlib is missing: pip install 'narrow_jax[plots]'") from error
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
