"""The queued jobs, grouped by what they need, so that a decision looks at group heads and never scans the queue.

Within a group the order is priority, then age. Removal is lazy: an entry counts only while it is its job's own, and a
group with more dead entries than live ones is built anew.
"""

from __future__ import annotations

import dataclasses
import heapq
from typing import NamedTuple

from broker.protocol.records import Needs

#: Smaller is sooner: (-priority, sequence, job_id).
Entry = tuple[int, int, str]


class GroupKey(NamedTuple):
    """Who can run a job. How long it takes (size, steps, signature) parts no groups. A tuple, as it is hashed often."""

    nodes: tuple[str, ...]
    models: tuple[str, ...]
    labels: tuple[str, ...]
    vram_bytes: int
    #: The only worker that may run it; empty = any.
    pin: str


@dataclasses.dataclass(slots=True, eq=False)
class _Group:
    key: GroupKey
    heap: list[Entry] = dataclasses.field(default_factory=list)
    #: Entries of the heap that count; never 0.
    waiting: int = 0


class Backlog:
    def __init__(self) -> None:
        self._groups: dict[GroupKey, _Group] = {}
        self._entry: dict[str, tuple[_Group, Entry]] = {}

    def __len__(self) -> int:
        return len(self._entry)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entry

    def add(self, job_id: str, needs: Needs, pin: str, priority: int, sequence: int) -> None:
        """Put a job in, or move it when it is in already."""
        self.discard(job_id)
        key = GroupKey(needs.nodes, needs.models, needs.labels, needs.vram_bytes, pin)
        entry = (-priority, sequence, job_id)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key)
        self._entry[job_id] = (group, entry)
        group.waiting += 1
        heapq.heappush(group.heap, entry)

    def discard(self, job_id: str) -> None:
        group, _ = self._entry.pop(job_id, (None, None))
        if group is None:
            return
        group.waiting -= 1
        if not group.waiting:
            del self._groups[group.key]
        elif len(group.heap) > 2 * group.waiting + 64:
            group.heap = [entry for entry in set(group.heap) if self._counts(group, entry)]
            heapq.heapify(group.heap)

    def heads(self) -> list[tuple[Entry, GroupKey]]:
        """Each group's first job."""
        return [(self._first(group), group.key) for group in self._groups.values()]

    def head(self, key: GroupKey) -> Entry | None:
        """A group's first job, or None when it has none left."""
        group = self._groups.get(key)
        return self._first(group) if group is not None else None

    def _first(self, group: _Group) -> Entry:
        while not self._counts(group, group.heap[0]):
            heapq.heappop(group.heap)
        return group.heap[0]

    def _counts(self, group: _Group, entry: Entry) -> bool:
        return self._entry.get(entry[2]) == (group, entry)
