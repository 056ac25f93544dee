"""``narrow-jax certify``: the theorems, each checked on a net and its data."""

from __future__ import annotations

from typing import Any

from narrow_jax.cli import certify_memorization, certify_pyramidal, certify_stationary_value

KINDS = (certify_memorization, certify_pyramidal, certify_stationary_value)


def add(commands: Any) -> None:
    """Add the command to the parser."""
    certify = commands.add_parser(
        "certify",
        help="check a theorem on a net and its data",
        description="Check a theorem on a net and its data. Exit status 1 if it does not hold.",
    )
    kinds = certify.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind in KINDS:
        kind.add(kinds)
