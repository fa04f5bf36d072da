"""A heap of due times that tolerates change: an entry says when to look, the owner says whether it is really due.

Moving a deadline later costs nothing until the old entry falls; that is what every heartbeat does.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator


class Deadlines:
    def __init__(self) -> None:
        self._heap: list[tuple[int, str, str]] = []

    def at(self, due_ms: int, kind: str, key: str) -> None:
        """Look at (kind, key) once `due_ms` has come."""
        heapq.heappush(self._heap, (due_ms, kind, key))

    def next_ms(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def fallen(self, mono_ms: int) -> Iterator[tuple[str, str]]:
        """Every (kind, key) whose time has come. Entries added meanwhile for a past time fall in the same sweep."""
        while self._heap and self._heap[0][0] <= mono_ms:
            _, kind, key = heapq.heappop(self._heap)
            yield kind, key
