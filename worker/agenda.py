"""Which errand goes on when: each turn of the loop takes one of them one step further, oldest due first.

Owns the generators; whatever is dropped is closed, with the files and transfers it holds.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from worker.errands import NEWS, Errand

#: For `next`: no errand yields it.
DONE: Final = -2
#: One that waits for news on the file channel is looked at this often without any.
NEWS_MS: Final = 1_000


class Agenda:
    def __init__(self) -> None:
        self._errands: dict[Hashable, Errand] = {}
        self._due_ms: dict[Hashable, int] = {}
        #: Those that wait for news on the file channel.
        self._listening: set[Hashable] = set()
        #: The one in the middle of its step; it may let the loop breathe, which may drop it.
        self._stepping: Errand | None = None

    def __contains__(self, name: Hashable) -> bool:
        return name in self._errands

    def add(self, name: Hashable, errand: Errand) -> None:
        """In place of any other of that name."""
        self.drop(name)
        self._errands[name], self._due_ms[name] = errand, 0

    def drop(self, name: Hashable) -> None:
        errand = self._errands.pop(name, None)
        self._due_ms.pop(name, None)
        if errand is not None and errand is not self._stepping:
            errand.close()

    def news(self) -> None:
        """Something has come on the file channel."""
        for name in self._listening & self._due_ms.keys():
            self._due_ms[name] = 0

    def hurry(self, name: Hashable) -> None:
        """What it sleeps for has happened, or does not matter any more."""
        if name in self._due_ms:
            self._due_ms[name] = 0

    def deadline_ms(self) -> int | None:
        return min(self._due_ms.values(), default=None)

    def step(self, now_ms: int) -> bool:
        """Take the first that is due one step further. Answers whether there was one."""
        name = min(self._due_ms, key=self._due_ms.__getitem__, default=None)
        if name is None or self._due_ms[name] > now_ms:
            return False
        self._stepping = errand = self._errands[name]
        self._listening.discard(name)
        # To the end of the line: several that are always due take turns.
        del self._due_ms[name]
        self._due_ms[name] = now_ms
        wait_ms = next(errand, DONE)
        self._stepping = None
        if self._errands.get(name) is not errand:
            errand.close()
        elif wait_ms == DONE:
            self.drop(name)
        elif wait_ms == NEWS:
            self._listening.add(name)
            self._due_ms[name] = now_ms + NEWS_MS
        else:
            self._due_ms[name] = now_ms + wait_ms
        return True

    def close(self) -> None:
        for name in list(self._errands):
            self.drop(name)
