"""``narrow-jax completion``."""

from __future__ import annotations

import argparse

from narrow_jax.cli.command import Answer


def run(args: argparse.Namespace) -> Answer:
    """Return the script of that shell."""
    try:
        import shtab
    except ImportError as error:
        raise ImportError(f"completion needs shtab ({error}): pip install 'narrow_jax[shell]'") from error
    from narrow_jax.cli import parser

    script = shtab.complete(parser(), shell=args.shell)
    return Answer(True, {"shell": args.shell, "script": script}, [script])
