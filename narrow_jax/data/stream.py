"""Samples that do not fit on the device, read batch by batch ahead of the training step."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, checkpoints
from narrow_jax._typing import Array, Int, Key, Tree
from narrow_jax.data import arrays
from narrow_jax.data.extras import extra

Batch = tuple[np.ndarray, Tree]
_LAST_STEP = 2**31 - 1


@runtime_checkable
class Rows(Protocol):
    """Samples by their number: an array, a memory map, a Grain source or ``MapDataset``, a folder of images."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, row: int) -> Any:
        """Return one sample."""


class Stream:
    """Data for ``nj.fit`` whose samples stay where they are: in memory, in a memory map, in files.

    The batches are those of data on the device, a function of key and step alone, so that a run can go on from
    any step, in the middle of an epoch too. Threads of Grain read them ahead.

    Args:
        x: the samples by their number: ``len(x)`` and ``x[i]``.
        y: labels (n,) or targets (n, k), in memory; for a loss of your own any tree of arrays with n rows, such as
            ``{"target": …, "mask": …}``.
        sample: number of rows, evenly spread, on which ``fit`` measures the training loss and accuracy and its
            monitors; they stay on the device.
        ahead: number of batches read ahead, each by a thread of its own.

    Raises:
        ValueError: numbers of samples that differ, no sample, targets that are not finite, or a number below 1.
        TypeError: samples without numbers, or targets that are no array; when read, samples that are no arrays.

    Example:
        >>> stream = Stream(np.arange(10.0)[:, None], np.arange(10), sample=5)
        >>> stream.rows.tolist()
        [0, 2, 4, 6, 8]
        >>> batches = stream.batches(jax.random.key(0), batch_size=4, first=3)       # the second of epoch 1
        >>> x, y = next(batches)
        >>> x.shape, np.array_equal(x[:, 0], y)
        ((4, 1), True)
    """

    def __init__(self, x: Any, y: Any, *, sample: int = 1024, ahead: int = 4) -> None:
        """Check the numbers; nothing is read."""
        _checks.count("sample", sample)
        _checks.count("ahead", ahead)
        if not isinstance(x, Rows):
            raise TypeError(
                f"x is a {type(x).__name__}, without a length or samples by their number; expected an array, a memory "
                "map or a source with both, such as grain.MapDataset.source(list(x))"
            )
        x = np.asarray(x) if isinstance(x, jax.Array) else x

        def taken(name: str, leaf: Any) -> np.ndarray:
            array = np.asarray(arrays.as_targets(name, leaf))
            if array.ndim == 0 or len(x) != len(array) or not len(x):
                raise ValueError(
                    f"x has {len(x)} samples and {name} has shape {array.shape}; expected one row of y a sample, and "
                    "one at least"
                )
            _checks.finite(name, array)
            return array

        self.x, self.y, self.ahead = x, arrays.each_target(taken, "y", y), ahead
        self.rows = np.unique(np.arange(min(sample, len(x))) * len(x) // min(sample, len(x)))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.x)

    def sample(self) -> Batch:
        """Read the rows on which training is measured."""
        return _read(self.x, self.rows), self.targets(self.rows)

    def targets(self, rows: np.ndarray) -> Tree:
        """Return these rows of the targets."""
        return jax.tree.map(lambda leaf: leaf[rows], self.y)

    def fingerprint(self) -> str:
        """Return what tells the samples from others without reading them from their files.

        The SHA-256 of an array or memory map; of another source their number, and what its own ``fingerprint()``
        returns if it has one. ``nj.fit`` compares it on resuming, with the SHA-256 of what it read by ``sample``.
        """
        if isinstance(self.x, np.ndarray):
            return checkpoints.described(self.x)
        own = self.x.fingerprint() if hasattr(self.x, "fingerprint") else "unknown"
        return f"{len(self)} samples, fingerprint {own}"

    def batches(self, key: Any, batch_size: Any, first: Any = 0) -> Iterator[Batch]:
        """Return the batches of the steps ``first``, ``first + 1``, … without end.

        Args:
            key: of the order, a new one every epoch; the same key gives the batches of ``nj.fit``.
            batch_size: samples a batch; the n mod batch_size last of an order wait for another epoch.
            first: number of the first step.

        Raises:
            ValueError: more samples a batch than there are.
            ImportError: Grain, of the extra ``data``, is not installed.
        """
        key, batch_size = arrays.random_key(key), _checks.batch_size(batch_size, len(self))
        first = _checks.count("first", first, minimum=0)
        grain = extra("grain", "a stream")
        options = grain.ReadOptions(num_threads=self.ahead, prefetch_buffer_size=self.ahead)
        steps = grain.MapDataset.source(_Batches(self, key, batch_size)).slice(slice(first, None))
        return iter(steps.to_iter_dataset(options))


class _Batches:
    """The batch of each step, in the form in which Grain reads: by number."""

    def __init__(self, stream: Stream, key: Key[Array, ""], size: int) -> None:
        self._stream, self._size = stream, size
        self._steps_per_epoch = len(stream) // size

        def order(epoch: int) -> np.ndarray:
            return np.asarray(_order(key, np.int32(epoch), samples=len(stream)))

        self._order = functools.lru_cache(maxsize=2)(order)  # threads cross the end of an epoch

    def __len__(self) -> int:
        return _LAST_STEP

    def __getitem__(self, step: int) -> Batch:
        epoch, position = divmod(step, self._steps_per_epoch)
        rows = self._order(epoch)[position * self._size :][: self._size]
        return _read(self._stream.x, rows), self._stream.targets(rows)


def epoch_order(key: Key[Array, ""], epoch: Array | int, samples: int) -> Int[Array, " n"]:
    """Return the order in which an epoch visits the samples: one sort, where ``jax.random.permutation`` takes two.

    Of equal 32-bit keys, on average n²/2³³ pairs an epoch, the lower number comes first.
    """
    return jnp.argsort(jax.random.bits(jax.random.fold_in(key, epoch), (samples,), jnp.uint32))


_order = jax.jit(epoch_order, static_argnames="samples")


def _read(x: Rows, rows: np.ndarray) -> np.ndarray:
    if isinstance(x, np.ndarray):
        return x[rows]
    samples = [_row(x, int(row)) for row in rows]
    shapes = {sample.shape: row for sample, row in zip(samples, rows, strict=True)}
    if len(shapes) > 1:
        said = " and ".join(f"{shape} (number {row})" for shape, row in list(shapes.items())[:2])
        raise ValueError(f"samples have the shapes {said}; expected one shape: crop or pad them")
    return np.stack(samples)


def _row(x: Rows, number: int) -> np.ndarray:
    """Return one sample of a source of samples."""
    sample = x[number]
    if isinstance(sample, tuple | Mapping):
        first = next(iter(sample)) if isinstance(sample, Mapping) else 0
        raise TypeError(
            f"sample {number} is a {type(sample).__name__} of {len(sample)}; expected the array of one sample: pass "
            f"x=grain.MapDataset.source(rows).map(lambda row: row[{first!r}]), and the targets of all as the array y"
        )
    return np.asarray(_checks.as_array(f"sample {number}", sample))
