"""Print the XLA flags under which tests compile fast: those of the list that this version of XLA knows.

Tests compile more than they compute: a quarter of the time for code that nobody optimised. A flag that XLA does not
know ends the process, so each is tried in one of its own.
"""

import os
import subprocess
import sys

FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def accepted(*flags: str) -> bool:
    """Return whether XLA starts with these flags."""
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags)}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def known(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Return the flags that XLA knows: all at once where it does, else one by one."""
    return flags if accepted(*flags) else tuple(flag for flag in flags if accepted(flag))


if __name__ == "__main__":
    print(" ".join(known(FLAGS)))
