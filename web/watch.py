"""Wakes the requests that follow one job (server-sent events) when that job changes. They look it up in the hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from gevent.event import Event


class JobWatch:
    def __init__(self) -> None:
        self._events: dict[str, set[Event]] = {}
        #: Set when the process ends: nobody may follow any longer.
        self.ended = False

    def __len__(self) -> int:
        return sum(map(len, self._events.values()))

    @contextlib.contextmanager
    def on(self, job_id: str) -> Iterator[Event]:
        """An event that is set at each change of the job; whoever waits clears it before looking."""
        event = Event()
        self._events.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            self._events[job_id].discard(event)
            if not self._events[job_id]:
                del self._events[job_id]

    def wake(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            for event in self._events.get(job_id, ()):
                event.set()

    def end(self) -> None:
        self.ended = True
        self.wake(tuple(self._events))
