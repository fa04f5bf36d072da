"""Things in the order of keys that change: a heap that is told when a key shrinks and finds out when one has grown.

Each thing counts once, by the key it was put in with last; whatever else lies in the heap is dropped when it comes up.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Thing = TypeVar("Thing", bound=Hashable)


class Order(Generic[Thing]):
    def __init__(self, key: Callable[[Thing], Any]) -> None:
        """key: of a thing as it is now. One that has shrunk must be put in again; one that has grown need not be."""
        self._key = key
        self._counts: dict[Thing, int] = {}
        #: (key, a number that no other entry has, thing)
        self._heap: list[tuple[Any, int, Thing]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, thing: Thing) -> bool:
        return thing in self._counts

    def put(self, thing: Thing) -> None:
        self._pushed += 1
        self._counts[thing] = self._pushed
        heapq.heappush(self._heap, (self._key(thing), self._pushed, thing))
        if len(self._heap) > 2 * len(self._counts) + 64:
            self._heap = [entry for entry in self._heap if self._counts.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def remove(self, thing: Thing) -> None:
        self._counts.pop(thing, None)

    def first(self) -> Thing | None:
        heap = self._heap
        while heap:
            key, number, thing = heap[0]
            if self._counts.get(thing) != number:
                heapq.heappop(heap)
                continue
            now = self._key(thing)
            if now == key:
                return thing
            heapq.heapreplace(heap, (now, number, thing))
        return None

    def few(self, most: int) -> list[Thing]:
        """The first ones, in order."""
        found: list[tuple[Any, int, Thing]] = []
        while len(found) < most and self.first() is not None:
            found.append(heapq.heappop(self._heap))
        for entry in found:
            heapq.heappush(self._heap, entry)
        return [thing for _, _, thing in found]
