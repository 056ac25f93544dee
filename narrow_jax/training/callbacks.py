"""Callbacks: what a run of ``nj.fit`` tells its user between chunks of steps, and how it is stopped, kept, gone on
with.

A callback has three methods, and subclasses of ``Callback`` write those that they need. They run on the host between
compiled chunks, never inside; a run without callbacks does nothing for them. For Weights & Biases:

    class Wandb(nj.callbacks.Callback):
        def start(self, run):
            self.log = wandb.init(project="narrow")

        def record(self, told):
            for line in told.lines():
                self.log.log(line, step=line["step"])

        def end(self, result):
            self.log.finish()
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, _host, _printing, checkpoints
from narrow_jax._typing import Params, Tree
from narrow_jax.checkpoints import CheckpointError, strict_json
from narrow_jax.models import Model, save_outline
from narrow_jax.training.interrupting import ctrl_c_held_back
from narrow_jax.training.result import FitResult
from narrow_jax.training.state import History, State
from narrow_jax.training.telling import Callback, CallbackError, Progress, Run, Told

__all__ = [
    "Best",
    "Callback",
    "CallbackError",
    "Checkpoint",
    "EarlyStopping",
    "Progress",
    "Record",
    "Run",
    "TensorBoard",
    "Told",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


class Record(Callback):
    """A file that gets one JSON line a record.

    Args:
        path: the file; one that holds records of another run is an error, unless the run resumes.

    Raises:
        FileExistsError: it holds records, which would be lost.
        OSError: it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        """Keep the path."""
        self.path = _host.path("path", path)

    def start(self, run: Run) -> None:
        """Open the file; of a run that goes on the earlier records come first."""
        if not run.resumes and self.path.is_file() and self.path.stat().st_size:
            raise FileExistsError(
                f"record {self.path} holds another run's records already: choose another file, or remove it"
            )
        try:
            self._file: IO[str] = self.path.open("w")
        except OSError as error:
            raise OSError(
                f"record {self.path} cannot be written ({error}): choose another place, or make the folder"
            ) from error
        self._write(strict_json.lines_of(run.history))

    def record(self, told: Told) -> None:
        """Write the records."""
        self._write(told.lines())

    def end(self, result: FitResult | None) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, lines: Iterator[dict[str, Any]]) -> None:
        self._file.writelines(json.dumps(line) + "\n" for line in lines)
        self._file.flush()


