"""The queued jobs, grouped by what they need, so that a decision looks at group heads and never scans the queue.

Within a group the order is priority, then age. Removal is lazy: an entry counts only while its ticket is the
job's newest.
"""

from __future__ import annotations

import heapq

from broker.protocol.records import Needs

#: Jobs with the same key can run on exactly the same workers.
GroupKey = tuple[Needs, str]
#: Smaller is sooner: (-priority, sequence, job_id).
Entry = tuple[int, int, str]


class Backlog:
    def __init__(self) -> None:
        self._groups: dict[GroupKey, list[Entry]] = {}
        self._entry: dict[str, tuple[GroupKey, Entry]] = {}

    def __len__(self) -> int:
        return len(self._entry)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entry

    def add(self, job_id: str, needs: Needs, pin: str, priority: int, sequence: int) -> None:
        """Put a job in, or move it when it is in already."""
        key, entry = (needs, pin), (-priority, sequence, job_id)
        if self._entry.get(job_id) == (key, entry):
            return
        self._entry[job_id] = (key, entry)
        heapq.heappush(self._groups.setdefault(key, []), entry)

    def discard(self, job_id: str) -> None:
        self._entry.pop(job_id, None)

    def heads(self) -> list[tuple[Entry, GroupKey]]:
        """Each group's first job. Groups found empty are dropped on the way."""
        found = ((self.head(key), key) for key in list(self._groups))
        return [(entry, key) for entry, key in found if entry is not None]

    def head(self, key: GroupKey) -> Entry | None:
        """A group's first job, or None when it has none left."""
        heap = self._groups.get(key, [])
        while heap:
            if self._entry.get(heap[0][2]) == (key, heap[0]):
                return heap[0]
            heapq.heappop(heap)
        self._groups.pop(key, None)
        return None
