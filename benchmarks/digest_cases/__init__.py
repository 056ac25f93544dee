"""The cases of ``benchmarks.digests``: each module enters its own into the table when it is imported."""

from benchmarks.digest_cases import (
    certificates,
    command_line,
    constrained,
    files,
    messages,
    parts,
    products,
    sigma_min,
    solvers,
    training,
)
from benchmarks.digest_cases.given import CASES, FOLDER

__all__ = [
    "CASES",
    "FOLDER",
    "certificates",
    "command_line",
    "constrained",
    "files",
    "messages",
    "parts",
    "products",
    "sigma_min",
    "solvers",
    "training",
]
