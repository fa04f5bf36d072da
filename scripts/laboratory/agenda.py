"""Simulated time: what is to happen, in order of its time; what has one time, in the order it was asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]


class Agenda:
    def __init__(self) -> None:
        self.now_ms = 0
        self._due: list[tuple[int, int, Action]] = []
        self._asked = 0

    def at(self, due_ms: int, action: Action) -> None:
        self._asked += 1
        heapq.heappush(self._due, (max(due_ms, self.now_ms), self._asked, action))

    def after(self, wait_ms: int, action: Action) -> None:
        self.at(self.now_ms + wait_ms, action)

    def step(self) -> bool:
        """Do the next thing; False when nothing is left."""
        if not self._due:
            return False
        self.now_ms, _, action = heapq.heappop(self._due)
        action()
        return True
