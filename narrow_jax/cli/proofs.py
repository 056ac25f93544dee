"""What commands say of a certificate: its verdict, then its constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from narrow_jax import certificates
from narrow_jax.cli.command import Answer


def constants(found: certificates.Memorization) -> list[str]:
    """Return the constants of a memorization certificate, one a line."""
    return [
        f"  ρ         {found.rho:.6g}",
        f"  ‖w − w⁰‖  {found.distance:.6g}, ε = {found.radius:.6g}",
        f"  η̄         {found.eta:.6g} (residual {found.residual:.3g}, its rounding {found.rounding:.3g})",
        f"  σ_min     ≥ {found.sigma:.6g}",
        f"  L         {found.lipschitz:.6g}",
        f"  g         {found.g:.6g} (≤ ½ is needed)",
    ]


def answer(found: Any, more: Mapping[str, object] | None = None) -> Answer:
    """Return the verdict of a certificate, and all its constants, one a line."""
    record = found._asdict() | dict(more or {})
    rest = {name: value for name, value in record.items() if name not in ("holds", "reason")}
    return Answer(found.holds, record, [verdict(found), *(_line(*entry) for entry in rest.items())])


def verdict(found: Any) -> str:
    """Return whether a certificate holds, and why."""
    return f"{'proven' if found.holds else 'not proven'}: {found.reason}"


def _line(name: str, value: object) -> str:
    words = name.replace("_", " ")
    return f"  {words:18} {value:.6g}" if isinstance(value, float) else f"  {words:18} {value}"
