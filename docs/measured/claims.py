"""What a claim of a paper is beside what was found, and how that is read from the records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from measured.commands import command
from measured.reading import Record, whole_record

AGREES, IN_PART, NOT, OPEN = "agrees", "agrees in part", "does not", "open"


def at_least(numbers: Iterable[float]) -> str:
    """Return the smallest number, rounded down to two digits."""
    return _outward(min(numbers), math.floor)


def at_most(numbers: Iterable[float]) -> str:
    """Return the largest number, rounded up to two digits."""
    return _outward(max(numbers), math.ceil)


def _outward(number: float, rounded: Callable[[float], int]) -> str:
    unit = 10.0 ** (math.floor(math.log10(number)) - 1) if number > 0 else 1.0
    return f"{rounded(number / unit) * unit:.2g}"


def judged(difference: float, error: float) -> str:
    """Return whether what is claimed to be positive is: beyond two standard errors, or they leave it open."""
    return OPEN if abs(difference) <= 2 * error else AGREES if difference > 0 else NOT


def seen(facts: Iterable[bool]) -> str:
    """Return whether what is claimed was seen: in all cases, some, or none; without a case it is open."""
    found = list(facts)
    return OPEN if not found else AGREES if all(found) else IN_PART if any(found) else NOT


def together(verdicts: Iterable[str]) -> str:
    """Return the verdict on a claim from those on its cases: their own if they agree, else in part if some are seen."""
    found = set(verdicts)
    return found.pop() if len(found) == 1 else IN_PART if AGREES in found else OPEN


class Claim(NamedTuple):
    """A row of the table; ``records`` are those behind what was found, each with its command."""

    claim: str
    ours: str
    verdict: str
    records: tuple[str, ...]

    def __str__(self) -> str:
        """Return the row in Markdown."""
        claim, ours = (plain(text) for text in (self.claim, self.ours))
        return f"| {claim} | {ours} | **{self.verdict}** | {self.commands} | {cost(self.records)} |"

    @property
    def commands(self) -> str:
        """The commands of the records."""
        return ", ".join(map(command, self.records))


def plain(text: str) -> str:
    """Return text as Markdown shows it: stars and bars are what they are."""
    return text.replace("*", r"\*").replace("|", r"\|")


def cost(records: Iterable[str]) -> str:
    """Return what the records took, in minutes."""
    seconds = sum(whole_record(name)["seconds"] for name in records)
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def numbers(records: list[Record], field: str = "loss", **wanted: Any) -> list[float]:
    """Return the values of a field in the records whose fields are among those wanted.

    Raises:
        ValueError: one is NaN, which compares with nothing.
    """
    found = [float(r[field]) for r in records if all(r[name] in among for name, among in wanted.items())]
    if any(map(math.isnan, found)):
        raise ValueError(f"{field} is NaN in a record")
    return found


def mean_and_error(values: list[float], images: int) -> tuple[float, float]:
    """Return the mean over seeds, and its error from the seeds and from the number of test images, in per cent."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return 100 * mean, math.inf  # one seed decides nothing
    of_seeds = sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
    return 100 * mean, 100 * math.sqrt(of_seeds + mean * (1 - mean) / images)
