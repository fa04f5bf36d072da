"""How often something happened within the last hour, to the minute. Pure: told the time.

Sixty-one numbers at most, however often: a fast card ends thousands of jobs in that time, and a hundred of them are
there.
"""

from __future__ import annotations

from collections import deque
from typing import Final

MINUTE_MS: Final = 60_000
MINUTES: Final = 60


class LastHour:
    def __init__(self) -> None:
        #: (minute, times), oldest first; no minute without any.
        self._minutes: deque[tuple[int, int]] = deque()
        self.count = 0

    def add(self, mono_ms: int) -> None:
        """It happened now."""
        minute, before = mono_ms // MINUTE_MS, 0
        if self._minutes and self._minutes[-1][0] >= minute:
            minute, before = self._minutes.pop()
        self._minutes.append((minute, before + 1))
        self.count += 1
        self.forget(mono_ms)

    def forget(self, mono_ms: int) -> None:
        """Time has passed."""
        oldest = mono_ms // MINUTE_MS - MINUTES
        while self._minutes and self._minutes[0][0] < oldest:
            self.count -= self._minutes.popleft()[1]