class Checkpoint(Callback):
    """Checkpoints of a run, from which it goes on to end bit for bit as one that nobody stopped.

    Ctrl-C finishes the chunk of steps that is running, saves, and raises KeyboardInterrupt. ``nj.load(folder)`` is the
    model with the weights of the newest checkpoint, at any time and without the data.

    Args:
        folder: where to (it needs the extra ``checkpoints``); made if it is not there.
        every: steps between checkpoints, rounded up to records and at least two of them; by default and at most a 25th
            of the run. The numbers do not depend on it.
        keep: how many checkpoints stay, the newest ones.
        resume: True goes on from the newest checkpoint in the folder, or begins where there is none yet, and says so;
            a number goes on from the checkpoint of that step.
        config: whatever else made the run, such as the learning rate, as JSON can hold it. It is saved, and compared
            on resuming. So are the start with ``opt_state``, the data (``nj.data.Stream.fingerprint``), the number of
            devices, key, steps, every, batch_size, and the names of loss, augmentation, monitors and metrics. What
            ``apply_fn``, ``tx`` and other functions hold inside is not seen: it belongs in here.

    Raises:
        ValueError, TypeError: a number below 1, or a config that JSON cannot hold.
        CheckpointError: (a ValueError) when the run starts: there are checkpoints and nothing was said of resuming,
            they are damaged or of another run, or the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        every: Any = None,
        keep: int = checkpoints.KEEP,
        resume: Any = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the options; nothing is made yet."""
        self.folder = _host.path("folder", folder)
        self.every = 0 if every is None else _checks.count("every", every)
        self.keep = _checks.count("keep", keep)
        self.resume = bool(resume) if isinstance(resume, bool | np.bool_) else _checks.count("resume", resume)
        self.config = checkpoints.as_json(config or {})

    def start(self, run: Run) -> Run:
        """Return the run from where it goes on."""
        self._steps, self._config = run.steps, {"config": self.config, **run.depends_on()}
        self._model_of, self._outlined = run.model_of, False
        state, history = self._restored(run.state)
        checkpoints.prepare(self.folder)
        self._stack = ExitStack()
        self._interrupted = self._stack.enter_context(ctrl_c_held_back())
        run = run._replace(state=state, history=history, resumes=self.resume is not False)
        return run.looked_at(-(-self.every // run.every)) if self.every else run

    def record(self, told: Told) -> None:
        """Save; Ctrl-C ends the run after that."""
        if not self._outlined:
            save_outline(self.folder, self._model_of(told.state))
            self._outlined = True
        checkpoints.save(self.folder, told.step, told.state, self._config, told.history, keep=self.keep)
        if self._interrupted.is_set():
            raise KeyboardInterrupt(
                f"step {told.step} of {self._steps} is saved in {self.folder}: go on from there (Checkpoint: "
                "resume=True, shell: --resume)"
            )

    def end(self, result: FitResult | None) -> None:
        """Give Ctrl-C back."""
        self._stack.close()

    def _restored(self, state: State) -> tuple[State, History]:
        found = checkpoints.steps(self.folder)
        if self.resume is False and found:
            raise CheckpointError(
                f"{self.folder} holds checkpoints up to step {found[-1]}: go on from there (Checkpoint: resume=True, "
                "shell: --resume), or choose another folder"
            )
        if self.resume is False:
            return state, {}
        if self.resume is True and not found:
            _printing.say(f"nothing to resume in {self.folder}: the run begins at step 0")
            return state, {}
        step = None if self.resume is True else self.resume
        restored = checkpoints.restore(self.folder, state, self._config, step)
        return jax.tree.map(jnp.copy, restored.state), restored.history  # a copy: chunks donate their state


class _Watching(Callback):
    """One that looks at an entry of the history: the less the better, of an accuracy the more."""

    def __init__(self, entry: str, mode: str | None) -> None:
        if not isinstance(entry, str):
            raise TypeError(
                f"entry is a {type(entry).__name__}; expected the name of an entry of the history, such as 'test_loss'"
            )
        self.entry = entry
        self.mode = mode or ("max" if "accuracy" in entry else "min")
        _checks.choice("mode", self.mode, ("min", "max"))

    def start(self, run: Run) -> Run:
        """Return the run, looked at often."""
        return run.looked_at(2)

    def _values(self, records: History) -> np.ndarray:
        """Return the entry, the less the better; NaN is worst."""
        _checks.choice("entry of the history", self.entry, [name for name in records if name != "step"])
        values = np.asarray(records[self.entry], float) * (1 if self.mode == "min" else -1)
        return np.where(np.isnan(values), np.inf, values)


class EarlyStopping(_Watching):
    """Stops a run when an entry of its history no longer gets better.

    It looks after every second record. Of a run that goes on the earlier records count.

    Args:
        entry: such as "test_loss", "test_accuracy", "loss".
        patience: so many records in a row may bring nothing better.
        min_delta: by how much a record must be better to count.
        mode: "min" or "max"; None: accuracies are to rise, all else is to fall.

    Raises:
        ValueError: a number out of range; in the run, no such entry (close matches are named).
    """

    def __init__(
        self, entry: str = "test_loss", patience: int = 10, min_delta: float = 0.0, mode: str | None = None
    ) -> None:
        """Check the options."""
        super().__init__(entry, mode)
        self.patience = _checks.count("patience", patience)
        if not isinstance(min_delta, int | float | np.number) or not 0 <= min_delta < math.inf:
            raise ValueError(f"min_delta is {min_delta!r}; expected a finite number ≥ 0")
        self.min_delta = min_delta

    def record(self, told: Told) -> bool:
        """Return whether the newest records were in vain."""
        best, waited = math.inf, 0
        for value in self._values(told.history):
            better = value < best - self.min_delta
            best, waited = (value, 0) if better else (best, waited + 1)
            if waited >= self.patience:
                return True
        return False


class Best(_Watching):
    """Keeps the weights of the best record that it saw: it looks after every second one.

    Args:
        entry: such as "test_loss", "test_accuracy", "loss".
        mode: "min" or "max"; None: accuracies are to rise, all else is to fall.

    Attributes:
        model: the model with these weights, after the run; None before.
        step: their step.
        value: the entry there.
    """

    def __init__(self, entry: str = "test_loss", mode: str | None = None) -> None:
        """Check the options."""
        super().__init__(entry, mode)
        self.model: Model | None = None
        self.step, self.value = 0, math.nan

    def start(self, run: Run) -> Run:
        """Forget an earlier run."""
        self.model, self.step, self.value = None, 0, math.nan
        self._least = math.inf
        self._kept: tuple[Params, Tree] | None = None
        return super().start(run)

    def record(self, told: Told) -> None:
        """Keep the weights if they are the best so far."""
        newest = float(self._values(told.records)[-1])
        if newest < self._least:
            self._least, self.step, self.value = newest, told.step, float(told.records[self.entry][-1])
            self._kept = jax.tree.map(jnp.copy, (told.state.params, told.state.model_state))

    def end(self, result: FitResult | None) -> None:
        """Make the model."""
        if result is not None and self._kept is not None:
            params, state = self._kept
            self.model = dataclasses.replace(result.model, params=params, model_state=state)


class TensorBoard(Callback):
    """Writes the records for TensorBoard (the extra ``tensorboard``).

    Args:
        folder: of the event files, one a run.

    Raises:
        ImportError: tensorboardX is not installed.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        """Keep the folder."""
        self.folder = _host.path("folder", folder)

    def start(self, run: Run) -> None:
        """Open an event file; of a run that goes on the earlier records come first."""
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                f"TensorBoard needs tensorboardX ({error}): pip install 'narrow_jax[tensorboard]'"
            ) from error
        try:
            self._writer = SummaryWriter(str(self.folder))
        except OSError as error:
            raise OSError(
                f"TensorBoard cannot write to {self.folder} ({error}): choose another folder"
            ) from error
        self._write(strict_json.lines_of(run.history))

    def record(self, told: Told) -> None:
        """Write the records."""
        self._write(told.lines())

    def end(self, result: FitResult | None) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, lines: Iterator[dict[str, Any]]) -> None:
        for line in lines:
            for name, value in line.items():
                if name != "step" and value is not None:
                    self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()


def checked(callbacks: object) -> list[Callback]:
    """Return the callbacks of a run, a progress bar for None, checkpoints first: they say where the run begins.

    Raises:
        TypeError: something else than a list of callbacks.
        ValueError: more than one that says where the run begins.
    """
    if callbacks is None:
        return [Progress()]
    if not isinstance(callbacks, Sequence):
        raise TypeError(
            f"callbacks is a {type(callbacks).__name__}; expected a list of callbacks: pass [callback]"
        )
    for callback in callbacks:
        methods = [getattr(callback, name, None) for name in ("start", "record", "end")]
        if isinstance(callback, type) or not all(map(callable, methods)):
            noun = getattr(callback, "__name__", f"a {type(callback).__name__}")
            raise TypeError(
                f"callbacks holds {noun}; expected objects with start, record and end, such as "
                "nj.callbacks.Record('history.jsonl'): subclass nj.callbacks.Callback"
            )
    if len([callback for callback in callbacks if isinstance(callback, Checkpoint)]) > 1:
        raise ValueError("callbacks holds more than one Checkpoint; expected one folder for a run")
    return sorted(callbacks, key=lambda callback: not isinstance(callback, Checkpoint))
