"""What waits to leave for the broker: in order, bounded, and without what something later makes needless. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from broker.protocol.worker import Ready

#: Messages kept while no broker is connected; the oldest go first, and all that matters is said again.
MOST: Final = 100
#: How long what can wait is kept, so that it leaves with what follows: a job takes its place, is accepted and starts
#: within a few milliseconds, and for the broker and every browser one change is less work than three.
GATHER_MS: Final = 5


class Outbox:
    def __init__(self) -> None:
        self._waiting: deque[Any] = deque(maxlen=MOST)
        #: Until when all of it is kept; None: something in it must leave.
        self._until_ms: int | None = None

    @property
    def blocked(self) -> bool:
        """Something should have left and could not."""
        return bool(self._waiting) and self._until_ms is None

    def deadline_ms(self) -> int | None:
        """When what waits must leave, if it can wait."""
        return self._until_ms if self._waiting else None

    def add(self, message: Any, now_ms: int, *, can_wait: bool) -> None:
        empty = not self._waiting
        if isinstance(message, Ready):  # a level: the newest says all
            self._waiting = deque((said for said in self._waiting if not isinstance(said, Ready)), maxlen=MOST)
        if not can_wait or self.blocked:
            self._until_ms = None
        elif empty:
            self._until_ms = now_ms + GATHER_MS
        self._waiting.append(message)

    def first(self, now_ms: int) -> Any | None:
        """The message that leaves now, if one does; `sent` takes it off."""
        due = bool(self._waiting) and (self._until_ms is None or now_ms >= self._until_ms)
        if due:
            self._until_ms = None  # and all of it, with what is due
        return self._waiting[0] if due else None

    def sent(self) -> None:
        self._waiting.popleft()

    def clear(self) -> None:
        self._waiting.clear()
        self._until_ms = None
