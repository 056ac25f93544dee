"""What lets a run of ``fit`` survive: where it goes on from, when it is saved, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _progress, checkpoints
from narrow_jax._typing import Array, HostArray, Key, Params
from narrow_jax.checkpoints import CheckpointError
from narrow_jax.data import Stream
from narrow_jax.losses import Loss
from narrow_jax.training.loop import Problem

History = dict[str, np.ndarray]


class Saver(NamedTuple):
    """The checkpoints of one run: their folder, the steps between them (0: every chunk), what made the run."""

    folder: Path
    every: int
    resume: bool | int
    config: dict[str, Any]

    def restore(self, state: Any) -> tuple[Any, History]:
        """Return the state and the history to go on from, those of step 0 for a new run; then make and try the folder.

        Raises:
            CheckpointError: nothing was said of resuming and there are checkpoints, they cannot be used, or the folder
                cannot be written.
            ImportError: Orbax is not installed.
        """
        begin = self._begin(state)
        checkpoints.prepare(self.folder)
        return begin

    def _begin(self, state: Any) -> tuple[Any, History]:
        found = checkpoints.steps(self.folder)
        if self.resume is False and found:
            raise CheckpointError(
                f"{self.folder} holds checkpoints up to step {found[-1]}: go on from there (fit: resume=True, "
                "shell: --resume), or choose another folder"
            )
        if self.resume is False:
            return state, {}
        if self.resume is True and not found:
            _progress.say(f"nothing to resume in {self.folder}: the run begins at step 0")
            return state, {}
        restored = checkpoints.restore(
            self.folder, state, self.config, None if self.resume is True else self.resume
        )
        return jax.tree.map(jnp.copy, restored.state), restored.history  # a copy: chunks donate their state

    def save(self, step: int, state: Any, history: History) -> None:
        """Write the checkpoint of this step."""
        checkpoints.save(self.folder, step, state, self.config, history)

    def farewell(self, step: int, steps: int) -> str:
        """Return what to tell whoever pressed Ctrl-C."""
        return f"step {step} of {steps} is saved in {self.folder}: go on from there (fit: resume=True, shell: --resume)"


def saver(folder: str | Path | None, every: Any, resume: Any, config: Mapping[str, Any]) -> Saver | None:
    """Return what saves a run, None if no folder is given; nothing is made yet.

    Raises:
        ValueError, TypeError: options of checkpoints without a folder for them, a config that JSON cannot hold.
    """
    if folder is None:
        if every is not None or resume is not False:
            raise ValueError("save_every and resume speak of checkpoints: pass checkpoint=folder too")
        return None
    every = 0 if every is None else _checks.count("save_every", every)
    resume = bool(resume) if isinstance(resume, bool | np.bool_) else _checks.count("resume", resume)
    return Saver(Path(folder).expanduser(), every, resume, {"config": checkpoints.as_json(config)})


def record_file(path: str | Path | None, resume: Any) -> Path | None:
    """Return the file of the records, a new one unless the run goes on with its checkpoints.

    Raises:
        FileExistsError: it holds records, which would be lost.
    """
    if path is None:
        return None
    path = Path(path).expanduser()
    if not resume and path.is_file() and path.stat().st_size:
        raise FileExistsError(
            f"record {path} holds another run's records already: choose another file, or remove it"
        )
    return path


def describe(
    problem: Problem,
    loss: str | Loss,
    key: Key[Array, ""] | None,
    start: tuple[Params, Any, Any],
    data: tuple[HostArray, HostArray],
    stream: Stream | None,
    evaluation: tuple[HostArray, HostArray] | None,
    **plain: int | None,
) -> dict[str, Any]:
    """Return what a run depends on, as JSON can hold it: numbers, names, and fingerprints of arrays.

    Of a stream ``data`` are the samples that training is measured on.
    """
    return {
        **plain,
        "loss": _name(loss),
        "augment": _name(problem.augment),
        "monitors": [monitor.name for monitor in problem.monitors],
        "metrics": [name for name, _ in problem.metrics],
        "key": None if key is None else jax.random.key_data(key).tolist(),
        "start": checkpoints.fingerprint(start),
        "stream": None
        if stream is None
        else {"x": stream.fingerprint(), "y": checkpoints.described(stream.y)},
        "data set": _fingerprints(data),
        "evaluation": None if evaluation is None else _fingerprints(evaluation),
    }


def _fingerprints(data: tuple[HostArray, HostArray]) -> dict[str, str]:
    x, y = data
    return {"x": checkpoints.described(x), "y": checkpoints.described(y)}


def _name(function: Callable[..., Any] | str | None) -> str | None:
    if function is None or isinstance(function, str):
        return function
    if isinstance(function, partial):
        arguments = [*map(str, function.args), *(f"{k}={v}" for k, v in sorted(function.keywords.items()))]
        return f"{_name(function.func)}({', '.join(arguments)})"
    return getattr(function, "__qualname__", type(function).__name__)


@contextmanager
def ctrl_c_held_back(wanted: bool) -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C sets instead of interrupting; the second one interrupts.

    Only Python's own handler is replaced, and only where Python can: in the main thread.
    """
    asked = threading.Event()
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not (wanted and own and threading.current_thread() is threading.main_thread()):
        yield asked
        return

    def handler(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt("left at once: of this run there is what was saved before, if anything")
        asked.set()
        with suppress(OSError):  # print may not be called from within a print that the signal interrupts
            os.write(2, b"Ctrl-C: saving after this chunk; press it again to leave at once\n")

    signal.signal(signal.SIGINT, handler)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
