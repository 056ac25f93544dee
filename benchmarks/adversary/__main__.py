"""Random and hill-climbed problems against everything that is certified, with references of 150 digits and integers.

Command:  python -m benchmarks.adversary [--problems 3000] [--seed 0]
          python -m benchmarks.adversary --seed 0 --only kkt:17   (one problem again)
Expected: 0 missed, 0 crashed; exit status 1 and a reproducer otherwise.
Cost:     two processes, about 0.2 s of processor time a problem and 60 s for compilation: 6 minutes on two free cores.
Half of the problems are single intervals of σ_min, a quarter are climbed, a quarter are under jit and vmap; of each
certificate there are a tenth as many, some with several answers each.
Writes:   benchmarks/results/adversary.json
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from benchmarks import _timing
from benchmarks.adversary import campaign
from benchmarks.adversary.campaign import Checked
from benchmarks.adversary.outcome import Outcome


def reproducer(seed: int, found: Checked, outcome: Outcome) -> str:
    """Return what is wrong, and how to see it again."""
    command = f"python -m benchmarks.adversary --seed {seed} --only {found.kind}:{found.number}"
    return f"{command}  # {outcome.case}\n  " + "\n  ".join(outcome.misses) + f"\n{outcome.statement}"


def again(seed: int, only: str) -> int:
    """Check one problem again and print what comes of it."""
    kind, index = only.rsplit(":", 1)
    found = campaign.check(seed, kind, int(index))
    for outcome in found.outcomes:
        print(
            f"{outcome.case}: {'missed' if outcome.misses else 'right'}, certified: {outcome.holds}, {outcome.facts}"
        )
        if outcome.misses:
            print(reproducer(seed, found, outcome))
    return int(any(outcome.misses for outcome in found.outcomes))


def report(seed: int, checked: list[Checked]) -> int:
    """Print every miss in a line and the shortest of each kind in full; return how many there are."""
    misses = list(campaign.missed(checked))
    for found, outcome in misses:
        print(f"--only {found.kind}:{found.number}  {outcome.case}: {outcome.misses[0]}")
    for kind in campaign.KINDS:
        here = [(found, outcome) for found, outcome in misses if found.kind == kind]
        if here:
            print("\n" + reproducer(seed, *min(here, key=lambda miss: len(miss[1].statement))))
    return len(misses)


def main() -> int:
    """Run the campaign, print and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=3000, help="problems of σ_min")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="KIND:INDEX", help="one problem again, nothing written")
    args = parser.parse_args()
    if args.only:
        return again(args.seed, args.only)
    started = time.perf_counter()
    checked = campaign.run(args.seed, args.problems)
    seconds = round(time.perf_counter() - started, 1)
    records = campaign.records(checked)
    total: dict[str, Any] = {"seed": args.seed, "seconds": seconds}
    total |= {
        name: sum(r.get(name, 0) for r in records) for name in ("problems", "certified", "missed", "crashed")
    }
    _timing.table(records[: len(campaign.KINDS)], ("kind", "problems", "certified", "missed", "crashed"))
    wrong = report(args.seed, checked)
    command = f"python -m benchmarks.adversary --problems {args.problems} --seed {args.seed}"
    print(
        f"\n{total}\nwritten: {_timing.write('adversary', command, [total, *records], 'mpmath', 'numpy', 'scipy')}"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
