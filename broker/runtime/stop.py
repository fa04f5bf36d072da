"""SIGTERM and SIGINT as a readable descriptor: a loop polls it beside its sockets and stops when it is ready to.

Never stops anything itself, but for one case: a second signal of the same kind ends the process at once. (One each of
the two is what a terminal's Ctrl-C and a supervisor send together.) Make it in the main thread.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """A context manager; inside it the two signals are caught."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        # The C-level handler writes to this descriptor at once, whichever thread the signal hits: a poll in the main
        # thread wakes, and the handler below runs.
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._caught) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """Readable once a signal has come, until `settle`. Other caught signals wake it too: look at `requested`."""
        return self._read

    @property
    def requested(self) -> bool:
        return bool(self._seen)

    def settle(self) -> None:
        """Make the descriptor quiet again, for a loop that goes on polling while it finishes its work."""
        try:
            while os.read(self._read, 512):
                pass
        except BlockingIOError:
            return

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        if number in self._seen:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._seen.add(number)
