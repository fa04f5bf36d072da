"""A heap of due times that tolerates change: an entry says when to look, the owner says whether it is really due.

One time is kept for each (kind, key), the one asked for last.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator


class Deadlines:
    def __init__(self) -> None:
        self._due_ms: dict[tuple[str, str], int] = {}
        #: Entries whose time was changed since stay until it comes, and then mean nothing.
        self._heap: list[tuple[int, str, str]] = []

    def at(self, due_ms: int, kind: str, key: str) -> None:
        """Look at (kind, key) once `due_ms` has come, and not before."""
        self._due_ms[kind, key] = due_ms
        heapq.heappush(self._heap, (due_ms, kind, key))

    def next_ms(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def fallen(self, mono_ms: int) -> Iterator[tuple[str, str]]:
        """Every (kind, key) whose time has come. Entries added meanwhile for a past time fall in the same sweep."""
        while self._heap and self._heap[0][0] <= mono_ms:
            due_ms, kind, key = heapq.heappop(self._heap)
            if self._due_ms.get((kind, key)) == due_ms:
                del self._due_ms[kind, key]
                yield kind, key
