"""What the first call of a process takes: importing, tracing, compiling and the work; no compiled program is kept.

Command:  python -m benchmarks.first_call
Expected: σ_min at most 1 s, ``memorize`` 2 s, another shape 0.3 s, the import 0.2 s over that of jax, flax and optax,
          help and messages of the command line 0.3 s.
Cost:     a minute on two free cores.
Writes:   benchmarks/results/first_call.json
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from benchmarks import _timing

REPEATS = 3

_PROBLEM = """
import jax, numpy as np, narrow_jax as nj
rng = np.random.default_rng(0)
x = rng.standard_normal((300, 20))
params = {"w": rng.standard_normal((20, 60)) / np.sqrt(20), "v": rng.standard_normal((30, 1))}
y = rng.choice([-1.0, 1.0], (200, 1))
jax.random.key(0)
"""


class First(NamedTuple):
    """A first call: what comes before it in the process, the call, and the seconds that are aimed at."""

    what: str
    before: str
    call: str
    goal: float


class Taken(NamedTuple):
    """Seconds that passed, and those of all processors together, which other work on the machine hardly changes."""

    seconds: float
    of_processors: float


CALLS = (
    First("import narrow_jax, over jax, flax, optax", "import jax, flax, optax", "import narrow_jax", 0.2),
    First("sigma_min, 300 × 1,200", _PROBLEM, "nj.sigma_min(nj.jacobian.pairwise(params, x))", 1.0),
    First(
        "the same for another shape, 299 × 1,200",
        f"{_PROBLEM}nj.sigma_min(nj.jacobian.pairwise(params, x))",
        "nj.sigma_min(nj.jacobian.pairwise(params, x[1:]))",
        0.3,
    ),
    First(
        "sigma_min, 5 × 11 after 5 × 10",
        f"{_PROBLEM}nj.sigma_min(nj.jacobian.explicit(x[:5, :10]))",
        "nj.sigma_min(nj.jacobian.explicit(x[:5, :11]))",
        0.3,
    ),
    First(
        "singular_values, 300 × 1,200", _PROBLEM, "nj.singular_values(nj.jacobian.pairwise(params, x))", 1.0
    ),
    First(
        "memorize, 200 samples, 30 neurons", _PROBLEM, "nj.memorize(jax.random.key(0), x[:200], y, 30)", 2.0
    ),
)
COMMANDS = (("--help",), ("train", "--help"), ("trian",), ("train", "--wdith", "8"))
AT_ONCE = 0.3
"""The seconds that help and messages of the command line may take."""


def seconds_of(call: First) -> Taken:
    """Return what a call takes in a process of its own."""
    clocks = "np.array([time.perf_counter(), time.process_time()])"
    code = f"{call.before}\nimport time, numpy as np\nt = {clocks}\n{call.call}\nprint(*({clocks} - t))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_without_cache()
    )
    return Taken(*map(float, done.stdout.splitlines()[-1].split()))


def seconds_of_command(words: tuple[str, ...]) -> Taken:
    """Return what a command takes, the start of Python included."""
    started, before = time.perf_counter(), _of_children()
    command = [sys.executable, "-m", "narrow_jax.cli", *words]
    subprocess.run(command, capture_output=True, check=False, env=_without_cache())
    return Taken(time.perf_counter() - started, _of_children() - before)


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _without_cache() -> dict[str, str]:
    return os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_PLATFORMS": "cpu"}


def _record(what: str, goal: float, measure: Callable[[], Taken]) -> dict[str, Any]:
    taken = [measure() for _ in range(REPEATS)]
    return {
        "what": what,
        "seconds": round(statistics.median(each.seconds for each in taken), 3),
        "fastest": round(min(each.seconds for each in taken), 3),
        "of_processors": round(min(each.of_processors for each in taken), 3),
        "goal": goal,
    }


def main() -> None:
    """Measure, print and write."""
    records = [_record(call.what, call.goal, partial(seconds_of, call)) for call in CALLS]
    records += [
        _record(f"narrow-jax {' '.join(words)}", AT_ONCE, partial(seconds_of_command, words))
        for words in COMMANDS
    ]
    _timing.table(records, ("what", "seconds", "fastest", "of_processors", "goal"))
    print(
        "written:", _timing.write("first_call", "python -m benchmarks.first_call", records, "scipy", "flax")
    )


if __name__ == "__main__":
    main()
