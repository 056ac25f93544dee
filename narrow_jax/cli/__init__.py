"""The command line: ``narrow-jax train | spectrum | memorize | certify``.

Exit status: 0 done, 1 the answer is no (diverged, not certified), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata

from narrow_jax.cli import certify, memorize, spectrum, train


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        print(f"narrow-jax {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        what = str(interrupt) or "what was not written yet is lost"
        print(f"narrow-jax {args.command}: interrupted; {what}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="narrow-jax",
        description="Train and understand narrow neural networks.",
        epilog="Exit status: 0 done, 1 the answer is no (diverged, not certified), 2 bad input, "
        "130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"narrow-jax {metadata.version('narrow_jax')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, spectrum, memorize, certify):
        command.add(commands)
    return parser
