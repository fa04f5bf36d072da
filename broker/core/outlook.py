"""When the waiting jobs are likely to begin: the queue played through once, as things stand. Pure.

A forecast for people: it takes jobs in the queue's order and gives each to the worker that would have it done soonest,
and knows nothing of what will still be submitted, fail or be taken back. Nothing is decided by it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from broker.core.backlog import Backlog, Entry, Group, GroupKey, Kind, priority_of
from broker.core.estimates import Estimates
from broker.core.jobs import Job
from broker.core.rooms import Rooms
from broker.core.roster import Roster
from broker.core.rules import Now
from broker.protocol.records import Expected

#: Jobs that are told of.
JOBS: Final = 200
#: Workers of one kind that a job is tried on: those that are free first.
TRIED: Final = 3
#: Kinds tried for all jobs together: where there are many of them fewer jobs are told of, for messages wait meanwhile.
TRIES: Final = 16 * JOBS


#: When a worker is free, its name, and the models it will hold then.
Free = tuple[int, str, tuple[str, ...]]


class Forecast:
    """One look ahead."""

    def __init__(self, roster: Roster, rooms: Rooms, estimates: Estimates, now: Now) -> None:
        self._roster, self._estimates, self._now = roster, estimates, now
        #: The workers of each kind, whoever is free first; what is not a worker's newest means nothing.
        self._free: dict[Kind, list[Free]] = {}
        self._newest: dict[str, tuple[Kind, Free]] = {}
        for stand in rooms.stands():
            if stand.shut:
                continue  # until when, nobody knows
            free = max(stand.free_ms, now.mono_ms), stand.name, stand.models
            self._free.setdefault(stand.kind, []).append(free)
            self._newest[stand.name] = stand.kind, free
        for many in self._free.values():
            heapq.heapify(many)

    def expected(self, waiting: Iterable[tuple[Job, GroupKey]]) -> tuple[Expected, ...]:
        """waiting: the first jobs, as they would go out."""
        most = TRIES // max(1, len(self._free))
        return tuple(
            Expected(
                job_id=job.record.job_id,
                owner=job.record.owner,
                place=place,
                start_utc_ms=self._start_utc_ms(job, key),
            )
            for place, (job, key) in enumerate(islice(waiting, most), start=1)
        )

    def _start_utc_ms(self, job: Job, key: GroupKey) -> int | None:
        """When it begins; takes the worker's time for it."""
        if key.pin:
            kind, free = self._newest.get(key.pin, (None, None))
            tried = [(kind, free)] if kind is not None and free is not None and self._roster.serves(kind, key) else []
        else:
            able = [kind for kind in self._free if self._roster.serves(kind, key)]
            tried = [(kind, free) for kind in able for free in self._first(kind)]
        best = min(tried, key=lambda one: self._done_ms(job, one[1]), default=None)
        for kind, free in tried:
            after = free
            if best is not None and free is best[1]:
                after = (self._done_ms(job, free), free[1], job.record.needs.models)
            self._newest[free[1]] = kind, after
            heapq.heappush(self._free[kind], after)
        return None if best is None else self._now.utc_ms + best[1][0] - self._now.mono_ms

    def _first(self, kind: Kind) -> list[Free]:
        """Take those out that are free first."""
        free, found = self._free[kind], list[Free]()
        while free and len(found) < TRIED:
            one = heapq.heappop(free)
            if one is self._newest[one[1]][1]:
                found.append(one)
        return found

    def _done_ms(self, job: Job, free: Free) -> int:
        free_ms, name, models = free
        needs = job.record.needs
        load_ms = sum(self._estimates.load_ms(model, name) for model in needs.models if model not in models)
        return free_ms + load_ms + self._estimates.run_ms(needs, name)


def in_order(backlog: Backlog, cost: Callable[[str], float]) -> Iterator[tuple[str, GroupKey]]:
    """The first jobs as they would go out if any worker could run any. cost: what a job adds to its owner's share."""
    had: dict[str, float] = {}
    entries: dict[Group, list[Entry]] = {}
    ahead = [(urgency, n, 0, group) for n, (group, urgency) in enumerate(backlog.everybody(JOBS))]
    begin = {group: urgency[1] for urgency, _, _, group in ahead}
    heapq.heapify(ahead)
    left = JOBS
    while ahead and left:
        (priority, share, near, turn), number, nth, group = heapq.heappop(ahead)
        owner = group.key.owner
        now = begin[group] + had.get(owner, 0.0)
        if now > share:
            heapq.heappush(ahead, ((priority, now, near, turn), number, nth, group))
            continue
        if nth + 1 >= len(entries.get(group, ())):
            entries[group] = backlog.upcoming(group, 2 * nth + 8)
        found, left = entries[group], left - 1
        job_id = found[nth][2]
        yield job_id, group.key
        had[owner] = had.get(owner, 0.0) + cost(job_id)
        if nth + 1 < len(found):
            after = found[nth + 1]
            heapq.heappush(ahead, ((-priority_of(after), now, near, after[0]), number, nth + 1, group))
