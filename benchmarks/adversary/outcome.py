"""What the check of one problem says, and how a problem is written down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """One checked problem.

    Args:
        case: what kind of problem it was.
        misses: what is wrong with the library's answer; empty if nothing is.
        holds: whether something was certified: an answer that proves nothing cannot miss.
        statement: Python that makes the call again, for a miss.
        facts: numbers for the record, such as the condition number.
    """

    case: str
    misses: tuple[str, ...]
    holds: bool
    statement: str = ""
    facts: dict[str, float] = field(default_factory=dict)


def judged(case: str, misses: list[str], holds: Any, statement: str, **facts: float) -> Outcome:
    """Return the outcome; the statement is kept for misses only."""
    return Outcome(case, tuple(misses), bool(holds), statement if misses else "", facts)


def call(function: str, *arguments: Any, **keywords: Any) -> str:
    """Return the source of a call; its arrays are written bit for bit."""
    written = [literal(value) for value in arguments]
    written += [f"{name}={literal(value)}" for name, value in keywords.items()]
    return f"{function}({', '.join(written)})"


def literal(value: Any) -> str:
    """Return the source of a value: arrays, and dictionaries of them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {literal(leaf)}" for name, leaf in value.items()) + "}"
    if isinstance(value, np.ndarray):
        return f"np.array({value.tolist()}, {str(value.dtype)!r})"
    if isinstance(value, float):
        return f"float({str(value)!r})"
    if callable(value):
        return f"nj.activations.{value.name}" if hasattr(value, "name") else f"sigma.{value.__name__}"
    return repr(value)
