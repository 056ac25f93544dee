"""Memory plans: what a computation would allocate, and the error when that is too much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class MemoryBudgetError(MemoryError):
    """The plan of a computation exceeds the stated budget; the message names the bytes and what would fit."""


def require(budget: int | None, needs: Mapping[str, int], option: str, what: str) -> None:
    """Raise unless ``needs[option]`` bytes are within the budget (None: no limit)."""
    check_budget(budget)
    if budget is None or needs[option] <= budget:
        return
    fitting = [f"{name!r} ({size:,} bytes)" for name, size in needs.items() if size <= budget]
    advice = (
        f"would fit: {', '.join(fitting)}" if fitting else f"nothing fits below {min(needs.values()):,} bytes"
    )
    raise MemoryBudgetError(
        f"{what} with {option!r} needs {needs[option]:,} bytes and memory_budget is {budget:,}: {advice}"
    )


def check_budget(budget: Any) -> None:
    """Require None or a positive whole number of bytes."""
    if budget is None:
        return
    if isinstance(budget, bool) or not isinstance(budget, int) or budget <= 0:
        raise ValueError(
            f"memory_budget is {budget!r}; expected a positive number of bytes, or None for no limit"
        )
