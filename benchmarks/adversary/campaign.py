"""The campaign: every kind of problem, in processes side by side, each problem made again from (seed, kind, index)."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.adversary import deep, memorized, pyramids, ranks, regions, sigma
from benchmarks.adversary.outcome import Outcome

CRASH = "crash"


class Kind(NamedTuple):
    """How problems of a kind are made and checked, and how many of them for each problem that was asked for."""

    check: Callable[[np.random.Generator], list[Outcome]]
    share: float


KINDS = {
    "sigma_min": Kind(sigma.random_problems, 1 / 2),
    "sigma_min_climbed": Kind(sigma.climb, 1 / (4 * sigma.CLIMB)),
    "sigma_min_traced": Kind(sigma.traced_problems, 1 / (4 * sigma.BATCH)),
    "sigma_min_deep": Kind(deep.random_problems, 1 / 3),
    "memorization": Kind(memorized.memorization, 1 / 10),
    "nice_region": Kind(regions.nice_region, 1 / 10),
    "kkt": Kind(regions.kkt, 1 / 10),
    "pyramidal": Kind(pyramids.pyramidal, 1 / 10),
    "stationary_value": Kind(ranks.stationary_value, 1 / 10),
    "basis_functions": Kind(ranks.basis_functions, 1 / 10),
    "data": Kind(ranks.data, 1 / 10),
}
CHUNK = 10
"""Problems that a process takes at a time."""


class Checked(NamedTuple):
    """What one index of a kind led to."""

    kind: str
    number: int
    outcomes: list[Outcome]


def check(seed: int, kind: str, index: int) -> Checked:
    """Make and check a problem; an exception is an outcome of its own."""
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), index])
    try:
        outcomes = KINDS[kind].check(rng)
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        outcomes = [Outcome(CRASH, (text,), False, _frames(error))]
    return Checked(kind, index, outcomes)


def _frames(error: BaseException) -> str:
    """Return the traceback by lines, without the folders of this machine."""
    frames = traceback.extract_tb(error.__traceback__)
    return "\n".join(f"{Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames)


def check_some(seed: int, kind: str, indices: range) -> list[Checked]:
    """Check several problems of a kind."""
    return [check(seed, kind, index) for index in indices]


def amounts(problems: int) -> dict[str, int]:
    """Return how many indices each kind gets."""
    return {name: math.ceil(problems * kind.share) for name, kind in KINDS.items()}


def run(seed: int, problems: int, processes: int = 2) -> list[Checked]:
    """Check all problems, side by side, with a line or a bar that says how far it is."""
    chunks = [
        (name, range(first, min(first + CHUNK, amount)))
        for name, amount in amounts(problems).items()
        for first in range(0, amount, CHUNK)
    ]
    checked: list[Checked] = []
    with tempfile.TemporaryDirectory() as programs, _advancing(sum(amounts(problems).values())) as advance:
        # one thread a process, and what one process compiles the other reads
        os.environ |= {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "JAX_COMPILATION_CACHE_DIR": programs,
        }
        os.environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        context = multiprocessing.get_context("spawn")
        with futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
            waiting = {pool.submit(check_some, seed, *chunk): chunk for chunk in chunks}
            for done in futures.as_completed(waiting):
                checked += _result(done, *waiting[done])
                advance(checked)
    return checked


def _result(done: futures.Future, kind: str, indices: range) -> list[Checked]:
    try:
        return done.result()
    except Exception as error:  # the process died
        return [Checked(kind, index, [Outcome(CRASH, (repr(error),), False)]) for index in indices]


class _advancing:  # noqa: N801
    """Shows a bar where the standard error is a terminal, and a line every tenth elsewhere."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task, self._total, self._said = self._bar.add_task("", total=total), total, 0
        self._started = time.perf_counter()

    def __enter__(self) -> Callable[[list[Checked]], None]:
        self._bar.start()
        return self.advance

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def advance(self, checked: list[Checked]) -> None:
        missed = sum(bool(outcome.misses) for found in checked for outcome in found.outcomes)
        self._bar.update(self._task, completed=len(checked), description=f"{missed} missed")
        if self._bar.disable and len(checked) * 20 // self._total > self._said:
            self._said = len(checked) * 20 // self._total
            seconds = time.perf_counter() - self._started
            print(
                f"{len(checked)} of {self._total}, {missed} missed, {seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )


# the record


def missed(checked: list[Checked]) -> Iterator[tuple[Checked, Outcome]]:
    """Yield what is wrong."""
    for found in sorted(checked, key=lambda c: (c.kind, c.number)):
        for outcome in found.outcomes:
            if outcome.misses:
                yield found, outcome


def records(checked: list[Checked]) -> list[dict[str, Any]]:
    """Return a record a kind, and one a miss."""
    by_kind = {name: [o for c in checked if c.kind == name for o in c.outcomes] for name in KINDS}
    summaries = [summary(name, outcomes) for name, outcomes in by_kind.items()]
    misses = [
        {
            "kind": c.kind,
            "index": c.number,
            "case": o.case,
            "misses": list(o.misses),
            "statement": o.statement,
        }
        for c, o in missed(checked)
    ]
    return summaries + misses


def summary(kind: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return counts, and for σ_min how sharp the intervals are."""
    crashes = sum(o.case == CRASH for o in outcomes)
    record = {
        "kind": kind,
        "problems": len(outcomes),
        "certified": sum(o.holds for o in outcomes),
        "missed": sum(bool(o.misses) for o in outcomes) - crashes,
        "crashed": crashes,
        "cases": dict(sorted(Counter(o.case for o in outcomes).items())),
    }
    if kind.startswith("sigma_min"):
        record |= sharpness(outcomes)
    tight = [o.facts["tight"] for o in outcomes if "tight" in o.facts]
    return record | ({"tightest": max(tight)} if tight else {})


def sharpness(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the share certified and the widths by decade of κ, and how near to a bound the truth came."""
    decades: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        kappa = outcome.facts.get("kappa", math.inf)
        if math.isfinite(kappa):
            decades.setdefault(int(math.log10(max(kappa, 1.0))), []).append(outcome)
    table = {}
    for decade, found in sorted(decades.items()):
        widths = [o.facts["width"] for o in found if "width" in o.facts]
        table[f"1e{decade}"] = {
            "problems": len(found),
            "certified": round(sum(o.holds for o in found) / len(found), 3),
            "worst_relative_width": max(widths, default=None),
        }
    edges = [o.facts["edge"] for o in outcomes if "edge" in o.facts]
    return {"by_condition_number": table, "nearest_to_a_bound": max(edges, default=None)}
