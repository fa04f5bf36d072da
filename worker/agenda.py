"""Which errand goes on when: each turn of the loop takes one of them one step further, oldest due first.

Owns the generators; whatever is dropped is closed, with the files and transfers it holds.
"""

from __future__ import annotations

from collections.abc import Hashable

from worker.errands import Errand


class Agenda:
    def __init__(self) -> None:
        self._errands: dict[Hashable, Errand] = {}
        self._due_ms: dict[Hashable, int] = {}
        #: The one in the middle of its step; it may let the loop breathe, which may drop it.
        self._stepping: Errand | None = None

    def add(self, name: Hashable, errand: Errand) -> None:
        """In place of any other of that name."""
        self.drop(name)
        self._errands[name], self._due_ms[name] = errand, 0

    def drop(self, name: Hashable) -> None:
        errand = self._errands.pop(name, None)
        self._due_ms.pop(name, None)
        if errand is not None and errand is not self._stepping:
            errand.close()

    def wake(self) -> None:
        """Something has happened that any of them may wait for."""
        for name in self._due_ms:
            self._due_ms[name] = 0

    def deadline_ms(self) -> int | None:
        return min(self._due_ms.values(), default=None)

    def step(self, now_ms: int) -> bool:
        """Take the first that is due one step further. Answers whether there was one."""
        name = min(self._due_ms, key=self._due_ms.__getitem__, default=None)
        if name is None or self._due_ms[name] > now_ms:
            return False
        self._stepping = errand = self._errands[name]
        # To the end of the line: several that are always due take turns.
        del self._due_ms[name]
        self._due_ms[name] = now_ms
        wait_ms = next(errand, None)
        self._stepping = None
        if self._errands.get(name) is not errand:
            errand.close()
        elif wait_ms is None:
            self.drop(name)
        else:
            self._due_ms[name] = now_ms + wait_ms
        return True

    def close(self) -> None:
        for name in list(self._errands):
            self.drop(name)
