"""Ctrl-C once finishes what is in flight, twice stops now. SIGTERM (a scheduler's preemption) counts as the first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """Within the `with`, the first signal only sets `asked`; the second sets `now` and raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self.now = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Interrupt:
        # Only the main thread may set handlers; elsewhere (a notebook's worker) signals stay as they are.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.now = True
            raise KeyboardInterrupt
        self.asked = True
        # Not by sys.stderr, which raises if the signal came while it was being written to.
        with contextlib.suppress(OSError):
            os.write(2, b"\nfinishing what is in flight; once more stops now\n")
