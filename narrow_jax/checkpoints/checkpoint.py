"""One checkpoint on the disk: written, flushed and renamed; read only if every byte of it is as it was."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from narrow_jax import _host
from narrow_jax.checkpoints import strict_json
from narrow_jax.checkpoints.leaves import Leaf, as_bits
from narrow_jax.checkpoints.manifest import Manifest

Step = int | np.integer


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or not be trusted; the message names the newest good step."""


def steps(folder: str | Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, damaged ones included, in ascending order."""
    names = (path.name.removeprefix("step-") for path in _host.path("folder", folder).glob("step-*"))
    return sorted(int(name) for name in names if name.isdecimal())


def remove_drafts(folder: Path) -> None:
    """Remove what was never renamed: the rest of a killed or failed save."""
    for draft in folder.glob("draft-*"):
        shutil.rmtree(draft, ignore_errors=True)


def offer(folder: Path, but: int | None = None) -> str:
    """Say which step of the folder is the newest good one."""
    for step in reversed(steps(folder)):
        if step != but and Checkpoint(folder, step).damage() is None:
            ways = f"restore: step={step}, Checkpoint: resume={step}, shell: --resume {step}"
            return f"the newest good step is {step} ({ways})"
    return "no good checkpoint is there"


def orbax() -> types.ModuleType:
    """Return the module ``orbax.checkpoint``, which not every user has."""
    try:
        return importlib.import_module("orbax.checkpoint")
    except ImportError as error:
        raise ImportError(
            f"checkpoints need Orbax, which is not installed ({error}): pip install 'narrow_jax[checkpoints]'"
        ) from error


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of a step of the run in ``folder``, or its draft.

    ``manifest.json`` holds the digests of all files below ``arrays/``, ``manifest.sha256`` its own, as sha256sum would
    write it. Together they cover every byte.
    """

    folder: Path
    step: int
    name: str = "step"

    @classmethod
    def chosen(cls, folder: Path, step: Step | None) -> Checkpoint:
        """Return the checkpoint of that step, of the newest for None."""
        found = steps(folder)
        if step is None and not found:
            raise CheckpointError(f"{folder} holds no checkpoint")
        step = found[-1] if step is None else step
        if step not in found:
            raise CheckpointError(f"{folder} holds no checkpoint of step {step}; {offer(folder)}")
        return cls(folder, int(step))

    def __str__(self) -> str:
        """Return where it is, for messages."""
        return f"step {self.step} in {self.folder}"

    @property
    def path(self) -> Path:
        """The folder ``step-00000040``, or ``draft-00000040``."""
        return self.folder / f"{self.name}-{self.step:08d}"

    @property
    def arrays(self) -> Path:
        """What Orbax writes and reads."""
        return self.path / "arrays"

    @property
    def manifest(self) -> Path:
        """The file that says what the arrays are."""
        return self.path / "manifest.json"

    @property
    def checksum(self) -> Path:
        """The file with the digest of the manifest."""
        return self.path / "manifest.sha256"

    def write(self, arrays: Iterable[np.ndarray], manifest: Manifest) -> None:
        """Write everything, and wait until it is on the disk, the names included."""
        self.path.mkdir()
        # Orbax refuses empty arrays, and trees of nothing else
        if tree := {str(i): as_bits(array) for i, array in enumerate(arrays) if array.size}:
            module = orbax()
            module.Checkpointer(module.PyTreeCheckpointHandler()).save(self.arrays.absolute(), tree)
        self.seal(manifest)
        for path in (self.path, *self.path.rglob("*")):
            _sync(path)

    def seal(self, manifest: Manifest) -> None:
        """Write the manifest, with the digests of the files, and then its own digest."""
        files = {str(path.relative_to(self.path)): _digest(path) for path in self._files()}
        text = strict_json.dumps(manifest._replace(files=files)._asdict(), indent=1)
        self.manifest.write_text(text + "\n")
        self.checksum.write_text(self._checksum_line())

    def publish(self) -> Path:
        """Give the draft its name, in the place of an earlier checkpoint of the step, which stays if that fails."""
        target, replaced = (
            Checkpoint(self.folder, self.step).path,
            self.path.with_name(f"{self.path.name}-replaced"),
        )
        if target.exists():
            target.rename(replaced)
        try:
            self.path.rename(target)
        except OSError:
            if replaced.exists():
                replaced.rename(target)
            raise
        _sync(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)
        return target

    def damage(self) -> str | None:
        """Return what is wrong with the files, None if all is well."""
        missing = [path.name for path in (self.manifest, self.checksum) if not path.is_file()]
        if missing:
            return f"is half-written: it has no {' and no '.join(missing)}"
        if self.checksum.read_bytes() != self._checksum_line().encode():
            return f"is damaged: {self.manifest.name} and {self.checksum.name} do not agree"
        for name, sha256 in json.loads(self.manifest.read_text())["files"].items():
            if not (self.path / name).is_file():
                return f"is damaged: {name} is missing"
            if _digest(self.path / name) != sha256:
                return f"is damaged: the SHA-256 of {name} is not the one in {self.manifest.name}"
        return None

    def verified(self) -> Manifest:
        """Return the manifest, after every byte of the files has been verified."""
        if damage := self.damage():
            raise CheckpointError(f"{self} {damage}; {offer(self.folder, but=self.step)}")
        return Manifest.read(self.manifest.read_text())

    def read(self, leaves: list[Leaf]) -> list[np.ndarray]:
        """Return the arrays, each verified once more: Orbax might return others than it was given."""
        module, stored = orbax(), {str(i): leaf for i, leaf in enumerate(leaves) if 0 not in leaf.shape}
        as_numpy = module.args.PyTreeRestore(
            restore_args={name: module.RestoreArgs(restore_type=np.ndarray) for name in stored}
        )
        handler = module.Checkpointer(module.PyTreeCheckpointHandler())
        found = handler.restore(self.arrays.absolute(), args=as_numpy) if stored else {}
        for name, leaf in stored.items():
            if Leaf.digest(found[name]) != leaf.sha256:
                raise CheckpointError(
                    f"{self} is damaged: Orbax returned other numbers for {leaf.name} than were saved; "
                    f"{offer(self.folder, but=self.step)}"
                )
        return [leaf.array(found.get(str(i))) for i, leaf in enumerate(leaves)]

    def _files(self) -> Iterator[Path]:
        return (path for path in sorted(self.arrays.rglob("*")) if path.is_file())

    def _checksum_line(self) -> str:
        """Return the line that sha256sum would write for the manifest."""
        return f"{_digest(self.manifest)}  {self.manifest.name}\n"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
