"""The command line: ``narrow-jax train | spectrum | memorize | certify``.

Exit status: 0 done, 1 the answer is no (diverged, not certified), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from typing import Any

from narrow_jax.cli import certify, memorize, spectrum, train


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    args = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = partial(_show, args.command)
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        return args.run(args)
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        print(f"narrow-jax {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        what = str(interrupt) or "what was not written yet is lost"
        print(f"narrow-jax {args.command}: interrupted; {what}", file=sys.stderr)
        return 130


def _show(command: str, message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Say what is meant for whoever called the command in one sentence, without a line of source."""
    if issubclass(category, UserWarning):
        print(f"narrow-jax {command}: note: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, *where[:2]), end="", file=sys.stderr)


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
