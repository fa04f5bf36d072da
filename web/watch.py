"""Wakes the requests that follow one job (server-sent events) when that job changes. They look it up in the hub."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator

from gevent.event import Event


class JobWatch:
    def __init__(self) -> None:
        self._events: dict[str, set[Event]] = {}
        self._owners: Counter[str] = Counter()
        #: Set when the process ends: nobody may follow any longer.
        self.ended = False

    def __len__(self) -> int:
        return sum(map(len, self._events.values()))

    def of(self, owner: str) -> int:
        """How many requests of this owner follow a job."""
        return self._owners[owner]

    @contextlib.contextmanager
    def on(self, job_id: str, owner: str) -> Iterator[Event]:
        """An event that is set at each change of the job; whoever waits clears it before looking. owner: who waits."""
        event = Event()
        self._events.setdefault(job_id, set()).add(event)
        self._owners[owner] += 1
        try:
            yield event
        finally:
            self._owners -= Counter((owner,))  # those at nought are gone
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
