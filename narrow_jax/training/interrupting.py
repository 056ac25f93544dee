"""Ctrl-C that waits until a chunk is saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def ctrl_c_held_back() -> Iterator[threading.Event]:
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
