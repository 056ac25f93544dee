"""What lets a run of ``fit`` survive: where it goes on from, when it is saved, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _printing, checkpoints
from narrow_jax.checkpoints import CheckpointError
from narrow_jax.data import Stream
from narrow_jax.training.loop import Batch, History, Inputs, Observer, Problem, State, Told
from narrow_jax.training.model import Start


class Saver(NamedTuple):
    """The checkpoints that a run is to have: their folder, the steps between them (0: every chunk), a user's config."""

    folder: Path
    every: int
    resume: bool | int
    config: dict[str, Any]

    def begin(
        self, state: State, depends_on: Mapping[str, Any], steps: int
    ) -> tuple[State, History, Observer]:
        """Return the state and the history to go on from, those of step 0 for a new run, and the observer that saves.

        The folder is made and tried.

        Raises:
            CheckpointError: nothing was said of resuming and there are checkpoints, they cannot be used, or the folder
                cannot be written.
            ImportError: Orbax is not installed.
        """
        config = {"config": self.config, **depends_on}
        state, history = self._restored(state, config)
        checkpoints.prepare(self.folder)
        return state, history, self._saving(config, steps)

    def _restored(self, state: State, config: dict[str, Any]) -> tuple[State, History]:
        found = checkpoints.steps(self.folder)
        if self.resume is False and found:
            raise CheckpointError(
                f"{self.folder} holds checkpoints up to step {found[-1]}: go on from there (fit: resume=True, "
                "shell: --resume), or choose another folder"
            )
        if self.resume is False:
            return state, {}
        if self.resume is True and not found:
            _printing.say(f"nothing to resume in {self.folder}: the run begins at step 0")
            return state, {}
        step = None if self.resume is True else self.resume
        restored = checkpoints.restore(self.folder, state, config, step)
        return jax.tree.map(jnp.copy, restored.state), restored.history  # a copy: chunks donate their state

    @contextmanager
    def _saving(self, config: dict[str, Any], steps: int) -> Iterator[Callable[[Told], None]]:
        """Save after each chunk; Ctrl-C ends the run after that."""
        with _ctrl_c_held_back() as interrupted:

            def save(told: Told) -> None:
                checkpoints.save(self.folder, told.step, told.state, config, told.history)
                if interrupted.is_set():
                    raise KeyboardInterrupt(
                        f"step {told.step} of {steps} is saved in {self.folder}: go on from there (fit: resume=True, "
                        "shell: --resume)"
                    )

            yield save


def saver(
    folder: str | Path | None, every: object, resume: object, config: Mapping[str, Any]
) -> Saver | None:
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
    return Saver(Path(folder).expanduser(), every, resume, checkpoints.as_json(config))


def describe(
    problem: Problem, start: Start, inputs: Inputs, stream: Stream | None, **plain: int
) -> dict[str, Any]:
    """Return what a run depends on, as JSON can hold it: numbers, names, and fingerprints of arrays."""

    def fingerprints(data: Batch | None) -> dict[str, str] | None:
        return data and dict(zip("xy", map(checkpoints.described, data), strict=True))

    return {
        **plain,
        "batch_size": problem.batch_size,
        "devices": problem.devices and problem.devices.mesh.size,
        "loss": _name(problem.loss),
        "augment": _name(problem.augment),
        "monitors": [monitor.name for monitor in problem.monitors],
        "metrics": [name for name, _ in problem.metrics],
        "key": None if inputs.key is None else jax.random.key_data(inputs.key).tolist(),
        "start": checkpoints.fingerprint(tuple(start)),  # its leaves are named by their numbers
        "stream": stream and {"x": stream.fingerprint(), "y": checkpoints.described(stream.y)},
        "data set": fingerprints(inputs.data),
        "evaluation": fingerprints(inputs.evaluation),
    }


def _name(function: Callable[..., object] | None) -> str | None:
    if function is None:
        return None
    if isinstance(function, partial):
        arguments = [*map(str, function.args), *(f"{k}={v}" for k, v in sorted(function.keywords.items()))]
        return f"{_name(function.func)}({', '.join(arguments)})"
    return getattr(function, "__qualname__", type(function).__name__)


@contextmanager
def _ctrl_c_held_back() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C sets instead of interrupting; the second one interrupts.

    Only Python's own handler is replaced, and only where Python can: in the main thread.
    """
    asked = threading.Event()
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not (own and threading.current_thread() is threading.main_thread()):
        yield asked
        return

    def handler(signum: int, frame: FrameType | None) -> None:
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
