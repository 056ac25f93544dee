"""The files of one checkpoint: a manifest with the SHA-256 of each, and what is wrong with them.

``manifest.json`` holds the digests of all files below ``arrays/``, ``manifest.sha256`` its own, as sha256sum would
write it. Together they cover every byte.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from narrow_jax.checkpoints import strict_json

ARRAYS, MANIFEST, CHECKSUM = "arrays", "manifest.json", "manifest.sha256"


def digest(array: np.ndarray) -> str:
    """Return the SHA-256 of the array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def _digest_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(checkpoint: Path) -> dict[str, Path]:
    found = sorted(path for path in (checkpoint / ARRAYS).rglob("*") if path.is_file())
    return {str(path.relative_to(checkpoint)): path for path in found}


def write(draft: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the digests of the files, and then its own digest."""
    manifest["files"] = {name: _digest_file(path) for name, path in _files(draft).items()}
    (draft / MANIFEST).write_text(strict_json.dumps(manifest, indent=1) + "\n")
    (draft / CHECKSUM).write_text(_checksum(draft))


def _checksum(checkpoint: Path) -> str:
    """Return the line that sha256sum would write for the manifest."""
    return f"{_digest_file(checkpoint / MANIFEST)}  {MANIFEST}\n"


def flush(draft: Path) -> None:
    """Wait until everything below is on the disk, the names included."""
    for path in (draft, *draft.rglob("*")):
        sync(path)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def damage(checkpoint: Path) -> str | None:
    """Return what is wrong with the files of a checkpoint, None if all is well."""
    missing = [name for name in (MANIFEST, CHECKSUM) if not (checkpoint / name).is_file()]
    if missing:
        return f"is half-written: it has no {' and no '.join(missing)}"
    if (checkpoint / CHECKSUM).read_bytes() != _checksum(checkpoint).encode():
        return f"is damaged: {MANIFEST} and {CHECKSUM} do not agree"
    expected = json.loads((checkpoint / MANIFEST).read_text())["files"]
    for name, sha256 in expected.items():
        if not (checkpoint / name).is_file():
            return f"is damaged: {name} is missing"
        if _digest_file(checkpoint / name) != sha256:
            return f"is damaged: the SHA-256 of {name} is not the one in {MANIFEST}"
    return None


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the fields of a config by their names, those of inner dictionaries after the outer name."""
    if not isinstance(config, dict):
        return {prefix.strip(): config}
    parts = (flat(value, f"{prefix} {name}") for name, value in config.items())
    return {name: value for part in parts for name, value in part.items()}


def differences(saved: Mapping[str, Any], given: Mapping[str, Any], where: str = "given") -> str:
    """Return in words which fields differ."""
    return "; ".join(
        f"{name}: saved {saved.get(name, 'nothing')}, {where} {given.get(name, 'nothing')}"
        for name in {**saved, **given}
        if json.dumps(saved.get(name)) != json.dumps(given.get(name))
    )
