"""The command line: ``narrow-jax train | spectrum | memorize | certify``.

Exit status: 0 done, 1 the answer is no (diverged, not certified), 2 bad input, 130 interrupted. JAX is loaded once the
options are known: help and what is misspelt are answered at once.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

from narrow_jax.cli.commands import COMMANDS, THEOREMS
from narrow_jax.cli.train_config import refused

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    args = parser().parse_args(argv)
    if wrong := refused(args):
        print(f"narrow-jax {args.command}: {wrong}", file=sys.stderr)
        return 2
    _keep_compiled_programs()
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = partial(_show, args.command)
        return _run(args)


def script() -> None:
    """Run as a process. After Ctrl-C it ends at once: Python's own end would meet threads of JAX that still compile."""
    status = main()
    if status == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _keep_compiled_programs() -> None:
    """Let JAX keep what it compiles in the user's cache folder, unless it is told another or none can be made."""
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "narrow_jax" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _run(args: argparse.Namespace) -> int:
    from narrow_jax.checkpoints import strict_json

    try:
        answer = pkgutil.resolve_name(f"narrow_jax.cli.{args.run}")(args)
        print(strict_json.dumps(answer.record) if args.json else "\n".join(answer.lines))
        return 0 if answer.yes else 1
    except (ValueError, TypeError, OSError, ImportError, MemoryError, RuntimeError) as error:
        print(f"narrow-jax {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        what = str(interrupt) or "what was not written yet is lost"
        print(f"narrow-jax {args.command}: interrupted; {what}", file=sys.stderr)
        return INTERRUPTED


def _show(
    command: str, message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: object
) -> None:
    """Say what is meant for whoever called the command in one sentence, without a line of source."""
    if issubclass(category, UserWarning):
        print(f"narrow-jax {command}: note: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno), end="", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="narrow-jax",
        description="Train and understand narrow neural networks.",
        epilog="Exit status: 0 done, 1 the answer is no (diverged, not certified), 2 bad input, "
        "130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"narrow-jax {metadata.version('narrow_jax')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    theorems = commands.add_parser(
        "certify",
        help="check a theorem on a net and its data",
        description="Check a theorem on a net and its data. Exit status 1 if it does not hold.",
    )
    kinds = theorems.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind in THEOREMS:
        kind.add(kinds)
    return parser
