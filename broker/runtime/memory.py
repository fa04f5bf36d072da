"""Gives back to the system what a storm has left behind: memory that is free, and that the C library keeps.

What waited while a process could not run is freed in another order than it came, and by another thread. glibc gives
back only what is free at the end of a heap, so half a minute of that would be seen in the size of the process for as
long as it lives, and nobody could tell it from a leak. Where the C library is another one, nothing is done.
"""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Final

EVERY_S: Final = 60.0


def give_back() -> None:
    """Now. Takes about a millisecond; other threads go on until they want memory."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def stay_small() -> None:
    """Once a minute, for as long as the process lives."""

    def tidy() -> None:
        while True:
            time.sleep(EVERY_S)
            give_back()

    threading.Thread(target=tidy, name="memory", daemon=True).start()
